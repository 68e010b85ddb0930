"""Exports to an object store and back, against moto's S3 server over real HTTP, all of ours real."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from drawn_sets import draw_set

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.dataset import drawn as drawn_places
from diffusioncleft.diffusioncleft_core.files import (
    read_json,
    read_jsonl,
    sha256_bytes,
    write_json,
    write_jsonl,
)
from diffusioncleft.diffusioncleft_core.imageset.storage import place_of
from diffusioncleft.diffusioncleft_core.imageset.unpack import UNDER_WAY

pytest.importorskip("moto")
pytest.importorskip("s3fs")
from s3_server import s3_server

N = 7
FORMS = ("webdataset", "parquet")


@pytest.fixture(scope="module")
def server():
    with s3_server() as found:
        yield found


@pytest.fixture
def bucket(server, tmp_path_factory, monkeypatch, request):
    """The name of a new bucket, found and opened by the environment alone."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    name = f"b{abs(hash(request.node.name)):x}"[:20]
    server.make_bucket(name)
    return name


@pytest.fixture
def drawn(tmp_path):
    return draw_set(tmp_path / "pre_op", N, moved=True)


@pytest.fixture
def done(capsys):
    """Runs the command line, which is to succeed, and gives what it printed."""

    def run(*words):
        status = main(list(map(str, words)))
        said = capsys.readouterr()
        assert status == 0, said.err
        return said.out

    return run


def files_of(folder):
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != ".lock"}


def export(form, folder, url, *options):
    return ("export", folder, "--format", form, "--out", url, "--per-shard", 2, *options)


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_set_comes_back_from_a_declared_place_byte_for_byte(bucket, done, drawn, tmp_path, form):
    url = f"s3://{bucket}/sets/pre_op"
    done(*export(form, drawn, url, "--all", "--private-place"))
    assert f"{N} images" in done("import", url, "--out", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(drawn)
    assert "already" in done("import", url, "--out", tmp_path / "back")
    if os.name == "posix":
        assert (tmp_path / "back").stat().st_mode & 0o077 == 0


def test_a_local_export_comes_back_too_without_what_was_left_out(done, drawn, tmp_path):
    done(*export("webdataset", drawn, tmp_path / "shards"))
    done("import", tmp_path / "shards", "--out", tmp_path / "back")
    kept = {name: data for name, data in files_of(drawn).items() if not name.startswith("rejected/")}
    back = files_of(tmp_path / "back")
    assert back.keys() == kept.keys()
    assert {name for name in kept if kept[name] != back[name]} == {"manifest.jsonl"}
    rows = [row for row in read_jsonl(drawn / "manifest.jsonl") if row["verdicts"]["accepted"]]
    assert read_jsonl(tmp_path / "back" / "manifest.jsonl") == rows


def test_datasets_loads_the_parquet_shards_straight_from_the_store(bucket, server, done, drawn, tmp_path):
    datasets = pytest.importorskip("datasets")
    done(*export("parquet", drawn, f"s3://{bucket}/pre_op"))
    options = {"key": "AKIATESTS", "secret": server.secret, "endpoint_url": server.endpoint}
    loaded = datasets.load_dataset(
        "parquet",
        data_files=f"s3://{bucket}/pre_op/*.parquet",
        storage_options=options,
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    wanted = [row["prompt"] for row in read_jsonl(drawn / "manifest.jsonl") if row["verdicts"]["accepted"]]
    assert loaded["prompt"][:] == wanted
    assert loaded[0]["image"].size == (32, 32)


def names_in(server, bucket):
    listed = urllib.request.urlopen(f"{server.endpoint}/{bucket}?list-type=2").read().decode()
    return [part.partition("</Key>")[0].rpartition("/")[2] for part in listed.split("<Key>")[1:]]


def killed_when(words, condition):
    """Start a command, SIGKILL it once the condition holds; it must not have ended by itself."""
    with subprocess.Popen([sys.executable, "-m", "diffusioncleft", *map(str, words)]) as process:
        try:
            while not condition():
                assert process.poll() is None
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        finally:
            process.kill()
    assert process.returncode != 0


@pytest.mark.long
def test_a_killed_export_and_a_killed_import_leave_nothing_whole_and_go_on(
    bucket, server, done, refused, tmp_path
):
    drawn = draw_set(tmp_path / "pre_op", 60, moved=True)
    url, back = f"s3://{bucket}/pre_op", tmp_path / "back"
    words = (*export("webdataset", drawn, url), "--all", "--private-place", "--per-shard", 1)
    killed_when(words, lambda: len(names_in(server, bucket)) >= 3)
    before = [name for name in names_in(server, bucket) if name.endswith(".tar")]
    assert 3 <= len(before) < 60
    assert "index.json" not in names_in(server, bucket)
    assert "holds no whole export" in refused("import", url, "--out", back)
    assert not (back / "manifest.jsonl").exists()
    assert f"({len(before)} there already)" in done(*words)
    reading = ("import", url, "--out", back)
    rows = back / UNDER_WAY
    killed_when(reading, lambda: rows.is_file() and rows.read_bytes().count(b"\n") >= 3)
    assert not (back / "manifest.jsonl").exists()
    done(*reading)
    assert files_of(back) == files_of(drawn)


def test_a_changed_set_replaces_its_export_and_what_is_the_same_stays(bucket, server, done, drawn):
    url = f"s3://{bucket}/pre_op"
    done(*export("webdataset", drawn, url))
    assert "(3 there already)" in done(*export("webdataset", drawn, url))
    rows = read_jsonl(drawn / "manifest.jsonl")
    write_jsonl(drawn / "manifest.jsonl", rows[:4])
    done(*export("webdataset", drawn, url))
    shards = [f"pre_op-{i:05d}-of-00002.tar" for i in range(2)]
    assert sorted(names_in(server, bucket)) == sorted([*shards, "index.json", "images.jsonl"])


def test_an_export_that_fails_half_way_over_an_earlier_one_does_not_read_as_whole(
    bucket, server, done, refused, drawn, tmp_path
):
    url = f"s3://{bucket}/pre_op"
    done(*export("webdataset", drawn, url))
    rows = read_jsonl(drawn / "manifest.jsonl")
    write_jsonl(drawn / "manifest.jsonl", rows[1:])
    (drawn / rows[-1]["file"]).unlink()
    assert "can't be read" in refused(*export("webdataset", drawn, url))
    assert "index.json" not in names_in(server, bucket)
    assert "holds no whole export" in refused("import", url, "--out", tmp_path / "back")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda store, path: store.pipe_file(path, store.cat_file(path)[:-512]), "truncated or changed"),
        (lambda store, path: store.pipe_file(path, b"x" + store.cat_file(path)[1:]), "other content"),
        (lambda store, path: store.rm_file(path), "is missing"),
    ],
)
def test_a_damaged_shard_is_named_and_nothing_of_it_is_used(
    bucket, server, done, refused, drawn, tmp_path, damage, sentence
):
    done(*export("webdataset", drawn, f"s3://{bucket}/pre_op"))
    damage(server.store(), f"{bucket}/pre_op/pre_op-00001-of-00003.tar")
    said = refused("import", f"s3://{bucket}/pre_op", "--out", tmp_path / "back")
    assert "pre_op-00001-of-00003.tar" in said and sentence in said
    assert not (tmp_path / "back" / "manifest.jsonl").exists()
    done(*export("webdataset", drawn, f"s3://{bucket}/pre_op"))
    done("import", f"s3://{bucket}/pre_op", "--out", tmp_path / "back")


