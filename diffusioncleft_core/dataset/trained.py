"""What was trained on a dataset, kept in it, so that a consent withdrawn later is known to reach those LoRAs.

`trained.jsonl` has a row for each training (its fingerprint, its folder, the content hashes of its
photographs) and one for each LoRA file that it saved. When one of the photographs loses its consent the
hashes are erased, and the training moves to `withdrawn.jsonl` with one keyed hash over all its photographs:
if exactly they have consent again, the withdrawal is taken back.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..files import append_jsonl, read_jsonl, sha256_file, write_jsonl
from .folder import TRAINED, WITHDRAWN, keyed_hash, require_dataset
from .settings import read_roles
from .withdrawn import (
    Withdrawal,
    add_marks,
    change_user_register,
    lift_marks,
    merged,
    read_register,
    without,
)

TRAIN = "train"
_SET = "photographs"


def run_fingerprint(made_from: Mapping[str, Any]) -> str:
    """SHA-256 of what a training's tensors depend on. The images are in it by a keyed fingerprint only."""
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def remember_training(dataset: Path, run: str, folder: Path) -> None:
    """Note that a training into `folder` begins to learn from all training photographs of `dataset`."""
    photographs = sorted(training_sources(read_roles(dataset)))
    _append(dataset, {"run": run, "folder": str(Path(folder).resolve()), _SET: photographs})


def remember_lora(dataset: Path, run: str, lora: Path) -> list[Withdrawal]:
    """Note a LoRA file of a training, and any copy of it.

    Returns the withdrawals it falls under: a consent can be withdrawn while the training runs. Then it is
    marked at once.
    """
    lora = Path(lora).resolve()
    digest = sha256_file(lora)
    _append(dataset, {"run": run, "lora": digest, "file": str(lora)})
    told = [item for item in read_register(Path(dataset) / WITHDRAWN) if item.run == run]
    if told:
        told = [Withdrawal(item.run, (*item.loras, digest), item.date, item.by) for item in told]
        _publish(dataset, told, [lora.parent])
    return told


def training_sources(roles: Mapping[str, str]) -> set[str]:
    """Content hashes of the photographs that are trained on."""
    return {source for source, role in roles.items() if role == TRAIN}


def trained_places(dataset: Path, runs: Collection[str] | None = None) -> list[Path]:
    """Folders where trainings on `dataset`, or these of them, left LoRAs and checkpoints."""
    rows = [row for row in _rows(dataset) if runs is None or row.get("run") in runs]
    places = [Path(str(row["folder"])) if "folder" in row else Path(str(row["file"])).parent for row in rows]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def withdraw(dataset: Path, allowed: Collection[str] = ()) -> list[Withdrawal]:
    """Mark every training that learned from a photograph whose content hash is not among `allowed`.

    The marks are written before the hashes go, so that an interrupted call is done again.
    """
    rows, found = _rows(dataset), to_withdraw(dataset, allowed)
    if not found:
        return []
    gone = {item.run for item in found}
    fingerprints = {
        str(row["run"]): _set_fingerprint(dataset, row[_SET])
        for row in rows
        if _SET in row and row["run"] in gone
    }
    places = trained_places(dataset, fingerprints.keys())
    _publish(dataset, found, places, fingerprints)
    # The folder stays known: a training without any LoRA yet has left checkpoints there.
    left = [
        {key: value for key, value in row.items() if key != _SET} if row["run"] in fingerprints else row
        for row in rows
    ]
    write_jsonl(Path(dataset) / TRAINED, left)
    return found


def to_withdraw(dataset: Path, allowed: Collection[str] = ()) -> list[Withdrawal]:
    """The trainings that learned from a photograph whose content hash is not among `allowed`."""
    rows = _rows(dataset)
    today, by = datetime.now(UTC).date().isoformat(), label(dataset)
    loras: dict[str, set[str]] = {
        str(row["run"]): set() for row in rows if _SET in row and not set(row[_SET]) <= set(allowed)
    }
    for row in rows:
        if "lora" in row and row["run"] in loras:
            loras[row["run"]].add(str(row["lora"]))
    return [Withdrawal(run, tuple(sorted(digests)), today, by) for run, digests in loras.items()]


