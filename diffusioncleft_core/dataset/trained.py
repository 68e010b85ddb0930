"""What was trained on a dataset, kept in it, so that a consent withdrawn later is known to reach those LoRAs.

`trained.jsonl` has a row for each training (its fingerprint, its folder, the content hashes of its
photographs), one for what it was validated on and each part that this had (`chosen by`, `measured on`), and
one for each LoRA file that it saved, with the part that the validation had in this file: an early stop
chooses one of them. When one of the photographs loses its consent the hashes are erased, and
the training moves to `withdrawn.jsonl` with one keyed hash over all its photographs: if exactly they have
consent again, the withdrawal is taken back.

Trainings and builds are processes of their own: whoever changes one of the two files holds `.trained.lock`
from the first reading to the last writing, and the others wait.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..files import append_jsonl, read_jsonl, sha256_file, waiting_lock, write_jsonl
from .examine import Ledger
from .folder import TRAINED, TRAINED_LOCK, WITHDRAWN, keyed_hash, require_dataset
from .settings import read_roles
from .withdrawn import (
    CHOSEN_BY,
    MEASURED_ON,
    TRAINED_ON,
    Withdrawal,
    add_marks,
    change_user_register,
    lift_marks,
    merged,
    read_whole_register,
    without,
)

TRAIN, HOLDOUT = "train", "holdout"
_SET, _VALIDATED = "photographs", "validated_on"


def run_fingerprint(made_from: Mapping[str, Any]) -> str:
    """SHA-256 of what a training's tensors depend on. The images are in it by a keyed fingerprint only."""
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def remember_training(dataset: Path, run: str, folder: Path) -> None:
    """Note that a training into `folder` begins to learn from all training photographs of `dataset`."""
    with _alone(dataset):
        photographs = sorted(training_sources(read_roles(dataset)))
        _append(dataset, {"run": run, "folder": str(Path(folder).resolve()), _SET: photographs})


def remember_validation(dataset: Path, run: str, folder: Path, pixels: Collection[str], part: str) -> None:
    """Note that a training into `folder` is validated on held-out photographs of `dataset`.

    Args:
        pixels: hashes of their normalised pixels.
        part: that they have in LoRAs of it: chosen by, measured on.
    """
    known = held_out_sources(dataset, read_roles(dataset))
    photographs = sorted(source for source, shown in known.items() if shown in pixels)
    if photographs:
        row = {"run": run, "folder": str(Path(folder).resolve()), "part": part, _VALIDATED: photographs}
        with _alone(dataset):
            _append(dataset, row)


def remember_lora(dataset: Path, run: str, lora: Path, part: str | None = None) -> list[Withdrawal]:
    """Note a LoRA file of a training, and any copy of it.

    Returns the withdrawals it falls under, of every part: a consent can be withdrawn while the training runs.
    Then it is marked at once.

    part: that what was validated on had in this file; trained on: none. A copy has that of its original.
    """
    lora = Path(lora).resolve()
    digest = sha256_file(lora)
    known = {} if part is None else {"part": part}
    with _alone(dataset):
        _append(dataset, {"run": run, "lora": digest, "file": str(lora), **known})
        rows = _rows(dataset)
        told = [
            replace(item, loras=(*item.loras, digest))
            for item in read_whole_register(Path(dataset) / WITHDRAWN)
            if item.run == run and digest in _saved(rows, run, item.part)
        ]
        if told:
            _publish(dataset, told, [lora.parent])
    return told


def training_sources(roles: Mapping[str, str]) -> set[str]:
    """Content hashes of the photographs that are trained on."""
    return {source for source, role in roles.items() if role == TRAIN}


def held_out_sources(dataset: Path, roles: Mapping[str, str]) -> dict[str, str]:
    """Content hashes of the photographs that are held out, with the hashes of their normalised pixels, in the
    order of these: that in which a training takes them.
    """
    examined = Ledger(dataset).examined
    found = {
        source: examined[source].pixels or ""
        for source, role in roles.items()
        if role == HOLDOUT and source in examined
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))


def trained_places(dataset: Path, runs: Collection[str] | None = None) -> list[Path]:
    """Folders where trainings on `dataset`, or these of them, left LoRAs and checkpoints."""
    rows = [row for row in _rows(dataset) if runs is None or row.get("run") in runs]
    places = [Path(str(row["folder"])) if "folder" in row else Path(str(row["file"])).parent for row in rows]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


