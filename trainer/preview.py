"""Previews: what the LoRA gives at this step, sampled exactly as its file will be."""

import argparse
import contextlib
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.flux.sampling import decode_latents, initial_noise, sample
from ..diffusioncleft_core.imageset.cache import Tensors
from ..diffusioncleft_core.imageset.synthetic import write_marked
from ..diffusioncleft_core.ranges import SAMPLING_STEPS, SEED, SIDE
from ..diffusioncleft_core.recipe.recipe import PAPER_SIDE, SIZE_STEP, Recipe
from ..diffusioncleft_core.text import read_text
from . import memory
from .events import Events

_FLAG_RANGES = {"w": SIDE, "h": SIDE, "d": SEED, "s": SAMPLING_STEPS}
_FLAG = re.compile(r"\s--(\w+)\s+(\S+)")


@dataclass(frozen=True)
class PreviewPrompt:
    """One line of the prompt file; sizes in px."""

    prompt: str
    width: int
    height: int
    seed: int
    steps: int


def read_prompts(recipe: Recipe) -> list[PreviewPrompt]:
    """Read `--sample_prompts`: a prompt a line, `#` starts a comment, kohya's `--w --h --d --s` behind the
    prompt.

    The size is the paper's 768 px unless the run trains on less; the seed is the run's seed plus the line's
    number.
    """
    if recipe.previews.prompts is None:
        return []
    lines = read_text(recipe.previews.prompts, "the file of preview prompts").splitlines()
    texts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not texts:
        raise UserError(f"{recipe.previews.prompts} holds no prompt; write one a line")
    side = recipe.previews.size or min(PAPER_SIDE, max(recipe.data.resolution))
    return [
        _prompt(text, side, recipe.objective.seed + index, recipe.previews.steps)
        for index, text in enumerate(texts)
    ]


class Previewer:
    """Samples the previews of a run. The autoencoder comes to the device when the transformer is done."""

    def __init__(
        self,
        prompts: Sequence[PreviewPrompt],
        text: Mapping[str, Tensors],
        load_vae: Callable[[], torch.nn.Module],
        folder: Path,
        events: Events,
        device: torch.device,
    ) -> None:
        """`text` holds the embeddings of every prompt, made before the text encoders were freed."""
        self._prompts, self._text, self._folder, self._events = prompts, text, folder, events
        self._load_vae, self._device = load_vae, device
        self._vae: Any = None

    def preview(
        self, transformer: torch.nn.Module, step: int, each: Callable[[], None] = lambda: None
    ) -> None:
        """Write `step_000100_00.png`, ... and send their events.

        Memory that runs out costs the preview, not the run: it is a warning.

        Args:
            transformer: with the LoRA.
            step: of the training.
            each: called before every image and may raise.
        """
        try:
            with torch.no_grad(), _random_state_kept():
                self._preview(transformer, step, each)
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            self._events.emit(
                "warning", message=f"no preview at step {step}: out of memory; use a smaller --sample_size"
            )
        finally:
            if self._vae is not None:
                self._vae.to("cpu")
            memory.empty_cache()

    def has_all(self, step: int) -> bool:
        """Whether the pictures of `step` are there."""
        return all(self._path(step, index).exists() for index in range(len(self._prompts)))

    def _path(self, step: int, index: int) -> Path:
        return self._folder / f"step_{step:06d}_{index:02d}.png"

    def _preview(self, transformer: torch.nn.Module, step: int, each: Callable[[], None]) -> None:
        latents = []
        for prompt in self._prompts:
            each()
            embedding = self._text[prompt.prompt]
            noise = initial_noise(prompt.seed, prompt.height, prompt.width)[None].to(self._device)
            text, pooled = (
                embedding["text"][None].to(self._device),
                embedding["pooled"][None].to(self._device),
            )
            latents.append(sample(transformer, noise, text, pooled, prompt.steps).cpu())
        if self._vae is None:
            self._vae = self._load_vae()
        self._vae.to(self._device)
        for index, (prompt, one) in enumerate(zip(self._prompts, latents, strict=True)):
            each()
            # In its own format: float16, in which the transformer may compute, is too narrow for it.
            dtype = next(self._vae.parameters()).dtype
            with torch.autocast(self._device.type, dtype, enabled=dtype != torch.float32):
                image = decode_latents(self._vae, one.to(self._device))[0]
            path = self._path(step, index)
            _save(path, image, prompt, step)
            self._events.emit("preview", path=str(path), prompt=prompt.prompt, seed=prompt.seed, step=step)


def _save(path: Path, image: torch.Tensor, prompt: PreviewPrompt, step: int) -> None:
    """Write an image [3, H, W] in [-1, 1] as PNG with its sidecar, marked as synthetic."""
    pixels = ((image.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    record = {"prompt": prompt.prompt, "seed": prompt.seed, "step": step}
    write_marked(path, pixels, prompt.prompt, record, {name: str(value) for name, value in record.items()})


def _prompt(line: str, side: int, seed: int, steps: int) -> PreviewPrompt:
    values: dict[str, int] = {"w": side, "h": side, "d": seed, "s": steps}
    for name, value in _FLAG.findall(line):
        if name not in values:
            known = "guidance is 1 and there is no negative prompt" if name in ("n", "g", "l") else "unknown"
            raise UserError(
                f"--{name} in a preview prompt is not honoured ({known}); use --w, --h, --d and --s only"
            )
        try:
            values[name] = _FLAG_RANGES[name](value)
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--{name} in a preview prompt: {error}") from None
    width, height = (values[name] // SIZE_STEP * SIZE_STEP for name in ("w", "h"))
    return PreviewPrompt(_FLAG.sub("", line).strip(), width, height, values["d"], values["s"])


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Keep the generators as they were, so that a preview can't change what is trained."""
    state = random.getstate()
    with torch.random.fork_rng():
        yield
    random.setstate(state)
