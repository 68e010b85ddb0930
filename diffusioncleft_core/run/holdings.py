"""What withdrawn trainings left in folders: LoRAs, checkpoints, images, sheets, reports."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..dataset.drawn import loose_images, set_names
from ..dataset.folder import is_dataset
from ..dataset.trained import run_fingerprint
from ..dataset.withdrawn import (
    CHOSEN_BY,
    MARK,
    TRAINED_ON,
    Withdrawal,
    file_names,
    merged,
    metadata_of,
    read_mark,
)
from ..downstream.document import training_names
from ..downstream.learned import private_files
from ..downstream.model import FILE_NAME as MODEL
from ..errors import UserError
from ..files import parse_json, read_json, sha256_model
from ..imageset.manifest import listed_rows
from ..imageset.places import CROPS_CACHE, FACES_CACHE, MANIFEST, REJECTED, SETTINGS, sidecar_of
from ..imageset.shards import KIND as SHARDS_KIND
from ..imageset.shards import part_names
from ..recipe.document import FILE_NAME
from ..report.drawing import KINDS, SUFFIXES
from ..report.folders import RunFolders
from ..report.html import figures_folder
from ..report.loras import page_loras, report_loras
from ..report.nearest import NEAREST_FILE
from ..report.run_folder import HTML, PRIVATE_HTML
from ..study.folder import is_study, open_study
from .stages import SUPERSEDED

LORA, CHECKPOINTS, IMAGES, SHEET, CLASSIFIER, FIGURES, REPORT, PAGE, DERIVED, SHOWN, SHARDS = (
    "LoRA", "checkpoints, previews and losses", "images", "sheet", "classifier", "figures of classifiers",
    "report", "report page", "what was computed from images", "pictures of a rater study", "exported shards",
)  # fmt: skip
_CHECKPOINTS = "state"
_HEADER = "checkpoint"
"""Where the trainer's checkpoints say what they were made from."""
BESIDE_CHECKPOINTS = ("previews", "loss.jsonl", "loss.png", "logs", _CHECKPOINTS)
_COMPUTED = (FACES_CACHE, CROPS_CACHE, ".embeddings", ".measure")
"""What was computed from the images in a folder."""
_TELLING = (MANIFEST, SETTINGS, MARK)
"""What tells what drew the images in a folder."""
_LARGEST_JSON = 4 << 20
"""Bytes up to which a JSON file may be a sidecar or a report."""


@dataclass(frozen=True)
class Held:
    """One thing in which a withdrawn photograph has a share.

    kind: one of the kinds above; place: the file, or the folder it is; files: files and folders that are
    erased with it, in this order: by the last ones it is found again when the erasing is interrupted; n: how
    many LoRAs or images it is; withdrawals: those that reach it; partial: others that are withdrawn too, and
    were not asked for, lie beside it, so that the mark stays.
    """

    kind: str
    place: Path
    files: tuple[Path, ...]
    n: int = 1
    withdrawals: tuple[Withdrawal, ...] = ()
    partial: bool = False


