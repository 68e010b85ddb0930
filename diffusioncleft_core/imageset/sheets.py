"""Contact sheets: many small pictures on one PNG, each over a short label, under one title."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .decode import read_image
from .synthetic import write_marked

Image8 = npt.NDArray[np.uint8]

MARGIN = 8
LABEL_LINES = 3
BACKGROUND = (250, 250, 248)
INK = (40, 40, 46)
LABEL_KEYS = (
    "subject",
    "skin",
    "hair_length",
    "hair_texture",
    "hair_color",
    "eyes",
    "cleft_type",
    "side",
    "severity",
    "scar",
    "asymmetry",
)


def short_label(attributes: Mapping[str, str]) -> str:
    """`girl, unilateral left, light skin, short wavy red hair, brown eyes`: a prompt in few words."""
    said = {key: attributes.get(key, "") for key in LABEL_KEYS}
    said = {key: "" if value == "none" else value for key, value in said.items()}
    hair = " ".join(said[key] for key in ("hair_length", "hair_texture", "hair_color") if said[key])
    cleft = " ".join(
        said[key] for key in ("severity", "cleft_type", "side", "scar", "asymmetry") if said[key]
    )
    eyes = f"{said['eyes']} eyes" if said["eyes"] else ""
    parts = [
        said["subject"],
        cleft,
        f"{said['skin']} skin" if said["skin"] else "",
        f"{hair} hair" if hair else "",
        eyes,
    ]
    return ", ".join(part for part in parts if part)


def contact_sheet(
    images: Sequence[Image8],
    labels: Sequence[str],
    path: Path,
    *,
    title: str,
    columns: int = 10,
    cell: int = 128,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write a sheet of `images` (each [H, W, 3] RGB), scaled to `cell` px wide, with a label under each.

    record: what the sidecar says beside the title.
    """
    from PIL import Image as pillow
    from PIL import ImageDraw, ImageFont

    if not images or len(images) != len(labels):
        raise ValueError(
            f"{len(images)} images and {len(labels)} labels: give as many labels as images, one at least"
        )
    columns = min(columns, len(images))
    text_size = max(9, cell // 13)
    font = ImageFont.load_default(size=text_size)
    title_font = ImageFont.load_default(size=max(14, cell // 8))
    tallest = max(round(cell * image.shape[0] / image.shape[1]) for image in images)
    row_height = tallest + LABEL_LINES * (text_size + 2) + MARGIN
    header = max(14, cell // 8) + 2 * MARGIN
    rows = -(-len(images) // columns)
    sheet = pillow.new(
        "RGB", (columns * (cell + MARGIN) + MARGIN, header + rows * row_height + MARGIN), BACKGROUND
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, fill=INK, font=title_font)
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        left = MARGIN + (place % columns) * (cell + MARGIN)
        top = header + (place // columns) * row_height
        height = round(cell * image.shape[0] / image.shape[1])
        sheet.paste(pillow.fromarray(image).resize((cell, height), pillow.Resampling.LANCZOS), (left, top))
        for number, line in enumerate(fit_lines(label, cell, lambda text: pen.textlength(text, font=font))):
            pen.text((left, top + tallest + 1 + number * (text_size + 2)), line, fill=INK, font=font)
    write_marked(path, np.asarray(sheet), title, {"title": title, **(record or {})})
    return path


def fit_lines(label: str, width: float, length: Callable[[str], float]) -> list[str]:
    """Break `label` at spaces into at most LABEL_LINES lines of `width` px, the last with an ellipsis."""
    lines: list[str] = []
    words = label.split()
    while words and len(lines) < LABEL_LINES:
        line = words.pop(0)
        while words and length(f"{line} {words[0]}") <= width:
            line = f"{line} {words.pop(0)}"
        lines.append(line)
    if words:
        lines[-1] += "…"
    return [clip(line, width, length) for line in lines]


def clip(line: str, width: float, length: Callable[[str], float]) -> str:
    """Cut `line` to `width` px, with an ellipsis where something is cut off."""
    while len(line) > 1 and length(line) > width:
        line = line.rstrip("…")[:-1] + "…"
    return line


def read_pictures(folder: Path, files: Sequence[str]) -> list[Image8]:
    """The named pictures of a folder, each [H, W, 3] RGB."""
    return [read_image(folder / name) for name in files]