@contextlib.contextmanager
def withdrawing(dataset: Path, allowed: Collection[str] = ()) -> Iterator[list[Withdrawal]]:
    """Mark every training in which a photograph had a part whose content hash is not among `allowed`, and
    give them to the caller, who marks what they drew.

    The hashes go when the caller is done with it, so that a call that is interrupted is done again.
    """
    if not to_withdraw(dataset, allowed):
        yield []
        return
    with _alone(dataset):
        found = to_withdraw(dataset, allowed)
        gone = {(item.run, item.part) for item in found}
        sets = {
            (str(row["run"]), known.part): _described(dataset, known)
            for row in _rows(dataset)
            if (known := _photographs(row)) and (row["run"], known.part) in gone
        }
        _publish(dataset, found, trained_places(dataset, {item.run for item in found}), sets)
    yield found
    with _alone(dataset):
        # The folder stays known: a training without any LoRA yet has left checkpoints there.
        left = [
            {key: value for key, value in row.items() if key not in (_SET, _VALIDATED)}
            if (known := _photographs(row)) and (row["run"], known.part) in gone
            else row
            for row in _rows(dataset)
        ]
        write_jsonl(Path(dataset) / TRAINED, left)


def to_withdraw(dataset: Path, allowed: Collection[str] = ()) -> list[Withdrawal]:
    """The trainings in which a photograph had a part whose content hash is not among `allowed`."""
    rows, allowed = _rows(dataset), set(allowed)
    today, by = datetime.now(UTC).date().isoformat(), label(dataset)
    found = {
        (str(row["run"]), known.part): None
        for row in rows
        if (known := _photographs(row)) and not known.sources <= allowed
    }
    return [Withdrawal(run, tuple(sorted(_saved(rows, run, part))), today, by, part) for run, part in found]


def withdraw_unrecorded(dataset: Path, loras: Iterable[tuple[str, str]]) -> list[Withdrawal]:
    """Mark LoRAs of an earlier version, which did not note what they learned from: (run, SHA-256) of each."""
    by_run: dict[str, set[str]] = {}
    for run, digest in loras:
        by_run.setdefault(run, set()).add(digest)
    today, by = datetime.now(UTC).date().isoformat(), label(dataset)
    found = [Withdrawal(run, tuple(sorted(digests)), today, by) for run, digests in by_run.items()]
    if found:
        with _alone(dataset):
            _publish(dataset, found, [])
    return found


@contextlib.contextmanager
def restoring(dataset: Path, roles: Mapping[str, str]) -> Iterator[list[Withdrawal]]:
    """Take back the withdrawal of trainings whose photographs are exactly those that `roles` trains on, or
    holds out where it was validated on them, and give them to the caller, who lifts the marks of what they
    drew.

    The dataset knows the withdrawal until the caller is done: a call that is interrupted is done again.
    """
    path = Path(dataset) / WITHDRAWN
    if not path.is_file():
        yield []
        return
    with _alone(dataset):
        back = _restored(dataset, roles)
    yield back
    if back:
        gone = {(item.run, item.part) for item in back}
        with _alone(dataset):
            write_jsonl(path, [row for row in read_jsonl(path) if _run_and_part(row) not in gone])


def _restored(dataset: Path, roles: Mapping[str, str]) -> list[Withdrawal]:
    """What `restoring` takes back; the dataset's list is as it was."""
    path = Path(dataset) / WITHDRAWN
    trained, held_out = sorted(training_sources(roles)), list(held_out_sources(dataset, roles))
    back: list[Withdrawal] = []
    for row in read_jsonl(path):
        item = Withdrawal.from_json(row, path)
        learned = item.part == TRAINED_ON
        now = trained if learned else sorted(held_out[: int(row.get("n", 0))])
        if row.get(_SET) != _set_fingerprint(dataset, now):
            continue
        back.append(item)
        places = trained_places(dataset, [item.run])
        part = {_SET: now} if learned else {"part": item.part, _VALIDATED: now}
        _append(dataset, {"run": item.run, "folder": str(places[0]) if places else str(dataset), **part})
        for place in places:
            lift_marks(place, [item])
    if back:
        change_user_register(lambda known: without(known, back))
    return back


def recorded_runs(dataset: Path) -> set[str]:
    """Fingerprints of all trainings that told the dataset what they learned from, withdrawn ones too."""
    return {str(row.get("run")) for row in _rows(dataset)}


def trained_photographs(dataset: Path) -> dict[str, set[str]]:
    """Content hashes of what each recorded training learned from, by its fingerprint; no withdrawn ones."""
    found: dict[str, set[str]] = {}
    for row in _rows(dataset):
        if _SET in row:
            found.setdefault(str(row.get("run")), set()).update(map(str, row[_SET]))
    return found


def choosing_photographs(dataset: Path, names: Collection[str]) -> set[str]:
    """Content hashes of the held-out photographs by which an early stop chose a LoRA; no withdrawn ones.

    names: all by which it is known. A file that the dataset does not know is taken for the chosen one of its
    training, since it may be converted from it.
    """
    rows, names = _rows(dataset), set(names)
    found: set[str] = set()
    for row in rows:
        known, run = _photographs(row), str(row.get("run"))
        if known is None or known.part != CHOSEN_BY:
            continue
        chosen = _saved(rows, run, CHOSEN_BY)
        others = _saved(rows, run, TRAINED_ON) - chosen
        if names & chosen or (run in names and not names & others):
            found |= known.sources
    return found


