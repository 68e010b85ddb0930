"""Stages before training: photographs, or phantoms in their place, into private datasets."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..conditions.names import CONTROL
from ..conditions.vocabulary import Condition
from ..dataset.settings import BuildSettings, Photographs
from ..errors import UserError
from ..files import private_dir, sha256_file
from ..imageset.manifest import described
from .run import WARNINGS, Run
from .settings import PHANTOM_CONTROLS, RunSettings, face_pack_input, vocabulary_input
from .stages import Results, Stage, always, digest_of

if TYPE_CHECKING:
    from ..dataset.trained import ConsentChange


def render_photographs(run: Run, condition: Condition) -> Photographs:
    """The user's photographs; under --phantom without any, phantoms that the renderer photographs."""
    settings, name = run.settings, condition.name
    if name in settings.photographs:
        return settings.photographs[name]
    assert condition.phantom is not None  # RunSettings.conditions
    finding = condition.phantom.finding
    from ..phantom.photographs import write_photographs

    folder = run.folders.photographs(name)
    n = photographs_for(settings.phantoms or condition.phantom.photographs, settings.holdout)
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
    run.stages.run(Stage(f"photographs-{name}", lambda: inputs, [folder], work, fits=fits))
    return Photographs(folder, folder / "metadata.csv")


def control_faces(run: Run) -> Path | None:
    """Healthy faces for the face map: the user's; under --phantom without any, healthy phantoms."""
    settings = run.settings
    if settings.control is not None or not settings.phantom:
        return settings.control
    from ..phantom.photographs import write_healthy

    folder = run.folders.photographs(CONTROL)
    seed = settings.seed_for("photographs", "control")

    def work() -> Results:
        private_dir(folder.parent)
        write_healthy(folder, PHANTOM_CONTROLS, seed, size=settings.sampling.width)
        return {"photographs": PHANTOM_CONTROLS}

    inputs = {"number of phantoms": PHANTOM_CONTROLS, "seed": seed, "size": settings.sampling.width}
    run.stages.run(Stage("photographs-control", lambda: inputs, [folder], work))
    return folder


def photographs_for(training_faces: int, holdout: float) -> int:
    """How many photographs, a person each, leave `training_faces` beside the hold-out's share."""
    n = training_faces
    while n - (max(1, round(holdout * n)) if holdout > 0 else 0) < training_faces:
        n += 1
    return n


def build(run: Run, condition: Condition, photographs: Photographs) -> Results:
    """Photographs → checked, captioned private dataset with its hold-out."""
    from ..dataset.build import build_dataset
    from ..dataset.folder import ROLES, dataset_rows
    from ..faces.analyzer import load_face_analyzer
    from ..imageset.decode import INGEST_VERSION
    from ..imageset.places import MANIFEST
    from .withdrawal import note_change, reach_studies

    settings, folders = run.settings, run.folders
    out = folders.dataset(condition.name)
    choices = BuildSettings(
        holdout=settings.holdout,
        seed=settings.seed,
        min_side=settings.min_side,
        bracketed=settings.bracketed,
        whole_captions=settings.whole_captions,
        phantom=settings.phantom,
    )
    earlier = settings.conditions[: settings.conditions.index(condition.name)]
    others = [folders.dataset(name) for name in earlier]

    def consent_changed(change: ConsentChange) -> None:
        for message in note_change(out, change):
            run.warn(message)

    def work() -> Results:
        faces = load_face_analyzer(settings.faces, device=settings.sampling.device.type)
        try:
            result = build_dataset(
                replace(photographs, apart_from=others),
                condition,
                out,
                faces,
                settings=choices,
                arguments=readmit_arguments(settings, photographs, condition, others, choices),
                on_change=consent_changed,
            )
        finally:  # a build that no photograph may enter any more stops, too
            for message in reach_studies(out):
                run.warn(message)
        for message in (*result.notices, *result.warnings):
            run.warn(message)
        if not result.count("train"):
            raise UserError(
                f"no {condition.name} photograph can be trained on; what was set aside, and why: "
                f"diffusioncleft dataset show {out} --list"
            )
        return {
            "training_images": result.count("train"),
            "holdout_images": result.count("holdout"),
            "subjects": result.subjects,
            "set_aside": result.reasons,
            WARNINGS: list(result.warnings),
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
    done = run.stages.run(Stage(f"dataset-{condition.name}", inputs, [manifest], work, after, always))
    # Captions are edited after a build too.
    there = manifest.is_file()
    rows = dataset_rows(out, "train") if there else []
    return done | {
        "manifest": sha256_file(manifest) if there else None,
        "trained_on": digest_of(described(rows, healthy=False)) if there else None,
        "healthy_captions": digest_of([row.healthy_caption for row in rows])
        if any(row.healthy_caption for row in rows)
        else None,
    }


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
    """Content hashes of the photographs and of their table, where there is one."""
    table = [sha256_file(path) for path in (photographs.metadata,) if path is not None and path.is_file()]
    return [*folder_digests(photographs.folder), *table]


def folder_digests(folder: Path) -> list[str]:
    """Content hashes of everything in the folder, names included, so that a change is noticed."""
    return [
        f"{path.relative_to(folder).as_posix()} {sha256_file(path)}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    ]
