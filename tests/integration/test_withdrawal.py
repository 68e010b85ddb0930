"""A consent withdrawn after training: said, marked, refused, erased, made anew as if it never was given."""

import csv
import itertools
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import offline_environment, run_command
from safetensors.torch import load_file

from diffusioncleft.diffusioncleft_core.dataset.withdrawn import MARK, user_register
from diffusioncleft.diffusioncleft_core.files import read_jsonl
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_healthy, write_photographs

GONE = "photo-0001.png"
LORA = Path("loras/pre_op/clp.safetensors")


def cleft(env: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    return run_command(*words, env=env)


def run(env: dict[str, str], photographs: Path, out: Path) -> subprocess.CompletedProcess[str]:
    words = ["run", "--phantom", "--photos-pre", photographs, "--out", out, "--n", 2, "--cell-images", 1]
    words += ["--holdout", 0, "--max-train-steps", 2, "--metrics", "none", "--device", "cpu", "--seed", 3]
    return cleft(env, *words, "--control", photographs.parent / "healthy")


def set_consent(photographs: Path, file: str, consent: str) -> None:
    table = photographs / "metadata.csv"
    with table.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        row["consent"] = consent if row["file"] == file else row["consent"]
    with table.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def copied(root: Path, copy: Path) -> Path:
    """A copy of the run that knows its own places alone: what is withdrawn in it marks nothing of `root`."""
    shutil.copytree(root / "run", copy)
    known = copy / "private" / "pre_op" / "trained.jsonl"
    known.write_text(known.read_text("utf-8").replace(str(root / "run"), str(copy)), "utf-8")
    assert str(root) not in known.read_text("utf-8")
    assert not (copy / "loras" / "pre_op" / MARK).exists()
    return copy


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


@pytest.fixture(scope="module")
def env(tmp_path_factory) -> dict[str, str]:
    return {**offline_environment(), "XDG_STATE_HOME": str(tmp_path_factory.mktemp("state"))}


@pytest.fixture(scope="module")
def before(env, tmp_path_factory) -> Path:
    """A finished run of four people who agreed, beside their photographs."""
    root = tmp_path_factory.mktemp("withdrawal")
    write_photographs(root / "photos", 4, "cleft", 3, subjects=4)
    write_healthy(root / "healthy", 2, 5)
    done = run(env, root / "photos", root / "run")
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def after(env, before, tmp_path_factory):
    """The same run after one of them withdrew: what it said, and where a copy of the first LoRA lies."""
    copy = tmp_path_factory.mktemp("copied") / "renamed.safetensors"
    shutil.copy(before / "run" / LORA, copy)
    set_consent(before / "photos", GONE, "no")
    done = run(env, before / "photos", before / "run")
    assert done.returncode == 0, done.stderr
    return done, copy


def test_the_run_says_what_learned_from_the_photograph_and_what_that_drew(before, after):
    done, _ = after
    assert done.stderr.count("withdrawn is what learned") == 1
    first, *rest = done.stderr[done.stderr.index("withdrawn is what learned") :].splitlines()
    assert "dataset withdraw" in first
    told = "\n".join(itertools.takewhile(lambda line: line.startswith("  "), rest))
    for part in (LORA, "2 images", "generated/pre_op", "report.json", "sheets"):
        assert str(part) in told
    assert "no longer have consent: 1" in done.stderr
    assert GONE not in done.stderr


def test_marks_travel_with_lora_and_images_and_name_no_photograph(before, after):
    aside = before / "run" / "superseded"
    marks = sorted(path.parent.relative_to(aside).as_posix() for path in aside.rglob(MARK))
    assert marks == ["generation-pre_op-1/pre_op", "training-pre_op-1/pre_op"]
    mark = json.loads((aside / "training-pre_op-1" / "pre_op" / MARK).read_text("utf-8"))
    rows = read_jsonl(before / "run" / "private" / "pre_op" / "withdrawn.jsonl")
    assert [row["run"] for row in rows] == [row["run"] for row in mark["withdrawn"]]
    assert set(mark["withdrawn"][0]) == {"run", "loras", "date", "by"}
    remembered = read_jsonl(before / "run" / "private" / "pre_op" / "trained.jsonl")
    photographs = [set(row["photographs"]) for row in remembered if "photographs" in row]
    assert [len(found) for found in photographs] == [3]
    assert not list((before / "run" / "loras").rglob(MARK))


def test_no_command_draws_with_it_wherever_it_was_copied(env, before, after, tmp_path):
    _, copy = after
    drawn = ["generate", "--phantom", "--n", 1, "--condition", "pre_op", "--device", "cpu", "--out"]
    line = refusal(cleft(env, *drawn, tmp_path / "a", "--lora", copy))
    assert "renamed.safetensors learned from a photograph whose consent was withdrawn" in line
    assert "dataset withdraw" in line
    assert not (tmp_path / "a").exists()
    # Converted, it has another hash and the same training.
    done = cleft(env, "lora", "convert", copy, tmp_path / "converted.safetensors", "--format", "diffusers")
    assert done.returncode == 0, done.stderr
    refusal(cleft(env, *drawn, tmp_path / "a", "--lora", tmp_path / "converted.safetensors"))
    # On a machine that knows nothing of it, the mark beside it says so.
    elsewhere = {**env, "XDG_STATE_HOME": str(tmp_path / "state")}
    aside = before / "run" / "superseded" / "training-pre_op-1" / "pre_op" / "clp.safetensors"
    refusal(cleft(elsewhere, *drawn, tmp_path / "a", "--lora", aside))
    refusal(cleft(env, *drawn, tmp_path / "a", "--grid-loras", copy, "--grid-strengths", "1"))


def test_measured_images_of_it_say_so_in_their_figures(env, before, after, tmp_path):
    aside = before / "run" / "superseded" / "generation-pre_op-1" / "pre_op"
    images = tmp_path / "images"
    shutil.copytree(aside, images)
    (images / MARK).unlink()
    out = tmp_path / "measured.json"
    done = cleft(env, "measure", images, "--phantom", "--metrics", "lpips", "--device", "cpu", "--out", out)
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text("utf-8"))
    assert document["notes"][0].startswith("Withdrawn:")
    assert "Withdrawn:" in done.stderr
    # Once more beside the mark, as somebody without the list sees it.
    elsewhere = {**env, "XDG_STATE_HOME": str(tmp_path / "state")}
    again = cleft(
        elsewhere, "measure", aside, "--phantom", "--metrics", "lpips", "--device", "cpu", "--out", out
    )
    assert "Withdrawn:" in again.stderr
    shutil.rmtree(aside / ".measure", ignore_errors=True)


