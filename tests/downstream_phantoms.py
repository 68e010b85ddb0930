"""Sets of phantoms with known findings, for the classifiers' tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from diffusioncleft.diffusioncleft_core.downstream.cropper import Cropper
from diffusioncleft.diffusioncleft_core.downstream.crops import Crops
from diffusioncleft.diffusioncleft_core.downstream.task import Crop
from diffusioncleft.diffusioncleft_core.files import read_jsonl, write_json, write_jsonl
from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render

SIDE = 64


def write_phantoms(folder: Path, finding: str | None, seed: int, n: int, size: int = 128) -> Path:
    """A bare folder of `n` phantoms, each another person."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n):
        face = random_face(np.random.default_rng([seed, index]), finding=finding)
        Image.fromarray(render(face, size).image).save(folder / f"{index:04d}.png")
    return folder


def as_generated(folder: Path, condition: str | None, role: str = "generated", **columns: object) -> Path:
    """Give a bare folder the manifest of a generated set."""
    rows = [
        {"file": path.name, "condition": condition, "role": role, **columns}
        for path in sorted(folder.glob("*.png"))
    ]
    write_jsonl(folder / "manifest.jsonl", rows)
    return folder


def small_cropper(analyzer, cache: Path | None = None, side: int = SIDE) -> Cropper:
    """Crops of 64 px, in which a network learns fast."""
    return Cropper.of(Crop(side=side), analyzer, cache)


def random_crops(n: int, *, phantom: bool = True, seed: int = 0, side: int = 32, owner=None) -> Crops:
    """Crops of noise, each of another person, half of them positive."""
    rng = np.random.default_rng(seed)
    faces = rng.standard_normal((n, 512)).astype(np.float32)
    return Crops(
        pixels=rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8),
        surroundings=rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8),
        lips=np.tile(np.array([8, 10, 24, 26], np.int16) * side // 32, (n, 1)),
        labels=(np.arange(n) % 2).astype(np.int64),
        subjects=(None,) * n,
        groups={},
        keys=tuple(f"{seed}-{index}" for index in range(n)),
        pictures=tuple(f"{seed}-{index}" for index in range(n)),
        embeddings=faces / np.linalg.norm(faces, axis=1, keepdims=True),
        owners=(owner,) * n,
        same_person=0.8,
        phantom=phantom,
    )


def drawn_and_accepted(folder: Path, condition: str) -> Path:
    """Let phantoms pass for what the embedded model drew for a condition, and the filters accepted."""
    as_generated(folder, condition)
    manifest, base = folder / "manifest.jsonl", {"sha256": phantom_source().fingerprint()}
    accepted = {"accepted": True, "reasons": []}
    write_jsonl(manifest, [{**row, "verdicts": accepted} for row in read_jsonl(manifest)])
    write_json(folder / "generation.json", {"schema": 1, "base": base, "lora": None})
    for path in folder.glob("*.png"):
        write_json(path.with_suffix(".json"), {"base": base})
    return folder
