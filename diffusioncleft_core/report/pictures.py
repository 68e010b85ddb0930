"""The pictures a report may show, found in folders, and how each becomes a small data URI.

Only synthetic pictures are shown, and of those a LoRA drew only the ones that were compared with the training
faces and stayed below the filter's threshold. On phantoms, where nothing was learned from photographs,
comparing is not required.
"""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..dataset.drawn import set_withdrawal
from ..dataset.photographs import refuse_photograph_folder
from ..dataset.withdrawn import Withdrawal, lora_withdrawal
from ..errors import UserError
from ..files import encoded, inside, read_json
from ..filters.artifacts import NO_FACE, SEVERAL_FACES, UNREADABLE
from ..filters.identity import LEAKS
from ..filters.stage import REASONS
from ..filters.verdicts import PERSON
from ..imageset.manifest import ImageRow, image_set_rows, listed_rows
from ..imageset.places import MANIFEST
from ..imageset.synthetic import short_label, xmp_packet
from ..progress import progress
from .blocks import Photo

T = TypeVar("T")

SAMPLES = 24
PANEL_IMAGES = 8
REJECTED = 6
"""Images that are shown of each reason for rejection."""
PREVIEW_STEPS = 6
THUMBNAIL = 256
QUALITY = 80
PREVIEW_NAME = re.compile(r"step_(\d+)_(\d+)\.png")
PREVIEW_VERDICTS = "verdicts.json"
WITHDRAWN = (
    "No image is shown: the LoRA that drew them learned from a photograph whose consent was withdrawn. "
    "`diffusioncleft dataset withdraw` erases them."
)
WHY_NOT = "too like a training face, or with a face that was not compared, or without one."
MAY_NOT_BE_SHOWN = f"may not be shown: {WHY_NOT}"
NOT_COMPARED = (
    "No image is shown: they were not compared with the training faces, and one may look like a person. "
    "`diffusioncleft filter` compares them."
)


@dataclass(frozen=True)
class Picture:
    """A synthetic picture on disk. prompt: goes into the thumbnail's own metadata."""

    path: Path
    alt: str
    caption: str
    badge: str = ""
    prompt: str = ""


@dataclass(frozen=True)
class Panel:
    """Pictures that belong together, and what is to be said of them."""

    title: str
    pictures: Sequence[Picture] = ()
    note: str = ""


@dataclass(frozen=True)
class ReportPictures:
    """Everything a report shows beside numbers; each part may be empty."""

    samples: Mapping[str, Panel] = field(default_factory=dict)
    zero_shot: Sequence[Panel] = ()
    previews: Sequence[Panel] = ()
    rejected: Sequence[Panel] = ()

    def every(self) -> Iterable[Picture]:
        for panel in (*self.samples.values(), *self.zero_shot, *self.previews, *self.rejected):
            yield from panel.pictures


def withheld(verdicts: Mapping[str, Any], *, phantom: bool) -> bool:
    """Whether a generated image with these verdicts must not be shown to others.

    It is too like a training face or photograph, has no face that could be compared, was never compared, or a
    person rejected it. Of several faces the largest alone is compared: where people were learned from, the
    others could be anyone.
    """
    identity = verdicts.get("identity")
    reasons = set(verdicts.get("reasons") or [])
    if {NO_FACE, UNREADABLE, *LEAKS, PERSON} & reasons or (identity or {}).get("rejected"):
        return True
    return not phantom and (SEVERAL_FACES in reasons or (identity or {}).get("max_similarity") is None)


