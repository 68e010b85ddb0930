"""Generation: a plan, a base model and a LoRA give a folder of synthetic images.

The folder: `000123_<seed>.png` with a `.json` sidecar each, `manifest.jsonl` (one image set row an image) and
`generation.json` (the settings all images share). A picture is done when its sidecar holds the PNG's hash, so
an interruption, a full disk or a power cut costs at most the batch in work, and the next call goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..conditions.plan import PlanRow
from ..environment import versions
from ..errors import UserError
from ..files import read_json, sha256_file, write_json
from ..flux.lora_file import read_lora
from ..flux.sampling import schnell_sigmas
from ..flux.source import FluxSource
from ..imageset.manifest import ImageRow, add_row, listed_rows, write_image_set
from ..imageset.places import SETTINGS, first_index
from ..imageset.synthetic import Image8, contact_sheet, generated_row, read_done, write_image
from ..progress import progress
from ..ranges import STRENGTH
from .sampler import ImageSampler, ImageSize, embed_prompts, release_memory
from .sampling import Sampling

EMBEDDINGS_FOLDER = ".embeddings"
SCHEMA = 1
LORA_SUFFIX = ".safetensors"
STREAMED = (
    "the base model is bigger than the GPU's free memory, so it is streamed from main memory: slower, "
    "the same pictures"
)


@dataclass(frozen=True)
class GenerationResult:
    """What a call did: `total` images of the plan are in `folder`, of which `made` are new."""

    folder: Path
    total: int
    made: int
    warnings: list[str] = field(default_factory=list)


def generate(
    source: FluxSource,
    lora: Path | None,
    plan: Sequence[PlanRow],
    out: Path,
    sampling: Sampling,
    *,
    role: str = "generated",
    warn: Callable[[str], None] = lambda message: None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> GenerationResult:
    """Make every image of `plan` that `out` does not hold yet.

    role: the manifest's role, `generated` or `control`.
    on_image: called with (images done, images of the plan) after each batch; what it raises stops the call.
    Errors: UserError when `out` holds images of other settings or of another plan.
    """
    check_plan(plan)
    record = shared_record(source, lora, sampling)
    warnings = lora_warnings(lora, record, plan)
    for message in warnings:
        warn(message)
    open_folder(out, record)
    refilled = refilled_rows(out, plan)
    done = write_manifest(out, plan, role, refilled)
    pending = [row for row in plan if row.index not in done]
    if pending:
        make_images(source, lora, pending, out, record, sampling, role, len(plan), on_image, warn)
    write_manifest(out, plan, role, refilled)
    return GenerationResult(out, total=len(plan), made=len(pending), warnings=warnings)


def make_images(
    source: FluxSource,
    lora: Path | None,
    pending: Sequence[PlanRow],
    out: Path,
    record: Mapping[str, Any],
    sampling: Sampling,
    role: str,
    total: int,
    on_image: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda message: None,
) -> None:
    """Encode the prompts, then draw and write `pending` batch by batch."""
    embeddings = embed_prompts(
        source,
        [row.prompt for row in pending],
        sampling.device,
        sampling.dtype,
        folder=out / EMBEDDINGS_FOLDER,
    )
    size, batch = ImageSize(sampling.width, sampling.height), sampling.batch
    software = versions()
    try:
        sampler = ImageSampler(source, sampling.device, sampling.dtype)
        if sampler.streamed:
            warn(STREAMED)
        sampler.use_lora(lora, record_strength(record))
        with progress(total, "images") as bar:
            bar.update(total - len(pending))
            for start in range(0, len(pending), batch):
                rows = pending[start : start + batch]
                pictures = sampler.draw(
                    [embeddings.get(row.prompt) for row in rows],
                    [row.seed for row in rows],
                    size,
                    sampling.steps,
                )
                for row, pixels in zip(rows, pictures, strict=True):
                    sidecar = write_image(out, pixels, image_record(row, record, software))
                    add_row(out, generated_row(sidecar, role))
                bar.update(len(rows))
                on_image(total - len(pending) + start + len(rows), total)
        del sampler
    finally:
        embeddings.close()
        release_memory(sampling.device)


def write_manifest(out: Path, plan: Sequence[PlanRow], role: str, refilled: Sequence[ImageRow]) -> set[int]:
    """Write the manifest in the plan's order, from the sidecars: an interrupted one may lack rows.

    Returns the indices of the images that are there.
    """
    sidecars = [sidecar for row in plan if (sidecar := read_matching(out, row)) is not None]
    rows = [generated_row(sidecar, role) for sidecar in sidecars]
    write_image_set(out, [*rows, *refilled])
    return {int(sidecar["index"]) for sidecar in sidecars}


def refilled_rows(out: Path, plan: Sequence[PlanRow]) -> list[ImageRow]:
    """Manifest rows of images that were made in place of rejected ones of `plan`, and are still there."""
    planned = {row.index for row in plan}
    return [
        row
        for row in listed_rows(out)
        if row.index is not None
        and not row.is_raw
        and row.index not in planned
        and first_index(row.index) in planned
        and (out / row.file).is_file()
    ]


def check_plan(plan: Sequence[PlanRow]) -> None:
    if not plan:
        raise UserError("the plan holds no rows: make one with `diffusioncleft plan`")
    if len({row.index for row in plan}) != len(plan):
        raise UserError("the plan holds an index twice: make it again with `diffusioncleft plan`")


def shared_record(source: FluxSource, lora: Path | None, sampling: Sampling) -> dict[str, Any]:
    """What all images of one folder have in common; a folder never mixes two of these."""
    return {
        "base": base_digests(source),
        "lora": None if lora is None else {"sha256": lora_digest(lora), "strength": sampling.strength},
        "sampler": {
            "steps": sampling.steps,
            "sigmas": [float(sigma) for sigma in schnell_sigmas(sampling.steps)],
            "guidance": "none",
            "dtype": str(sampling.dtype).removeprefix("torch."),
        },
        "size": {"width": sampling.width, "height": sampling.height},
    }


def recorded_sampling(folder: Path, device: torch.device, dtype: torch.dtype, batch: int) -> Sampling:
    """What a set was drawn with, as its `generation.json` says; UserError for a set that has none."""
    path = folder / SETTINGS
    if not path.is_file():
        raise UserError(f"{folder} was not drawn by `diffusioncleft generate`; only such a set is refilled")
    record = read_json(path)
    return Sampling(
        device,
        dtype,
        width=int(record["size"]["width"]),
        height=int(record["size"]["height"]),
        steps=int(record["sampler"]["steps"]),
        batch=batch,
        strength=float(record["lora"]["strength"]) if record.get("lora") else 1.0,
    )


def base_digests(source: FluxSource) -> dict[str, str]:
    """SHA-256 of the base model's parts; `sha256` is the transformer's, the one a LoRA records."""
    found = source.fingerprints()
    return {
        "sha256": found.pop("transformer"),
        **{f"{part}_sha256": digest for part, digest in found.items()},
    }


def lora_digest(lora: Path) -> str:
    if not lora.is_file():
        raise UserError(f"LoRA {lora} is not a file: give the .safetensors that training wrote")
    if lora.suffix != LORA_SUFFIX:
        raise UserError(f"LoRA {lora} is not a .safetensors file: other formats are not opened")
    return sha256_file(lora)


def lora_labels(loras: Sequence[Path]) -> list[str]:
    """A short name a LoRA for grid pictures: the step for a checkpoint, else the file's stem."""
    labels = []
    for lora in loras:
        found = re.search(r"-step0*(\d+)$", lora.stem)
        labels.append(f"step {found[1]}" if found else lora.stem)
    return labels


