"""Prompts and seeds in, pictures out: the text encoders first, then, when they are gone, the transformer.

The two halves are apart because they need not fit into memory together: FLUX's T5-XXL and its transformer are
10 and 24 GB in bfloat16.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from ..conditions.plan_rows import PlanRow
from ..conditions.prompts import plain_text
from ..errors import UserError
from ..files import atomic_path, sha256_bytes
from ..flux.components import load_text_encoders, load_vae
from ..flux.lora import load_lora, remove_lora
from ..flux.offload import stream_changed
from ..flux.placement import load_placed
from ..flux.sampling import PromptEmbedding, decode_latents, encode_prompts, initial_noise, sample
from ..flux.source import FluxSource
from ..progress import progress
from .settings import ImageSize, Sampling

IN_MEMORY_BYTES = 1 << 30
ENCODE_BATCH = 16
LORA_NAME = "generation"


class PromptEmbeddings:
    """The embeddings of every distinct prompt, in memory while they are small, else one file a prompt.

    2,000 distinct prompts of FLUX take 4 GB in bfloat16; `folder` then holds them until `close()`.
    """

    def __init__(self, folder: Path | None = None, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._folder = folder
        self._in_memory_bytes = in_memory_bytes
        self._held: dict[str, PromptEmbedding] = {}
        self._bytes = 0

    def put(self, prompt: str, embedding: PromptEmbedding) -> None:
        embedding = PromptEmbedding(
            prompt_embeds=embedding.prompt_embeds.detach().cpu(), pooled=embedding.pooled.detach().cpu()
        )
        size = embedding.prompt_embeds.nbytes + embedding.pooled.nbytes
        if self._folder is None or self._bytes + size <= self._in_memory_bytes:
            self._held[prompt] = embedding
            self._bytes += size
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._file(prompt)) as temporary:
            save_file(
                {
                    "prompt_embeds": embedding.prompt_embeds.contiguous(),
                    "pooled": embedding.pooled.contiguous(),
                },
                temporary,
            )

    def get(self, prompt: str) -> PromptEmbedding:
        held = self._held.get(prompt)
        if held is not None:
            return held
        if self._folder is None:
            raise KeyError(prompt)
        stored = load_file(self._file(prompt))
        return PromptEmbedding(prompt_embeds=stored["prompt_embeds"], pooled=stored["pooled"])

    def close(self) -> None:
        self._held.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, prompt: str) -> Path:
        if self._folder is None:
            raise KeyError(prompt)
        return self._folder / f"{sha256_bytes(prompt.encode())[:32]}.safetensors"


def embed_prompts(
    source: FluxSource,
    prompts: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    folder: Path | None = None,
) -> PromptEmbeddings:
    """Load the text encoders, encode each distinct prompt once, let the encoders go."""
    distinct = list(dict.fromkeys(prompts))
    embeddings = PromptEmbeddings(folder)
    text = load_text_encoders(source, device, dtype)
    with progress(len(distinct), "text", unit="prompt") as bar, torch.inference_mode():
        for start in range(0, len(distinct), ENCODE_BATCH):
            chunk = distinct[start : start + ENCODE_BATCH]
            plain = [plain_text(prompt) for prompt in chunk]
            for prompt, embedding in zip(chunk, encode_prompts(text, plain, device), strict=True):
                embeddings.put(prompt, embedding)
            bar.update(len(chunk))
    del text
    release_memory(device)
    return embeddings


def release_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class ImageSampler:
    """Base model with at most one LoRA, loaded once; draws batches of pictures.

    A transformer that the device can't hold stays in main memory and is streamed: slower, the same pictures.

    Args:
        source: the base model.
        device: where it works.
        dtype: number format of its weights.
        free_bytes: see `has_room`.
    """

    def __init__(
        self, source: FluxSource, device: torch.device, dtype: torch.dtype, free_bytes: int | None = None
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.transformer, whole = load_placed(source, device, dtype, free_bytes)
        self.streamed = not whole
        self.vae = load_vae(source, device, dtype).eval()
        self._lora = False

    def use_lora(self, lora: Path | None, strength: float = 1.0) -> None:
        """Put `lora` in place of the one in use; None gives the base model."""
        if self._lora:
            remove_lora(self.transformer, LORA_NAME)
            self._lora = False
        if lora is not None:
            load_lora(self.transformer, lora, strength, LORA_NAME)
            self._lora = True
            self.transformer.eval()
        if self.streamed:
            stream_changed(self.transformer)

    def batches(
        self, rows: Sequence[PlanRow], embeddings: PromptEmbeddings, sampling: Sampling
    ) -> Iterator[tuple[Sequence[PlanRow], npt.NDArray[np.uint8]]]:
        """The rows, `sampling.batch` at a time, each batch with its pictures [B, H, W, 3], uint8 RGB.

        `sampling.strength` is not used: `use_lora` sets it.
        """
        for start in range(0, len(rows), sampling.batch):
            part = rows[start : start + sampling.batch]
            texts = [embeddings.get(row.prompt) for row in part]
            yield part, self.draw(texts, [row.seed for row in part], sampling.size, sampling.steps)

    def draw(
        self, embeddings: Sequence[PromptEmbedding], seeds: Sequence[int], size: ImageSize, steps: int = 4
    ) -> npt.NDArray[np.uint8]:
        """One picture a (prompt, seed).

        The noise of a picture comes from its own seed alone, so a picture does not depend on its batch beyond
        the last bits of floating point.

        Args:
            embeddings: B prompts.
            seeds: one a prompt.
            size: of all pictures.
            steps: of schnell's schedule.

        Returns:
            [B, H, W, 3], uint8 RGB.

        Raises:
            UserError: the GPU's memory does not suffice, or the model gives not-a-number pixels.
        """
        noise = torch.stack([initial_noise(seed, size.height, size.width) for seed in seeds])
        prompt_embeds = torch.stack([e.prompt_embeds for e in embeddings])
        pooled = torch.stack([e.pooled for e in embeddings])
        try:
            with torch.inference_mode():
                latents = sample(
                    self.transformer,
                    noise.to(self.device, self.dtype),
                    prompt_embeds.to(self.device, self.dtype),
                    pooled.to(self.device, self.dtype),
                    steps,
                )
                pixels = decode_latents(self.vae, latents)
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(
                f"the GPU cannot hold {len(seeds)} image(s) of {size.width} × {size.height} at once: "
                "give a smaller --batch, or a smaller --size"
            ) from error
        if not bool(torch.isfinite(pixels).all()):
            raise UserError(
                f"the model gave not-a-number pixels for seeds {list(seeds)} in {self.dtype}: "
                "try --dtype bf16 or --dtype fp32, and check that the LoRA was trained on this base model"
            )
        rounded = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return rounded.permute(0, 2, 3, 1).cpu().numpy()
