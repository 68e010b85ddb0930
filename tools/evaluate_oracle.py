"""Count the oracle's errors on phantoms it never saw, after the autoencoder, and draw them.

    python -m diffusioncleft.tools.evaluate_oracle --n 3000 --out OUT

Writes errors.json (what `obedience` corrects for) and errors.png (every misread picture).
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..diffusioncleft_core.phantom.oracle import HEADS, SIDES, Oracle, Reading, load_oracle
from ..diffusioncleft_core.statistics import Proportion, clopper_pearson
from . import FINDING_OF
from .train_oracle import targets, through_vae

SKIN = HEADS["skin"]
_NAMES = tuple(HEADS)


def held_out(n: int, seed: int) -> tuple[NDArray[np.uint8], list[dict[str, str]]]:
    """n healthy, n pre-op and n post-op phantoms (a tenth of these without a scar): [3n, 128, 128, 3]."""
    from ..diffusioncleft_core.phantom.face import random_face
    from ..diffusioncleft_core.phantom.render import render

    rng = np.random.default_rng(seed)
    images, words = [], []
    for condition in (None, "pre_op", "post_op"):
        for i in range(n):
            fixed = {"scar": "none"} if condition == "post_op" and i % 10 == 0 else {}
            rendering = render(random_face(rng, finding=FINDING_OF[condition], attributes=fixed))
            images.append(rendering.image)
            words.append(rendering.attributes)
    return np.stack(images), words


def counts(hit: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, int]:
    """hits of positives and rejections of negatives."""
    return {
        "hits": int((hit & truth).sum()),
        "positives": int(truth.sum()),
        "rejections": int((~hit & ~truth).sum()),
        "negatives": int((~truth).sum()),
    }


def split(hit: NDArray[np.bool_], truth: NDArray[np.bool_], skin: NDArray[np.str_]) -> dict[str, Any]:
    """Counts over all pictures and in each skin tone."""
    parts = {tone: counts(hit[skin == tone], truth[skin == tone]) for tone in SKIN}
    return {"all": counts(hit, truth), "by_skin": parts}


def errors(reading: Reading, words: list[dict[str, str]]) -> dict[str, Any]:
    """Every count that `obedience` needs. A colour's error is that of telling it from all others."""
    labels = np.array([targets(w) for w in words])
    skin = np.array([w["skin"] for w in words])
    cleft, scar = np.asarray(SIDES)[labels[:, 0]], np.asarray(SIDES)[labels[:, 1]]
    found: dict[str, Any] = {
        "cleft": split(reading.cleft, cleft != "none", skin),
        "scar": split(reading.scar, scar != "none", skin),
    }
    seen = (cleft != "none") & reading.cleft
    both = reading.cleft_type == "bilateral"
    found["cleft_bilateral"] = split(both[seen], (cleft == "bilateral")[seen], skin[seen])
    sided = seen & (cleft != "bilateral") & ~both
    found["cleft_side"] = {"k": int((reading.cleft_side == cleft)[sided].sum()), "n": int(sided.sum())}
    for name, read in reading.words.items():
        truth = np.asarray(HEADS[name])[labels[:, _NAMES.index(name)]]
        found[name] = split_classes(read, truth, HEADS[name], skin)
    return found


def split_classes(
    read: NDArray[np.str_], truth: NDArray[np.str_], values: tuple[str, ...], skin: NDArray[np.str_]
) -> dict[str, Any]:
    """One-against-rest counts summed over the classes, over all pictures and in each skin tone."""

    def total(chosen: NDArray[np.bool_]) -> dict[str, int]:
        parts = [counts(read[chosen] == v, truth[chosen] == v) for v in values]
        return {key: sum(part[key] for part in parts) for key in parts[0]}

    everyone = np.ones(len(read), bool)
    return {"all": total(everyone), "by_skin": {tone: total(skin == tone) for tone in SKIN}}


def draw_errors(images: NDArray[np.uint8], reading: Reading, words: list[dict[str, str]], path: Path) -> int:
    """A sheet of the misread clefts and scars, with truth and reading below; returns how many there are."""
    labels = np.array([targets(w) for w in words])
    cleft, scar = np.asarray(SIDES)[labels[:, 0]], np.asarray(SIDES)[labels[:, 1]]
    wrong = np.flatnonzero((cleft != reading.cleft_side) | (scar != reading.scar_side))
    shown = wrong[:60]
    sheet = Image.new("RGB", (10 * 140, max(1, -(-len(shown) // 10)) * 170), "white")
    draw = ImageDraw.Draw(sheet)
    for place, i in enumerate(shown):
        x, y = place % 10 * 140 + 6, place // 10 * 170 + 4
        sheet.paste(Image.fromarray(images[i]), (x, y))
        draw.text((x, y + 130), f"is {cleft[i]} / {scar[i]}", fill="black")
        draw.text((x, y + 145), f"read {reading.cleft_side[i]} / {reading.scar_side[i]}", fill="black")
    sheet.save(path)
    return len(wrong)


def say(found: dict[str, Any], print_line: Callable[[str], None] = print) -> None:
    """Sensitivity and specificity of every count with their Clopper-Pearson intervals."""
    for name, part in found.items():
        if "all" in part:
            c = part["all"]
            se = clopper_pearson(c["hits"], c["positives"])
            sp = clopper_pearson(c["rejections"], c["negatives"])
            print_line(f"{name:16} sensitivity {_shown(se)}  specificity {_shown(sp)}")
        else:
            print_line(f"{name:16} {part}")


def _shown(share: Proportion) -> str:
    return "not measured" if share.value is None else f"{share.value:.4f} {share.ci95}"


def evaluate(oracle: Oracle, vae: Any, n: int, seed: int, noise: float, out: Path) -> dict[str, Any]:
    """Errors over 3n held-out phantoms after the autoencoder, and their sheet."""
    images, words = held_out(n, seed)
    images = through_vae(vae, images, noise, seed)
    reading = oracle.read(images)
    found = errors(reading, words)
    out.mkdir(parents=True, exist_ok=True)
    draw_errors(images, reading, words, out / "errors.png")
    (out / "errors.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=3000, help="phantoms of each kind")
    parser.add_argument("--seed", type=int, default=90210)
    parser.add_argument("--noise", type=float, default=0.2, help="noise on the latents, in their deviation")
    parser.add_argument("--vae", type=Path, help="default: the embedded one")
    parser.add_argument("--weights", type=Path, help="default: the embedded ones")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    import torch
    from diffusers import AutoencoderKL

    from ..diffusioncleft_core.flux.components import load_vae
    from ..diffusioncleft_core.flux.source import phantom_source

    if args.vae:
        vae = AutoencoderKL.from_pretrained(args.vae, torch_dtype=torch.float32).eval()
    else:
        vae = load_vae(phantom_source(), torch.device("cpu"), torch.float32)
    oracle = load_oracle(args.weights) if args.weights else load_oracle()
    say(evaluate(oracle, vae, args.n, args.seed, args.noise, args.out))


if __name__ == "__main__":
    main()
