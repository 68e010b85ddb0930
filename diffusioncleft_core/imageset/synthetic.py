"""What every picture of generated pixels leaves on disk: a PNG marked as synthetic, and its JSON sidecar.

The mark stands three times, so that it survives whichever tool reads the file next: PNG text chunks, an XMP
packet with IPTC's digital source type, and the sidecar. Nothing here names a photograph or a folder.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import numpy.typing as npt

from ..conditions.plan import attempt_of
from ..errors import UserError
from ..files import read_json, sha256_bytes, sha256_file, write_bytes, write_json
from .decode import read_image
from .manifest import ImageRow
from .places import current_place, image_name, sidecar_of

SIDECAR_SCHEMA = 1
SOFTWARE = "diffusioncleft"
# https://cv.iptc.org/newscodes/digitalsourcetype/ : made by a model trained on sampled content
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

TRAINING = "training"
"""In a record of a LoRA: what it came from, which its conversion leaves as it is."""
OTHERS = "others"
"""In a record of a LoRA: records of those that drew together with it."""

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmp:CreatorTool={tool} Iptc4xmpExt:DigitalSourceType={source}>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


def marked_png(
    pixels: npt.NDArray[np.uint8], description: str, fields: Mapping[str, str] | None = None
) -> bytes:
    """PNG bytes of a synthetic picture with the mark in its text chunks and its XMP packet.

    Args:
        pixels: [H, W, 3], RGB.
        description: what it shows, a prompt or a title.
        fields: further text chunks.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("synthetic", "true")
    text.add_text("Software", SOFTWARE)
    for name, value in (fields or {}).items():
        if name == "prompt":
            text.add_itxt(name, value)
        else:
            text.add_text(name, value)
    text.add_text("digital_source_type", DIGITAL_SOURCE_TYPE)
    text.add_itxt("XML:com.adobe.xmp", xmp_packet(description))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def write_marked(
    path: Path,
    pixels: npt.NDArray[np.uint8],
    description: str,
    record: Mapping[str, Any],
    fields: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write a synthetic picture as `marked_png`, then its sidecar; returns the sidecar's content."""
    return write_pair(path, marked_png(pixels, description, fields), record)


def write_pair(path: Path, data: bytes, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write the PNG that `data` is, then its sidecar; returns the sidecar's content.

    The sidecar holds `record`, the mark and the PNG's hash, which is what says that the pair is whole.
    """
    width, height = struct.unpack(">II", data[16:24])  # of IHDR, a PNG's first chunk
    write_bytes(path, data)
    sidecar = {
        "schema": SIDECAR_SCHEMA,
        "file": path.name,
        **record,
        "width": width,
        "height": height,
        "png_sha256": sha256_bytes(data),
        "synthetic": True,
        "digital_source_type": DIGITAL_SOURCE_TYPE,
    }
    write_json(sidecar_of(path), sidecar)
    return sidecar


def is_ours(path: Path) -> bool:
    """Whether a PNG carries this program's mark; False for what can't be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.info.get("Software") == SOFTWARE
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def drawn_by(lora: object) -> set[str]:
    """By what a record of a LoRA knows it: the file's hash, and what it came from; the same of its others."""
    known = lora if isinstance(lora, Mapping) else {}
    told = [text for key in ("sha256", TRAINING) if isinstance(text := known.get(key), str)]
    names = {name for text in told for name in text.split()}
    others = known.get(OTHERS)
    return names.union(*map(drawn_by, others)) if isinstance(others, list) else names


def lora_of_image(path: Path) -> set[str]:
    """By what an image of ours knows its LoRA, from its sidecar and its text chunks; empty for others."""
    from PIL import Image

    found: set[str] = set()
    with contextlib.suppress(OSError, UserError):
        sidecar = read_json(sidecar_of(path)) if sidecar_of(path).is_file() else None
        if isinstance(sidecar, dict) and sidecar.get("synthetic") is True:
            found |= drawn_by(sidecar.get("lora"))
    if path.suffix.lower() == ".png":
        with contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            with Image.open(path, formats=["PNG"]) as image:
                said = image.info
            if said.get("Software") == SOFTWARE:
                for key in ("lora_sha256", "lora_training", "lora_others"):
                    found |= set(str(said.get(key, "")).split())
    return found - {"none"}


def xmp_packet(prompt: str) -> str:
    """The XMP packet that picture editors, archives and platforms read to tell a synthetic image."""
    return _XMP.format(
        tool=quoteattr(SOFTWARE),
        source=quoteattr(DIGITAL_SOURCE_TYPE),
        description=escape(f"Synthetic image. {prompt}"),
    )


def write_image(folder: Path, pixels: npt.NDArray[np.uint8], record: Mapping[str, Any]) -> dict[str, Any]:
    """Write one image of a set, named by its place in the plan and its seed.

    Args:
        folder: the set.
        pixels: [H, W, 3], RGB.
        record: the sidecar's content, of which prompt, seed and hashes become text chunks.

    Returns:
        The sidecar's content, with what is known now.
    """
    return write_drawn(folder, image_png(pixels, record), record)


def write_drawn(folder: Path, png: bytes, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write one image of a set from the bytes of `image_png`; see `write_image`."""
    return write_pair(folder / image_name(int(record["index"]), int(record["seed"])), png, record)


def image_png(pixels: npt.NDArray[np.uint8], record: Mapping[str, Any]) -> bytes:
    """The PNG of one image of a set: `pixels` [H, W, 3] RGB, prompt, seed and hashes of `record` as text."""
    prompt, lora = str(record["prompt"]), record.get("lora")
    fields = {
        "prompt": prompt,
        "seed": str(record["seed"]),
        "lora_sha256": str(lora["sha256"]) if lora else "none",
        "lora_strength": str(lora["strength"]) if lora else "0",
        **({"lora_training": str(lora[TRAINING])} if lora and TRAINING in lora else {}),
        **(
            {"lora_others": " ".join(sorted(drawn_by({OTHERS: lora[OTHERS]})))}
            if lora and OTHERS in lora
            else {}
        ),
        "base_sha256": str(record["base"]["sha256"]),
    }
    return marked_png(pixels, prompt, fields)


def read_done(folder: Path, index: int, seed: int) -> dict[str, Any] | None:
    """The sidecar of a finished image, or None when image or sidecar is missing, torn or altered.

    What the filters moved to `rejected/` is done too; `file` says where the image lies.
    """
    name = image_name(index, seed)
    try:
        file = current_place(folder, name)
        sidecar = read_json(folder / current_place(folder, sidecar_of(Path(name)).name))
        whole = isinstance(sidecar, dict) and sidecar.get("png_sha256") == sha256_file(folder / file)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, UserError):
        return None
    return {**sidecar, "file": file} if whole else None


def generated_row(sidecar: Mapping[str, Any], role: str = "generated") -> ImageRow:
    """The row of a generated image in its set's manifest."""
    lora = sidecar.get("lora")
    return ImageRow(
        file=sidecar["file"],
        index=sidecar["index"],
        attempt=attempt_of(sidecar["index"]),
        width=sidecar["width"],
        height=sidecar["height"],
        condition=sidecar["condition"],
        role=role,
        attributes=dict(sidecar["attributes"]),
        prompt=sidecar["prompt"],
        seed=sidecar["seed"],
        lora=lora["sha256"] if lora else None,
        verdicts=dict(sidecar.get("verdicts") or {}),
        made_from=sidecar.get("made_from"),
    )


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
    pictures: Sequence[tuple[Image8, str]],
    path: Path,
    *,
    title: str,
    columns: int = 10,
    cell: int = 128,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write a sheet of pictures, each with its label under it.

    Args:
        pictures: image [H, W, 3] RGB and label, one at least.
        path: of the sheet; its sidecar lies beside it.
        title: at the top of the sheet, and in the sidecar.
        columns: pictures in a row.
        cell: px to whose width every picture is scaled.
        record: what the sidecar says beside the title.
    """
    from PIL import Image as pillow
    from PIL import ImageDraw, ImageFont

    if not pictures:
        raise ValueError("a sheet needs a picture: give one at least")
    columns = min(columns, len(pictures))
    text_size = max(9, cell // 13)
    font = ImageFont.load_default(size=text_size)
    title_font = ImageFont.load_default(size=max(14, cell // 8))
    tallest = max(round(cell * image.shape[0] / image.shape[1]) for image, _ in pictures)
    row_height = tallest + LABEL_LINES * (text_size + 2) + MARGIN
    header = max(14, cell // 8) + 2 * MARGIN
    rows = -(-len(pictures) // columns)
    sheet = pillow.new(
        "RGB", (columns * (cell + MARGIN) + MARGIN, header + rows * row_height + MARGIN), BACKGROUND
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, fill=INK, font=title_font)
    for place, (image, label) in enumerate(pictures):
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
