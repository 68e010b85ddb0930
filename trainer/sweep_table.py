"""The table of a sweep: what each run was trained with and came to, for the console, as CSV and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.files import read_jsonl, write_json, write_text
from ..diffusioncleft_core.recipe.recipe import Recipe
from ..diffusioncleft_core.spreadsheet import csv_text
from .sweep_recipe import Combination, shown_value

TABLE = "sweep"
"""Name of the table's files in the sweep's folder."""
DONE, FAILED, OPEN = "done", "failed", "to do"
LAST_SHARE = 10
"""The final loss is the mean over the last tenth of the steps: at batch 1 that of one step says little."""
_FIGURES = ("final_loss", "validation_loss", "seconds", "resumed", "lora")


@dataclass(frozen=True)
class Row:
    """A run in the table.

    Attributes:
        state: `done`, `failed` or `to do`.
        final_loss: mean over the last tenth of the steps that are trained.
        validation_loss: of the LoRA in the file; None where nothing was validated.
        seconds: wall time of the call that finished it.
        resumed: whether that call went on where another had stopped.
        lora: the file, relative to the sweep's folder.
    """

    combination: Combination
    state: str = OPEN
    final_loss: float | None = None
    validation_loss: float | None = None
    seconds: float | None = None
    resumed: bool | None = None
    lora: str | None = None


def losses_of(recipe: Recipe) -> tuple[float, float | None]:
    """The final loss and the validation loss that a finished run's `loss.jsonl` tells."""
    rows = read_jsonl(recipe.output.folder / "loss.jsonl")
    last = rows[-max(1, len(rows) // LAST_SHARE) :]
    validated = [float(row["val_loss"]) for row in rows if "val_loss" in row]
    final = sum(float(row["loss"]) for row in last) / len(last)
    if not validated:
        return final, None
    return final, min(validated) if recipe.validation.early_stop else rows[-1].get("val_loss")


def write_table(folder: Path, rows: Sequence[Row]) -> None:
    """Write `sweep.json` and `sweep.csv`. They hold no place but those of the LoRAs within `folder`."""
    swept = list(rows[0].combination.settings)
    document = {
        "schema": 1,
        "swept": swept,
        "runs": [
            {
                "run": row.combination.name,
                "settings": dict(row.combination.settings),
                "state": row.state,
                **{name: getattr(row, name) for name in _FIGURES},
            }
            for row in rows
        ],
    }
    write_json(folder / f"{TABLE}.json", document)
    cells = [[shown_value(row.combination.settings[path]) for path in swept] for row in rows]
    text = csv_text(
        ["run", *swept, "state", *_FIGURES],
        [
            [row.combination.name, *values, row.state, *(_cell(getattr(row, name)) for name in _FIGURES)]
            for row, values in zip(rows, cells, strict=True)
        ],
    )
    write_text(folder / f"{TABLE}.csv", text)


def shown_table(rows: Sequence[Row]) -> str:
    """The table for a console, a run a line, the figures' columns only where there are any."""
    swept = list(rows[0].combination.settings)
    columns = [(path, [shown_value(row.combination.settings[path]) for row in rows], ">") for path in swept]
    columns.append(("state", [row.state for row in rows], "<"))
    for title, name, form in (
        ("final loss", "final_loss", "{:.4f}"),
        ("validation", "validation_loss", "{:.4f}"),
        ("seconds", "seconds", "{:.0f}"),
        ("LoRA", "lora", "{}"),
    ):
        values = [getattr(row, name) for row in rows]
        if any(value is not None for value in values):
            shown = ["" if value is None else form.format(value) for value in values]
            columns.append((title, shown, "<" if name == "lora" else ">"))
    widths = [max(map(len, (title, *cells))) for title, cells, _ in columns]
    lines = [[title for title, _, _ in columns], *zip(*(cells for _, cells, _ in columns), strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:{align}{width}}" for cell, width, (_, _, align) in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(value: Any) -> Any:
    return "" if value is None else shown_value(value) if isinstance(value, bool) else value
