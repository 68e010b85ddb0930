"""A consent was withdrawn after training: what it reaches is marked, said, and on request erased."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..dataset.folder import KEY, dataset_lock, erase, is_dataset
from ..dataset.rating_consent import studies_of, write_rating_consent
from ..dataset.trained import ConsentChange, recorded_runs, trained_places, withdraw, withdraw_unrecorded
from ..dataset.withdrawn import Withdrawal, add_marks, known_withdrawals, lift_marks, lora_run
from ..errors import UserError
from ..files import LOCK, folder_lock, sha256_model, shown
from ..report.folders import RunFolders
from ..report.withdrawn import refresh_report
from ..study.consent import refresh_studies
from .holdings import CHECKPOINTS, IMAGES, LORA, REPORT, Held, Search, folders_below, is_checkpoint
from .stages import SUPERSEDED

COMMAND = "diffusioncleft dataset withdraw"
_MARKED = (LORA, CHECKPOINTS, IMAGES)
"""Kinds beside which a mark is put."""


def note_change(dataset: Path, change: ConsentChange) -> list[str]:
    """Mark what learned from withdrawn photographs and what that drew, or lift the marks; sentences on it."""
    if change.restored:
        for item in _search(dataset, change.restored).held():
            _lift(item, change.restored)
        return [
            f"all photographs of {len(change.restored)} earlier trainings of {dataset.name} have consent "
            "again; what they left is no longer marked as withdrawn"
        ]
    withdrawals = list(change.withdrawn)
    if change.gone:
        withdrawals += _unrecorded(dataset)
    held = mark_withdrawn(dataset, withdrawals)
    told = [_marked(dataset, held)] if held else []
    if change.gone:
        told.insert(0, f"training photographs of {dataset.name} that no longer have consent: {change.gone}")
    return told


def reach_studies(dataset: Path) -> list[str]:
    """Erase from studies what their raters may not see any more of a dataset; sentences on it."""
    return refresh_studies(studies_of(dataset))


def withdraw_dataset(dataset: Path) -> list[str]:
    """Mark everything that was ever trained on a dataset, as before it is purged; sentences on it.

    The copies of its photographs in studies are erased.
    """
    if not (dataset / KEY).is_file():
        return []
    with dataset_lock(dataset):
        held = mark_withdrawn(dataset, [*withdraw(dataset), *_unrecorded(dataset)])
        write_rating_consent(dataset, ())
    return [*([_marked(dataset, held)] if held else []), *reach_studies(dataset)]


def mark_withdrawn(dataset: Path, withdrawals: Sequence[Withdrawal]) -> list[Held]:
    """Mark LoRAs, sets and reports of these trainings where they are known to lie; returns what is held."""
    if not withdrawals:
        return []
    held = _search(dataset, withdrawals).held()
    for item in held:
        if item.kind in _MARKED:
            add_marks(folder_of(item), withdrawals)
        elif item.kind == REPORT:
            with contextlib.suppress(UserError):  # one of another version, which is erased all the same
                refresh_report(item.place, withdrawals)
    return held


def find_withdrawn(folders: Sequence[Path]) -> list[Held]:
    """Everything in runs, datasets and other folders in which a withdrawn photograph has a share."""
    deep: list[Path] = []
    datasets: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; give the folder of a run, a dataset, LoRAs or images")
        if is_dataset(folder):
            datasets.append(folder)
            run = run_of(folder)
            deep += [run.root] if run else []
        else:
            deep.append(folder)
            datasets += [path for path in RunFolders(folder).private.glob("*") if is_dataset(path)]
    flat = [place for dataset in datasets for place in trained_places(dataset)]
    return Search(known_withdrawals(*datasets), deep, flat).held()


@dataclass(frozen=True)
class Erased:
    """`files`: how many were erased; `left`: folders of images in which something that is not ours lies."""

    files: int
    left: tuple[Path, ...]


def erase_held(held: Sequence[Held]) -> Erased:
    """Erase it for good. UserError, and nothing is erased, while a process works in one of the folders."""
    places = list(dict.fromkeys(folder_of(item) for item in held if item.kind in _MARKED))
    for place in places:
        if (place / LOCK).is_file():
            with folder_lock(place, _busy(place)):
                pass
    count = 0
    for path in (path for item in held for path in item.files):
        count += sum(file.is_file() for file in path.rglob("*")) if path.is_dir() else path.exists()
        erase(path)
    sets = {item.place for item in held if item.kind == IMAGES}
    for place in places:
        if place in sets or _in_run(place):  # others, as ComfyUI's models/loras, are not ours to remove
            _remove_empty(place)
    return Erased(count, tuple(sorted(place for place in sets if place.exists())))


def _busy(place: Path) -> Callable[[str], str]:
    return lambda owner: f"process {owner} is at work in {shown(place)}; stop it, and run this again"


def described(held: Sequence[Held]) -> list[str]:
    """A line for each thing."""
    return [f"{f'{item.n} ' if item.n > 1 else ''}{item.kind}: {shown(item.place)}" for item in held]


def folder_of(item: Held) -> Path:
    """The folder in which it lies, or which it is."""
    return item.place if item.place.is_dir() else item.place.parent


def run_of(dataset: Path) -> RunFolders | None:
    """The run to which a dataset belongs; None for one that stands alone."""
    private = Path(dataset).resolve().parent
    folders = RunFolders(private.parent)
    return folders if folders.private == private and folders.stages.is_dir() else None


def _search(dataset: Path, withdrawals: Sequence[Withdrawal]) -> Search:
    run = run_of(dataset)
    return Search(withdrawals, [run.root] if run else [], trained_places(dataset))


def _unrecorded(dataset: Path) -> list[Withdrawal]:
    """LoRAs of the dataset's run that no record knows, as earlier versions trained them: each may have seen
    the photograph."""
    run = run_of(dataset)
    if run is None:
        return []
    known = recorded_runs(dataset)
    roots = [run.training(dataset.name), *(run.root / SUPERSEDED).glob(f"training-{dataset.name}-*")]
    places = [folder for root in roots for folder in folders_below(root)]
    files = [file for folder in places for file in folder.glob("*.safetensors")]
    found = [file for file in files if not is_checkpoint(file) and lora_run(file) not in known]
    return withdraw_unrecorded(dataset, [(lora_run(file), sha256_model(file)) for file in found])


def _marked(dataset: Path, held: Sequence[Held]) -> str:
    run = run_of(dataset)
    folders = [run.root] if run else list(dict.fromkeys(map(folder_of, held)))
    where = " ".join(shlex.quote(shown(folder)) for folder in folders)
    return (
        f"withdrawn is what learned from them, and what that drew: {'; '.join(described(held))}. Nothing is "
        f"drawn with these LoRAs any more; '{COMMAND} {where}' erases all of it"
    )


def _lift(item: Held, restored: Sequence[Withdrawal]) -> None:
    if item.kind in _MARKED:
        lift_marks(folder_of(item), restored)
    elif item.kind == REPORT:
        with contextlib.suppress(UserError):
            refresh_report(item.place)


def _in_run(place: Path) -> bool:
    return any(RunFolders(parent).stages.is_dir() for parent in place.parents)


def _remove_empty(place: Path) -> None:
    """Remove a folder in which nothing is left, and what held it among the superseded ones."""
    if place.is_dir() and {path.name for path in place.iterdir()} <= {LOCK}:
        erase(place)
    for parent in list(place.parents)[:2]:
        aside = SUPERSEDED in (parent.name, parent.parent.name)
        if aside and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
