"""Plain PNGs are decoded by OpenCV to Pillow's pixels; every other file takes the way it took before."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from diffusioncleft.diffusioncleft_core.imageset import decode, plain_png
from diffusioncleft.diffusioncleft_core.imageset.decode import Rejected, normalise
from diffusioncleft.diffusioncleft_core.imageset.plain_png import decode_plain_png

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(height=24, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(image, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def built(stream, *, form=(8, 2, 0, 0, 0), height=24, width=40, more=b""):
    header = struct.pack(">IIBBBBB", width, height, *form)
    return SIGNATURE + chunk(b"IHDR", header) + more + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def scanlines(image):
    return b"".join(b"\0" + row.tobytes() for row in image)


def by_pillow(data, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(decode, "decode_plain_png", lambda data, max_side: None)
        try:
            return normalise(data)
        except Rejected as rejection:
            return rejection.reason, rejection.detail


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 9), st.booleans())
def test_a_plain_picture_comes_out_as_it_went_in(height, width, level, told):
    image = picture(height, width, level)
    info = PngImagePlugin.PngInfo()
    if told:
        info.add_text("parameters", "a face", zip=True)
        info.add_itxt("prompt", "a fäce")
    found = decode_plain_png(png(image, compress_level=level, pnginfo=info, dpi=(300, 300)), 2048)
    assert (
        found is not None and found.dtype == np.uint8 and found.flags.c_contiguous and found.flags.writeable
    )
    np.testing.assert_array_equal(found, image)


def test_smooth_pictures_with_every_filter_too():
    ramp = np.indices((200, 300)).sum(0)[..., None] * np.array([1, 2, 3]) // 4
    image = ramp.astype(np.uint8)
    np.testing.assert_array_equal(decode_plain_png(png(image, optimize=True), 2048), image)


def profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def told(keyword, text, *, zip=False, international=False):
    info = PngImagePlugin.PngInfo()
    if international:
        info.add_itxt(keyword, text)
    else:
        info.add_text(keyword, text, zip=zip)
    return info


def exif():
    found = Image.Exif()
    found[0x0112] = 6
    return found


@pytest.mark.parametrize(
    "data",
    [
        png(Image.fromarray(picture()).convert("RGBA")),
        png(Image.fromarray(picture()).convert("L")),
        png(Image.fromarray(picture()).convert("P")),
        png(Image.fromarray(picture()[..., 0].astype(np.uint16) * 257)),
        png(picture(), icc_profile=profile()),
        png(picture(), exif=exif()),
        png(picture(), pnginfo=told("Raw profile type exif", "exif")),
        png(picture(), pnginfo=told("Raw profile type exif", "exif", zip=True)),
        png(picture(), pnginfo=told("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>', international=True)),
        png(picture(), transparency=(1, 2, 3)),
        png(picture(), save_all=True, append_images=[Image.fromarray(picture(seed=1))]),
        png(picture(24, 2060)),
        built(zlib.compress(scanlines(picture())), more=chunk(b"gAMA", struct.pack(">I", 45455))),
        built(zlib.compress(scanlines(picture())), form=(8, 2, 0, 0, 1)),
        png(picture())[:-20],
        png(picture())[:100],
        png(picture()).replace(b"IDAT", b"IDAX"),
        png(picture())[:60] + b"\x55" + png(picture())[61:],
        SIGNATURE,
        b"",
    ],
    ids=[
        *("alpha", "grey", "palette", "16 bits", "profile", "exif", "wrapped exif"),
        *("packed exif", "xmp", "transparency", "animated", "large"),
        *("gamma", "interlaced", "cut", "cut early", "a foreign chunk", "a flipped byte", "header", "empty"),
    ],
)
def test_any_other_file_is_left_to_pillow(data):
    assert decode_plain_png(data, 2048) is None


@pytest.mark.parametrize(
    "stream",
    [
        zlib.compress(scanlines(picture()))[:-300],
        zlib.compress(scanlines(picture()))[:-4] + b"abcd",
        zlib.compress(scanlines(picture(12))),
        b"",
    ],
    ids=["cut", "another checksum", "too short", "nothing"],
)
def test_a_stream_that_is_damaged_within_whole_chunks_is_no_picture_either_way(stream, monkeypatch):
    data = built(stream)
    assert decode_plain_png(data, 2048) is None
    try:
        found = normalise(data)
    except Rejected as rejection:
        found = rejection.reason, rejection.detail
    expected = by_pillow(data, monkeypatch)
    if isinstance(expected, tuple):
        assert found == expected
    else:
        np.testing.assert_array_equal(found.pixels, expected.pixels)


def test_without_opencv_pillow_decodes(monkeypatch):
    monkeypatch.setattr(plain_png, "_opencv", lambda: None)
    np.testing.assert_array_equal(normalise(png(picture())).pixels, picture())
