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
    withdraw_unrecorded,
    withdrawing,
)
from ..dataset.unopened import look_through
from ..dataset.withdrawn import (
    CHOSEN_BY,
    MARK,
    MARK_LOCK,
    MEASURED_ON,
    TRAINED_ON,
    Withdrawal,
    add_marks,
    change_user_register,
    known_withdrawals,
    lift_marks,
    lora_run,
    merged,
    of_part,
    read_register,
)
from ..errors import UserError
from ..files import LOCK, folder_lock, sha256_model, shown
from ..imageset.places import REJECTED, remove_set_leftovers
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
    mark_is_of,
)
from .stages import SUPERSEDED
from .withdraw_arguments import Given, folder_of, not_built, paths_of, read_given, run_of

COMMAND = "diffusioncleft dataset withdraw"
PARTS = (TRAINED_ON, CHOSEN_BY, MEASURED_ON)
_MARKED = (LORA, CHECKPOINTS, IMAGES, CLASSIFIER)
"""Kinds beside which a mark is put."""
_CHOSEN = (
    "had a part in choosing the step of these LoRAs (early stop), which learned nothing from them and may "
    "still be used"
)
_MEASURED = (
    "had no part in these LoRAs, but their validation loss was measured on them; loss.jsonl and loss.png "
    "beside them hold it"
)


def note_change(dataset: Path, change: ConsentChange) -> list[str]:
    """Mark what learned from withdrawn photographs and what that drew, or lift the marks; sentences on it."""
    if change.restored:
        restored = {part: found for part in PARTS[:2] if (found := of_part(change.restored, part))}
        for part, found in restored.items():
            for item in _search(dataset, found, part).held():
                _lift(item, found)
        runs = {item.run for found in restored.values() for item in found}
        said = "have consent again; what they left is no longer marked as withdrawn"
        return [f"all photographs of {len(runs)} earlier trainings of {dataset.name} {said}"] if runs else []
    withdrawals = of_part(change.withdrawn, TRAINED_ON)
    if change.gone:
        withdrawals += _unrecorded(dataset)
    held = mark_withdrawn(dataset, withdrawals)
    told = [_marked(dataset, held)] if held else []
    if change.gone:
        told.insert(0, f"training photographs of {dataset.name} that no longer have consent: {change.gone}")
    told += _in_stores(withdrawals)
    validated = [message for part in PARTS[1:] for message in _validated(dataset, change.withdrawn, part)]
    if validated and change.held_out:
        told.append(f"held-out photographs of {dataset.name} that no longer have consent: {change.held_out}")
    return told + validated


def foreseen(dataset: Path, photographs: Photographs, condition: Condition) -> list[str]:
    """What a build of these photographs would say of withdrawn consent, and what is marked already.

    Nothing is written.
    """
    if not (dataset / KEY).is_file():
        return []
    found = look_through(photographs, condition, dataset=dataset)
    _, _, allowed = sources_with_consent(photographs.folder, found)
    gone, told = training_sources(read_roles(dataset)) - allowed.keys(), []
    if gone:
        told.append(f"training photographs of {dataset.name} that no longer have consent: {len(gone)}")
    every = to_withdraw(dataset, allowed)
    coming = of_part(every, TRAINED_ON)
    if coming and (held := _search(dataset, coming).held()):
        told.append(f"the run marks as withdrawn what learned from them, and what that drew:{_listed(held)}")
    if chosen := _loras_of(dataset, every, CHOSEN_BY):
        told.append(
            f"held-out photographs of {dataset.name} that no longer have consent {_CHOSEN}:{_listed(chosen)}"
        )
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
    with dataset_lock(dataset), withdrawing(dataset) as every:
        withdrawals = [*of_part(every, TRAINED_ON), *_unrecorded(dataset)]
        held = mark_withdrawn(dataset, withdrawals)
        told = [_marked(dataset, held)] if held else []
        told += [message for part in PARTS[1:] for message in _validated(dataset, every, part)]
        write_rating_consent(dataset, ())
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
        new = new and mark_is_of(mark.parent, item.withdrawals)
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
    return marked(_found(given, TRAINED_ON)), not_built(given.datasets)


