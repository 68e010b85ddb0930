"""LoRAs in which a photograph had a part whose consent was withdrawn, and how each is known wherever it lies.

What learned from one is refused everywhere. Of a LoRA that learned nothing from it, but whose step its
validation loss helped to choose, it is said: part `chosen by`, which only who asks for it is told.

A training is known by its `run_fingerprint`, which the LoRA's metadata hold and which renaming, copying and
converting leave as it is; a file of it by its SHA-256 too. Both are written down three times: beside the LoRA
and in the folder of the images it drew, so that the mark goes where they go; in the dataset's private folder;
and in the user's own list on this machine, for copies that lie elsewhere. No mark names a photograph.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import (
    private_dir,
    read_json,
    read_jsonl,
    sha256_model,
    shown,
    waiting_lock,
    write_json,
    write_jsonl,
)
from ..home import state_home
from ..weight_file import MERGED_KEY, SOURCE_KEY
from .folder import WITHDRAWN

MARK = "withdrawn.json"
"""Beside a LoRA, and in the folder of a generated set."""
RUN_KEY = "run_fingerprint"
"""What a LoRA's metadata call the fingerprint of its training."""
TRAINED_ON, CHOSEN_BY, MEASURED_ON = "trained on", "chosen by", "measured on"
"""A photograph's part in a LoRA: its weights learned from it; they did not, but an early stop chose its step
by the loss on it; they did not, and that loss was only told.
"""
SAID = "learned from a photograph whose consent was withdrawn"
MARK_LOCK = ".withdrawn.lock"
"""Beside a mark, and beside the user's list; held by who changes it."""
_NOTE = (
    f"What is named here {SAID}. Don't use or share it; 'diffusioncleft dataset withdraw FOLDER' lists and "
    f"erases it. What has the part '{CHOSEN_BY}' learned nothing from it: an early stop chose the LoRA's "
    "step by the loss on it."
)


@dataclass(frozen=True)
class Withdrawal:
    """A training in which a photograph had a part whose consent was withdrawn.

    run: fingerprint of the training, "" where its file tells none; loras: SHA-256 of the files that it saved;
    date: when it was noticed; by: a label of the dataset that means nothing outside it; part: what the
    photograph was to it, one of those above.
    """

    run: str
    loras: tuple[str, ...]
    date: str
    by: str
    part: str = TRAINED_ON

    @property
    def names(self) -> set[str]:
        """By what a LoRA of this training, or a record of one, is known."""
        return {self.run, *self.loras} - {""}

    def reaches(self, names: Collection[str]) -> bool:
        """Whether what learned or was drawn under one of these names falls under it.

        Of a training all LoRAs learned alike. What it was validated on had its part in some of them, which
        are known by their hashes alone.
        """
        own = self.names if self.part == TRAINED_ON else set(self.loras)
        return not own.isdisjoint(names)

    @classmethod
    def from_json(cls, row: dict[str, Any], where: Path) -> "Withdrawal":
        try:
            loras, part = tuple(map(str, row["loras"])), str(row.get("part", TRAINED_ON))
            return cls(str(row["run"]), loras, str(row["date"]), str(row["by"]), part)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{where} is damaged: it lists LoRAs that must not be used any more; restore it from a copy"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """As marks and lists have it: without a part it was trained on."""
        row = asdict(self)
        return row if self.part != TRAINED_ON else {name: row[name] for name in row if name != "part"}


def of_part(withdrawals: Iterable[Withdrawal], part: str) -> list[Withdrawal]:
    """Those in which the photograph had this part."""
    return [item for item in withdrawals if item.part == part]


def read_mark(folder: Path, part: str = TRAINED_ON) -> list[Withdrawal]:
    """What the mark in `folder` says of trainings in which photographs had this part."""
    return of_part(_marked(folder), part)


def _marked(folder: Path) -> list[Withdrawal]:
    """All that the mark in `folder` says; nothing where there is none."""
    path = Path(folder) / MARK
    if not path.is_file():
        return []
    document = read_json(path)
    rows = document.get("withdrawn") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(
            f"{path} is damaged: it names what must not be used any more; restore it from a copy, or delete "
            "what lies beside it"
        )
    return [Withdrawal.from_json(row, path) for row in rows]


def add_marks(folder: Path, withdrawals: Iterable[Withdrawal]) -> None:
    """Mark what lies in `folder` as withdrawn; earlier marks stay. Others that mark it are waited for."""
    with _marking(folder):
        _write_mark(folder, merged([*_marked(folder), *withdrawals]))


def lift_marks(folder: Path, restored: Iterable[Withdrawal]) -> None:
    """Take these marks out of `folder`."""
    if (Path(folder) / MARK).is_file():
        with _marking(folder):
            _write_mark(folder, without(_marked(folder), restored))


def read_register(path: Path, part: str = TRAINED_ON) -> list[Withdrawal]:
    """The trainings listed in a file in which photographs had this part; none where there is no file."""
    return of_part(read_whole_register(path), part)


def read_whole_register(path: Path) -> list[Withdrawal]:
    """The list in a file, whatever the part; empty where there is none."""
    return [Withdrawal.from_json(row, path) for row in read_jsonl(path)] if path.is_file() else []


def user_register() -> Path | None:
    """The user's own list on this machine; None without a home folder."""
    state = state_home()
    return None if state is None else state / "diffusioncleft" / WITHDRAWN


