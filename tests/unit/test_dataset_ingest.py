"""Every kind of image file becomes upright 8-bit sRGB pixels, or is refused with a reason."""

import base64
import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from diffusioncleft.diffusioncleft_core import phantom
from diffusioncleft.diffusioncleft_core.imageset import decode as ingest
from diffusioncleft.diffusioncleft_core.imageset.decode import (
    Rejected,
    SetAside,
    header_size,
    normalise,
    pixel_sha256,
    read_image,
)

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(phantom.render(phantom.random_face(np.random.default_rng(3)), 96).image)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def difference(pixels, image):
    return float(np.abs(pixels.astype(float) - np.asarray(image.convert("RGB"), float)).mean())


UNDO = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that make the stored picture
FORMATS = {
    "jpg": ("JPEG", {"quality": 95}),
    "jfif": ("JPEG", {"quality": 95}),
    "png": ("PNG", {}),
    "apng": ("PNG", {}),
    "tif": ("TIFF", {}),
    "lzw.tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "deflate.tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "jpeg.tiff": ("TIFF", {"compression": "jpeg", "quality": 95}),
    "webp": ("WEBP", {"lossless": True}),
    "avif": ("AVIF", {"quality": 95}),
    "mpo": ("MPO", {"quality": 95}),
}


def stored(picture, orientation, name):
    kind, options = FORMATS[name]
    if kind not in Image.registered_extensions().values():
        pytest.skip(f"Pillow here has no {kind}")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turned = picture if orientation == 1 else picture.transpose(Image.Transpose(UNDO[orientation]))
    return encoded(turned, kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_comes_out_upright_from_every_orientation(picture, name, orientation, tmp_path):
    wide = picture.crop((0, 0, 96, 64))
    data = stored(wide, orientation, name)
    found = normalise(data)
    assert found.pixels.shape == (64, 96, 3)
    assert (found.original_width, found.original_height) == (96, 64)
    assert difference(found.pixels, wide) < 6
    assert header_size(data) == (96, 64)
    path = tmp_path / f"photo.{name}"
    path.write_bytes(data)
    assert header_size(path) == (96, 64) and np.array_equal(read_image(path), found.pixels)


@pytest.mark.parametrize("name", ["jpg", "tif", "webp", "png"])
def test_every_reader_of_images_sees_the_upright_picture(picture, name, tmp_path):
    from diffusioncleft.cli.checkup.face_pack import _photograph
    from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
    from diffusioncleft.diffusioncleft_core.metrics.sets import measured_set
    from diffusioncleft.diffusioncleft_core.report.pictures import Picture, thumbnail
    from diffusioncleft.trainer.data import read_pixels as trained_on

    wide = picture.crop((0, 0, 96, 64))
    path = tmp_path / f"photo.{name}"
    path.write_bytes(stored(wide, 6, name))
    (measured,), _ = measured_set(tmp_path, "all")
    (row,) = read_image_set(tmp_path)
    shown = thumbnail(Picture(path, "", ""))
    assert measured.size == (row.width, row.height) == (shown.width, shown.height) == (96, 64)
    for pixels in (measured.pixels(), trained_on(path), _photograph(path)):
        assert pixels.shape == (64, 96, 3) and difference(pixels, wide) < 6
    small = Image.open(io.BytesIO(base64.b64decode(shown.src.partition(",")[2])))
    assert difference(np.asarray(small.convert("RGB")), wide) < 10


def test_sixteen_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    found = normalise(encoded(Image.fromarray(ramp), "PNG")).pixels[..., 0]
    assert found[0, 0] == 0 and found[-1, -1] == 255
    assert np.abs(found - ramp / 257.0).max() <= 0.5


@pytest.mark.parametrize(
    ("kind", "peak", "white"),
    [
        (np.float32, 1.0, 1.0),
        (np.float32, 0.5, 1.0),
        (np.float32, 200.0, 255.0),
        (np.float32, 60000.0, 65535.0),
        (np.float32, 1e6, 1e6),
        (np.int32, 200, 65535.0),
        (np.int32, 65535, 65535.0),
        (np.int32, 100000, 100000.0),
    ],
)
def test_samples_of_32_bits_are_scaled_by_the_least_usual_white_that_holds_them(kind, peak, white):
    ramp = np.linspace(0, peak, 300 * 4).reshape(300, 4).astype(kind)
    found = normalise(encoded(Image.fromarray(ramp), "TIFF")).pixels[..., 0]
    assert np.abs(found - ramp.astype(float) * 255 / white).max() <= 0.501


def test_sixteen_bit_colour_png_is_read():
    rgb = np.zeros((8, 8, 3), ">u2")
    rgb[..., 0], rgb[..., 1] = 65535, 32768
    rows = b"".join(b"\0" + row.tobytes() for row in rgb)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    found = normalise(b"\x89PNG\r\n\x1a\n" + body).pixels
    assert found[0, 0].tolist() == [255, 128, 0]


def test_cmyk_palette_grey_and_bitmap_become_rgb(picture):
    assert difference(normalise(encoded(picture.convert("CMYK"), "JPEG", quality=95)).pixels, picture) < 8
    assert difference(normalise(encoded(picture.convert("P"), "GIF")).pixels, picture) < 16
    grey = picture.convert("L")
    assert difference(normalise(encoded(grey, "TIFF")).pixels, grey) == 0
    assert set(np.unique(normalise(encoded(picture.convert("1"), "PNG")).pixels)) == {0, 255}


def test_transparency_is_laid_on_white(picture):
    cut_out = picture.convert("RGBA")
    cut_out.putalpha(
        Image.fromarray(np.where(np.arange(96)[None, :] < 48, 0, 255).repeat(96, 0).astype(np.uint8))
    )
    found = normalise(encoded(cut_out, "PNG")).pixels
    assert (found[:, :48] == 255).all()
    assert difference(found[:, 48:], picture.crop((48, 0, 96, 96))) == 0


@pytest.mark.parametrize(("mode", "clear", "solid"), [("L", 0, 90), ("RGB", (0, 0, 9), (200, 90, 30))])
def test_a_png_whose_transparency_is_one_colour_keeps_the_others(mode, clear, solid):
    image = Image.new(mode, (8, 8), solid)
    image.paste(clear, (0, 0, 4, 8))
    found = normalise(encoded(image, "PNG", transparency=clear)).pixels
    assert (found[:, :4] == 255).all() and (found[:, 4:] == solid).all()


def test_icc_profile_is_converted_to_srgb(picture):
    """A profile whose red and blue primaries are swapped: the same numbers are other colours."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    for index in range(count):
        at = 132 + 12 * index
        name = bytes(profile[at : at + 4])
        profile[at : at + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(name, name)
    found = normalise(encoded(picture, "PNG", icc_profile=bytes(profile))).pixels
    assert difference(found, picture) > 5
    assert difference(found[..., ::-1], picture) < 3


def test_a_damaged_icc_profile_or_exif_costs_nothing(picture):
    data = encoded(picture, "PNG", icc_profile=b"no profile at all", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert difference(normalise(data).pixels, picture) == 0


def test_twenty_thousand_pixels_wide_is_reduced(picture):
    wide = Image.new("L", (20_000, 3_000), 90)
    for data in (encoded(wide, "JPEG", quality=60), encoded(wide, "PNG")):
        found = normalise(data, max_side=1024)
        assert found.pixels.shape == (154, 1024, 3)
        assert (found.original_width, found.original_height) == (20_000, 3_000)
        assert np.abs(found.pixels.astype(int) - 90).max() <= 1


def test_reduction_keeps_the_picture(picture):
    large = picture.resize((960, 960), Image.Resampling.BICUBIC)
    found = normalise(encoded(large, "PNG"), max_side=96).pixels
    assert difference(found, picture) < 3


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + data + struct.pack(">I", zlib.crc32(data))
    png += struct.pack(">I", 1) + b"IDAT" + b"x" + struct.pack(">I", zlib.crc32(b"IDATx"))
    with pytest.raises(Rejected) as refused:
        normalise(png)
    assert refused.value.reason == "too_large"


def test_pillows_own_settings_are_restored(picture):
    before = Image.MAX_IMAGE_PIXELS
    normalise(encoded(picture, "PNG"))
    with pytest.raises(Rejected):
        normalise(b"nothing")
    assert before == Image.MAX_IMAGE_PIXELS


def test_truncated_empty_and_foreign_bytes_are_undecodable(picture):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    cases = [b"", b"\0" * 100, b"%PDF-1.7 and so on", b"GIF89a"]
    cases += [encoded(noise, kind)[:-1500] for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")]
    for data in cases:
        with pytest.raises(Rejected) as refused:
            normalise(data)
        assert refused.value.reason == "undecodable", data[:16]


def test_heic_without_its_reader_is_refused_with_advice():
    if "HEIF" in ingest._readable_formats():
        pytest.skip("pillow-heif is installed")
    with pytest.raises(Rejected, match="pillow-heif"):
        normalise(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64)
    for other in (b"\0\0\0\x18ftypisom\0\0\0\0", b"\0\0\0\x18datsheic\0\0\0\0"):
        with pytest.raises(Rejected, match="truncated, damaged or no image"):
            normalise(other + b"\0" * 64)


def test_an_animation_is_refused_unless_its_first_frame_is_asked_for(picture):
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(picture, kind, save_all=True, append_images=[picture.rotate(90)])
        with pytest.raises(Rejected) as refused:
            normalise(data)
        assert refused.value.reason == "animated"
        assert difference(normalise(data, first_frame=True).pixels, picture) < 20


def test_of_a_cameras_multi_picture_file_the_first_is_taken(picture):
    data = encoded(picture, "MPO", save_all=True, append_images=[Image.new("RGB", (96, 96))], quality=95)
    assert difference(normalise(data).pixels, picture) < 5


def test_pixel_hash_tells_size_and_content_apart():
    flat = np.zeros((4, 9, 3), np.uint8)
    other = flat.copy()
    other[0, 0, 0] = 1
    assert len({pixel_sha256(flat), pixel_sha256(flat.reshape(9, 4, 3)), pixel_sha256(other)}) == 3
    assert pixel_sha256(flat) == pixel_sha256(np.asfortranarray(flat))
    said = b"RGB" + struct.pack(">II", 4, 9) + flat.tobytes()
    assert pixel_sha256(flat) == hashlib.sha256(said).hexdigest()


@pytest.mark.parametrize("source", [None, "5" * 64])
def test_what_is_set_aside_is_read_as_it_was_written(source):
    for reason, can_be_taken_back in (("too_small", True), ("no_consent", False)):
        entry = SetAside("a.jpg", reason, "seen", source)
        row = entry.to_json()
        assert SetAside.from_json(row) == entry
        assert (row["can_be_taken_back"], row.get("source")) == (can_be_taken_back, source)