def withdraw_unrecorded(dataset: Path, loras: Iterable[tuple[str, str]]) -> list[Withdrawal]:
    """Mark LoRAs of an earlier version, which did not note what they learned from: (run, SHA-256) of each."""
    by_run: dict[str, set[str]] = {}
    for run, digest in loras:
        by_run.setdefault(run, set()).add(digest)
    today, by = datetime.now(UTC).date().isoformat(), label(dataset)
    found = [Withdrawal(run, tuple(sorted(digests)), today, by) for run, digests in by_run.items()]
    if found:
        _publish(dataset, found, [])
    return found


def restore(dataset: Path, roles: Mapping[str, str]) -> list[Withdrawal]:
    """Take back the withdrawal of trainings whose photographs are exactly those that `roles` trains on."""
    path = Path(dataset) / WITHDRAWN
    now = sorted(training_sources(roles))
    fingerprint = _set_fingerprint(dataset, now)
    back = [
        Withdrawal.from_json(row, path)
        for row in (read_jsonl(path) if path.is_file() else ())
        if row.get(_SET) == fingerprint
    ]
    if not back:
        return []
    for item in back:
        places = trained_places(dataset, [item.run])
        _append(dataset, {"run": item.run, "folder": str(places[0]) if places else str(dataset), _SET: now})
        for place in places:
            lift_marks(place, [item])
    change_user_register(lambda known: without(known, back))
    runs = {item.run for item in back}
    write_jsonl(path, [row for row in read_jsonl(path) if row.get("run") not in runs])
    return back


def recorded_runs(dataset: Path) -> set[str]:
    """Fingerprints of all trainings that the dataset knows, withdrawn ones too."""
    known = {item.run for item in read_register(Path(dataset) / WITHDRAWN)}
    return known | {str(row.get("run")) for row in _rows(dataset)}


def trained_photographs(dataset: Path) -> dict[str, set[str]]:
    """Content hashes of what each recorded training learned from, by its fingerprint; no withdrawn ones."""
    found: dict[str, set[str]] = {}
    for row in _rows(dataset):
        if _SET in row:
            found.setdefault(str(row.get("run")), set()).update(map(str, row[_SET]))
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
    fingerprints: Mapping[str, str] | None = None,
) -> None:
    """Write withdrawals into the dataset, the user's list, and beside the LoRAs."""
    path = Path(dataset) / WITHDRAWN
    kept = {str(row.get("run")): row.get(_SET) for row in (read_jsonl(path) if path.is_file() else ())}
    kept |= fingerprints or {}
    rows = merged([*read_register(path), *found])
    write_jsonl(
        path,
        [asdict(item) | ({_SET: kept[item.run]} if kept.get(item.run) else {}) for item in rows],
    )
    change_user_register(lambda known: merged([*known, *found]))
    for place in places:
        add_marks(place, found)


def _set_fingerprint(dataset: Path, photographs: Iterable[str]) -> str:
    return keyed_hash(dataset, "\n".join(sorted(photographs)))


def _rows(dataset: Path) -> list[dict[str, Any]]:
    path = Path(dataset) / TRAINED
    return read_jsonl(path) if path.is_file() else []


def _append(dataset: Path, row: dict[str, Any]) -> None:
    """Add a row, unless it is there: a training that goes on says the same again."""
    if row not in _rows(require_dataset(dataset)):
        append_jsonl(Path(dataset) / TRAINED, row)


@dataclass(frozen=True)
class ConsentChange:
    """What a build found out about earlier trainings, before it erases anything.

    gone: how many photographs that were to be trained on have no consent any more; withdrawn: the trainings
    that learned from one; restored: trainings whose photographs all have consent again.
    """

    gone: int = 0
    withdrawn: tuple[Withdrawal, ...] = ()
    restored: tuple[Withdrawal, ...] = ()


OnChange = Callable[[ConsentChange], None]


def withdraw_trainings(folder: Path, allowed: set[str], on_change: OnChange) -> None:
    """Mark what learned from photographs that are no longer `allowed`, before anything of them is erased."""
    gone = training_sources(read_roles(folder)) - allowed
    withdrawn = withdraw(folder, allowed)
    if gone or withdrawn:
        on_change(ConsentChange(len(gone), tuple(withdrawn)))
