"""Hashes of large files are remembered, and only while the file is the same."""

import json
import os
import stat
import time

import pytest

from diffusioncleft.diffusioncleft_core import files as digests
from diffusioncleft.diffusioncleft_core.files import sha256_bytes

LONG_AGO = 1_600_000_000_000_000_000


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file that counts as large, with a cache of its own."""
    monkeypatch.setattr(digests, "LARGE", 1)
    monkeypatch.setattr(digests, "_SETTLED", -1.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "a person's model.safetensors"
    file.write_bytes(b"one")
    return file


def entry():
    (found,) = digests.hash_cache().iterdir()
    return found


def test_a_large_file_is_read_once(large):
    assert digests.sha256_model(large) == sha256_bytes(b"one")
    known = json.loads(entry().read_text())
    entry().write_text(json.dumps({**known, "sha256": "f" * 64}))  # what a second reading would not give
    assert digests.sha256_model(large) == "f" * 64


def test_another_file_of_the_same_size_name_and_time_is_read_again(large):
    os.utime(large, ns=(LONG_AGO, LONG_AGO))
    assert digests.sha256_model(large) == sha256_bytes(b"one")
    large.write_bytes(b"two")  # in place: the same inode
    os.utime(large, ns=(LONG_AGO, LONG_AGO))
    assert digests.sha256_model(large) == sha256_bytes(b"two")
    other = large.with_name("other")
    other.write_bytes(b"six")
    os.utime(other, ns=(LONG_AGO, LONG_AGO))
    other.replace(large)
    assert digests.sha256_model(large) == sha256_bytes(b"six")
    assert len(list(digests.hash_cache().iterdir())) == 1


def test_a_file_that_was_written_a_moment_ago_is_not_remembered(large, monkeypatch):
    monkeypatch.setattr(digests, "_SETTLED", 3600.0)
    os.utime(large, (time.time(), time.time()))
    assert digests.sha256_model(large) == sha256_bytes(b"one")
    assert not digests.hash_cache().exists()


def test_the_cache_is_its_owner_s_alone_and_names_no_file(large):
    digests.sha256_model(large)
    assert large.name not in entry().name + entry().read_text()
    if os.name == "posix":
        assert stat.S_IMODE(digests.hash_cache().stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"identity": 1}', "null"])
def test_a_damaged_or_unwritable_cache_costs_time_alone(large, damage, tmp_path, monkeypatch):
    digests.sha256_model(large)
    entry().write_text(damage)
    assert digests.sha256_model(large) == sha256_bytes(b"one")
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    assert digests.sha256_model(large) == sha256_bytes(b"one")


def test_a_small_file_is_always_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "small").write_bytes(b"one")
    assert digests.sha256_model(tmp_path / "small") == sha256_bytes(b"one")
    assert not (tmp_path / "cache").exists()