def sample_panel(
    folder: Path, *, phantom: bool, n: int = SAMPLES, known: Sequence[Withdrawal] | None = None
) -> Panel:
    """The first images of a generated set's plan that may be shown, rejected ones marked as such.

    known: withdrawn LoRAs (default: the user's list); of a set of theirs no image is shown.
    """
    if set_withdrawal(folder, known) is not None:
        return Panel("", note=WITHDRAWN)
    shown: list[ImageRow] = []
    passed, planned, compared = 0, 0, phantom
    for row in image_set_rows(folder, may_be_empty=True):
        if not row.is_raw:
            continue
        planned += 1
        compared = compared or bool(row.verdicts.get("identity"))
        if len(shown) == n:
            continue
        if withheld(row.verdicts, phantom=phantom) or not inside(folder, row.file).is_file():
            passed += 1
        else:
            shown.append(row)
    if planned and not compared:
        return Panel("", note=NOT_COMPARED)
    ending = shared_ending([row.prompt or "" for row in shown])
    what = "Synthetic phantom face" if phantom else "Synthetic face"
    pictures = [
        Picture(
            inside(folder, row.file),
            f"{what}: {short_label(row.attributes)}",
            (row.prompt or "").removesuffix(ending).strip(),
            badge_of(row),
            row.prompt or "",
        )
        for row in shown
    ]
    said = [f"The first {len(shown)} of {planned:,} images of the plan, in its order."]
    if passed:
        said.append(f"{passed} before the last of them {MAY_NOT_BE_SHOWN}")
    if ending:
        said.append(f"Every prompt ends with “{ending.strip()}”")
    return Panel("", pictures, " ".join(said))


def rejected_panels(
    folder: Path,
    title: str,
    *,
    phantom: bool,
    n: int = REJECTED,
    known: Sequence[Withdrawal] | None = None,
) -> list[Panel]:
    """The first images that the filters set aside, a panel a reason; the same image may be under several.

    An image that must not be shown is counted alone. known: as `sample_panel`'s.
    """
    if set_withdrawal(folder, known) is not None:
        return []
    rejected, hidden_of = Counter[str](), Counter[str]()
    shown_of: dict[str, list[ImageRow]] = {}
    for row in image_set_rows(folder, may_be_empty=True):
        if row.accepted is not False:
            continue
        hides = withheld(row.verdicts, phantom=phantom)
        for reason in row.reasons:
            rejected[reason] += 1
            hidden_of[reason] += hides
            shown = shown_of.setdefault(reason, [])
            if not hides and len(shown) < n and inside(folder, row.file).is_file():
                shown.append(row)
    panels = []
    for reason in [*REASONS, *sorted(rejected.keys() - set(REASONS))]:
        if not rejected[reason]:
            continue
        hidden, shown = hidden_of[reason], shown_of[reason]
        said = f"{len(shown) or 'None'} of {rejected[reason]:,} shown."
        if hidden == rejected[reason]:
            said = f"None of {hidden:,} may be shown: {WHY_NOT}"
        elif hidden:
            said += f" {hidden:,} {MAY_NOT_BE_SHOWN}"
        what = "Synthetic phantom face" if phantom else "Synthetic face"
        named = REASONS.get(reason, reason.replace("_", " "))
        pictures = [
            Picture(
                inside(folder, row.file),
                f"{what}, rejected ({named.lower()}): {short_label(row.attributes)}",
                short_label(row.attributes),
                "synthetic",
                row.prompt or "",
            )
            for row in shown
        ]
        panels.append(Panel(f"{title}: {named.lower()}", pictures, said))
    return panels


def badge_of(row: ImageRow) -> str:
    if row.accepted is not False:
        return ""
    reasons = [REASONS.get(kind, kind).lower() for kind in row.reasons]
    return f"rejected: {', '.join(reasons)}" if reasons else "rejected"


def shared_ending(prompts: Sequence[str]) -> str:
    """The sentences that all prompts end with; "" for fewer than two prompts."""
    if len(prompts) < 2:
        return ""
    split = [re.split(r"(?<=[.!?])(?=\s)", prompt) for prompt in prompts]
    ending: list[str] = []
    for parts in zip(*(reversed(sentences) for sentences in split), strict=False):
        if len(set(parts)) > 1 or any(len(sentences) <= len(ending) + 1 for sentences in split):
            break
        ending.insert(0, parts[0])
    return "".join(ending)


def folder_panel(folder: Path, title: str, *, n: int = PANEL_IMAGES) -> Panel:
    """Images of a model without our LoRAs: an image set, or a bare folder of images.

    No file name is shown. The prompt is the manifest's, or what the PNG itself says.

    Raises:
        UserError: it holds photographs.
    """
    refuse_photograph_folder(folder)
    rows: list[ImageRow] = []
    images = 0
    for row in image_set_rows(folder):
        if row.role in ("train", "holdout"):
            raise UserError(f"{folder} is a dataset of photographs: give a folder of generated images")
        images += 1
        rows += [row] if images <= n else []
    if set_withdrawal(folder) is not None:
        return Panel(title, note=WITHDRAWN)
    pictures = []
    for row in rows:
        path = inside(folder, row.file)
        prompt = row.prompt or prompt_in(path)
        said = f"prompt “{prompt}”" if prompt else "prompt not recorded"
        pictures.append(Picture(path, f"{title}, {said}", prompt or "Prompt not recorded.", "", prompt))
    note = f"{len(pictures)} of {images} images." if images > len(pictures) else ""
    return Panel(title, pictures, note)


