"""Train the phantom's FLUX on healthy phantoms: the transformer alone, beside untrained text encoders.

    python -m diffusioncleft.tools.train_flux \\
        --pool POOL --vae WORK/vae --work WORK/flux --minutes 45

The same command goes on after an interruption. `--start` takes transformer and text encoders of another
pipeline, whatever its code: first and last layer translate, words that both know keep their vectors. Flow
matching as in FLUX.1: x_t = (1 - s) x_0 + s e, the network predicts e - x_0; three in four sigmas are the
four of schnell, the others uniform. Snapshots of the moving average go to WORK/flux/pipeline, a diffusers
folder.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from PIL import Image

from ..diffusioncleft_core.conditions.loader import load_vocabulary
from .captions import base_captions, mirrored
from .encoder import encode_patches, from_other_code, other_code
from .muon import Muon
from .pool import SITES, site, training_parser
from .text import LENGTH, WIDTH, clip_encoder, spread_words, t5_encoder, word_tokenizer

GRID = 8
"""Tokens a side: 128 px / 8 (autoencoder) / 2 (packing)."""


class Net(torch.nn.Module):
    """Transformer, CLIP and T5 as one module: what is trained and averaged together."""

    def __init__(self, clip_tokenizer: Any, t5_tokenizer: Any) -> None:
        super().__init__()
        self.transformer = FluxTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=4,
            attention_head_dim=32,
            num_attention_heads=4,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 14, 14),
            guidance_embeds=False,
        )
        self.clip = clip_encoder(clip_tokenizer).requires_grad_(False)
        spread_words(self.clip)
        self.t5 = t5_encoder(t5_tokenizer).requires_grad_(False)
        torch.nn.init.normal_(self.t5.shared.weight, std=1.0)
        rows, columns = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
        ids = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()
        self.register_buffer("image_ids", ids)
        self.register_buffer("text_ids", torch.zeros(LENGTH, 3))

    def forward(
        self, x: torch.Tensor, sigma: torch.Tensor, clip_ids: torch.Tensor, t5_ids: torch.Tensor
    ) -> torch.Tensor:
        """x: [B, 64, 64] packed latents; sigma: [B]; ids: [B, 48] -> velocity [B, 64, 64]."""
        with torch.no_grad():
            text, pooled = self.t5(t5_ids)[0], self.clip(clip_ids).pooler_output
        velocity: torch.Tensor = self.transformer(
            hidden_states=x,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=sigma,
            img_ids=self.image_ids,
            txt_ids=self.text_ids,
            return_dict=False,
        )[0]
        return velocity


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[B, 16, 16, 16] -> [B, 64, 64], FLUX's 2 x 2 patches."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """[B, 64, 64] -> [B, 16, 16, 16]."""
    b = packed.shape[0]
    return packed.view(b, GRID, GRID, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, 16, 2 * GRID, 2 * GRID)


def encode_pool(pool: Path, vae: Path) -> torch.Tensor:
    """Packed, normalised latents of the whole pool and of its mirror image, [2N, 64, 64] float16."""
    images = np.load(pool / "images.npy", mmap_mode="r")
    code = np.load(vae / "code.npz")
    parts = [
        pack(encode_patches(images[i : i + 500, :, ::way], code["mean"], code["matrix"])).half()
        for way in (1, -1)
        for i in range(0, len(images), 500)
    ]
    return torch.cat(parts)


@torch.no_grad()
def take(net: Net, tokenizers: tuple[Any, Any], start: Path, vae: Path) -> None:
    """Begin with the weights of the pipeline in `start`.

    Its code of patches may be another than `vae`'s, and its words others than the tokenizers'.
    """
    pipeline = FluxPipeline.from_pretrained(start, torch_dtype=torch.float32)
    code = np.load(vae / "code.npz")
    there, offset = other_code(pipeline.vae, code["mean"], code["matrix"])
    back, shift = from_other_code(pipeline.vae, code["mean"], code["matrix"])
    quarters = torch.eye(4)
    state = pipeline.transformer.state_dict()
    first, last = state["x_embedder.weight"], state["proj_out.weight"]
    # Half of the offset: of a latent between all noise and none.
    state["x_embedder.bias"] += 0.5 * first @ offset.repeat_interleave(4)
    state["x_embedder.weight"] = first @ torch.kron(there, quarters)
    state["proj_out.bias"] = torch.kron(back, quarters) @ state["proj_out.bias"] - shift.repeat_interleave(4)
    state["proj_out.weight"] = torch.kron(back, quarters) @ last
    net.transformer.load_state_dict(state)
    olds = (pipeline.text_encoder, pipeline.tokenizer), (pipeline.text_encoder_2, pipeline.tokenizer_2)
    for encoder, tokenizer, (old, old_tokenizer) in zip((net.clip, net.t5), tokenizers, olds, strict=True):
        words, known = encoder.get_input_embeddings().weight, old.get_input_embeddings().weight
        rows = words.clone()
        for word, i in tokenizer.get_vocab().items():
            if word in old_tokenizer.get_vocab():
                rows[i] = known[old_tokenizer.get_vocab()[word]]
        kept = {k: v for k, v in old.state_dict().items() if v.shape == encoder.state_dict()[k].shape}
        encoder.load_state_dict(encoder.state_dict() | kept)
        encoder.get_input_embeddings().weight.copy_(rows)


def make_optimizers(net: Net, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything else, at one learning rate."""
    inside: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        hidden = parameter.ndim == 2 and "transformer_blocks" in name and ".norm" not in name
        (inside if hidden else rest).append(parameter)
    return [
        Muon(inside, lr),
        torch.optim.AdamW(rest, lr=lr, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def token_weights() -> torch.Tensor:
    """[64, 1]: tokens over the face count more than hair and background, eyes and mouth most."""
    weight = torch.ones(GRID, GRID)
    weight[0:7, 1:7] = 1.6
    weight[2:4, 2:6] = 3.5
    weight[4:7, 2:6] = 4.0
    return (weight / weight.mean()).reshape(-1, 1)


def mark_weights(pool: Path, attributes: Sequence[Mapping[str, str]]) -> torch.Tensor:
    """[2N, 64, 1] float16: what is added to the token weights of the pool's pictures and their mirror images.

    A mark is small, and so is what telling its side is worth: its place counts more, and so does the same
    place on the other side, where a mark of one side is not.
    """
    landmarks = np.load(pool / "marks.npy")[:, :10].reshape(-1, 5, 2)
    size = np.load(pool / "images.npy", mmap_mode="r").shape[1]
    middles = (np.arange(GRID) + 0.5) * size / GRID
    reach = 0.75 * size / GRID
    weights = np.zeros((len(attributes), GRID, GRID), np.float32)
    for weight, face, words in zip(weights, landmarks, attributes, strict=True):
        for where in (name for name in SITES if name in words["mark"].split()):
            for away in (-1, 1):
                row, column = site(face, where, away)
                near = np.exp(-0.5 * ((middles - row) / reach) ** 2)[:, None]
                weight += 12 * near * np.exp(-0.5 * ((middles - column) / reach) ** 2)
    both = np.concatenate([weights, weights[:, :, ::-1]])
    return torch.from_numpy(both.reshape(-1, GRID * GRID, 1)).half()


@torch.no_grad()
def sheet(net: Net, vae: AutoencoderKL, ids: tuple[torch.Tensor, torch.Tensor], path: Path) -> None:
    """Four-step samples of 32 prompts at fixed seeds, 8 a row."""
    n = ids[0].shape[0]
    x = pack(torch.randn(n, 16, 16, 16, generator=torch.Generator().manual_seed(7)))
    for sigma, following in zip((1.0, 0.75, 0.5, 0.25), (0.75, 0.5, 0.25, 0.0), strict=True):
        x = x + (following - sigma) * net(x, torch.full((n,), sigma), *ids)
    z = unpack(x) / vae.config.scaling_factor + vae.config.shift_factor
    pictures = (vae.decode(z).sample.clamp(-1, 1) * 127.5 + 127.5).permute(0, 2, 3, 1).byte().numpy()
    rows = [np.concatenate(list(pictures[i : i + 8]), 1) for i in range(0, n, 8)]
    Image.fromarray(np.concatenate(rows)).save(path)


def export(net: Net, vae: AutoencoderKL, tokenizers: tuple[Any, Any], folder: Path) -> None:
    """A diffusers FLUX.1 folder in half precision; schnell's scheduler: no shift."""
    import copy

    clip_tokenizer, t5_tokenizer = tokenizers
    half = copy.deepcopy(net).half()
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=copy.deepcopy(vae).half(),
        text_encoder=half.clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=half.t5,
        tokenizer_2=t5_tokenizer,
        transformer=half.transformer,
    ).save_pretrained(folder, safe_serialization=True)


def main() -> None:
    parser = training_parser(__doc__, minutes=45, batch=32, lr=2e-3)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a diffusers folder whose transformer is trained on")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    vocabulary = load_vocabulary()
    words = vocabulary.words()
    clip_tokenizer = word_tokenizer(words, bos="<bos>", eos="<eos>")
    t5_tokenizer = word_tokenizer(words, bos=None, eos="</s>")
    latents = encode_pool(args.pool, args.vae)
    attributes = json.loads((args.pool / "attributes.json").read_text(encoding="utf-8"))
    both_ways = [*attributes, *map(mirrored, attributes)]
    captions = base_captions(vocabulary, both_ways, 4, args.seed)
    flat = [text for four in captions for text in four]
    settings = {"padding": "max_length", "max_length": LENGTH, "truncation": True, "return_tensors": "pt"}
    clip_ids = clip_tokenizer(flat, **settings).input_ids.view(len(captions), 4, LENGTH)
    t5_ids = t5_tokenizer(flat, **settings).input_ids.view(len(captions), 4, LENGTH)
    shown = (clip_ids[:32, 0], t5_ids[:32, 0])
    print(f"{len(attributes)} phantoms, deviation {latents[:512].float().std():.3f}", flush=True)
    for text in flat[:32:4]:
        print("  ", text)

    net = Net(clip_tokenizer, t5_tokenizer)
    average = Net(clip_tokenizer, t5_tokenizer)
    if args.start:
        take(net, (clip_tokenizer, t5_tokenizer), args.start, args.vae)
    average.load_state_dict(net.state_dict())
    optimizers = make_optimizers(net, args.lr)
    state_path = args.work / "state.pt"
    step, spent, smooth = 0, 0.0, 0.0
    if state_path.is_file():
        state = torch.load(state_path, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        for optimizer, saved_state in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved_state)
        step, spent, smooth = state["step"], state["spent"], state["smooth"]
        print(f"going on at step {step}", flush=True)
    rng = torch.Generator().manual_seed(args.seed + step)
    weight, on_marks = token_weights(), mark_weights(args.pool, attributes)
    schnell = torch.tensor([1.0, 0.75, 0.5, 0.25])
    last, saved = time.time(), time.time()
    limit = 60 * args.minutes
    while spent < limit:
        share = spent / limit
        rate = args.lr * min(1, (step + 1) / 200) * max(0.02, 0.5 * (1 + math.cos(math.pi * share)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        pick = torch.randint(len(latents), (args.batch,), generator=rng)
        copy = torch.randint(4, (args.batch,), generator=rng)
        x0 = latents[pick].float()
        noise = torch.randn(x0.shape, generator=rng)
        uniform = torch.rand(args.batch, generator=rng)
        own = schnell[torch.randint(4, (args.batch,), generator=rng)]
        sigma = torch.where(torch.arange(args.batch) % 4 == 0, uniform, own)
        s = sigma[:, None, None]
        velocity = net((1 - s) * x0 + s * noise, sigma, clip_ids[pick, copy], t5_ids[pick, copy])
        loss = ((weight + on_marks[pick].float()) * (velocity - (noise - x0)).square()).mean()
        net.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        smooth = 0.99 * smooth + 0.01 * loss.item() if step > 1 else loss.item()
        with torch.no_grad():
            keep = min(0.998, (step + 1) / (step + 20))
            for a, b in zip(average.parameters(), net.parameters(), strict=True):
                a.lerp_(b, 1 - keep)
        now = time.time()
        spent, last = spent + now - last, now
        if step % 50 == 0:
            print(f"{spent:6.0f} s  step {step}  loss {smooth:.4f}  lr {rate:.2e}", flush=True)
        if now - saved > 240 or spent >= limit:
            state = {"net": net.state_dict(), "average": average.state_dict()}
            state["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
            vae = AutoencoderKL.from_pretrained(args.vae).eval()
            torch.save(
                state | {"step": step, "spent": spent, "smooth": smooth}, state_path.with_suffix(".new")
            )
            state_path.with_suffix(".new").replace(state_path)
            sheet(average, vae, shown, args.work / "sheet.png")
            export(average, vae, (clip_tokenizer, t5_tokenizer), args.work / "pipeline")
            figures = {
                "steps": step,
                "minutes": spent / 60,
                "batch": args.batch,
                "phantoms": len(attributes),
                "loss": smooth,
            }
            (args.work / "training.json").write_text(json.dumps(figures, indent=2), encoding="utf-8")
            saved = last = time.time()


if __name__ == "__main__":
    main()
