"""Image files to pixels: upright, sRGB, 8 bits, opaque, without metadata; and why a file is set aside."""

import contextlib
import functools
import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageFile, TiffImagePlugin

from .plain_png import decode_plain_png

# reason -> what it means, in the words of the summary
REASONS = {
    "no_consent": "consent is not 'yes'",
    "no_row": "no row in the metadata",
    "row_without_photo": "a row without a photograph",
    "row_conflict": "rows that contradict each other",
    "metadata": "a value is missing or unknown",
    "other_condition": "belongs to another condition",
    "caption": "the sidecar caption can't be used",
    "outside": "a link that leads out of the folder",
    "unreadable": "the file can't be read",
    "unsupported": "not an image format that is read",
    "undecodable": "truncated, damaged or no image",
    "too_large": "larger than what is decoded",
    "animated": "an animation or several pages",
    "too_small": "smaller than the minimum size",
    "no_face": "no face was found",
    "several_faces": "more than one face",
    "duplicate": "the same picture again",
    "near_duplicate": "nearly the same picture again",
}
OVERRULABLE = frozenset({"animated", "too_small", "no_face", "several_faces", "near_duplicate"})


class Rejected(Exception):
    """A photograph can't enter: `reason` is a key of REASONS, `detail` says what was seen and what to do."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class SetAside:
    """One entry of the private list `set_aside.jsonl`. `source` is the file's SHA-256 where it was read."""

    file: str
    reason: str
    detail: str = ""
    source: str | None = None

    @property
    def overrulable(self) -> bool:
        """Whether `dataset readmit` can take the photograph back."""
        return self.reason in OVERRULABLE

    def to_json(self) -> dict[str, Any]:
        """The entry as a JSON object; whether it can be taken back is written out for the reader."""
        row: dict[str, Any] = {"file": self.file, "reason": self.reason, "detail": self.detail}
        if self.source is not None:
            row["source"] = self.source
        return row | {"can_be_taken_back": self.overrulable}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "SetAside":
        """Read an entry of `set_aside.jsonl`."""
        return cls(str(row["file"]), str(row["reason"]), str(row.get("detail", "")), row.get("source"))


INGEST_VERSION = 2
"""Raised whenever the same file comes out as other pixels: what was found in them before is found again."""
MAX_SIDE = 2048
MAX_PIXELS = 300_000_000
MAX_BYTES = 1 << 30
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF", "HEIF")  # JPEG opens MPO
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_LOCK = threading.Lock()

# EXIF 2.32, tag 0x0112: what undoes each orientation.
_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Photograph:
    """Normalised pixels [H, W, 3] uint8 sRGB, and the original's size in px, upright."""

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    original_width: int
    original_height: int


def read_bytes(path: Path) -> bytes:
    """Read a photograph's file whole. Raises Rejected when it is no regular file, too large or unreadable."""
    try:
        if not path.is_file():
            raise Rejected("unreadable", "not a regular file")
        if path.stat().st_size > MAX_BYTES:
            raise Rejected("too_large", f"the file has more than {MAX_BYTES >> 30} GB; save a smaller copy")
        return path.read_bytes()
    except OSError as error:
        raise Rejected(
            "unreadable", f"{error.strerror or 'the file can not be read'}; check its permissions"
        ) from error


def normalise(data: bytes, *, max_side: int = MAX_SIDE, first_frame: bool = False) -> Photograph:
    """Decode a photograph and bring it to upright 8-bit sRGB without alpha or metadata.

    An ICC profile is converted to sRGB, 16 bits are scaled to 8, CMYK, palette and grey images are converted,
    transparency is laid on white. JPEG is decoded at a fraction already. Of a camera's multi-picture file
    (MPO) the first picture is the photograph.

    Args:
        data: the file's bytes.
        max_side: px; what is larger is reduced (area mean, then Lanczos).
        first_frame: takes an animation's first frame.

    Raises:
        Rejected: it can't be decoded whole, it is an animation, or it has more than MAX_PIXELS (300
            megapixels, 20,000 x 15,000: 1 to 2.5 GB while it is decoded).
    """
    if not data:
        raise Rejected("undecodable", "the file is empty")
    plain = decode_plain_png(data, max_side)
    if plain is not None:
        return Photograph(plain, plain.shape[1], plain.shape[0])
    formats = _readable_formats()
    with _strict_pillow():
        try:
            return _decode(data, formats, max_side, first_frame)
        except (Rejected, KeyboardInterrupt):
            raise
        except MemoryError as error:
            raise Rejected("too_large", "not enough memory to decode it; save a smaller copy") from error
        except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
            raise Rejected("undecodable", _heif_advice(data) or "truncated, damaged or no image") from error


def read_image(path: Path, *, max_side: int = MAX_SIDE) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decode an image file to [H, W, 3] uint8 sRGB, upright, of an animation the first frame.

    Every reader of images comes here.

    Raises:
        Rejected: it can't be decoded whole.
    """
    return normalise(read_bytes(path), max_side=max_side, first_frame=True).pixels


def header_size(source: Path | bytes) -> tuple[int, int] | None:
    """(width, height) in px, upright, from an image's header alone; None when it has none."""
    try:
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        with _strict_pillow(), Image.open(opened, formats=_readable_formats()) as image:
            width, height = image.size
            if isinstance(image, TiffImagePlugin.TiffImageFile):  # its size may be upright already
                width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
            return (height, width) if _orientation(image, header=True) >= 5 else (width, height)
    except Exception:  # Pillow's plugins raise nearly anything on damaged files
        return None


