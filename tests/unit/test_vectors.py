"""Vectors in columnar shards: the exact bits come back, whatever is torn, foreign, killed or beside."""

import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from diffusioncleft.diffusioncleft_core.dataset.folder import erase
from diffusioncleft.diffusioncleft_core.imageset import vectors
from diffusioncleft.diffusioncleft_core.imageset.vectors import VectorStore

D = 5
WRITER = """
import sys, hashlib, numpy as np
from pathlib import Path
from diffusioncleft.diffusioncleft_core.imageset import vectors
vectors.LONGEST_WAIT = float(sys.argv[3])
store = vectors.VectorStore(Path(sys.argv[1]), "vectors", "net", (5,))
for number in range(int(sys.argv[2])):
    store.keep(hashlib.sha256(b"%d" % number).hexdigest(), np.full(5, number, np.float32))
    print(number, flush=True)
store.close()
"""


def key(number):
    return hashlib.sha256(b"%d" % number).hexdigest()


def opened(folder, network="net", shape=(D,)):
    return VectorStore(folder, "vectors", network, shape)


def kept(folder, numbers, **which):
    """One shard with a vector of each number."""
    store = opened(folder, **which)
    for number in numbers:
        store.keep(key(number), np.full(store.shape, number, np.float32))
    store.close()


def read(folder, numbers, **which):
    """The numbers whose vectors are there; each must have its own."""
    store = opened(folder, **which)
    out = np.full((len(numbers), *store.shape), np.nan, np.float32)
    found = store.fill(out, range(len(numbers)), [key(number) for number in numbers])
    flat = out.reshape(len(numbers), -1)
    assert np.isnan(flat[~found]).all()
    assert (flat[found] == np.array(numbers, np.float32)[found, None]).all()
    return [number for number, is_there in zip(numbers, found.tolist(), strict=True) if is_there]


def shards(folder):
    return sorted(folder.rglob("*.parquet"))


def test_every_bit_comes_back_in_the_order_that_is_asked_for(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**32, (50, D), dtype=np.uint32)
    bits[0] = [0x7FC00001, 0xFFFFFFFF, 0x80000000, 0x7F800000, 1]  # NaNs, minus zero, infinity, denormal
    store = opened(tmp_path)
    for number, row in enumerate(bits.view(np.float32)):
        store.keep(key(number), row)
    store.close()
    order = np.random.default_rng(1).permutation(50)
    out = np.zeros((60, D), np.float32)
    found = opened(tmp_path).fill(out, range(10, 60), [key(number) for number in order.tolist()])
    assert found.all() and (out[10:].view(np.uint32) == bits[order]).all() and not out[:10].any()


def test_a_shard_is_parquet_that_anyone_reads(tmp_path):
    kept(tmp_path, range(3))
    (file,) = shards(tmp_path)
    table = parquet.read_table(file)
    rows = {k.as_py().hex(): np.frombuffer(v.as_py(), "<f4") for k, v in zip(*table.columns, strict=True)}
    assert rows.keys() == {key(number) for number in range(3)}
    assert rows[key(2)].tolist() == [2.0] * D
    assert table.schema.metadata == {b"shape": b"[5]", b"dtype": b"<f4"}


def test_several_axes_come_back_as_they_were_and_another_network_or_shape_is_another_store(tmp_path):
    kept(tmp_path, range(4), shape=(2, 3))
    assert read(tmp_path, [3, 0], shape=(2, 3)) == [3, 0]
    assert not read(tmp_path, [3, 0], shape=(3, 2))
    assert not read(tmp_path, [3, 0], shape=(2, 3), network="other")


def test_one_image_twice_is_read_into_both_rows(tmp_path):
    kept(tmp_path, range(4))
    assert read(tmp_path, [2, 0, 2, 9, 2, 9]) == [2, 0, 2, 2]


def test_nothing_is_read_or_written_where_there_is_nothing(tmp_path):
    store = opened(tmp_path / "none")
    assert store.fill(np.zeros((0, D), np.float32), [], []).tolist() == []
    assert not read(tmp_path / "none", [1])
    assert not read(None, [1])
    store.close()
    assert not list(tmp_path.iterdir())