def prompt_in(path: Path) -> str:
    """The `prompt` text chunk of a PNG; "" where there is none, or where it is ComfyUI's whole graph."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            text = str(image.info.get("prompt", ""))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    return "" if text.lstrip().startswith("{") else text.strip()


def preview_panels(folder: Path, title: str, *, phantom: bool, steps: int = PREVIEW_STEPS) -> list[Panel]:
    """The previews of a training, a panel a prompt, at most `steps` of each, first and last among them."""
    found = sorted(
        (m[2], int(m[1]), p) for p in folder.glob("step_*.png") if (m := PREVIEW_NAME.fullmatch(p.name))
    )
    if not found:
        return []
    if any(lora_withdrawal(lora) is not None for lora in folder.parent.glob("*.safetensors")):
        return [Panel(f"{title}, previews", note=WITHDRAWN)]
    verdicts = read_json(folder / PREVIEW_VERDICTS) if (folder / PREVIEW_VERDICTS).is_file() else {}
    allowed = [
        (prompt, step, path)
        for prompt, step, path in found
        if not withheld({"identity": verdicts.get(path.name)}, phantom=phantom)
    ]
    note = ""
    if len(allowed) < len(found):
        note = (
            f"{len(found) - len(allowed)} of {len(found)} previews are not shown: too like a training face, "
            "or not compared."
        )
    panels = []
    for number in dict.fromkeys(prompt for prompt, _, _ in allowed):
        mine = [(step, path) for prompt, step, path in allowed if prompt == number]
        prompt = prompt_in(mine[0][1])
        pictures = [
            Picture(path, f"Preview at step {step}, {prompt}", f"step {step:,}", "", prompt)
            for step, path in evenly(mine, steps)
        ]
        panels.append(Panel(f"{title}, previews: “{prompt}”", pictures, note))
        note = ""
    return panels or [Panel(f"{title}, previews", note=note)]


def evenly(items: Sequence[T], n: int) -> list[T]:
    """At most n of the items, evenly spaced, first and last among them."""
    if len(items) <= n:
        return list(items)
    return [items[round(place * (len(items) - 1) / (n - 1))] for place in range(n)]


def thumbnail(picture: Picture, side: int = THUMBNAIL) -> Photo | None:
    """The picture as WebP of at most `side` px a side; None when it can't be read.

    Its own metadata say that it is synthetic, and nothing else.
    """
    from PIL import Image

    from ..imageset.decode import Rejected, read_image

    try:
        small = Image.fromarray(read_image(picture.path))
    except Rejected:
        return None
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    mark = encoded(xmp_packet(picture.prompt))
    small.save(buffer, "WEBP", quality=QUALITY, method=4, exif=b"", icc_profile=b"", xmp=mark)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    src = f"data:image/webp;base64,{data}"
    return Photo(src, picture.alt, picture.caption, small.width, small.height, picture.badge)


def refuse_photographs(pictures: ReportPictures, private: Path) -> None:
    """Raise UserError when one of the pictures is a photograph of a dataset in the run's private folder."""
    known = {
        row.sha256
        for manifest in private.glob(f"*/{MANIFEST}")
        for row in listed_rows(manifest.parent)
        if row.sha256
    }
    if not known:
        return
    for picture in progress(list(pictures.every()), "pictures of the report", leave=False):
        if pixels_of(picture.path) in known:
            raise UserError(
                f"{picture.path} is one of the run's photographs, and a report shows none: give folders of "
                "generated images"
            )


def pixels_of(path: Path) -> str | None:
    """The pixel hash by which datasets know an image; None when it can't be read."""
    from ..imageset.decode import Rejected, pixel_sha256, read_image

    try:
        return pixel_sha256(read_image(path))
    except Rejected:
        return None