def test_erased_and_made_anew_nothing_of_the_photograph_is_left(env, before, after, tmp_path):
    out, (_, copy) = before / "run", after
    listed = refusal_of_erasure(cleft(env, "dataset", "withdraw", out, copy.parent))
    for part in ("training-pre_op-1", "generation-pre_op-1", "renamed.safetensors"):
        assert part in listed
    assert copy.is_file()
    nearest = (out / "private" / "nearest.json").read_bytes()
    done = cleft(env, "dataset", "withdraw", out, copy.parent, "--yes")
    assert done.returncode == 0, done.stderr
    assert not copy.exists() and copy.parent.is_dir()
    assert (out / "private" / "nearest.json").read_bytes() == nearest, "of the new images alone"
    assert not (out / "private" / "faces").exists(), "it knew faces of the old images"
    assert not (out / "superseded").exists()
    assert not list(out.rglob(MARK))
    assert "nothing in" in cleft(env, "dataset", "withdraw", out, copy.parent).stdout
    # What was made anew is what a run gives that never had the photograph.
    never = run(env, before / "photos", tmp_path / "never")
    assert never.returncode == 0, never.stderr
    ours, theirs = load_file(out / LORA), load_file(tmp_path / "never" / LORA)
    assert ours.keys() == theirs.keys()
    assert all((ours[key] == theirs[key]).all() for key in ours)
    assert "Withdrawn" not in (out / "report.html").read_text("utf-8")
    again = run(env, before / "photos", out)
    assert again.returncode == 0, again.stderr
    assert "training-pre_op: done before" in again.stderr and "measurements: done before" in again.stderr


def refusal_of_erasure(done: subprocess.CompletedProcess[str]) -> str:
    assert "--yes" in refusal(done)
    return done.stdout


