"""The run's memory: one file a stage, with digests of what went in and the results that came out.

A finished stage is skipped while its inputs and outputs are as they were. When an input has another content,
the stage brings its outputs up to date where they still fit, as the images of a longer plan do; where they do
not, they are set aside under `superseded` and made anew. The files lie in the run's private folder, because a
digest of photographs may not leave it.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from ..conditions.names import RunOwn
from ..files import read_json, sha256_bytes, write_json
from ..imageset.places import RUN_STAGES
from ..interruption import check_interrupted

Results = dict[str, Any]
STARTED, FINISHED = "started", "done"
SUPERSEDED = RunOwn.SUPERSEDED


class State(StrEnum):
    """What a stage has before it."""

    DONE = "done"
    NEW = "to do"
    GOES_ON = "goes on"
    UPDATE = "brought up to date"
    ANEW = "made anew"
    FOLLOWS = "follows"


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return sha256_bytes(_json(value))


def digest_of_each(values: Iterable[Any]) -> str:
    """`digest_of` the list of these values, of which memory holds one at a time."""
    found, between = hashlib.sha256(b"["), b""
    for value in values:
        found.update(between + _json(value))
        between = b", "
    found.update(b"]")
    return found.hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def always() -> bool:
    return True


def never() -> bool:
    return False


@dataclass(frozen=True)
class Stage:
    """One step of the run.

    Attributes:
        name: in the stage table, and of the stage's file.
        inputs: the content of everything the outputs depend on, by the word a person knows it by; asked for
            when the stages of `after`, whose outputs are among it, are done.
        outputs: files or folders of the stage's own.
        work: makes them, or goes on where an earlier call ended, and returns the results, JSON values.
        after: names of the stages whose outputs it takes.
        fits: whether `work` can bring the outputs that are there up to date; asked when an input has changed.
    """

    name: str
    inputs: Callable[[], Mapping[str, Any]]
    outputs: Sequence[Path]
    work: Callable[[], Results]
    after: Sequence[str] = ()
    fits: Callable[[], bool] = never

    @cached_property
    def digests(self) -> dict[str, str]:
        """A digest of each input, by its word; of what there was before the work."""
        return {word: digest_of(value) for word, value in self.inputs().items()}


@dataclass(frozen=True)
class StageRow:
    """One line of the stage table. seconds, before: of work, in this call and in earlier ones."""

    name: str
    state: State
    why: str = ""
    seconds: float = 0.0
    before: float = 0.0


@dataclass
class Stages:
    """Runs stages, or skips them.

    Attributes:
        root: the run's folder.
        private: its private part, where the stage files lie.
        redo: make everything anew.
        dry: only examine, write nothing.
        say: prints one line.
        rows: of the stage table, so far.
    """

    root: Path
    private: Path
    redo: bool = False
    dry: bool = False
    say: Callable[[str], None] = say_on_stderr
    rows: list[StageRow] = field(default_factory=list)

    def run(self, stage: Stage) -> Results:
        """Do what is left of a stage and return its results; of a dry run, those of an earlier call."""
        check_interrupted()
        record = self._record(stage.name)
        state, why = self.examine(stage)
        before = float(record["seconds"]) if record and state not in (State.NEW, State.ANEW) else 0.0
        if self.dry or state == State.DONE:
            self.rows.append(StageRow(stage.name, state, why, before=before))
            if not self.dry:
                self.say(f"{stage.name}: done before, skipped")
            return dict(record["facts"]) if record else {}
        self._announce(stage, state, why)
        self._write(stage, STARTED, before, {})
        begun, results, progress = time.monotonic(), {}, STARTED
        try:
            results = stage.work()
            check_interrupted()
            progress = FINISHED
        finally:
            spent = time.monotonic() - begun
            self._write(stage, progress, before + spent, results)
        self.rows.append(StageRow(stage.name, state, why, spent, before))
        self.say(f"{stage.name}: {spent:.1f} s")
        return results

    def examine(self, stage: Stage) -> tuple[State, str]:
        """What a stage has before it, and why."""
        record = self._record(stage.name)
        there = any(path.exists() for path in stage.outputs)
        if record is None and not there:
            return State.NEW, "not made yet"
        if self.redo:
            return (State.UPDATE if stage.fits is always else State.ANEW), "--redo"
        waiting = [row.name for row in self.rows if row.name in stage.after and row.state != State.DONE]
        if self.dry and waiting:
            return State.FOLLOWS, f"after {', '.join(waiting)}"
        if record is None:
            return self._changed(stage, "nothing says what it was made from")
        before, now = record["inputs"], stage.digests
        words = [word for word in {**before, **now} if before.get(word) != now.get(word)]
        if words:
            return self._changed(stage, f"{', '.join(words)} changed")
        if record["state"] == STARTED:
            return State.GOES_ON, "interrupted"
        gone = [path.name for path in stage.outputs if not path.exists()]
        return (State.GOES_ON, f"{gone[0]} is gone") if gone else (State.DONE, "")

    def results(self, name: str) -> Results | None:
        """The results of a finished stage of an earlier call; None where it is not finished."""
        record = self._record(name)
        return dict(record["facts"]) if record and record["state"] == FINISHED else None

    def inputs(self, name: str) -> dict[str, str]:
        """The digests of a stage's inputs as they are recorded; empty where nothing is."""
        record = self._record(name)
        return dict(record["inputs"]) if record else {}

    def _changed(self, stage: Stage, why: str) -> tuple[State, str]:
        return (State.UPDATE if stage.fits() else State.ANEW), why

    def _announce(self, stage: Stage, state: State, why: str) -> None:
        """Say what is about to be done; set the outputs aside where they are made anew."""
        if state == State.NEW:
            self.say(f"{stage.name} …")
            return
        aside = self._set_aside(stage) if state == State.ANEW else []
        kept = f"; what was there is now in {' and '.join(aside)}" if aside else ""
        self.say(f"{stage.name} … {state} ({why}){kept}")

    def _set_aside(self, stage: Stage) -> list[str]:
        """Move the outputs to `superseded`, private ones within the private folder; the folders' names."""
        found = [path for path in stage.outputs if path.exists()]
        homes = {path: self.private if path.is_relative_to(self.private) else self.root for path in found}
        number = 1
        while any((home / SUPERSEDED / f"{stage.name}-{number}").exists() for home in homes.values()):
            number += 1
        for path, home in homes.items():
            aside = home / SUPERSEDED / f"{stage.name}-{number}"
            if path.exists():  # it may lie in an output that was moved before it
                aside.mkdir(parents=True, exist_ok=True)
                path.rename(aside / path.name)
        names = {
            (home / SUPERSEDED / f"{stage.name}-{number}").relative_to(self.root) for home in homes.values()
        }
        return sorted(name.as_posix() for name in names)

    def _record(self, name: str) -> dict[str, Any] | None:
        file = self.private / RUN_STAGES / f"{name}.json"
        return dict(read_json(file)) if file.exists() else None

    def _write(self, stage: Stage, state: str, seconds: float, results: Results) -> None:
        record = {"state": state, "inputs": stage.digests, "seconds": round(seconds, 3), "facts": results}
        write_json(self.private / RUN_STAGES / f"{stage.name}.json", record)


def stage_table(rows: Sequence[StageRow]) -> str:
    """The table a run ends with: a stage's seconds in this call with their share, and in earlier ones."""
    total = sum(row.seconds for row in rows)
    width = max([len(row.name) for row in rows] + [5])
    lines = [f"{'stage':<{width}}  seconds  share   before"]
    for row in rows:
        note = "  (done before)" if row.state == State.DONE else ""
        share, before = row.seconds / (total or 1.0), f"{row.before:7.1f}" if row.before else f"{'':7}"
        lines.append(f"{row.name:<{width}}  {row.seconds:7.1f}  {share:5.0%}  {before}{note}".rstrip())
    lines.append(f"{'total':<{width}}  {total:7.1f}  {'':5}  {sum(row.before for row in rows):7.1f}")
    return "\n".join(lines)


def plan_table(rows: Sequence[StageRow]) -> str:
    """The table of `run --plan`: stage, state, why."""
    width, broad = (max(len(text) for text in texts) for texts in ([row.name for row in rows], State))
    lines = [f"{'stage':<{width}}  {'state':<{broad}}  why"]
    lines += [f"{row.name:<{width}}  {row.state:<{broad}}  {row.why}".rstrip() for row in rows]
    return "\n".join(lines)
