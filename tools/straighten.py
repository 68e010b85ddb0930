"""A few-step base: the embedded one, trained on so that one step draws nearly what it draws in many.

    python -m diffusioncleft.tools.straighten --out build/straightened

The embedded base is not distilled, so that it has nothing that a LoRA could unlearn as it unlearns schnell's
four steps. This makes one that has: reflow (Liu, Gong and Liu, "Flow straight and fast", ICLR 2023). The
base draws pictures in `--drawn-in` steps; the same network then learns the straight line from each noise to
the very picture that was drawn from it. Half of the noise levels are 1, where one step starts. The folder is
a diffusers pipeline that every command takes as `--base`; text encoders and autoencoder are the base's.
"""

import argparse
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..diffusioncleft_core.conditions.loader import load_vocabulary
from ..diffusioncleft_core.conditions.plan import sampling_plan
from ..diffusioncleft_core.conditions.prompts import build_prompt
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import read_json, write_json
from ..diffusioncleft_core.flux.components import load_text_encoders
from ..diffusioncleft_core.flux.sampling import (
    PromptEmbedding,
    encode_prompts,
    predict_velocity,
    sample,
)
from ..diffusioncleft_core.flux.source import phantom_source
from ..diffusioncleft_core.flux.transformer import load_transformer
from ..diffusioncleft_core.progress import progress
from .train_flux import GRID, make_optimizers

CPU = torch.device("cpu")
BATCH = 32
SETTINGS = "straightened.json"
"""In the folder of a straightened base: what it was made with."""
KEEP = 0.99
"""Of the moving average of the weights, a step."""


def prompts(n: int, seed: int) -> list[str]:
    """n prompts without a trigger, every second one with the condition's finding in words."""
    vocabulary = load_vocabulary()
    found = []
    for condition in (vocabulary.condition("pre_op"), vocabulary.condition("post_op")):
        for i, row in enumerate(sampling_plan(condition, n // 2, seed)):
            found.append(build_prompt(condition, row.attributes, trigger="", cleft=i % 2 == 0))
    return found


def conditioning(embeddings: Sequence[PromptEmbedding]) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, T, D] and [B, P] of a batch of prompts."""
    return torch.stack([e.prompt_embeds for e in embeddings]), torch.stack([e.pooled for e in embeddings])


def drawn_pairs(
    transformer: Any, embeddings: Sequence[PromptEmbedding], steps: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise and the latents that the base draws from it, [N, 16, 16, 16] each."""
    noise = torch.randn(
        len(embeddings), 16, 2 * GRID, 2 * GRID, generator=torch.Generator().manual_seed(seed)
    )
    parts = range(0, len(embeddings), BATCH)
    drawn = [
        sample(transformer, noise[i : i + BATCH], *conditioning(embeddings[i : i + BATCH]), steps)
        for i in progress(parts, "drawn", unit="batch")
    ]
    return noise, torch.cat(drawn)


def straighten(
    transformer: Any,
    embeddings: Sequence[PromptEmbedding],
    noise: torch.Tensor,
    drawn: torch.Tensor,
    *,
    steps: int,
    rate: float,
    seed: int,
) -> None:
    """Train the transformer on the lines from noise to what was drawn from it; it ends as the average."""
    transformer.train().requires_grad_(True)
    average = [parameter.detach().clone() for parameter in transformer.parameters()]
    optimizers = make_optimizers(transformer, rate)
    rng = torch.Generator().manual_seed(seed)
    levels = torch.tensor([1.0, 1.0, 1.0, 0.75, 0.5, 0.25])
    for step in progress(range(steps), "straightened", unit="step"):
        now = rate * min(1.0, (step + 1) / 50) * max(0.02, 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = now
        pick = torch.randint(len(noise), (BATCH,), generator=rng)
        sigma = levels[torch.randint(len(levels), (BATCH,), generator=rng)]
        s = sigma[:, None, None, None]
        x0, e = drawn[pick], noise[pick]
        velocity = predict_velocity(
            transformer, (1 - s) * x0 + s * e, sigma, *conditioning([embeddings[i] for i in pick])
        )
        loss = (velocity - (e - x0)).square().mean()
        transformer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            for kept, parameter in zip(average, transformer.parameters(), strict=True):
                kept.lerp_(parameter, 1 - min(KEEP, (step + 1) / (step + 20)))
        if step % 100 == 99:
            print(f"step {step + 1}  loss {loss.item():.4f}", flush=True)
    with torch.no_grad():
        for kept, parameter in zip(average, transformer.parameters(), strict=True):
            parameter.copy_(kept)
    transformer.eval().requires_grad_(False)


def straightened_base(
    out: Path, *, pictures: int, steps: int, drawn_in: int = 8, rate: float = 1e-3, seed: int = 0
) -> Path:
    """The straightened base as a diffusers folder, `out`; one that is there already is left as it is.

    Raises:
        UserError: it was made with other settings.
    """
    settings = {"pictures": pictures, "drawn_in": drawn_in, "steps": steps, "rate": rate, "seed": seed}
    if out.is_dir():
        if not (out / SETTINGS).is_file() or read_json(out / SETTINGS) != settings:
            raise UserError(f"{out} was made with other settings: give another folder, or delete it")
        return out
    source = phantom_source()
    assert source.folder is not None
    embeddings = encode_prompts(load_text_encoders(source, CPU, torch.float32), prompts(pictures, seed), CPU)
    transformer = load_transformer(source, CPU, torch.float32)
    noise, drawn = drawn_pairs(transformer, embeddings, drawn_in, seed)
    straighten(transformer, embeddings, noise, drawn, steps=steps, rate=rate, seed=seed)
    begun = out.with_name(f".{out.name}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    shutil.copytree(source.folder, begun, ignore=shutil.ignore_patterns("transformer"))
    transformer.half().save_pretrained(begun / "transformer")
    write_json(begun / SETTINGS, settings)
    begun.replace(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=4000, help="to learn from (default 4000)")
    parser.add_argument("--drawn-in", type=int, default=8, help="steps in which they are drawn (default 8)")
    parser.add_argument("--steps", type=int, default=1200, help=f"of training, batch {BATCH} (default 1200)")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate (default 1e-3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/straightened"))
    args = parser.parse_args()
    print(
        straightened_base(
            args.out,
            pictures=args.pictures,
            drawn_in=args.drawn_in,
            steps=args.steps,
            rate=args.rate,
            seed=args.seed,
        )
    )


if __name__ == "__main__":
    main()