def test_without_a_new_run_what_is_in_place_is_marked_erased_and_made_again(env, before, after):
    """`dataset build` notices it; then only erasing is left, and the run makes what it lacks."""
    root = before
    out = root / "run"
    set_consent(root / "photos", "photo-0002.png", "no")
    build = ["dataset", "build", root / "photos", "--metadata", root / "photos" / "metadata.csv", "--phantom"]
    build += ["--condition", "pre_op", "--holdout", 0, "--seed", 3, "--out", out / "private" / "pre_op"]
    done = cleft(env, *build)
    assert done.returncode == 0, done.stderr
    assert "withdrawn is what learned" in done.stderr
    page = (out / "report.html").read_text("utf-8")
    assert "Withdrawn: a LoRA behind these figures" in page
    assert "No image is shown" in page
    drawn = [
        "generate",
        "--phantom",
        "--n",
        1,
        "--condition",
        "pre_op",
        "--device",
        "cpu",
        "--out",
        root / "x",
    ]
    assert "withdrawn" in refusal(cleft(env, *drawn, "--lora", out / LORA))
    done = cleft(env, "dataset", "withdraw", out / "private" / "pre_op", "--yes")
    assert done.returncode == 0, done.stderr
    gone = ["loras/pre_op", "generated/pre_op", "report.json", "report.html", "summary.md"]
    gone += ["private/nearest.json", "private/faces", "sheets/pre_op.png", "oracle/pre_op/cells.png"]
    assert [name for name in gone if (out / name).exists()] == []
    assert (out / "private" / "pre_op" / "manifest.jsonl").is_file()
    again = run(env, root / "photos", out)
    assert again.returncode == 0, again.stderr
    assert all((out / name).exists() for name in ("loras/pre_op", "generated/pre_op", "report.json"))


def test_consent_that_is_given_again_takes_the_mark_back(env, before, after):
    root = before
    out = root / "run"
    set_consent(root / "photos", "photo-0003.png", "no")
    build = ["dataset", "build", root / "photos", "--metadata", root / "photos" / "metadata.csv", "--phantom"]
    build += ["--condition", "pre_op", "--holdout", 0, "--seed", 3, "--out", out / "private" / "pre_op"]
    assert cleft(env, *build).returncode == 0
    assert (out / "loras" / "pre_op" / MARK).is_file()
    assert (out / "generated" / "pre_op" / MARK).is_file()
    set_consent(root / "photos", "photo-0003.png", "yes")
    done = cleft(env, *build)
    assert "have consent again" in done.stderr
    assert not list((out / "loras").rglob(MARK))
    assert not (out / "generated" / "pre_op" / MARK).exists()
    assert "Withdrawn" not in (out / "report.html").read_text("utf-8")
    done = run(env, root / "photos", out)
    assert "training-pre_op: done before" in done.stderr


def test_a_run_whose_photographs_are_all_gone_marks_first_and_says_what_to_do(env, before, after, tmp_path):
    copied(before, tmp_path / "run")
    (tmp_path / "photos").mkdir()
    shutil.copy(before / "photos" / "metadata.csv", tmp_path / "photos")
    shutil.copytree(before / "healthy", tmp_path / "healthy")
    state = {**env, "XDG_STATE_HOME": str(tmp_path / "state")}
    done = run(state, tmp_path / "photos", tmp_path / "run")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "withdrawn is what learned" in done.stderr
    assert "holds no photograph any more" in done.stderr.strip().splitlines()[-1]
    assert (tmp_path / "run" / "loras" / "pre_op" / MARK).is_file()
    assert "Withdrawn" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert (tmp_path / "run" / "private" / "pre_op" / "manifest.jsonl").is_file()


def test_purging_marks_what_was_trained_unless_consent_stands(env, before, after, tmp_path):
    for words, marked in ((["--consent-stands"], False), ([], True)):
        copy = copied(before, tmp_path / f"copy-{marked}")
        state = {**env, "XDG_STATE_HOME": str(copy / "state")}
        done = cleft(state, "dataset", "purge", copy / "private" / "pre_op", "--yes", *words)
        assert done.returncode == 0, done.stderr
        assert (copy / "loras" / "pre_op" / MARK).is_file() is marked
        assert ("Withdrawn" in (copy / "report.html").read_text("utf-8")) is marked
        assert ("withdrawn is what learned" in done.stderr) is marked


def test_the_users_list_lies_in_the_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert user_register() == tmp_path / "diffusioncleft" / "withdrawn.jsonl"
