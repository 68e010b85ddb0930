"""The dataset command against mixed, damaged and hostile files, full and read-only disks, interruption."""

import csv
import io
import json
import os
import signal
import struct
import subprocess
import time
import zlib

import numpy as np
import pytest
from commands import start_command
from PIL import Image

from diffusioncleft.diffusioncleft_core import phantom

COLUMNS = ["file", "age_group", "gender", "cleft_type", "asymmetry", "scarring", "repair_status"]
COLUMNS += ["subject_id", "consent"]
VALUES = ["child", "female", "unilateral", "none", "none", "unrepaired"]


def face(seed, size=192):
    rng = np.random.default_rng(seed)
    return Image.fromarray(phantom.render(phantom.random_face(rng, finding="cleft"), size).image)


def sixteen_bits(image):
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def turned(image):
    """As a phone stores a portrait: lying on its side, with the tag that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "the camera of a clinic"
    return image.transpose(Image.Transpose.ROTATE_90), exif


def write_table(folder, names):
    with open(folder / "metadata.csv", "w", encoding="utf-8-sig", newline="") as handle:
        writer = csv.writer(handle, delimiter=";")
        writer.writerow(COLUMNS)
        writer.writerows([name, *VALUES, f"S{index}", "yes"] for index, name in enumerate(names))


def arguments(photos, out):
    told = ["--metadata", photos / "metadata.csv", "--condition", "pre_op", "--out", out, "--phantom"]
    return ["dataset", "build", photos, *told]


def snapshot(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sound_files(photos):
    """One face in every format, size, colour mode and orientation; returns their names."""
    transparent = face(6).convert("RGBA")
    transparent.putalpha(230)
    lying, exif = turned(face(7))
    wide = face(12).convert("L").resize((10_000, 10_000))
    panorama = Image.new("L", (20_000, 10_000), int(np.median(np.asarray(wide)[:, 0])))
    panorama.paste(wide, (5_000, 0))
    files = {
        "upper case.JPG": (face(1), {"quality": 92}),
        "Zoë – Müller 日本.png": (face(2), {}),
        "sub folder/second.webp": (face(3), {"quality": 92}),
        "cmyk.jpeg": (face(4, 256).convert("CMYK"), {"quality": 95}),
        "palette.gif": (face(5).convert("P", palette=Image.Palette.ADAPTIVE), {}),
        "alpha.png": (transparent, {}),
        "lying.jpg": (lying, {"quality": 95, "exif": exif}),
        "sixteen bits.png": (sixteen_bits(face(8)), {}),
        "sixteen bits.tif": (sixteen_bits(face(9, 300)), {}),
        "grey.bmp": (face(10).convert("L"), {}),
        "portrait.tiff": (face(11, 400).crop((20, 0, 380, 400)), {}),
        "20000 wide.jpg": (panorama, {"quality": 50}),
    }
    (photos / "sub folder").mkdir(parents=True)
    for name, (image, options) in files.items():
        image.save(photos / name, **options)
    return list(files)


def bomb():
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9_000_000)))


def hostile_files(photos, elsewhere):
    """Files that can't enter, and the reason that each must get."""
    elsewhere.mkdir()
    face(40).save(elsewhere / "secret.png")
    good = io.BytesIO()
    face(41).save(good, "PNG")
    (photos / "truncated.png").write_bytes(good.getvalue()[:-4000])
    (photos / "zero bytes.jpg").write_bytes(b"")
    (photos / "text.jpg").write_text("not an image")
    (photos / "bomb.png").write_bytes(bomb())
    (photos / "scan.dcm").write_bytes(b"DICM")
    Image.new("RGB", (1, 1)).save(photos / "one pixel.png")
    face(42).save(photos / "moving.webp", save_all=True, append_images=[face(43)])
    reasons = {
        "truncated.png": "undecodable",
        "zero bytes.jpg": "undecodable",
        "text.jpg": "undecodable",
        "bomb.png": "too_large",
        "scan.dcm": "unsupported",
        "one pixel.png": "too_small",
        "moving.webp": "animated",
    }
    if os.name == "posix":
        os.mkfifo(photos / "pipe.jpg")
        (photos / "link.png").symlink_to(elsewhere / "secret.png")
        (photos / "folder").symlink_to(elsewhere, target_is_directory=True)
        (photos / "loop.jpg").symlink_to(photos / "loop.jpg")
        reasons |= {"pipe.jpg": "unreadable", "link.png": "outside", "folder": "outside"}
    return reasons