def change_user_register(change: Callable[[list[Withdrawal]], list[Withdrawal]]) -> None:
    """Bring the user's list up to date; where it can't be written, the marks beside the LoRAs remain.

    Another process that does so is waited for. change: gives the new list for the one that is there.
    """
    path = user_register()
    if path is None:
        return
    with contextlib.suppress(UserError, OSError):
        before = read_whole_register(path)
        if change(before) == before:
            return
        private_dir(path.parent)
        with waiting_lock(path.with_name(MARK_LOCK)):
            write_jsonl(path, (item.to_json() for item in change(read_whole_register(path))))


def merged(withdrawals: Iterable[Withdrawal]) -> list[Withdrawal]:
    """The same withdrawals, each training once for every dataset that withdrew it and every part."""
    found: dict[tuple[str, str, str, str], Withdrawal] = {}
    for item in withdrawals:
        key = (item.run, item.by, item.part, "" if item.run else ",".join(item.loras))
        before = found.get(key, item)
        loras = tuple(sorted({*before.loras, *item.loras}))
        found[key] = replace(item, loras=loras, date=min(before.date, item.date))
    return list(found.values())


def without(withdrawals: Iterable[Withdrawal], restored: Iterable[Withdrawal]) -> list[Withdrawal]:
    """Those that no dataset has taken back."""
    back = {(item.run, item.by, item.part) for item in restored}
    return [item for item in withdrawals if (item.run, item.by, item.part) not in back]


def known_withdrawals(*folders: Path, part: str = TRAINED_ON) -> list[Withdrawal]:
    """All that the user's list, and marks and lists in `folders`, say of this part."""
    own = user_register()
    found = read_register(own, part) if own is not None else []
    for folder in folders:
        found += [*read_mark(folder, part), *read_register(Path(folder) / WITHDRAWN, part)]
    return merged(found)


def lora_withdrawal(lora: Path, known: Sequence[Withdrawal] | None = None) -> Withdrawal | None:
    """The first withdrawal that a LoRA file falls under; None when it may be used. As `lora_withdrawals`."""
    return next(iter(lora_withdrawals(lora, known)), None)


def lora_withdrawals(
    lora: Path, known: Sequence[Withdrawal] | None = None, part: str = TRAINED_ON
) -> list[Withdrawal]:
    """The withdrawals of a part that a LoRA file falls under.

    known: those of this part beside what the mark beside the file says (default: the user's list).
    """
    lora = Path(lora)
    known = [*(known_withdrawals(part=part) if known is None else known), *read_mark(lora.parent, part)]
    if not known or not lora.is_file():
        return []
    names = file_names(lora, part)
    return [item for item in known if item.reaches(names)]