def find_chosen(paths: Sequence[Path], withdrawn: Sequence[Held]) -> list[Held]:
    """LoRAs whose step withdrawn photographs helped to choose, and what these drew, but for what is among the
    `withdrawn` of `find_withdrawn`. It may be used, and is marked nowhere but beside the LoRAs.
    """
    known, chosen = {path for item in withdrawn for path in item.files}, []
    for item in _found(read_given(paths), CHOSEN_BY):
        files = tuple(path for path in item.files if path not in known)
        loras = sum(path.suffix == ".safetensors" for path in files)
        if loras or (files and item.kind != LORA):
            chosen.append(replace(item, files=files, n=loras if item.kind == LORA else item.n))
    return chosen


def _found(given: Given, part: str) -> list[Held]:
    listed = [item for folder in given.datasets for item in read_register(folder / WITHDRAWN, part)]
    flat = [place for dataset in given.datasets for place in _known_places(dataset)]
    flat += _drawn_elsewhere(listed)
    known = known_withdrawals(*given.datasets, part=part)
    return Search(known, given.deep, flat, given.single, part=part).held()


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
    """Erase it for good. UserError, and nothing is erased, while a process works in one of the folders.

    What is found by another thing goes before it, and marks go last, so that whoever looks after an
    interruption finds the rest.
    """
    places = list(dict.fromkeys(folder_of(item) for item in held if item.kind in _MARKED))
    for place in places:
        if (place / LOCK).is_file():
            with folder_lock(place, _busy(place)):
                pass
    count = 0
    paths = [path for item in reversed(held) for path in item.files]
    for path in sorted(paths, key=lambda path: path.name == MARK):
        count += sum(file.is_file() for file in path.rglob("*")) if path.is_dir() else path.exists()
        if path.name == MARK:
            erase(path.with_name(MARK_LOCK))
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


def _search(dataset: Path, withdrawals: Sequence[Withdrawal], part: str = TRAINED_ON) -> Search:
    run = run_of(dataset)
    flat = [*_known_places(dataset), *_drawn_elsewhere(withdrawals)]
    return Search(withdrawals, [run.root] if run else [], flat, part=part)


def _loras_of(dataset: Path, every: Sequence[Withdrawal], part: str) -> list[Held]:
    """The LoRAs in which photographs had this part, without those that are withdrawn altogether."""
    learned = {item.run for item in [*of_part(every, TRAINED_ON), *known_withdrawals(dataset)]}
    reached = [item for item in of_part(every, part) if item.run not in learned]
    found = _search(dataset, reached, part).held() if reached else []
    return [item for item in found if item.kind == LORA]


def _validated(dataset: Path, every: Sequence[Withdrawal], part: str) -> list[str]:
    """A sentence on LoRAs that photographs helped to choose or measure; the former are marked so."""
    loras = _loras_of(dataset, every, part)
    if not loras:
        return []
    if part == MEASURED_ON:
        return [f"held-out photographs of {dataset.name} {_MEASURED}:{_listed(loras)}"]
    for item in loras:
        with contextlib.suppress(UserError):
            add_marks(folder_of(item), item.withdrawals)
    where = _where(dataset, loras)
    return [
        f"held-out photographs of {dataset.name} {_CHOSEN}; train anew without the photographs, or erase the "
        f"LoRAs and what they drew with '{COMMAND} {where} --chosen':{_listed(loras)}"
    ]


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
    roots = [
        run.training(dataset.name),
        *(run.root / SUPERSEDED).glob(f"training-{dataset.name}-*/{dataset.name}"),
    ]
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
        remove_set_leftovers(place)
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
