"""One cache for all that is computed from images: what is torn or damaged is computed again, nothing else."""

import os
import stat

import pytest
import torch

from diffusioncleft.diffusioncleft_core.imageset.cache import ContentCache, entry_key


def test_a_key_changes_with_everything_that_the_entry_depends_on():
    keys = {entry_key(*parts) for parts in (("a", 1), ("b", 1), ("a", 2), ("a", 1, None), ("a", "1"))}
    assert len(keys) == 5
    assert entry_key("a", {"x": 1, "y": 2}) == entry_key("a", {"y": 2, "x": 1})


def test_values_outlive_the_process_and_the_last_one_of_a_key_counts(tmp_path):
    cache = ContentCache(tmp_path / "private", "faces")
    for key, number in (("one", 1), ("two", 2), ("one", 3)):
        cache.keep_value(key, {"number": number})
    again = ContentCache(tmp_path / "private", "faces")
    assert (again.value("one"), again.value("two"), again.value("three")) == (
        {"number": 3},
        {"number": 2},
        None,
    )
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "damage",
    [
        b'{"key": "torn", "numb',
        b'{"key": "without its line end", "number": 5}',
        b"\xff\xfe\n",
        b"[1]\n",
        b'{"number": 5}\n',
        b"\n\n",
    ],
)
def test_damage_costs_the_damaged_entry_alone_whatever_is_appended_later(tmp_path, damage):
    cache = ContentCache(tmp_path, "faces")
    cache.keep_value("before", {"number": 1})
    with open(tmp_path / "faces.jsonl", "ab") as handle:
        handle.write(damage)
    reopened = ContentCache(tmp_path, "faces")
    assert reopened.value("before") == {"number": 1} and reopened.value("torn") is None
    reopened.keep_value("after", {"number": 2})
    last = ContentCache(tmp_path, "faces")
    assert (last.value("before"), last.value("after")) == ({"number": 1}, {"number": 2})
    with open(tmp_path / "faces.jsonl", "ab") as handle:
        handle.write(damage)
    ContentCache(tmp_path, "faces").keep_value("at once", {"number": 3})
    assert ContentCache(tmp_path, "faces").value("at once") == {"number": 3}


def test_two_that_write_to_one_file_read_what_each_of_them_wrote(tmp_path):
    one, two = ContentCache(tmp_path, "faces"), ContentCache(tmp_path, "faces")
    for number in range(20):
        for name, cache in (("one", one), ("two", two)):
            cache.keep_value(f"{name} {number}", {"text": "é" * number, "number": number})
    for name, cache in (("one", one), ("two", two)):
        found = [cache.value(f"{name} {number}") for number in range(20)]
        assert found == [{"text": "é" * number, "number": number} for number in range(20)]


def test_a_file_that_was_written_anew_or_erased_meanwhile_gives_nothing_of_another_entry(tmp_path):
    cache = ContentCache(tmp_path, "faces")
    for name in ("first", "second"):
        cache.keep_value(name, {"name": name})
    lines = (tmp_path / "faces.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "faces.jsonl").write_bytes(lines[1] + lines[0])
    assert cache.value("first") is None
    (tmp_path / "faces.jsonl").unlink()
    assert cache.value("second") is None
    cache.keep_value("second", {"name": "again"})
    assert cache.value("second") == {"name": "again"}


def test_tensors_come_back_bit_for_bit_and_damaged_ones_not_at_all(tmp_path):
    cache = ContentCache(tmp_path, "latents")
    kept = {"latents": torch.randn(3, 4), "text": torch.randn(5).bfloat16(), "n": torch.tensor(7)}
    cache.keep_tensors("key", kept)
    found = ContentCache(tmp_path, "latents").tensors("key")
    assert found.keys() == kept.keys() and all(torch.equal(found[name], kept[name]) for name in kept)
    file = tmp_path / "latents" / "key.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    assert cache.tensors("key") is None
    cache.keep_tensors("key", kept)
    assert cache.tensors("key") is not None
    assert not list((tmp_path / "latents").glob(".writing-*"))


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_folder_of_tensors_is_its_owners_alone_too(tmp_path):
    ContentCache(tmp_path / "private", "latents").keep_tensors("key", {"n": torch.tensor(1)})
    for folder in (tmp_path / "private", tmp_path / "private" / "latents"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_only_the_newest_are_kept_where_that_is_asked_for(tmp_path):
    cache = ContentCache(tmp_path, "moments")
    for number in range(5):
        cache.keep_tensors(str(number), {"n": torch.tensor(number)}, newest=2)
        os.utime(tmp_path / "moments" / f"{number}.safetensors", (number, number))
    assert sorted(path.stem for path in (tmp_path / "moments").iterdir()) == ["3", "4"]


def test_without_a_folder_values_last_as_long_as_the_object_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = ContentCache(None, "faces")
    cache.keep_value("key", {"number": 1})
    cache.keep_tensors("key", {"n": torch.tensor(1)})
    assert cache.value("key") == {"number": 1} and cache.tensors("key") is None
    assert not list(tmp_path.iterdir())