class Search:
    """Looks for what withdrawn trainings left.

    Args:
        withdrawals: the trainings.
        deep: folders that are looked into with all that is below them, datasets aside.
        flat: folders of which only their own files count: somebody may keep other things below them.
        single: files, or parts of a training's folder, that are asked for without what lies beside them.
        part: what photographs were to the trainings, one of `dataset.withdrawn`'s.
    """

    def __init__(
        self,
        withdrawals: Iterable[Withdrawal],
        deep: Iterable[Path],
        flat: Iterable[Path] = (),
        single: Iterable[Path] = (),
        *,
        part: str = TRAINED_ON,
    ) -> None:
        self._known, self._part = list(withdrawals), part
        roots = [folder.resolve() for folder in deep if folder.is_dir()]
        self._runs = [folders for root in roots if (folders := RunFolders(root)).stages.is_dir()]
        places = [folder for root in roots for folder in folders_below(root)]
        self._whole = dict.fromkeys([*places, *(folder.resolve() for folder in flat)])
        self._single = {path.parent.resolve() / path.name for path in single}
        self._folders = list(dict.fromkeys([*self._whole, *sorted(path.parent for path in self._single)]))

    def held(self) -> list[Held]:
        """What is there now. LoRAs come first, because what they drew is known by them; what was computed
        from something found comes last.
        """
        marks = [item for folder in self._folders for item in read_mark(folder, self._part)]
        self._known = merged([*self._known, *marks])
        found = [item for folder in self._folders for item in self._learned(folder)]
        found += [item for folder in self._folders for item in self._drawn(folder)]
        return found + [item for folders in self._runs for item in _derived(folders, found)]

    def _learned(self, folder: Path) -> Iterator[Held]:
        """LoRAs, checkpoints, previews and losses."""
        files = sorted(folder.glob("*.safetensors"))
        withdrawn = [file for file in files if self._reaches(file)]
        loras = [file for file in withdrawn if self._asked(file)]
        if loras:
            reached = merged(item for file in loras for item in self._reaches(file))
            own: tuple[str, ...] = (MARK,) if mark_is_of(folder, reached) else ()
            own += (FILE_NAME,) if len(loras) == len(files) else ()
            more = there(folder / name for name in own) if loras == withdrawn else []
            place = loras[0] if len(loras) == 1 else folder
            partial = loras != withdrawn
            yield Held(LORA, place, (*more, *loras), len(loras), tuple(reached), partial)
        # What lies beside the checkpoints is of the last training into the folder.
        last = checkpointed_runs(folder / _CHECKPOINTS)
        reached = [item for item in self._known if item.run in last] or (
            [] if last else [item for file in withdrawn for item in self._reaches(file)]
        )
        beside = there(folder / name for name in BESIDE_CHECKPOINTS)
        if reached and self._asked(*beside):
            yield Held(CHECKPOINTS, folder, tuple(beside), withdrawals=tuple(merged(reached)))

    def _drawn(self, folder: Path) -> Iterator[Held]:
        """Sets; studies that show some of them; sheets and grids; reports."""
        if (folder / SETTINGS).is_file():
            if folder in self._whole and (reached := self._of(set_names(folder))):
                images, files = set_files(folder)
                yield Held(IMAGES, folder, tuple(files), images, tuple(reached))
            return
        if is_study(folder):
            study = open_study(folder)
            found = {
                study.image(item.id): reached
                for item in study.items
                if study.has_image(item.id) and (reached := self._of({item.lora or ""}))
            }
            if found and folder in self._whole:
                reached = merged(item for items in found.values() for item in items)
                yield Held(SHOWN, folder, tuple(found), len(found), tuple(reached))
            return
        yield from self._loose(folder)
        paged: set[Path] = set()
        for file in sorted(folder.glob("*.json")):
            if not self._asked(file, file.with_suffix(".png")):
                continue
            document = _document(file)
            if document.get("synthetic") is True:
                loras = [*_listed(document, "loras"), *_listed(document, "trainings")]
                if reached := self._of(loras):
                    files = there((file.with_suffix(".png"), file))
                    yield Held(SHEET, files[0], tuple(files), withdrawals=tuple(reached))
            elif document.get("kind") == SHARDS_KIND:
                if reached := self._of(_listed(document, "loras")):
                    yield Held(SHARDS, folder, tuple(_exported(file, document)), withdrawals=tuple(reached))
            elif reached := self._of(training_names(document)):
                is_model = file.name == MODEL
                beside = there([folder / MARK, *private_files(folder)]) if is_model else []
                parts = sorted(folder.glob("seed-*.safetensors" if is_model else "*/seed-*.jsonl"))
                kind = CLASSIFIER if is_model else FIGURES
                yield Held(kind, file, (*parts, *beside, file), withdrawals=tuple(reached))
            elif reached := self._of(report_loras(document)):
                folders = RunFolders(folder)
                page = folder / HTML
                pages = [folders.summary, figures_folder(page), page] if file == folders.report else []
                paged.update(pages)
                yield Held(REPORT, file, tuple(there([*pages, file])), withdrawals=tuple(reached))
        for page in sorted({*folder.glob("*.html")} - paged):
            if self._asked(page) and (reached := self._of(page_loras(page))):
                yield Held(PAGE, page, (*_plots(figures_folder(page)), page), withdrawals=tuple(reached))

    def _loose(self, folder: Path) -> Iterator[Held]:
        """Images that were copied out of a set: each says itself what drew it."""
        images = loose_images(folder)
        withdrawn = {image: reached for image, names in images.items() if (reached := self._of(names))}
        asked = {
            image for image in withdrawn if folder in self._whole or self._asked(image, sidecar_of(image))
        }
        found = {image: withdrawn[image] for image in withdrawn if image in asked}
        if found:
            files = there(path for image in found for path in (image, sidecar_of(image)))
            reached = merged(item for items in found.values() for item in items)
            every, partial = len(found) == len(images), len(found) < len(withdrawn)
            own = _TELLING if every else (MARK,) * (not partial and mark_is_of(folder, reached))
            before = there(folder / name for name in _COMPUTED) if every else []
            after = there(folder / name for name in own)
            yield Held(IMAGES, folder, (*before, *files, *after), len(found), tuple(reached), partial)

    def _asked(self, *files: Path) -> bool:
        """Whether these are there to be looked at: their folder is, or one of them is asked for by itself."""
        return any(file.parent in self._whole or file in self._single for file in files)

    def _of(self, names: Iterable[str]) -> list[Withdrawal]:
        """The withdrawals that reach what is known by one of these names."""
        names = set(names)
        return [item for item in self._known if item.reaches(names)]

    def _reaches(self, file: Path) -> list[Withdrawal]:
        """The withdrawals under which a LoRA file falls; they know its hash from then on."""
        if not self._known:
            return []
        reached = self._of(file_names(file, self._part))
        if not reached:
            return []
        digest = sha256_model(file)
        self._known = merged(
            [*self._known, *(replace(item, loras=(*item.loras, digest)) for item in reached)]
        )
        return self._of({digest})