def lora_training(dataset: Path, digest: str) -> str:
    """The fingerprint of the recorded training that saved a LoRA file of this SHA-256; "" for none."""
    runs = (str(row.get("run")) for row in _rows(dataset) if row.get("lora") == digest)
    return next(runs, "")


def label(dataset: Path) -> str:
    """What withdrawals call the dataset: a keyed hash, so that it names nothing."""
    return keyed_hash(dataset, "withdrawals")[:16]


def _publish(
    dataset: Path,
    found: Sequence[Withdrawal],
    places: Sequence[Path],
    sets: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
) -> None:
    """Write withdrawals into the dataset, the user's list, and beside the LoRAs. The lock is held.

    Of a LoRA on which photographs had no influence the dataset alone knows.

    sets: what is kept of a training's photographs, by its fingerprint and their part.
    """
    path = Path(dataset) / WITHDRAWN
    rows = read_jsonl(path) if path.is_file() else []
    kept = {_run_and_part(row): {key: row[key] for key in (_SET, "n") if key in row} for row in rows}
    kept |= {key: dict(value) for key, value in (sets or {}).items()}
    listed = merged([*read_whole_register(path), *found])
    write_jsonl(path, [item.to_json() | kept.get((item.run, item.part), {}) for item in listed])
    told = [item for item in found if item.part != MEASURED_ON]
    change_user_register(lambda known: merged([*known, *told]))
    for place in places if told else ():
        add_marks(place, told)


@dataclass(frozen=True)
class _Known:
    """The photographs that a row names, by their content hashes, and the part that they had."""

    part: str
    sources: frozenset[str]


def _photographs(row: Mapping[str, Any]) -> _Known | None:
    """What a row says of photographs; None where it names none."""
    if _SET in row:
        return _Known(TRAINED_ON, frozenset(map(str, row[_SET])))
    if _VALIDATED in row:
        return _Known(str(row.get("part", CHOSEN_BY)), frozenset(map(str, row[_VALIDATED])))
    return None


def _saved(rows: Iterable[Mapping[str, Any]], run: str, part: str) -> set[str]:
    """SHA-256 of the LoRAs that a training saved in which photographs with this part had it.

    All learned from what was trained on. What was validated on may have had any part in a LoRA of an earlier
    version, which noted none.
    """
    mine = [row for row in rows if row.get("run") == run and "lora" in row]
    others = {str(row["lora"]) for row in mine if row.get("part", part) != part}
    return {str(row["lora"]) for row in mine} - (set() if part == TRAINED_ON else others)


def _described(dataset: Path, known: _Known) -> dict[str, Any]:
    """What is kept of photographs when their hashes go: by it the same ones are known again."""
    count = {} if known.part == TRAINED_ON else {"n": len(known.sources)}
    return {_SET: _set_fingerprint(dataset, known.sources), **count}


def _run_and_part(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("run")), str(row.get("part", TRAINED_ON))


def _set_fingerprint(dataset: Path, photographs: Iterable[str]) -> str:
    return keyed_hash(dataset, "\n".join(sorted(photographs)))


def _alone(dataset: Path) -> contextlib.AbstractContextManager[None]:
    """Keep other processes from changing what the dataset knows of trainings; one that does is waited for."""
    return waiting_lock(require_dataset(dataset) / TRAINED_LOCK)


def _rows(dataset: Path) -> list[dict[str, Any]]:
    path = Path(dataset) / TRAINED
    return read_jsonl(path) if path.is_file() else []


def _append(dataset: Path, row: dict[str, Any]) -> None:
    """Add a row, unless it is there: a training that goes on says the same again."""
    if row not in _rows(dataset):
        append_jsonl(Path(dataset) / TRAINED, row)


@dataclass(frozen=True)
class ConsentChange:
    """What a build found out about earlier trainings, before it erases anything.

    gone: how many photographs that were to be trained on have no consent any more; held_out: how many that
    were held out; withdrawn: the trainings in which one had a part; restored: trainings whose photographs all
    have consent again.
    """

    gone: int = 0
    held_out: int = 0
    withdrawn: tuple[Withdrawal, ...] = ()
    restored: tuple[Withdrawal, ...] = ()


OnChange = Callable[[ConsentChange], None]


def withdraw_trainings(folder: Path, allowed: Collection[str], on_change: OnChange) -> None:
    """Mark what photographs that are no longer `allowed` had a part in, before anything of them is erased."""
    roles = read_roles(folder)
    gone = training_sources(roles) - set(allowed)
    held_out = {source for source, role in roles.items() if role == HOLDOUT} - set(allowed)
    with withdrawing(folder, allowed) as withdrawn:
        if gone or withdrawn:
            on_change(ConsentChange(len(gone), len(held_out), tuple(withdrawn)))


def restore_trainings(folder: Path, roles: Mapping[str, str], on_change: OnChange) -> None:
    """Lift the marks of what photographs with these `roles` had a part in, where all have consent again."""
    with restoring(folder, roles) as restored:
        if restored:
            on_change(ConsentChange(restored=tuple(restored)))
