"""A consent was withdrawn after training: what it reaches is marked, said, and on request erased."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..conditions.vocabulary import Condition
from ..dataset.drawn import remembered_places, remembered_urls
from ..dataset.folder import KEY, WITHDRAWN, dataset_lock, erase
from ..dataset.opened import sources_with_consent
from ..dataset.rating_consent import studies_of, write_rating_consent
from ..dataset.settings import Photographs, read_roles
from ..dataset.trained import (
    ConsentChange,
    recorded_runs,
    to_withdraw,
    trained_places,
    training_sources,
    withdraw,
    withdraw_unrecorded,
)
from ..dataset.unopened import look_through
from ..dataset.withdrawn import (
    MARK,
    Withdrawal,
    add_marks,
    change_user_register,
    known_withdrawals,
    lift_marks,
    lora_run,
    merged,
    read_register,
)
from ..errors import UserError
from ..files import LOCK, folder_lock, remove_leftovers, sha256_model, shown
from ..imageset.places import REJECTED
from ..report.folders import RunFolders
from ..report.withdrawn import refresh_report
from ..study.consent import refresh_studies
from .holdings import (
    CHECKPOINTS,
    CLASSIFIER,
    IMAGES,
    LORA,
    REPORT,
    Held,
    Search,
    folders_below,
    is_checkpoint,
)
from .stages import SUPERSEDED
from .withdraw_arguments import folder_of, not_built, paths_of, read_given, run_of

COMMAND = "diffusioncleft dataset withdraw"
_MARKED = (LORA, CHECKPOINTS, IMAGES, CLASSIFIER)
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
    return told + _in_stores(withdrawals)


def foreseen(dataset: Path, photographs: Photographs, condition: Condition) -> list[str]:
    """What a build of these photographs would say of withdrawn consent, and what is marked already.

    Nothing is written.
    """
    if not (dataset / KEY).is_file():
        return []
    found = look_through(photographs, condition, dataset=dataset)
    _, _, allowed = sources_with_consent(photographs.folder, found)
    gone, told = training_sources(read_roles(dataset)) - allowed, []
    if gone:
        told.append(f"training photographs of {dataset.name} that no longer have consent: {len(gone)}")
    coming = to_withdraw(dataset, allowed)
    if coming and (held := _search(dataset, coming).held()):
        told.append(f"the run marks as withdrawn what learned from them, and what that drew:{_listed(held)}")
    marked_before = read_register(dataset / WITHDRAWN)
    if marked_before and (held := _search(dataset, marked_before).held()):
        told.append(
            f"marked as withdrawn already; '{COMMAND} {_where(dataset, held)}' erases it:{_listed(held)}"
        )
    return told + _in_stores([*coming, *marked_before])


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
        withdrawals = [*withdraw(dataset), *_unrecorded(dataset)]
        held = mark_withdrawn(dataset, withdrawals)
        write_rating_consent(dataset, ())
    told = [_marked(dataset, held)] if held else []
    return [*told, *_in_stores(withdrawals), *reach_studies(dataset)]


def mark_withdrawn(dataset: Path, withdrawals: Sequence[Withdrawal]) -> list[Held]:
    """Mark LoRAs, sets and reports of these trainings where they are known to lie; returns what is held."""
    return marked(_search(dataset, withdrawals).held()) if withdrawals else []


def marked(held: Sequence[Held]) -> list[Held]:
    """Mark each thing with the withdrawals that reach it, and remember the LoRAs among them.

    Returns all of it, each with its mark.
    """
    found = []
    for item in held:
        # A report of another version, or a disk that can't be written: it is named all the same, and the
        # user's list knows it.
        with contextlib.suppress(UserError):
            if item.kind in _MARKED:
                add_marks(folder_of(item), item.withdrawals)
            elif item.kind == REPORT:
                refresh_report(item.place, item.withdrawals)
        mark = folder_of(item) / MARK
        new = item.kind in _MARKED and not item.partial and mark not in item.files and mark.is_file()
        found.append(replace(item, files=(*item.files, mark)) if new else item)
    learned = [reached for item in held if item.kind == LORA for reached in item.withdrawals]
    change_user_register(lambda known: merged([*known, *learned]))
    return found


def find_withdrawn(paths: Sequence[Path]) -> tuple[list[Held], list[str]]:
    """Everything in runs, datasets and other folders in which a withdrawn photograph has a share, marked; and
    sentences on datasets among them whose last build does not tell what their tables say now.

    paths: folders, and single files.
    """
    given = read_given(paths)
    flat = [place for dataset in given.datasets for place in _known_places(dataset)]
    flat += _drawn_elsewhere(item for folder in given.datasets for item in read_register(folder / WITHDRAWN))
    search = Search(known_withdrawals(*given.datasets), given.deep, flat, given.single)
    return marked(search.held()), not_built(given.datasets)


def in_stores(paths: Sequence[Path], held: Sequence[Held]) -> list[str]:
    """Sentences on the stores to which something was exported of what is held, or of these paths' datasets.

    paths: as `find_withdrawn` was given them, before anything is erased.
    """
    known = [item for dataset in read_given(paths).datasets for item in read_register(dataset / WITHDRAWN)]
    return _in_stores([*known, *(reached for item in held for reached in item.withdrawals)])


@dataclass(frozen=True)
class Erased:
    """`files`: how many were erased; `left`: what in folders of images is not ours."""

    files: int
    left: Mapping[Path, tuple[str, ...]]


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
    left = {place: tuple(sorted(map(shown, os.listdir(place)))) for place in sorted(sets) if place.exists()}
    return Erased(count, left)


def _busy(place: Path) -> Callable[[str], str]:
    return lambda owner: f"process {owner} is at work in {shown(place)}; stop it, and run this again"


def described(held: Sequence[Held]) -> list[str]:
    """A line for each thing."""
    return [f"{f'{item.n} ' if item.n > 1 else ''}{item.kind}: {shown(item.place)}" for item in held]


def _search(dataset: Path, withdrawals: Sequence[Withdrawal]) -> Search:
    run = run_of(dataset)
    flat = [*_known_places(dataset), *_drawn_elsewhere(withdrawals)]
    return Search(withdrawals, [run.root] if run else [], flat)


def _known_places(dataset: Path) -> list[Path]:
    """Folders that the dataset itself knows: of its trainings, and of studies that show its photographs."""
    return [*trained_places(dataset), *(study for study in studies_of(dataset) if study.is_dir())]


def _drawn_elsewhere(withdrawals: Iterable[Withdrawal]) -> list[Path]:
    """Folders in which sets, sheets, figures, pages, studies, converted LoRAs of these trainings were put."""
    return remembered_places({name for item in withdrawals for name in item.names})


def _in_stores(withdrawals: Iterable[Withdrawal]) -> list[str]:
    """A sentence for each URL to which images of these trainings were exported from this machine."""
    return [
        f"images of it were exported to {shown(url)}, where no command erases: delete what lies there "
        "yourself, with earlier versions that the store keeps, and tell whoever has loaded it"
        for url in remembered_urls({name for item in withdrawals for name in item.names})
    ]


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
    return (
        "withdrawn is what learned from them, and what that drew; nothing is drawn with these LoRAs any "
        f"more, and '{COMMAND} {_where(dataset, held)}' erases all of it:{_listed(held)}"
    )


def _listed(held: Sequence[Held]) -> str:
    """A line each, indented under the sentence that announces them."""
    return "".join(f"\n  {line}" for line in described(held))


def _where(dataset: Path, held: Sequence[Held]) -> str:
    """The paths, for a shell, that `dataset withdraw` is given to erase all of it."""
    return " ".join(shlex.quote(shown(path)) for path in paths_of(held, dataset))


def _lift(item: Held, restored: Sequence[Withdrawal]) -> None:
    if item.kind in _MARKED:
        lift_marks(folder_of(item), restored)
    elif item.kind == REPORT:
        with contextlib.suppress(UserError):
            refresh_report(item.place)


def _in_run(place: Path) -> bool:
    return any(RunFolders(parent).stages.is_dir() for parent in place.parents)


def _remove_empty(place: Path) -> None:
    """Remove a folder in which nothing is left but what is ours, and what held it among the superseded."""
    if place.is_dir():
        remove_leftovers(place)
        rejected = place / REJECTED
        if rejected.is_dir() and not any(rejected.iterdir()):
            erase(rejected)
        erase(place / LOCK)
        if not any(place.iterdir()):
            place.rmdir()
    for parent in list(place.parents)[:2]:
        aside = SUPERSEDED in (parent.name, parent.parent.name)
        if aside and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
