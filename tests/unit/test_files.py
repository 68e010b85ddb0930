"""Writes are whole or absent, logs survive a torn line, and paths stay where they belong."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from diffusioncleft.cli.comfyui.run import read_workflow
from diffusioncleft.diffusioncleft_core import files
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.filters.decisions import read_review
from diffusioncleft.diffusioncleft_core.recipe.document import read_recipe
from diffusioncleft.diffusioncleft_core.report.run_folder import read_report


def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"kept": 1})
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert files.read_json(path) == {"kept": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_process_that_dies_while_writing_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "a.png"
    files.write_bytes(path, b"whole")
    code = (
        "import os, sys, pathlib\n"
        "from diffusioncleft.diffusioncleft_core.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'ha'); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    assert path.read_bytes() == b"whole"
    (left,) = set(os.listdir(tmp_path)) - {"a.png"}
    assert left.startswith(files.TEMPORARY_PREFIX)


def test_the_temporary_name_keeps_the_suffix_and_is_short_beside_a_long_name(tmp_path):
    path = tmp_path / ("ä" * 120 + ".png")
    with files.atomic_path(path) as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_bytes(b"x")
    assert path.read_bytes() == b"x"


def test_a_new_file_has_the_usual_permissions_of_the_user(tmp_path):
    files.write_text(tmp_path / "ours", "x")
    (tmp_path / "usual").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_text_keeps_its_line_ends_and_letters(tmp_path):
    files.write_text(tmp_path / "t", "a\r\nß\n")
    assert (tmp_path / "t").read_bytes() == "a\r\nß\n".encode()


def test_a_number_that_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe\x00"])
def test_missing_and_damaged_json_are_named_in_one_sentence(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json"):
        files.read_json(path)


ROWS = st.lists(
    st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers(), max_size=3), max_size=5
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, data=st.data())
def test_a_log_cut_anywhere_reads_as_its_whole_rows_and_goes_on(tmp_path, rows, data):
    path = tmp_path / "log.jsonl"
    files.write_jsonl(path, rows)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    read = files.read_jsonl(path)
    assert read == rows[: len(read)]
    assert len(read) >= whole[:cut].count(b"\n")
    files.append_jsonl(path, {"step": 1})
    assert files.read_jsonl(path) == [*read, {"step": 1}]


def test_damage_inside_a_log_is_not_passed_over(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"a":\n{"a": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        files.read_jsonl(path)
    path.write_text('{"a": 1}\n[1]\n')
    with pytest.raises(UserError, match="line 2"):
        files.read_jsonl(path)


def test_hashes_are_sha256_of_the_content(tmp_path):
    data = os.urandom((1 << 20) + 7)
    (tmp_path / "f").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert files.sha256_file(tmp_path / "f") == files.sha256_bytes(data) == expected


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a\0b"])
def test_a_path_out_of_its_folder_is_refused(tmp_path, path):
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(UserError):
        files.inside(root, path)


def test_a_path_inside_its_folder_is_resolved(tmp_path):
    assert files.inside(tmp_path, "a/../b c/ü.png") == tmp_path.resolve() / "b c" / "ü.png"
    assert files.inside(tmp_path, tmp_path / "x") == tmp_path.resolve() / "x"


def test_a_folder_whose_name_only_begins_alike_is_outside(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root2").mkdir()
    with pytest.raises(UserError):
        files.inside(tmp_path / "root", "../root2/x")


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege on Windows")
def test_a_link_out_of_the_folder_is_refused_and_one_within_is_followed(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    root.mkdir()
    other.mkdir()
    (root / "out").symlink_to(other)
    (root / "real").mkdir()
    (root / "in").symlink_to(root / "real")
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(UserError):
        files.inside(root, "out/photo.png")
    with pytest.raises(UserError):
        files.inside(root, "loop")
    assert files.inside(root, "in/photo.png") == root.resolve() / "real" / "photo.png"


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such mode")
def test_a_private_folder_is_closed_to_others_even_if_it_was_there(tmp_path):
    folder = tmp_path / "a" / "private"
    assert files.private_dir(folder).stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert files.private_dir(folder).stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_the_systems_own_disk_full_error_becomes_one_sentence(tmp_path):
    path = tmp_path / "a.bin"
    with pytest.raises(UserError, match="disk is full"), files.atomic_path(path) as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"x")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_earlier_file_and_log(small_disk):
    file, log = small_disk / "a.bin", small_disk / "log.jsonl"
    files.write_bytes(file, b"first")
    files.append_jsonl(log, {"step": 1})
    with pytest.raises(UserError, match="disk is full"):
        files.write_bytes(file, bytes(1 << 20))
    (small_disk / "filler").write_bytes(bytes(200 << 10))
    with pytest.raises(UserError, match="disk is full"):
        for step in range(2, 2000):
            files.append_jsonl(log, {"step": step, "text": "x" * 500})
    rows = files.read_jsonl(log)
    assert file.read_bytes() == b"first"
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert log.read_bytes().endswith(b"}\n")
    assert json.loads(log.read_bytes().splitlines()[-1])
    assert sorted(os.listdir(small_disk)) == ["a.bin", "filler", "log.jsonl"]


def test_a_folder_on_a_full_disk_is_named_where_it_cannot_be_locked(small_disk):
    with pytest.raises(OSError), (small_disk / "filler").open("ab", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass
    with pytest.raises(UserError, match=f"disk is full: {small_disk}"), files.folder_lock(small_disk, str):
        pass


def test_a_full_disk_under_tensors_is_the_same_sentence(small_disk):
    with (
        pytest.raises(UserError, match="disk is full"),
        files.atomic_path(small_disk / "a.safetensors") as temporary,
    ):
        save_file({"a": np.zeros(1 << 20, np.float32)}, temporary)
    assert not list(small_disk.iterdir())


def test_a_read_only_folder_is_named_with_what_to_do(read_only_folder):
    for attempt in (
        lambda: files.write_text(read_only_folder / "a", "x"),
        lambda: files.append_jsonl(read_only_folder / "log", {}),
        lambda: files.private_dir(read_only_folder / "p"),
    ):
        with pytest.raises(UserError, match=r"no permission to write .*read only"):
            attempt()


@pytest.mark.parametrize("kind", ["long", "file above", "folder"])
def test_a_place_that_cannot_be_written_is_one_sentence_that_names_it(tmp_path, command, kind):
    (tmp_path / "file").write_text("mine")
    place = {"long": tmp_path / ("n" * 300), "file above": tmp_path / "file" / "x", "folder": tmp_path}[kind]
    with pytest.raises(UserError, match=f"^{tmp_path}.*; .*"):
        files.write_text(place, "x")
    plan = command("plan", "--condition", "pre_op", "--n", 1, "--out", place)
    assert plan.returncode == 2 and len(plan.stderr.splitlines()) == 1 and str(tmp_path) in plan.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize("read", [read_report, read_recipe, read_review, read_workflow])
def test_no_file_that_a_person_names_by_mistake_is_to_be_deleted(tmp_path, read):
    (tmp_path / "metadata.csv").write_text("file,consent\n", "utf-8")
    with pytest.raises(UserError, match="is not valid JSON") as refused:
        read(tmp_path / "metadata.csv")
    assert "delete" not in str(refused.value)
