"""Pictures with words on them: what a filter found, what a cell of a grid is.

Small pictures are enlarged first, so that the words can be read, and large ones made smaller: dozens of them
travel as one batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .verdicts import verdict_words

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

MOST = 32
"""Pictures that are drawn on at most."""
_READABLE, _LARGEST = 384, 512
"""px: a picture is enlarged until its shorter side has the first; its longer side has the second at most."""
_GOOD, _BAD, _UNCHECKED, _PAPER, _INK = "#00a878", "#e4572e", "#8a8f98", "#16181d", "#ffffff"


def with_verdict(
    pixels: Any, verdict: Mapping[str, Any], faces: Sequence[Any], *, checked: bool = True
) -> Any:
    """A picture [H, W, 3] uint8 with boxes, landmarks and, below it, the verdict in words.

    Args:
        pixels: [H, W, 3] uint8 RGB.
        verdict: of the filters, as a row holds it.
        faces: those found in it, the largest first.
        checked: whether anything looked at it.
    """
    from PIL import ImageDraw

    accepted = bool(verdict.get("accepted", True))
    colour = (_GOOD if accepted else _BAD) if checked else _UNCHECKED
    picture, scale = _sized(pixels)
    draw = ImageDraw.Draw(picture)
    line = max(2, picture.width // 160)
    for face in faces:
        draw.rectangle([float(value) * scale for value in face.box], outline=colour, width=line)
        for x, y in face.landmarks:
            spot = (x * scale - line, y * scale - line, x * scale + line, y * scale + line)
            draw.ellipse([float(value) for value in spot], fill=_INK, outline=colour)
    words = verdict_words(verdict, checked=checked).replace("_", " ")
    return _captioned(picture, [words, *_scores(verdict, faces)], colour)


def labelled(pixels: Any, label: str) -> Any:
    """A picture [H, W, 3] uint8 with its label below it."""
    return _captioned(_sized(pixels)[0], [label], _UNCHECKED)


def beside(left: Any, right: Any | None, label: str) -> Any:
    """Two pictures [H, W, 3] uint8 side by side, at one height, and a label below them."""
    from PIL import Image

    first = _sized(left)[0]
    second = _sized(right)[0] if right is not None else Image.new("RGB", first.size, _PAPER)
    second = second.resize((max(1, round(second.width * first.height / second.height)), first.height))
    pair = Image.new("RGB", (first.width + 6 + second.width, first.height), _PAPER)
    pair.paste(first, (0, 0))
    pair.paste(second, (first.width + 6, 0))
    return _captioned(pair, [label], _UNCHECKED)


def neighbours(pictures: Sequence[Any], faces: Sequence[Sequence[Any]]) -> list[Any]:
    """The first pictures with a face, each beside that of them all whose face is most like it.

    Args:
        pictures: generated ones, [H, W, 3] uint8; never photographs.
        faces: of each picture, the largest first; `embedding` has length 1.
    """
    import numpy as np

    places = [place for place in range(len(pictures)) if faces[place]]
    if len(places) < 2:
        return []
    embeddings = np.stack([np.asarray(faces[place][0].embedding, np.float32) for place in places])
    likeness = embeddings[:MOST] @ embeddings.T
    np.fill_diagonal(likeness, -2.0)
    return [
        beside(
            pictures[place],
            pictures[places[int(row.argmax())]],
            f"{place + 1} and {places[int(row.argmax())] + 1}: similarity {row.max():.2f}",
        )
        for place, row in zip(places, likeness, strict=False)
    ]


def tiled(pictures: Sequence[Any], columns: int) -> Any:
    """Pictures [H, W, 3] uint8 in rows of `columns`, every cell as large as the largest picture."""
    import numpy as np

    height, width = (max(picture.shape[side] for picture in pictures) for side in (0, 1))
    rows = math.ceil(len(pictures) / columns)
    gap = 4
    whole = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = (place // columns) * (height + gap), (place % columns) * (width + gap)
        whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return whole


def _scores(verdict: Mapping[str, Any], faces: Sequence[Any]) -> list[str]:
    """The numbers behind a verdict, as one line."""
    from ..diffusioncleft_core.imageset.copies import NO_HINT

    told = [f"face {faces[0].score:.2f}"] if faces else []
    identity = verdict.get("identity") or {}
    if identity.get("max_similarity") is not None:
        told.append(f"similarity {identity['max_similarity']:.2f} of {identity['threshold']:g}")
    if copy := identity.get("near_copy"):
        score, limit = copy["score"], copy["threshold"]
        told.append(f"copy {score:.2f} of {limit:g}" if score > NO_HINT else "no copy")
    return [", ".join(told)] if told else []


def _sized(pixels: Any) -> tuple[Image.Image, float]:
    """The picture at a size that shows its words, and by what it was enlarged: a whole number, or below 1."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    if max(picture.size) > _LARGEST:
        scale = _LARGEST / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        return picture.resize(size, Image.Resampling.LANCZOS), scale
    scale = min(math.ceil(_READABLE / min(picture.size)), _LARGEST // max(picture.size))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST), scale


def _captioned(picture: Image.Image, lines: Sequence[str], colour: str) -> Any:
    """The picture over its caption, [H, W, 3] uint8: one bar of colour and the lines, each made to fit."""
    import numpy as np
    from PIL import Image, ImageDraw

    size = max(16, picture.width // 22)
    bar, step = max(4, size // 3), round(size * 1.4)
    whole = Image.new("RGB", (picture.width, picture.height + bar + step * len(lines) + size // 2), _PAPER)
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    draw.rectangle((0, picture.height, whole.width, picture.height + bar - 1), fill=colour)
    for place, text in enumerate(lines):
        top = picture.height + bar + size // 4 + place * step
        draw.text((size // 2, top), text, fill=_INK, font=_font(draw, text, size, whole.width - size))
    return np.array(whole)


def _font(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> Any:
    """Pillow's own font, smaller where the text is too long for the width."""
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    length = draw.textlength(text, font=font)
    return font if length <= width else ImageFont.load_default(max(9, int(size * width / length)))