def record_strength(record: Mapping[str, Any]) -> float:
    lora = record["lora"]
    return float(lora["strength"]) if lora else 0.0


def image_record(row: PlanRow, record: Mapping[str, Any], software: Mapping[str, str]) -> dict[str, Any]:
    """The sidecar's content of one image, less what is known only when it is written."""
    return {
        "index": row.index,
        "condition": row.condition,
        "prompt": row.prompt,
        "seed": row.seed,
        "attributes": dict(row.attributes),
        "base": record["base"],
        "lora": record["lora"],
        "sampler": record["sampler"],
        "versions": dict(software),
    }


def read_matching(out: Path, row: PlanRow) -> dict[str, Any] | None:
    """The sidecar of a row that is done, None when it is still to do."""
    sidecar = read_done(out, row.index, row.seed)
    if sidecar is not None and sidecar["prompt"] != row.prompt:
        raise UserError(
            f"{out} holds image {row.index} of another plan (its prompt differs): give another --out folder"
        )
    return sidecar


def open_folder(out: Path, record: Mapping[str, Any]) -> None:
    """Make `out`, or check that what it holds was made with the same settings."""
    settings = out / SETTINGS
    if not settings.exists():
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file: give a folder for the images")
        write_json(settings, {"schema": SCHEMA, **record})
        return
    stored = read_json(settings)
    changed = [name for name in record if stored.get(name) != record[name]]
    if changed:
        raise UserError(
            f"{out} holds images made with other settings ({', '.join(changed)}): give another --out folder"
        )