def mark_made_of(made: Path, sources: Iterable[Path]) -> list[str]:
    """Mark a LoRA file with the withdrawals that the files that it was made of fall under.

    Returns a sentence for each of these files; none for others.
    """
    told: list[str] = []
    own: list[Withdrawal] = []
    for source in sources:
        learned, chosen = (lora_withdrawals(source, part=part) for part in (TRAINED_ON, CHOSEN_BY))
        own += [*learned, *chosen]
        if learned:
            told.append(f"{shown(source.name)} {SAID}; what was written from it is marked so too")
        elif chosen:
            told.append(
                f"the step of {shown(source.name)} was chosen with a photograph whose consent was withdrawn; "
                "it learned nothing from it, and what was written from it is marked so too"
            )
    if own:
        digest = sha256_model(made)
        marks = [replace(item, loras=(*item.loras, digest)) for item in own]
        add_marks(made.parent, marks)
        change_user_register(lambda known: merged([*known, *marks]))
    return told


def origins(metadata: Mapping[str, str]) -> set[str]:
    """By what a LoRA's metadata tell where it came from.

    The fingerprint of its training; without one the hash of the file that it was converted from, and the
    names of those that it was merged from.
    """
    run = metadata.get(RUN_KEY)
    return {run} if run else made_of(metadata)


def made_of(metadata: Mapping[str, str]) -> set[str]:
    """The hash of the file that a LoRA was converted from, and the names of those that it was merged from."""
    return {metadata.get(SOURCE_KEY, ""), *metadata.get(MERGED_KEY, "").split()} - {""}


def withdrawal_of(names: Collection[str], known: Iterable[Withdrawal]) -> Withdrawal | None:
    """The first of the `known` withdrawals that reaches what learned or was drawn under one of these names.

    names: fingerprints of trainings, and SHA-256 of LoRA files.
    """
    return next((item for item in known if item.reaches(names)), None)


def file_names(lora: Path, part: str = TRAINED_ON) -> set[str]:
    """By what withdrawals of this part know a LoRA file: what it learned from by its training, where it tells
    that; else by its hash, and what it was made of.
    """
    metadata = metadata_of(lora)
    if part == TRAINED_ON and metadata.get(RUN_KEY):
        return origins(metadata)
    return {sha256_model(lora), *made_of(metadata)}


def lora_run(lora: Path) -> str:
    """The fingerprint of the training that a LoRA file came from; "" where its metadata tell none."""
    return metadata_of(lora).get(RUN_KEY, "")


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; none of one that can't be read: who opens it says what is wrong."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return {}


def withdrawn_meanwhile(found: Iterable[Withdrawal]) -> str | None:
    """A sentence on a LoRA under these withdrawals, of a consent that was withdrawn while it was trained."""
    parts = {item.part for item in found}
    if TRAINED_ON in parts:
        return f"the LoRA {SAID} while it was trained: it is marked so"
    if CHOSEN_BY in parts:
        return (
            "the LoRA's step was chosen with a photograph whose consent was withdrawn while it was trained; "
            "it learned nothing from it, and is marked so"
        )
    return None


def refuse_withdrawn(lora: Path | None, known: Sequence[Withdrawal] | None = None) -> None:
    """Raise UserError for a LoRA that learned from a photograph whose consent was withdrawn."""
    if lora is not None and lora_withdrawal(lora, known) is not None:
        raise UserError(
            f"the LoRA {shown(lora.name)} {SAID}, so nothing is drawn with it; train it anew without that "
            "photograph (the same 'run' or 'train' command does), and erase this one with 'diffusioncleft "
            "dataset withdraw' and its folder"
        )


def refuse_withdrawn_names(names: Collection[str], place: str) -> None:
    """Raise UserError for images in `place` that a LoRA with one of these names drew, if it is withdrawn."""
    if withdrawal_of(names, known_withdrawals()) is not None:
        raise UserError(
            f"the LoRA that drew what is in {place} {SAID}, so nothing of it is brought back: delete it there"
        )


def _marking(folder: Path) -> contextlib.AbstractContextManager[None]:
    return waiting_lock(Path(folder) / MARK_LOCK)


def _write_mark(folder: Path, withdrawals: Sequence[Withdrawal]) -> None:
    path = Path(folder) / MARK
    if withdrawals:
        write_json(path, {"schema": 1, "note": _NOTE, "withdrawn": [item.to_json() for item in withdrawals]})
    else:
        path.unlink(missing_ok=True)
