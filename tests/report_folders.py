"""A finished run's folder: real datasets of phantom photographs, rendered faces for generated ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from html_checks import Page
from phantom_datasets import FINDING_OF, phantom_dataset
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from report_documents import CONDITIONS, document

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import sampling_plan
from diffusioncleft.diffusioncleft_core.faces.analyzer import FaceAnalyzer
from diffusioncleft.diffusioncleft_core.files import private_dir, write_json
from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set, write_image_set
from diffusioncleft.diffusioncleft_core.imageset.synthetic import generated_row, write_image
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.diffusioncleft_core.report.folders import RunFolders

PHOTOGRAPHS = 8
IMAGES = 10
COPIED, TEXT, FACELESS = 2, 4, 5
"""Places in the plan of a copy of a training photograph, of one with text, of one without a face."""


def make_run(root: Path, faces: FaceAnalyzer, **changes: Any) -> RunFolders:
    """A run on phantoms with filters, previews, loss history and a zero-shot folder."""
    folders = RunFolders(root)
    private_dir(folders.private)
    for seed, name in enumerate(CONDITIONS):
        photographs = folders.photographs(name)
        private_dir(photographs.parent)
        phantom_dataset(photographs, name, folders.dataset(name), faces, n=PHOTOGRAPHS, seed=seed)
        generate(folders, name, seed)
        train(folders, name)
    for index, prompt in enumerate(("A boy's face with a cleft lip", "a cleft lip scar")):
        save(folders.root / "zero_shot" / f"{index}.png", face("pre_op", 900 + index), prompt)
    report = {**document(n=IMAGES), **changes}
    report["figures"].pop("loss")
    write_json(folders.report, report)
    return folders


def face(condition: str, seed: int) -> np.ndarray:
    return render(random_face(np.random.default_rng(seed), finding=FINDING_OF[condition])).image


def generate(folders: RunFolders, name: str, seed: int) -> None:
    """A set with one copied photograph, one image with text, one without a face, the rest accepted."""
    plan = sampling_plan(load_vocabulary().condition(name), IMAGES, seed)
    photograph = next(row for row in read_image_set(folders.dataset(name)) if row.role == "train")
    out = folders.generated(name)
    out.mkdir(parents=True)
    rows = []
    for row in plan:
        pixels = face(name, 100 * (seed + 1) + row.index)
        if row.index == COPIED:
            with Image.open(folders.dataset(name) / photograph.file) as image:
                pixels = np.asarray(image.convert("RGB"))
        if row.index == FACELESS:
            pixels = np.full_like(pixels, 200)
        record = {
            "index": row.index,
            "condition": name,
            "prompt": row.prompt,
            "seed": row.seed,
            "attributes": dict(row.attributes),
            "base": {"sha256": phantom_source().fingerprint()},
            "lora": None,
        }
        sidecar = write_image(out, pixels, record)
        rows.append(replace(generated_row(sidecar), verdicts=verdicts(row.index)))
    write_image_set(out, rows)


def verdicts(index: int) -> dict[str, Any]:
    similarity = {COPIED: 1.0, FACELESS: None}.get(index, 0.31)
    reasons = {COPIED: ["identity_leak"], TEXT: ["text"], FACELESS: ["no_face"]}.get(index, [])
    leak = index in (COPIED, FACELESS)
    identity = {"rejected": leak, "max_similarity": similarity, "threshold": 0.6}
    return {"accepted": not reasons, "reasons": reasons, "artifacts": {}, "identity": identity}


def train(folders: RunFolders, name: str) -> None:
    out = folders.training(name)
    out.mkdir(parents=True)
    rows = [{"step": step, "loss": 0.3 + 1 / (step + 1), "lr": 1e-4} for step in range(1, 301)]
    (out / "loss.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number, prompt in enumerate(("[CLP] A girl's whole face.", "A boy's face.")):
        for step in (100, 200, 300):
            picture = face(name, 500 + number + step)
            save(out / "previews" / f"step_{step:06d}_{number:02d}.png", picture, prompt)


def save(path: Path, pixels: np.ndarray, prompt: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    info.add_itxt("prompt", prompt)
    Image.fromarray(pixels).save(path, pnginfo=info)


def saved_by(page: Path, verdicts: dict[str, str], file: Path) -> Path:
    """The review as the page's button saves it, of the images that `verdicts` names."""
    found = Page(page.read_text("utf-8"))
    (form,) = found.all("form")
    pairs = []
    for choices in found.all("fieldset"):
        data = {name.removeprefix("data-"): value for name, value in choices.attributes.items()}
        if data["image"] in verdicts:
            kept = {name: data[name] for name in ("condition", "image", "content")}
            verdict = {"similarity": float(data["similarity"]), "verdict": verdicts[data["image"]]}
            pairs.append(kept | verdict)
    document = {"kind": form.attributes["data-kind"], "schema": int(form.attributes["data-schema"])}
    write_json(file, document | {"pairs": pairs})
    return file