def test_a_set_that_grew_costs_a_shard_and_no_other_is_touched(tmp_path):
    kept(tmp_path, range(10))
    before = {path: path.stat().st_mtime_ns for path in shards(tmp_path)}
    kept(tmp_path, range(10, 12))
    assert read(tmp_path, list(range(13))) == list(range(12))
    assert len(shards(tmp_path)) == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"PAR1" + bytes(200) + b"PAR1",
        lambda data: data.replace(np.float32(11).tobytes() * 2, np.float32(12).tobytes() * 2, 1),
        lambda data: data.replace(bytes.fromhex(key(11)), bytes.fromhex(key(99)), 1),
    ],
    ids=["truncated", "half", "empty", "no footer", "a bit of a vector", "a bit of a key"],
)
def test_a_damaged_shard_is_set_aside_and_nothing_else_is_lost(tmp_path, damage):
    kept(tmp_path, range(10))
    (sound,) = shards(tmp_path)
    kept(tmp_path, range(10, 20))
    (broken,) = set(shards(tmp_path)) - {sound}
    data = broken.read_bytes()
    broken.write_bytes(damage(data))
    assert broken.read_bytes() != data
    assert read(tmp_path, list(range(20))) == list(range(10))
    assert shards(tmp_path) == [sound] and broken.with_suffix(".damaged").exists()
    kept(tmp_path, range(10, 20))
    assert read(tmp_path, list(range(20))) == list(range(20))


def test_a_shard_of_another_dimension_under_our_name_is_set_aside(tmp_path):
    kept(tmp_path, range(3))
    (ours,) = shards(tmp_path)
    kept(tmp_path / "other", range(3, 6), shape=(D + 1,))
    (theirs,) = shards(tmp_path / "other")
    theirs.rename(ours.with_name("0" * 32 + ".parquet"))
    assert read(tmp_path, list(range(6))) == [0, 1, 2]
    assert [path.name for path in ours.parent.glob("*.damaged")] == ["0" * 32 + ".damaged"]


def test_what_is_not_ours_is_neither_read_nor_moved(tmp_path):
    kept(tmp_path, range(3))
    place = shards(tmp_path)[0].parent
    for name in ("notes.txt", "data.parquet", ".writing-0.parquet"):
        (place / name).write_bytes(b"PAR1 somebody's")
    (place / ("a" * 32 + ".parquet")).mkdir()
    assert read(tmp_path, list(range(3))) == [0, 1, 2]
    kept(tmp_path, range(3, 5))
    assert read(tmp_path, list(range(5))) == list(range(5))
    for name in ("notes.txt", "data.parquet", ".writing-0.parquet"):
        assert (place / name).read_bytes() == b"PAR1 somebody's"


def test_a_key_in_several_shards_is_one_row(tmp_path, monkeypatch):
    kept(tmp_path / "a", range(6))
    kept(tmp_path / "b", range(3, 9))
    for path in shards(tmp_path / "b"):
        path.rename(shards(tmp_path / "a")[0].with_name(path.name))
    assert read(tmp_path / "a", list(range(9))) == list(range(9))
    monkeypatch.setattr(vectors, "MANY", 1)
    kept(tmp_path / "a", [9])
    (merged,) = shards(tmp_path / "a")
    assert parquet.read_metadata(merged).num_rows == 10


def test_what_another_process_wrote_meanwhile_is_not_written_again(tmp_path):
    first, second = opened(tmp_path), opened(tmp_path)
    for store in (first, second):
        for number in range(4):
            store.keep(key(number), np.full(D, number, np.float32))
    second.keep(key(4), np.full(D, 4, np.float32))
    first.close()
    second.close()
    assert sorted(parquet.read_metadata(path).num_rows for path in shards(tmp_path)) == [1, 4]
    assert read(tmp_path, list(range(5))) == list(range(5))