def test_a_bucket_or_package_that_is_missing_is_named(bucket, refused, drawn):
    assert "has no bucket nowhere" in refused(*export("webdataset", drawn, "s3://nowhere/pre_op"))
    assert "run: pip install gcsfs" in refused(*export("webdataset", drawn, f"gs://{bucket}/pre_op"))
    assert "no protocol xx://" in refused(*export("webdataset", drawn, f"xx://{bucket}/pre_op"))
    assert "names no place" in refused(*export("webdataset", drawn, "s3://"))


@pytest.fixture
def strict(server):
    """The server asks for real credentials, which nobody has."""
    server.send("moto-api/reset-auth", b"0", "POST")
    yield
    server.send("moto-api/reset-auth", b"inf", "POST")


CLOSED = {"AWS_ENDPOINT_URL": "http://me:hidden@127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}


@pytest.mark.parametrize("debug", ["0", "1"])
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, "access is refused"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no valid credentials were found"),
        (CLOSED, "the store is not reached"),
        ({"AWS_ENDPOINT_URL": "http//hidden"}, "client says"),
    ],
)
def test_a_store_that_refuses_is_one_sentence_without_a_secret(
    bucket, server, strict, drawn, monkeypatch, capsys, changed, sentence, debug
):
    monkeypatch.setenv("DIFFUSIONCLEFT_DEBUG", debug)
    for name, value in changed.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    assert main(list(map(str, export("webdataset", drawn, f"s3://{bucket}/pre_op")))) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    for secret in (server.secret, server.endpoint, "hidden", "AKIATESTS", "127.0.0.1"):
        assert secret not in said.out + said.err
    assert debug == "1" or len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:hidden@bucket/pre_op",
        "s3://hidden@bucket/pre_op",
        "s3://bucket/pre_op?key=hidden",
        "s3://bucket/secret=hidden/pre_op",
        "abfs://user:hidden@account.dfs.core.windows.net/pre_op",
        "https://host/index?X-Amz-Signature=hidden",
    ],
)
def test_a_url_with_a_secret_is_refused_without_repeating_it(refused, drawn, tmp_path, url):
    for words in (export("webdataset", drawn, url), ("import", url, "--out", tmp_path / "back")):
        said = refused(*words)
        assert "credentials come from the environment alone" in said and "hidden" not in said