def pixel_sha256(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    """SHA-256 of 'RGB', height and width (4 bytes each, big endian) and the pixels [H, W, 3] row by row."""
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(b"RGB" + height.to_bytes(4, "big") + width.to_bytes(4, "big"))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _decode(data: bytes, formats: list[str], max_side: int, first_frame: bool) -> Photograph:
    with Image.open(io.BytesIO(data), formats=formats) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise Rejected(
                "too_large", f"{width} x {height} px; at most {MAX_PIXELS // 10**6} megapixels are read"
            )
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1 and not first_frame:
            raise Rejected("animated", "an animation or several pages; taken back, its first frame is used")
        profile = image.info.get("icc_profile")
        if image.format in {"JPEG", "MPO"}:
            image.draft(None, (max_side, max_side))
            image.load()
        else:
            image.load()
            width, height = image.size
        orientation = _orientation(image)
        rgb = _to_srgb(_reduced(_eight_bits(image), max_side), profile)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
        if orientation >= 5:
            width, height = height, width
    longest = max(rgb.size)
    if longest > max_side:
        size = (max(1, round(rgb.width * max_side / longest)), max(1, round(rgb.height * max_side / longest)))
        rgb = rgb.resize(size, Image.Resampling.LANCZOS)
    return Photograph(np.array(rgb, dtype=np.uint8), width, height)


def _orientation(image: Image.Image, *, header: bool = False) -> int:
    """What EXIF says of the pixels of a loaded image, 1..8; damaged EXIF counts as upright.

    Pillow's TIFF reader turns the picture upright while it loads it, and takes the tag away; the others leave
    both alone. header: don't load the image to look for EXIF behind the pixels.
    """
    try:
        exif = Image.Image.getexif(image) if header else image.getexif()
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF raises nearly anything and says nothing about the pixels
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring images of 16 or 32 bits a sample to mode L, palettes and bitmaps to RGB(A) or L; others pass."""
    if image.mode.startswith("I;16"):
        return _scaled(image, 65535.0)
    if image.mode in {"I", "F"}:
        peak = max(float(np.nan_to_num(strip).max(initial=0.0)) for strip in _strips(image))
        floor = 65535.0 if image.mode == "I" else 1.0
        return _scaled(image, next((white for white in (floor, 255.0, 65535.0) if peak <= white), peak))
    if image.mode in {"P", "PA"}:
        return image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode in {"L", "RGB"} and "transparency" in image.info:
        return image.convert("LA" if image.mode == "L" else "RGBA")
    if image.mode in {"RGBa", "La"}:
        return image.convert("RGBA" if image.mode == "RGBa" else "LA")
    return image


def _strips(image: Image.Image) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """The samples of an image of one channel, 256 rows at a time: large images are not copied whole."""
    for top in range(0, image.height, 256):
        strip = image.crop((0, top, image.width, min(top + 256, image.height)))
        yield np.asarray(strip).astype(np.float32)


def _scaled(image: Image.Image, white: float) -> Image.Image:
    """The samples 0..`white` as mode L, rounded."""
    scaled = Image.new("L", image.size)
    for number, strip in enumerate(_strips(image)):
        values = np.clip(np.nan_to_num(strip) * (255.0 / white) + 0.5, 0, 255).astype(np.uint8)
        scaled.paste(Image.fromarray(values), (0, 256 * number))
    return scaled


def _reduced(image: Image.Image, max_side: int) -> Image.Image:
    """Shrink by a whole factor, leaving at least `max_side`, before any full-size copy is made."""
    factor = max(image.size) // max_side
    if factor < 2 or image.mode not in {"L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"}:
        return image
    return image.reduce((min(factor, image.width), min(factor, image.height)))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to RGB, through the embedded ICC profile where it fits, and lay transparency on white."""
    alpha = image.getchannel("A") if image.mode in {"RGBA", "LA"} else None
    colour = image.convert("RGB" if image.mode == "RGBA" else "L") if alpha is not None else image
    converted = _through_profile(colour, profile) if profile else None
    rgb = converted or (colour if colour.mode == "RGB" else colour.convert("RGB"))  # it copies RGB too
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, (255, 255, 255)), alpha)
    return rgb


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The image in sRGB, or None when the profile is damaged or belongs to another kind of image."""
    from PIL import ImageCms

    if image.mode not in {"RGB", "CMYK", "L", "LAB"}:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@functools.cache
def _readable_formats() -> list[str]:
    """Pillow's names of the formats that are read here; no EPS or PDF, which start other programs."""
    import importlib

    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def decoder() -> str:
    """What decodes images here: another version of it, or one more format, may decode what this one can't."""
    return f"Pillow {PIL.__version__}: {', '.join(_readable_formats())}"


def _heif_advice(data: bytes) -> str | None:
    """What to do about an iPhone's HEIC, recognised by its ISO base media brand."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIC is not read here; pip install pillow-heif, or export it as JPEG"
    return None


@contextlib.contextmanager
def _strict_pillow() -> Iterator[None]:
    """For one decode: our own pixel limit instead of Pillow's warning, and no half-decoded files."""
    with _LOCK:
        limit, truncated = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of damaged EXIF
                yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = limit, truncated