def limited_memory():
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))


def test_a_folder_of_everything_costs_no_good_photograph(command, tmp_path):
    photos, out = tmp_path / "my photos", tmp_path / "private"
    good = sound_files(photos)
    reasons = hostile_files(photos, tmp_path / "elsewhere")
    face(50).save(photos / "unlisted.png")
    write_table(photos, [*good, *(name for name in reasons if name != "folder"), "never taken.jpg"])
    before = snapshot(photos)

    done = command(*arguments(photos, out), preexec_fn=limited_memory if os.name == "posix" else None)

    assert done.returncode == 0, done.stderr
    aside = {row["file"]: row["reason"] for row in read_lines(out / "set_aside.jsonl")}
    aside.pop("loop.jpg", None)
    assert aside == reasons | {"unlisted.png": "no_row", "never taken.jpg": "row_without_photo"}
    rows = read_lines(out / "manifest.jsonl")
    assert len(rows) == len(good)
    assert max(max(row["width"], row["height"]) for row in rows) == 2048
    assert snapshot(photos) == before
    for row in rows:
        data = (out / row["file"]).read_bytes()
        assert b"clinic" not in data and b"eXIf" not in data and b"iCCP" not in data
    upright = np.asarray(face(7), float)
    found = [np.asarray(Image.open(out / row["file"]), float) for row in rows if row["width"] == 192]
    assert min(np.abs(image - upright).mean() for image in found if image.shape == upright.shape) < 4


@pytest.mark.long
def test_the_same_command_after_an_interruption_goes_on(command, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "private"
    phantom.write_photographs(photos, 30, "cleft", 1, size=256)
    with start_command(*arguments(photos, out), cwd=tmp_path) as process:
        while process.poll() is None and len(list((out / "images").glob("[0-9a-f]*.png"))) < 3:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130 and told.strip().splitlines()[-1].startswith("interrupted")
    assert not (out / "manifest.jsonl").exists() and not list(out.rglob(".writing-*"))

    again = command(*arguments(photos, out))
    assert again.returncode == 0, again.stderr
    opened = int(again.stdout.split("opened ")[1].split(",")[0])
    assert 0 < opened < 30
    fresh = command(*arguments(photos, tmp_path / "fresh"))
    assert fresh.returncode == 0

    def essence(folder):
        rows = read_lines(folder / "manifest.jsonl")
        return [{key: row[key] for key in ("file", "role", "caption")} for row in rows]

    assert essence(out) == essence(tmp_path / "fresh")


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(command, tmp_path, small_disk):
    photos, out = tmp_path / "photos", small_disk / "private"
    phantom.write_photographs(photos, 24, "cleft", 2, subjects=24)
    full = command(*arguments(photos, out))
    assert full.returncode == 2 and "disk is full" in full.stderr and len(full.stderr.splitlines()) == 1
    assert not list(out.rglob(".writing-*")) and not (out / "manifest.jsonl").exists()
    for path in (out / "images").glob("*.png"):
        Image.open(path).load()
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    done = command(*arguments(photos, out))
    assert done.returncode == 0, done.stderr
    assert len(read_lines(out / "manifest.jsonl")) == 24


def test_a_read_only_place_is_one_sentence(command, tmp_path, read_only_folder):
    photos = tmp_path / "photos"
    phantom.write_photographs(photos, 2, "cleft", 3)
    refused = command(*arguments(photos, read_only_folder / "private"))
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert "permission" in refused.stderr or "Read-only" in refused.stderr


def test_photographs_on_a_read_only_disk_are_enough(command, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "private"
    phantom.write_photographs(photos, 4, "cleft", 4)
    for path in [*photos.iterdir(), photos]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    done = command(*arguments(photos, out))
    photos.chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert len(read_lines(out / "manifest.jsonl")) == 4


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"PK\x03\x04", b"a,b\n1,2\n", b'file,consent\n"x'])
def test_a_hostile_table_is_one_sentence_and_makes_nothing(command, tmp_path, content):
    photos, out = tmp_path / "photos", tmp_path / "private"
    photos.mkdir()
    face(1).save(photos / "a.png")
    (photos / "metadata.csv").write_bytes(content)
    refused = command(*arguments(photos, out))
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert "Traceback" not in refused.stderr and not out.exists()
