"""Stages before training: photographs, or phantoms in their place, into private datasets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..conditions.vocabulary import Condition
from ..errors import UserError
from ..files import private_dir, sha256_file
from ..report.folders import RunFolders
from .settings import PHANTOM_CONTROLS, Photographs, RunSettings, face_pack_input, vocabulary_input
from .stages import Results, Stage, Stages, always


def render_photographs(
    settings: RunSettings, folders: RunFolders, stages: Stages, condition: Condition
) -> Photographs:
    """The user's photographs; under --phantom without any, phantoms that the renderer photographs."""
    name = condition.name
    if name in settings.photographs:
        return settings.photographs[name]
    assert condition.phantom is not None  # RunSettings.conditions
    finding = condition.phantom.finding
    from ..phantom.photographs import write_photographs

    folder = folders.photographs(name)
    n = photographs_for(condition.phantom.photographs, settings.holdout)
    seed = settings.seed_for("photographs", name)

    def work() -> Results:
        private_dir(folder.parent)
        write_photographs(folder, n, finding, seed, size=settings.sampling.width, subjects=n)
        return {"photographs": n}

    def fits() -> bool:
        """The first photograph is of this finding, seed and size, and none is beyond the last one."""
        photographs = sorted(folder.glob("*.png"))
        if not photographs or len(photographs) > n:
            return False
        with TemporaryDirectory() as place:
            write_photographs(Path(place), 1, finding, seed, size=settings.sampling.width, subjects=1)
            return next(Path(place).glob("*.png")).read_bytes() == photographs[0].read_bytes()

    inputs = {"number of phantoms": n, "finding": finding, "seed": seed, "size": settings.sampling.width}
    stages.run(Stage(f"photographs-{name}", lambda: inputs, [folder], work, fits=fits))
    return Photographs(folder, folder / "metadata.csv")


def control_faces(settings: RunSettings, folders: RunFolders, stages: Stages) -> Path | None:
    """Healthy faces for the face map: the user's; under --phantom without any, healthy phantoms."""
    if settings.control is not None or not settings.phantom:
        return settings.control
    from ..phantom.photographs import write_healthy

    folder = folders.photographs("control")
    seed = settings.seed_for("photographs", "control")

    def work() -> Results:
        private_dir(folder.parent)
        write_healthy(folder, PHANTOM_CONTROLS, seed, size=settings.sampling.width)
        return {"photographs": PHANTOM_CONTROLS}

    inputs = {"number of phantoms": PHANTOM_CONTROLS, "seed": seed, "size": settings.sampling.width}
    stages.run(Stage("photographs-control", lambda: inputs, [folder], work))
    return folder


def photographs_for(training_faces: int, holdout: float) -> int:
    """How many photographs, a person each, leave `training_faces` beside the hold-out's share."""
    n = training_faces
    while n - (max(1, round(holdout * n)) if holdout > 0 else 0) < training_faces:
        n += 1
    return n


def build(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    condition: Condition,
    photographs: Photographs,
    warn: Callable[[str], None],
    remember: Callable[[str], None],
) -> Results:
    """Photographs → checked, captioned private dataset with its hold-out."""
    from ..dataset.build import build_dataset
    from ..dataset.folder import ROLES
    from ..dataset.settings import BuildSettings
    from ..faces.analyzer import load_face_analyzer
    from ..imageset.decode import INGEST_VERSION
    from ..imageset.places import MANIFEST

    out = folders.dataset(condition.name)
    choices = BuildSettings(
        holdout=settings.holdout, seed=settings.seed, bracketed=settings.bracketed, phantom=settings.phantom
    )
    earlier = settings.conditions[: settings.conditions.index(condition.name)]
    others = [folders.dataset(name) for name in earlier]

    def work() -> Results:
        faces = load_face_analyzer(settings.faces, device=settings.sampling.device.type)
        result = build_dataset(
            photographs.folder,
            photographs.metadata,
            condition,
            out,
            faces,
            settings=choices,
            apart_from=others,
            arguments=readmit_arguments(settings, photographs, condition, others, choices),
        )
        for message in result.private_notices:
            warn(message)
        for message in result.warnings:
            remember(message)
        if not result.count("train"):
            raise UserError(
                f"no {condition.name} photograph can be trained on: see `diffusioncleft dataset show {out}`"
            )
        return {
            "training_images": result.count("train"),
            "holdout_images": result.count("holdout"),
            "set_aside": result.reasons,
            "faces": faces.describe(),
        }

    manifest, readmitted = out / MANIFEST, out / "readmitted.jsonl"

    def inputs() -> dict[str, Any]:
        return {
            "photographs": photograph_digests(photographs),
            "readmitted photographs": sha256_file(readmitted) if readmitted.is_file() else None,
            "decoder": INGEST_VERSION,
            "settings": asdict(choices),
            "roles in the other datasets": [sha256_file(other / ROLES) for other in others],
            **face_pack_input(settings),
            **vocabulary_input(settings),
        }

    after = [f"photographs-{condition.name}", *(f"dataset-{name}" for name in earlier)]
    done = stages.run(Stage(f"dataset-{condition.name}", inputs, [manifest], work, after, always))
    # Captions are edited after a build too.
    return done | {"manifest": sha256_file(manifest) if manifest.is_file() else None}


def readmit_arguments(
    settings: RunSettings, photographs: Photographs, condition: Condition, others: list[Path], choices: Any
) -> dict[str, Any]:
    """What `dataset readmit` needs to build the private dataset again, as `dataset build` records it."""
    return {
        "photos": str(photographs.folder.resolve()),
        "metadata": str(photographs.metadata.resolve()) if photographs.metadata else None,
        "condition": condition.name,
        "vocabulary": str(path.resolve()) if (path := settings.vocabulary.path) else None,
        "faces": settings.faces,
        "apart_from": [str(path.resolve()) for path in others],
        "settings": asdict(choices),
    }


def photograph_digests(photographs: Photographs) -> list[str]:
    """Content hashes of the photographs and their table."""
    table = [] if photographs.metadata is None else [sha256_file(photographs.metadata)]
    return [*folder_digests(photographs.folder), *table]


def folder_digests(folder: Path) -> list[str]:
    """Content hashes of everything in the folder, names included, so that a change is noticed."""
    return [
        f"{path.relative_to(folder).as_posix()} {sha256_file(path)}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    ]
