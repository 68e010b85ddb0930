"""The cards of the template browser: what a template makes, and what it is for, on one square picture."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from workflow_graphs import FILES

SIDE, BAND, HEAD = 640, 200, 76
"""HEAD: under the badge that the template browser lays over a card's corner."""
_WIDE = 1500
"""Pixels of a plot that is too wide for half a card."""
PAPER, INK, FAINT = "#16181d", "#ffffff", "#aab2bd"
WORDS = {
    "quick_start": (
        "Quick start",
        "Trains a LoRA on drawn faces, draws, filters and measures. Nothing to download.",
    ),
    "train_pre_op": ("Train a LoRA", "Faces before repair. Needs FLUX.1 schnell and a dataset."),
    "train_post_op": ("Train a LoRA", "Faces after repair. Needs FLUX.1 schnell and a dataset."),
    "generate_pre_op": ("Draw faces", "Before repair, filtered and saved. Needs FLUX.1 schnell and a LoRA."),
    "generate_post_op": ("Draw faces", "After repair, filtered and saved. Needs FLUX.1 schnell and a LoRA."),
    "checkpoint_strength_grid": ("Compare checkpoints", "Two checkpoints at three strengths in one picture."),
    "evaluate": ("Measure two sets", "FIR, FID, LPIPS and a report. Needs saved sets and their datasets."),
    "classifier": ("Train a classifier", "Learns from generated faces, is tested on held-out people."),
    "rater_study": ("Rater study", "Generated or photograph? A blind study, and what raters said."),
    "zero_shot_baseline": ("Zero-shot baseline", "What FLUX.1 schnell draws without a LoRA."),
}


def write_cards(made: Path, folder: Path) -> None:
    """Write a card beside every template from what its run made."""
    for name, file in FILES.items():
        card = Image.new("RGB", (SIDE, SIDE), PAPER)
        picture = _LOOKS.get(name, _faces)(made / name)
        card.paste(_fitted(picture, SIDE, SIDE - BAND - HEAD), (0, HEAD))
        _write(card, *WORDS[name])
        card.save(folder / f"{file}.jpg", quality=82, optimize=True)


def _write(card: Image.Image, title: str, words: str) -> None:
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, SIDE - BAND, SIDE, SIDE), fill=PAPER)
    draw.text((28, SIDE - BAND + 22), title, fill=INK, font=ImageFont.load_default(46))
    for place, line in enumerate(textwrap.wrap(words, 40)[:3]):
        draw.text((28, SIDE - BAND + 88 + 34 * place), line, fill=FAINT, font=ImageFont.load_default(27))


def _faces(folder: Path) -> Image.Image:
    """Saved faces side by side."""
    files = sorted(path for path in folder.rglob("*.png") if path.parent.name != "previews")
    columns = 4 if len(files) > 2 else 2
    rows = 1 if columns == 2 else 2
    shown = [Image.open(path).convert("RGB") for path in files[: columns * rows]]
    return _tiles(shown, columns)


def _previews(folder: Path) -> Image.Image:
    """What nodes showed, two of a kind at most: plots, each once."""
    files = {path.read_bytes(): path for path in sorted((folder / "previews").glob("*.png"))}
    shown = [Image.open(path).convert("RGB") for path in files.values()]
    narrow = [picture for picture in shown if picture.width < _WIDE] or shown
    return _tiles(narrow[:2], len(narrow[:2]))


def _verdicts(folder: Path) -> Image.Image:
    """Faces with a filter's verdict on each."""
    shown = [Image.open(path).convert("RGB") for path in sorted((folder / "previews").glob("*.png"))]
    faces = [picture for picture in shown if picture.width == 384]
    return _tiles(faces[:3], 3)


def _grid(folder: Path) -> Image.Image:
    return Image.open(next((folder / "previews").glob("*.png"))).convert("RGB")


def _pairs(folder: Path) -> Image.Image:
    """A generated face beside a drawn one, as a rater would see them."""
    return _faces(folder.with_name("generate_pre_op"))


def _tiles(pictures: list[Any], columns: int) -> Image.Image:
    width, height = (max(picture.size[side] for picture in pictures) for side in (0, 1))
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * width, rows * height), PAPER)
    for place, picture in enumerate(pictures):
        whole.paste(picture, ((place % columns) * width, (place // columns) * height))
    return whole


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The whole picture in the middle of a box."""
    scale = min(width / picture.width, height / picture.height)
    small = picture.resize(
        (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
    )
    box = Image.new("RGB", (width, height), PAPER)
    box.paste(small, ((width - small.width) // 2, (height - small.height) // 2))
    return box


_LOOKS: dict[str, Callable[[Path], Image.Image]] = {
    "generate_pre_op": _verdicts,
    "generate_post_op": _verdicts,
    "train_pre_op": _previews,
    "train_post_op": _previews,
    "checkpoint_strength_grid": _grid,
    "evaluate": _previews,
    "classifier": _previews,
    "rater_study": _pairs,
}
