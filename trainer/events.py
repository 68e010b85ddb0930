"""What the trainer says: events as JSON Lines on standard output, and the loss of every step on disk."""

import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import explained, read_jsonl, write_jsonl

Event = dict[str, Any]
EVENT_SECONDS = 0.5
"""The least time between two `step` events."""


class Events:
    """Sends events to a function.

    `start` (step, total, images, regularisation), `load` and `prepare` (what, done, total), `step` (step,
    total, loss, lr, seconds a step, reg_loss), `validation` (step, loss), `preview` (path, prompt, step),
    `checkpoint` (step, path),
    `saved` (path, step), `warning` and `notice` (message; private: it may name a file), `interrupted` (step,
    reason), `done` (path, step, peaks), `error` (message, hint, kind).
    """

    def __init__(self, write: Callable[[Event], None]) -> None:
        self._write = write

    def emit(self, event: str, **fields: Any) -> None:
        self._write({"event": event, **fields})


def standard_output_events() -> Events:
    """Return events on standard output, and lead everything else that is printed there to standard error.

    Libraries print; a reader of the events must see nothing but JSON Lines. A reader that has gone away is no
    reason to lose the run: what would be written is dropped then.
    """
    stream: TextIO | None = os.fdopen(
        os.dup(1), "w", encoding="utf-8", errors="backslashreplace", newline="\n"
    )
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def write(event: Event) -> None:
        nonlocal stream
        if stream is None:
            return
        try:
            stream.write(json.dumps(event, ensure_ascii=False) + "\n")
            stream.flush()
        except OSError:
            stream = None

    return Events(write)


class LossHistory:
    """Collects the loss of each step, and now and then writes them to `loss.jsonl` and sends one `step`
    event.

    Losses stay on their device until then: reading one would make the processor wait for the GPU at every
    step.
    """

    def __init__(
        self,
        path: Path | None,
        events: Events,
        start: int,
        total: int,
        *,
        every: int = 50,
        seconds: float = EVENT_SECONDS,
        track: Callable[[Event], None] | None = None,
    ) -> None:
        """Go on from step `start`: what an interrupted run wrote beyond it is dropped from the file.

        path: None: another process writes it. track: gets every row that is written.
        """
        self._track = track
        self._path, self._events, self._total = path, events, total
        self._every, self._seconds = every, seconds
        self._pending: list[tuple[int, torch.Tensor, dict[str, float]]] = []
        self._last_time = time.monotonic()
        if path is not None:
            rows = read_jsonl(path) if path.exists() else []
            write_jsonl(path, [row for row in rows if row.get("step", 0) <= start])

    def add(self, step: int, losses: torch.Tensor, lr: float, validation: float | None = None) -> None:
        """Take the losses of `step`: [2], the image's and the regularisation's (NaN where there is none), and
        that of the validation after it, which has an event of its own.
        """
        more = {"lr": lr}
        if validation is not None:
            more["val_loss"] = validation
            self._events.emit("validation", step=step, loss=validation, total=self._total)
        self._pending.append((step, losses, more))
        if len(self._pending) >= self._every or time.monotonic() - self._last_time >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is pending. A loss that is not finite raises UserError."""
        if not self._pending:
            return
        values = torch.stack([losses for _, losses, _ in self._pending]).tolist()
        rows: list[Event] = []
        for (step, _, more), (loss, reg_loss) in zip(self._pending, values, strict=True):
            if not math.isfinite(loss) or math.isinf(reg_loss):
                raise UserError(
                    f"the loss is not finite at step {step}; lower --learning_rate, or check the base "
                    "model's files"
                )
            row = {"step": step, "loss": loss, **more}
            if not math.isnan(reg_loss):
                row["reg_loss"] = reg_loss
            rows.append(row)
        if self._path is not None:
            with explained(self._path), open(self._path, "a", encoding="utf-8", newline="\n") as handle:
                handle.write("".join(json.dumps(row) + "\n" for row in rows))
            if self._track is not None:
                for row in rows:
                    self._track(row)
        now = time.monotonic()
        seconds = (now - self._last_time) / len(rows)
        mean = {
            name: sum(row[name] for row in rows) / len(rows)
            for name in ("loss", "reg_loss")
            if name in rows[-1]
        }
        last = {name: value for name, value in rows[-1].items() if name != "val_loss"}
        self._events.emit("step", **(last | mean), total=self._total, seconds=round(seconds, 5))
        self._pending.clear()
        self._last_time = now