def test_small_shards_are_merged_when_they_are_many_and_full_ones_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "SHARD_BYTES", 2000 * D * 4)
    kept(tmp_path, range(2000))
    (full,) = shards(tmp_path)
    before = full.stat().st_mtime_ns
    numbers = list(range(2001 + vectors.MANY))
    for number in numbers[2000:-1]:
        kept(tmp_path, [number])
    assert len(shards(tmp_path)) == 1 + vectors.MANY
    kept(tmp_path, numbers[-1:])
    assert len(shards(tmp_path)) < 5 and full.stat().st_mtime_ns == before
    assert read(tmp_path, numbers) == numbers


def test_a_reader_beside_a_merge_loses_nothing(tmp_path, monkeypatch):
    for number in range(6):
        kept(tmp_path, [number])
    reader, names = opened(tmp_path), vectors._names
    monkeypatch.setattr(vectors, "MANY", 1)

    def merged_right_after(place):
        found = names(place)
        monkeypatch.setattr(vectors, "_names", names)
        kept(tmp_path, [6])
        return found

    monkeypatch.setattr(vectors, "_names", merged_right_after)
    out = np.zeros((7, D), np.float32)
    assert reader.fill(out, range(7), [key(number) for number in range(7)]).all()
    assert len(shards(tmp_path)) == 1 and (out[:, 0] == range(7)).all()


def test_a_merge_brings_nothing_back_that_was_erased_meanwhile(tmp_path, monkeypatch):
    """The folder's shards go, as a withdrawal erases them, between reading and writing."""
    for number in range(4):
        kept(tmp_path, [number])
    write = vectors._write

    def erased_right_after(*given):
        path = write(*given)
        if parquet.read_metadata(path).num_rows == 5:
            for other in set(shards(tmp_path)) - {path}:
                other.unlink()
        return path

    monkeypatch.setattr(vectors, "_write", erased_right_after)
    monkeypatch.setattr(vectors, "MANY", 1)
    kept(tmp_path, [4])
    assert not shards(tmp_path)


def test_a_store_whose_folder_was_erased_writes_nothing_more(tmp_path):
    folder = tmp_path / "cache" / "features"
    kept(folder, [0])
    store = opened(folder)
    store.keep(key(1), np.ones(D, np.float32))
    erase(tmp_path / "cache")
    store.close()
    assert not list(tmp_path.iterdir())


def test_files_of_earlier_versions_go_with_the_first_shard(tmp_path):
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / f"{key(0)}.safetensors").write_bytes(b"a vector")
    assert not read(tmp_path, [0])
    kept(tmp_path, [0])
    assert not list(tmp_path.rglob("*.safetensors")) and read(tmp_path, [0]) == [0]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_the_folders_are_their_owners_alone(tmp_path):
    kept(tmp_path / "private", [0])
    for folder in filter(Path.is_dir, tmp_path.rglob("*")):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_read_only_folder_is_read_and_stays_as_it_is(tmp_path, make_read_only):
    kept(tmp_path, range(3))
    (file,) = shards(tmp_path)
    file.with_name("b" * 32 + ".parquet").write_bytes(b"torn")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    make_read_only(tmp_path)
    assert read(tmp_path, list(range(5))) == [0, 1, 2]
    kept(tmp_path, [3])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_killed_writer_leaves_what_it_wrote_and_the_next_one_goes_on(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), "100000", "0"], stdout=subprocess.PIPE, text=True
    )
    for _ in range(6):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    left = read(tmp_path, list(range(1000)))
    assert left[:5] == [0, 1, 2, 3, 4] and left == list(range(len(left)))
    kept(tmp_path, range(len(left), 1000))
    assert read(tmp_path, list(range(1000))) == list(range(1000))


def test_two_writers_at_once_lose_and_double_nothing(tmp_path):
    """Each writes a shard a vector and merges them at its end, while they are read."""
    words = [sys.executable, "-c", WRITER, str(tmp_path), "80", "0"]
    writers = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(2)]
    while any(writer.poll() is None for writer in writers):
        found = read(tmp_path, list(range(80)))
        assert found == list(range(len(found)))
        time.sleep(0.05)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert read(tmp_path, list(range(80))) == list(range(80))