def mark_is_of(folder: Path, reached: Sequence[Withdrawal]) -> bool:
    """Whether the mark in `folder` says of no training but these that photographs had another part in it."""
    runs, parts = {item.run for item in reached}, {item.part for item in reached}
    others = [part for part in (TRAINED_ON, CHOSEN_BY) if part not in parts]
    return all(item.run in runs for part in others for item in read_mark(folder, part))


def folders_below(root: Path) -> Iterator[Path]:
    """The folder and all below it, but for datasets, hidden folders, and what lies in a set's folder."""
    for place, folders, files in os.walk(root, followlinks=False):
        if is_dataset(Path(place)):
            folders.clear()
            continue
        is_set, listed = SETTINGS in files, {REJECTED} if MANIFEST in files else set()
        below = sorted(name for name in folders if not name.startswith(".") and name not in listed)
        folders[:] = [] if is_set else below
        yield Path(place)


def is_checkpoint(file: Path) -> bool:
    """Whether a safetensors file is a checkpoint of our trainer, which is no LoRA."""
    return _HEADER in metadata_of(file)


def checkpointed_runs(folder: Path) -> set[str]:
    """Fingerprints of the trainings whose checkpoints lie in a folder."""
    found = set()
    for file in folder.glob("step-*.safetensors"):
        try:
            made_from = parse_json(metadata_of(file).get(_HEADER, "{}")).get("matters")
        except (ValueError, AttributeError):
            continue
        if isinstance(made_from, dict):
            found.add(run_fingerprint(made_from))
    return found


def set_files(folder: Path) -> tuple[int, list[Path]]:
    """How many images a generated set has, and everything in its folder that a stage of ours wrote."""
    images = {(folder / row.file) for row in listed_rows(folder)}
    for place in (folder, folder / REJECTED):
        for file in place.glob("*.json"):
            if _document(file).get("synthetic") is True:
                images.add(file.with_suffix(".png"))
    files = [path for image in sorted(images) for path in (image, sidecar_of(image))]
    return len(images), there([*files, *(folder / name for name in (*_COMPUTED, *_TELLING))])


def _exported(index: Path, document: Mapping[str, Any]) -> list[Path]:
    """The files of an export in a folder, its index last."""
    return there([*(index.parent / name for name in part_names(document)), index])


def there(paths: Iterable[Path]) -> list[Path]:
    """Those that exist."""
    return [path for path in paths if path.exists()]


def _derived(folders: RunFolders, found: Sequence[Held]) -> Iterator[Held]:
    """In a run's private part: face records, nearest pairs, and the results of stages whose outputs go.

    Where what the photograph reaches was made anew since, its face records alone are left.
    """
    root = folders.root
    inside = [item.place.relative_to(root) for item in found if item.place.is_relative_to(root)]
    if not inside:
        return
    generated = (root / "generated").resolve()
    stale = [item.place.name for item in found if item.place.parent == generated]
    stages = [f"{stage}-{name}" for stage in ("generation", "oracle") for name in stale]
    stages += ["filters", "measurements", "downstream", "study"] if stale else []
    names = ["faces"]
    if not (folders.report.is_file() and all(SUPERSEDED in place.parts for place in inside)):
        names += ["downstream", NEAREST_FILE, PRIVATE_HTML, *(f"stages/{stage}.json" for stage in stages)]
    files = there(folders.private / name for name in names)
    if files:
        yield Held(DERIVED, folders.private, tuple(files))


def _plots(folder: Path) -> list[Path]:
    """The folder of a page's plots where it holds nothing else, else the plots in it."""
    files = list(folder.iterdir()) if folder.is_dir() else []
    plots = sorted(
        {path for kind in KINDS for suffix in SUFFIXES for path in folder.glob(f"{kind}.{suffix}")}
    )
    return [folder] if plots and set(files) == set(plots) else plots


def _listed(document: dict[str, Any], key: str) -> list[str]:
    found = document.get(key)
    return list(map(str, found)) if isinstance(found, list) else []


def _document(file: Path) -> dict[str, Any]:
    """A JSON object; an empty one for what is none, which is not ours to judge."""
    try:
        found = read_json(file) if file.stat().st_size <= _LARGEST_JSON else None
    except (OSError, UserError):
        return {}
    return found if isinstance(found, dict) else {}
