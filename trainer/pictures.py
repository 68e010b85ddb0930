"""Pictures of how a run goes: `loss.png` beside the loss history, and `previews/grid.png` of all previews."""

import re
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ..diffusioncleft_core.files import read_jsonl, write_bytes
from ..diffusioncleft_core.imageset.synthetic import contact_sheet
from ..diffusioncleft_core.report.loss_history import loss_history
from .preview import PreviewPrompt

SECONDS = 60.0
"""The least time between two drawings of one run."""
DPI = 300
"""Three times the 96 of a screen, as for print."""
_PREVIEW = re.compile(r"step_(\d{6,})_(\d{2,})\.png")
_WIDEST, _CELLS = 8000, (96, 256)
"""Of the grid, px, and of a cell in it."""


class RunPictures:
    """Draws the two pictures of a run, not more often than every minute."""

    def __init__(self, output_dir: Path, prompts: list[PreviewPrompt], *, phantom: bool) -> None:
        self._folder, self._prompts, self._phantom = output_dir, prompts, phantom
        self._last = time.monotonic()

    def draw(self, step: int, *, at_once: bool = False) -> None:
        """Draw what there is up to `step`, if a minute has passed, or `at_once`."""
        if not at_once and time.monotonic() - self._last < SECONDS:
            return
        drawing = loss_history(read_jsonl(self._folder / "loss.jsonl"), phantom=self._phantom)
        if drawing is not None:
            write_bytes(self._folder / "loss.png", drawing.render("png", dpi=DPI)[0])
        if self._prompts:
            write_grid(self._folder / "previews", [prompt.prompt for prompt in self._prompts], step)
        self._last = time.monotonic()


def remove_pictures(output_dir: Path) -> None:
    """Delete previews, grid, losses and their plot, as before a training that starts anew in `output_dir`.

    Pictures of two trainings would be mixed in the grid, and nobody could tell which LoRA drew one.
    """
    previews = output_dir / "previews"
    drawn = [
        path
        for suffix in (".png", ".json")
        for path in previews.glob(f"step_*{suffix}")
        if _PREVIEW.fullmatch(f"{path.stem}.png")
    ]
    beside = ("previews/grid.png", "previews/grid.json", "loss.jsonl", "loss.png")
    for path in (*drawn, *(output_dir / name for name in beside)):
        path.unlink(missing_ok=True)


def write_grid(folder: Path, prompts: list[str], last: int) -> Path | None:
    """Write `grid.png`: a row a prompt, a column a step up to `last`, each cell with its label.

    Steps that lack a picture are left out; None where there is no step at all.
    """
    found: dict[int, dict[int, Path]] = {}
    for path in folder.glob("step_*.png"):
        if (match := _PREVIEW.fullmatch(path.name)) and int(match[1]) <= last:
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    wanted = range(len(prompts))
    steps = sorted(step for step, files in found.items() if all(index in files for index in wanted))
    most = _WIDEST // _CELLS[0]
    if len(steps) > most:
        steps = [steps[round(place * (len(steps) - 1) / (most - 1))] for place in range(most)]
    if not steps:
        return None
    cells = []
    for index in wanted:
        for step in steps:
            with Image.open(found[step][index]) as picture:
                cells.append((np.asarray(picture.convert("RGB")), f"step {step:,}: {prompts[index]}"))
    return contact_sheet(
        cells,
        folder / "grid.png",
        title="Previews by step",
        columns=len(steps),
        cell=max(_CELLS[0], min(_CELLS[1], _WIDEST // len(steps))),
    )