def test_other_commands_name_those_that_know_urls(refused):
    assert "'diffusioncleft import'" in refused("measure", "a=s3://bucket/pre_op", "--out", "m.json")


def changed_rows(folder, change):
    write_jsonl(folder / "manifest.jsonl", [change(row) for row in read_jsonl(folder / "manifest.jsonl")])


LEAK = {"accepted": True, "reasons": ["identity_leak"], "identity": {"max_similarity": 0.7}}


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (lambda row: row, ["--all"], "1 image not accepted by the filters"),
        (lambda row: row | {"verdicts": LEAK}, [], "taken back though too like a training photograph"),
        (lambda row: row | {"lora": "a" * 64}, [], "never compared with the training photographs"),
    ],
)
def test_what_may_show_a_training_person_goes_to_a_declared_place_alone(
    bucket, server, done, refused, drawn, change, options, sentence
):
    changed_rows(drawn, change)
    words = export("webdataset", drawn, f"s3://{bucket}/pre_op", *options)
    assert sentence in refused(*words)
    assert names_in(server, bucket) == []
    done(*words, "--private-place")
    assert json.loads(server.store().cat_file(f"{bucket}/pre_op/index.json"))["private"] is True


def test_what_was_compared_with_the_photographs_goes_anywhere(bucket, done, drawn):
    verdicts = {"accepted": True, "reasons": [], "identity": {"max_similarity": 0.2}}
    changed_rows(drawn, lambda row: row | {"lora": "a" * 64, "verdicts": verdicts})
    done(*export("webdataset", drawn, f"s3://{bucket}/pre_op"))


@pytest.mark.parametrize("mark", ["PRIVATE.txt", "CONSENT.txt"])
def test_a_folder_of_photographs_goes_nowhere_declared_or_not(bucket, server, refused, drawn, mark):
    (drawn / mark).write_text("private")
    for options in ([], ["--private-place"]):
        said = refused(*export("webdataset", drawn, f"s3://{bucket}/pre_op", *options))
        assert "can't be a folder of generated images" in said
    assert names_in(server, bucket) == []


def test_other_peoples_objects_are_left_alone(bucket, server, refused, drawn):
    server.store().pipe_file(f"{bucket}/pre_op/notes.txt", b"mine")
    assert "holds other files" in refused(*export("webdataset", drawn, f"s3://{bucket}/pre_op"))
    assert names_in(server, bucket) == ["notes.txt"]


def test_the_users_list_keeps_the_url_of_what_a_lora_drew(bucket, done, drawn):
    name = "c" * 64
    record = read_json(drawn / "generation.json") | {"lora": {"sha256": name, "strength": 1.0}}
    write_json(drawn / "generation.json", record)
    done(*export("webdataset", drawn, f"s3://{bucket}/pre_op"))
    assert drawn_places.remembered_urls({name}) == [f"s3://{bucket}/pre_op"]
    assert drawn_places.remembered_places({name}) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda index: index["shards"][0].update(file="../pre_op-00000-of-00001.tar"), "none that this"),
        (lambda index: index.update(images=99), "none that this"),
        (lambda index: index.update(kind="notes"), "none that this"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(done, refused, drawn, tmp_path, change, sentence):
    done(*export("webdataset", drawn, tmp_path / "shards"))
    index = read_json(tmp_path / "shards" / "index.json")
    change(index)
    write_json(tmp_path / "shards" / "index.json", index)
    assert sentence in refused("import", tmp_path / "shards", "--out", tmp_path / "back")


@pytest.mark.parametrize("name", ["../000000_1.png", "a/b.png", ".hidden.png", "generation.png", "x.py"])
def test_rows_that_name_what_is_no_picture_of_the_set_are_refused(done, refused, drawn, tmp_path, name):
    shards = tmp_path / "shards"
    done(*export("webdataset", drawn, shards))
    rows = read_jsonl(shards / "images.jsonl")
    write_jsonl(shards / "images.jsonl", [rows[0] | {"file": name}, *rows[1:]])
    index = read_json(shards / "index.json")
    data = (shards / "images.jsonl").read_bytes()
    index["rows"] |= {"bytes": len(data), "sha256": sha256_bytes(data)}
    write_json(shards / "index.json", index)
    assert "what is no picture of a set" in refused("import", shards, "--out", tmp_path / "back")
    assert not list(tmp_path.glob("*.py")) and not list((tmp_path / "back").glob("*.*g"))


def test_a_set_is_brought_into_no_folder_that_holds_something_else(done, refused, drawn, tmp_path):
    done(*export("webdataset", drawn, tmp_path / "shards"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "holds other files" in refused("import", tmp_path / "shards", "--out", tmp_path / "mine")
    other = draw_set(tmp_path / "other", 2, moved=True)
    assert "holds another set" in refused("import", tmp_path / "shards", "--out", other)


def test_the_local_files_url_is_the_folder(tmp_path):
    assert place_of(tmp_path.as_uri()).folder == tmp_path
