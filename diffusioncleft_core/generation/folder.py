"""The folder of a generated set: what it was drawn with, and which images of its plan it holds.

`000123_<seed>.png` with a `.json` sidecar each, `manifest.jsonl` (one image set row an image) and
`generation.json` (the settings all images share). A picture is done when its sidecar holds the PNG's hash.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..conditions.plan_rows import Plan, PlanRow, as_plan
from ..dataset.drawn import same_record, traced
from ..environment import versions
from ..errors import UserError
from ..files import read_json, sha256_file, write_json
from ..flux.sampling import schnell_sigmas
from ..flux.source import FluxSource
from ..imageset.manifest import ImageRow, add_row, listed_rows, write_image_set
from ..imageset.places import SETTINGS, first_index, remove_set_leftovers, set_lock, sidecars_in
from ..imageset.synthetic import generated_row, read_done, write_drawn
from .settings import GenerationSettings, Sampling

SCHEMA = 1
LORA_SUFFIX = ".safetensors"


class PlannedSet:
    """A folder that comes to hold the images of a plan. The caller holds the set's lock.

    An interruption, a full disk or a power cut costs at most the batch in work; the next call goes on.

    Args:
        folder: made where it is missing.
        plan: every image that the folder is to hold.
        role: the manifest's role, `generated` or `control`.
        record: what all its images have in common, see `shared_record`.

    Raises:
        UserError: `folder` holds images of other settings or of another plan.
    """

    def __init__(self, folder: Path, plan: Sequence[PlanRow], role: str, record: Mapping[str, Any]) -> None:
        self.folder, self.plan, self.record = folder, as_plan(plan), record
        self._role, self._software = role, versions()
        open_folder(folder, record)
        if other_plan(folder, self.plan):
            raise UserError(
                f"{folder} holds images of another plan (other prompts or seeds): give another --out folder"
            )
        self._refilled = refilled_rows(folder, self.plan)

    def write_manifest(self) -> Plan:
        """Write the manifest in the plan's order, from the sidecars: an interrupted one may lack rows.

        Returns:
            The rows of the plan whose image is not there yet.
        """
        pending = Plan()

        def rows() -> Iterator[ImageRow]:
            for row in self.plan:
                sidecar = read_done(self.folder, row.index, row.seed)
                if sidecar is None or sidecar.get("index") != row.index:
                    pending.append(row)
                else:
                    yield generated_row(sidecar, self._role)

        write_image_set(self.folder, itertools.chain(rows(), self._refilled))
        return pending

    def write(self, row: PlanRow, png: bytes) -> None:
        """Write the picture of a row, the bytes of `image_png`, with its sidecar; add it to the manifest."""
        sidecar = write_drawn(self.folder, png, image_record(row, self.record, self._software))
        add_row(self.folder, generated_row(sidecar, self._role))


@contextlib.contextmanager
def open_planned_set(
    folder: Path, plan: Sequence[PlanRow], role: str, record: Mapping[str, Any]
) -> Iterator[PlannedSet]:
    """The folder that comes to hold the images of `plan`, locked meanwhile.

    Raises:
        UserError: it is a file, another process is at work in it, or it holds other images.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder for the images")
    with set_lock(folder):
        remove_set_leftovers(folder)
        yield PlannedSet(folder, plan, role, record)


def check_plan(plan: Sequence[PlanRow]) -> None:
    if not plan:
        raise UserError("the plan holds no rows: make one with `diffusioncleft plan`")
    if as_plan(plan).has_doubles:
        raise UserError("the plan holds an index twice: make it again with `diffusioncleft plan`")


def open_folder(out: Path, record: Mapping[str, Any]) -> None:
    """Record what the images of `out` are made with, or check that those it holds were made with the same."""
    settings = out / SETTINGS
    if not settings.exists():
        write_json(settings, {"schema": SCHEMA, **record})
        return
    changed = changed_settings(out, record)
    if changed:
        raise UserError(
            f"{out} holds images made with other settings ({', '.join(changed)}): give another --out folder"
        )


def changed_settings(out: Path, record: Mapping[str, Any]) -> list[str]:
    """Names of the settings in which the images of `out` differ from `record`."""
    stored = read_json(out / SETTINGS)
    return [name for name in record if not same_record(stored.get(name), record[name])]


def set_fits(settings: GenerationSettings, plan: Sequence[PlanRow], out: Path) -> bool:
    """Whether the images that are there are the plan's, drawn by this model as it is asked to draw now."""
    if not (out / SETTINGS).is_file() or changed_settings(out, shared_record(settings)):
        return False
    return not other_plan(out, as_plan(plan))


def other_plan(out: Path, plan: Plan) -> bool:
    """Whether `out` holds an image of one of the plan's places that was drawn by another prompt or seed."""
    for path in sidecars_in(out):
        with contextlib.suppress(UserError, KeyError, TypeError):  # what is damaged is drawn again
            row = read_json(path)
            asked = plan.at(row["index"])
            if asked is not None and (asked.seed, asked.prompt) != (row["seed"], row["prompt"]):
                return True
    return False


def refilled_rows(out: Path, plan: Plan) -> list[ImageRow]:
    """Manifest rows of images that were made in place of rejected ones of `plan`, and are still there."""
    return [
        row
        for row in listed_rows(out)
        if row.index is not None
        and not row.is_raw
        and plan.at(row.index) is None
        and plan.at(first_index(row.index)) is not None
        and (out / row.file).is_file()
    ]


def shared_record(settings: GenerationSettings) -> dict[str, Any]:
    """What all images of one folder have in common; a folder never mixes two of these."""
    sampling, lora = settings.sampling, settings.lora
    return {
        "base": base_digests(settings.source),
        "lora": None if lora is None else traced(lora, lora_digest(lora), sampling.strength),
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