def lora_warnings(lora: Path | None, record: Mapping[str, Any], plan: Sequence[PlanRow]) -> list[str]:
    """What the LoRA's own metadata says against this use of it: another base model, another trigger."""
    if lora is None:
        return []
    metadata = read_lora(lora).metadata
    warnings = []
    trained_on = metadata.get("base_model_sha256", "")
    if trained_on and trained_on != record["base"]["sha256"]:
        warnings.append(
            "the LoRA was trained on another base model than this one: expect weaker or odd results"
        )
    start = trigger_as_trained(metadata)
    other = sum(not row.prompt.startswith(f"{start} ") for row in plan) if start else 0
    if other:
        warnings.append(
            f"{other} of {len(plan)} prompts do not begin with the LoRA's trigger as it was trained, {start}"
        )
    return warnings


def trigger_as_trained(metadata: Mapping[str, str]) -> str:
    """`[CLP]` or `CLP`, as the LoRA's captions began; "" when the file does not say."""
    trigger = metadata.get("trigger", "").strip("[]")
    if not trigger:
        return ""
    return f"[{trigger}]" if metadata.get("prompt_form") == "bracketed" else trigger


@dataclass(frozen=True)
class GridResult:
    """One picture a plan row."""

    pictures: list[Path]


def generate_grid(
    source: FluxSource,
    loras: Sequence[Path],
    strengths: Sequence[float],
    plan: Sequence[PlanRow],
    out: Path,
    sampling: Sampling,
    *,
    cell: int = 256,
) -> GridResult:
    """Draw every plan row under every LoRA at every strength, from the same noise.

    Writes `grid_<index>_<seed>.png`, a sheet of len(loras) rows and len(strengths) columns, cells `cell` px
    wide, and a sidecar with the hashes. Strength 0 is the base model.
    """
    if not loras or not strengths:
        raise UserError(
            "a grid needs LoRAs and strengths: give --grid-loras a.safetensors,… --grid-strengths 0.6,1.0"
        )
    check_plan(plan)
    for strength in strengths:
        STRENGTH.check(strength, "the LoRA's strength")
    size = ImageSize(sampling.width, sampling.height)
    digests = [lora_digest(lora) for lora in loras]
    labels = lora_labels(loras)
    embeddings = embed_prompts(source, [row.prompt for row in plan], sampling.device, sampling.dtype)
    sampler = ImageSampler(source, sampling.device, sampling.dtype)
    cells: dict[int, list[Image8]] = {row.index: [] for row in plan}
    with progress(len(loras) * len(strengths) * len(plan), "grid") as bar:
        for lora in loras:
            for strength in strengths:
                sampler.use_lora(lora if strength else None, strength)
                for row in plan:
                    cells[row.index].extend(
                        sampler.draw([embeddings.get(row.prompt)], [row.seed], size, sampling.steps)
                    )
                    bar.update(1)
    named = [f"{label} × {strength:g}" for label in labels for strength in strengths]
    pictures = []
    for row in plan:
        path = out / f"grid_{row.index:06d}_{row.seed}.png"
        record = {
            "prompt": row.prompt,
            "seed": row.seed,
            "base": base_digests(source),
            "loras": digests,
            "strengths": list(strengths),
            "steps": sampling.steps,
            "versions": versions(),
        }
        contact_sheet(
            cells[row.index],
            named,
            path,
            title=row.prompt,
            columns=len(strengths),
            cell=min(cell, sampling.width),
            record=record,
        )
        pictures.append(path)
    return GridResult(pictures)
