"""The run's memory: one file a stage, with a digest of what went in and the facts that came out.

A finished stage is skipped while its inputs and its output folder are as they were. The files lie in the
run's private folder, because a digest of photographs may not leave it.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_json, sha256_bytes, write_json

Facts = dict[str, Any]
STARTED, DONE = "started", "done"


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return sha256_bytes(json.dumps(value, sort_keys=True, default=str).encode())


def say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass
class StageRow:
    """One line of the stage table. seconds: wall time of the work, over all interruptions."""

    name: str
    seconds: float
    skipped: bool


@dataclass
class Stages:
    """Runs stages, or skips them.

    folder: where the stage files lie; redo: throw away and repeat what was made from other inputs, instead of
    refusing; say: prints one line.
    """

    folder: Path
    redo: bool = False
    say: Callable[[str], None] = say_on_stderr
    rows: list[StageRow] = field(default_factory=list)

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: list[Path],
        work: Callable[[], Facts],
        *,
        soft: Mapping[str, Any] | None = None,
    ) -> Facts:
        """Do `work` unless it was done from the same `inputs` and its `outputs` are still there.

        inputs: JSON values by the word a person knows them by. outputs: files or folders of the stage's own.
        work: returns the stage's facts, JSON values; it goes on where an interrupted call ended.
        soft: further inputs; when only they changed, the work itself brings its outputs up to date.
        """
        file = self.folder / f"{name}.json"
        digests = {word: digest_of(value) for word, value in inputs.items()}
        soft_digest = digest_of(dict(soft or {}))
        record = self._record(file, outputs)
        if record and record["inputs"] != digests:
            self._changed(name, record["inputs"], digests, outputs)
            record = None
        spent = float(record["seconds"]) if record else 0.0
        if record and record["state"] == DONE and record["soft"] == soft_digest:
            self.rows.append(StageRow(name, spent, skipped=True))
            self.say(f"{name}: done before, skipped")
            return dict(record["facts"])
        self.say(f"{name} …")
        write_json(
            file, {"state": STARTED, "inputs": digests, "soft": soft_digest, "seconds": spent, "facts": {}}
        )
        begun = time.monotonic()
        facts: Facts = {}
        state = STARTED
        try:
            facts = work()
            state = DONE
        finally:
            spent += time.monotonic() - begun
            write_json(
                file,
                {
                    "state": state,
                    "inputs": digests,
                    "soft": soft_digest,
                    "seconds": round(spent, 3),
                    "facts": facts,
                },
            )
        self.rows.append(StageRow(name, spent, skipped=False))
        self.say(f"{name}: {spent:.1f} s")
        return facts

    def done(self, name: str) -> Facts | None:
        """The facts of a finished stage of an earlier call; None where it is not finished."""
        record = self._record(self.folder / f"{name}.json", [])
        return dict(record["facts"]) if record and record["state"] == DONE else None

    def _record(self, file: Path, outputs: list[Path]) -> dict[str, Any] | None:
        if not file.exists():
            return None
        record: dict[str, Any] = read_json(file)
        if record["state"] == DONE and not all(path.exists() for path in outputs):
            return None
        return record

    def _changed(
        self, name: str, before: Mapping[str, str], now: Mapping[str, str], outputs: list[Path]
    ) -> None:
        words = sorted(word for word in {*before, *now} if before.get(word) != now.get(word))
        if not self.redo and any(path.exists() for path in outputs):
            raise UserError(
                f"{name} was made from other inputs ({', '.join(words)} changed): give another --out, or "
                "--redo to delete and make again what depends on them"
            )
        for path in outputs:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def stage_table(rows: list[StageRow]) -> str:
    """The table a run ends with: stage, seconds, share of the whole."""
    total = sum(row.seconds for row in rows) or 1.0
    width = max([len(row.name) for row in rows] + [5])
    lines = [f"{'stage':<{width}}  seconds  share"]
    for row in rows:
        note = "  (done before)" if row.skipped else ""
        lines.append(f"{row.name:<{width}}  {row.seconds:7.1f}  {row.seconds / total:5.0%}{note}")
    lines.append(f"{'total':<{width}}  {sum(row.seconds for row in rows):7.1f}")
    return "\n".join(lines)
