"""Purging a dataset, and the commands that tell, show and take back."""

import subprocess
from pathlib import Path

import pytest
from dataset_building import N, everything, table, write_table
from PIL import Image

from diffusioncleft.diffusioncleft_core.dataset.folder import (
    MARKER,
    erase,
    purge_dataset,
)
from diffusioncleft.diffusioncleft_core.errors import UserError


def test_purge_erases_what_was_derived_and_nothing_else(dataset, photos, tmp_path):
    originals = everything(photos)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    (dataset / "cache" / "deep").mkdir()
    (dataset / "cache" / "deep" / "latents.safetensors").write_bytes(b"derived")
    (dataset / "cache" / "link").symlink_to(outside)
    (dataset / "notes.txt").write_text("the user's own")
    result = purge_dataset(dataset)
    assert result.left == ("notes.txt",)
    assert [path.name for path in dataset.iterdir()] == ["notes.txt"]
    assert (outside / "kept.txt").read_text() == "kept" and everything(photos) == originals


def test_what_another_process_writes_meanwhile_is_erased_too(tmp_path, monkeypatch):
    (tmp_path / "cache" / "vectors").mkdir(parents=True)
    rmdir, late = Path.rmdir, iter(range(3))

    def busy(path):
        if next(late, None) is not None:
            (path / "late").write_bytes(b"a vector")
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", busy)
    erase(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_purge_refuses_a_folder_without_the_marker(dataset, photos):
    (dataset / MARKER).unlink()
    before = everything(dataset)
    for folder in (dataset, photos):
        with pytest.raises(UserError, match="no dataset folder"):
            purge_dataset(folder)
    assert everything(dataset) == before


def test_the_command_line_tells_shows_takes_back_and_purges(command, photos, tmp_path):
    out = tmp_path / "private set"
    rows = table(photos)
    rows[0]["consent"] = "no"
    with Image.open(photos / rows[1]["file"]) as image:
        image.resize((100, 100)).save(photos / "near copy.jpg", quality=85)
    write_table(photos, [*rows, rows[1] | {"file": "near copy.jpg"}])
    originals = everything(photos)
    told = ["--metadata", photos / "metadata.csv", "--condition", "pre_op", "--out", out]

    refused = command("dataset", "build", photos, *told, "--faces", tmp_path / "no pack")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1 and not out.exists()
    done = command("dataset", "build", photos, *told, "--phantom")
    assert done.returncode == 0, done.stderr
    assert f"{N - 1} photographs of {N - 2} subjects" in done.stdout
    assert "1  no_consent" in done.stdout and "1  near_duplicate" in done.stdout
    shown = command("dataset", "show", out, "--list")
    assert "photo-0000.png: no_consent: line 2: consent is 'no'" in shown.stdout
    refused = command("dataset", "readmit", out, "--file", "photo-0000.png")
    assert refused.returncode == 2 and "can't be overruled" in refused.stderr
    taken = command("dataset", "readmit", out, "--file", "near copy.jpg")
    assert (
        taken.returncode == 0 and f"{N} photographs" in taken.stdout and "near_dup" not in taken.stdout[40:]
    )
    asked = command("dataset", "purge", out, stdin=subprocess.DEVNULL)
    assert asked.returncode == 2 and "--yes" in asked.stderr and out.exists()
    purged = command("dataset", "purge", out, "--yes")
    assert purged.returncode == 0 and not out.exists()
    assert everything(photos) == originals
