"""A consent withdrawn after images were drawn outside a run, and by a LoRA under other keys."""

import json
import re
import shutil
from pathlib import Path

import pytest
from commands import offline_environment, run_command
from phantom_datasets import first_consent
from PIL import Image

from diffusioncleft.diffusioncleft_core.dataset.drawn import set_withdrawal
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import MARK, lora_withdrawal, metadata_of
from diffusioncleft.diffusioncleft_core.files import read_json, sha256_file, write_json
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs

DRAW = ("generate", "--phantom", "--n", 1, "--condition", "pre_op", "--device", "cpu", "--size", 64)


DATASET = "job/private/pre_op"
RUN = ("run", "--phantom", "--photos-pre", "photos", "--holdout", 0, "--device", "cpu", "--out", "job")


class Clinic:
    """Photographs, a dataset, a LoRA, and what it drew, in a folder; commands in its own state folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.photos = root, root / "photos"
        self.env = {**offline_environment(), "XDG_STATE_HOME": str(root / "state")}

    def __call__(self, *words: object, state: str = "state", code: int = 0) -> str:
        """What a command said; `state` is another one on a machine that knows nothing."""
        env = {**self.env, "XDG_STATE_HOME": str(self.root / state)}
        done = run_command(*words, cwd=self.root, env=env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def build(self) -> str:
        table = ["--metadata", "photos/metadata.csv", "--holdout", 0]
        return self(
            "dataset", "build", "photos", "--condition", "pre_op", "--phantom", "--out", DATASET, *table
        )

    def train(self, *words: object, code: int = 0) -> str:
        settings = ["--max_train_steps", 1, "--resolution", 64, "--output_name", "clp", *words]
        return self(
            "train", "--phantom", "--train_data_dir", DATASET, "--output_dir", "loras", *settings, code=code
        )

    def consent(self, word: str) -> None:
        first_consent(self.photos, word)


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Clinic:
    """Drawn: `plain` by the LoRA, `drawn` by it under diffusers' keys, `grid` a sheet of that."""
    clinic = Clinic(tmp_path_factory.mktemp("elsewhere"))
    write_photographs(clinic.photos, 3, "cleft", 3, subjects=3)
    clinic.build()
    clinic.train()
    (clinic.root / "other").mkdir()
    clinic("lora", "convert", "loras/clp.safetensors", "other/d.safetensors", "--format", "diffusers")
    clinic(*DRAW, "--lora", "loras/clp.safetensors", "--out", "plain")
    clinic(*DRAW, "--lora", "other/d.safetensors", "--out", "drawn")
    clinic(*DRAW, "--grid-loras", "other/d.safetensors", "--grid-strengths", 1, "--out", "grid")
    measure = ["measure", "drawn", "--phantom", "--metrics", "lpips", "--device", "cpu"]
    (clinic.root / "figures").mkdir()
    clinic(*measure, "--out", "figures/measured.json")
    return clinic


@pytest.fixture(scope="module")
def foreseen(before) -> dict[str, str]:
    """What `run --plan` and `--check` said after the first photograph lost its consent, before a build."""
    before.consent("no")
    return {option: before(*RUN, option) for option in ("--plan", "--check")}


@pytest.fixture(scope="module")
def told(before, foreseen) -> str:
    """What the build said then."""
    return before.build()


def test_a_set_tells_what_its_lora_came_from_and_no_more_than_the_lora_does(before):
    root = before.root
    metadata = metadata_of(root / "loras" / "clp.safetensors")
    record = read_json(root / "drawn" / "generation.json")["lora"]
    assert set(record) == {"sha256", "strength", "training"}
    assert record["training"] == metadata["run_fingerprint"]
    assert record["sha256"] == sha256_file(root / "other" / "d.safetensors")
    converted = metadata_of(root / "other" / "d.safetensors")
    assert converted["source_sha256"] == sha256_file(root / "loras" / "clp.safetensors")
    told = {key for key, value in converted.items() if metadata.get(key) != value}
    assert told == {"source_sha256", "modelspec.hash_sha256", "sshs_model_hash"}
    assert converted.keys() - metadata.keys() <= told


def test_the_build_names_and_marks_what_lies_outside_of_any_run(before, told):
    for place in ("plain", "drawn", "other/d.safetensors", "loras/clp.safetensors", "figures/measured.json"):
        assert str(before.root / place) in told
    assert "sheet:" in told
    marked = {path.parent.name for path in before.root.rglob(MARK)}
    assert marked == {"plain", "drawn", "other", "loras"}
    note = json.loads((before.root / "figures" / "measured.json").read_text("utf-8"))["notes"][0]
    assert note.startswith("Withdrawn:")


def test_a_plan_and_a_check_tell_what_a_run_would_mark_and_write_nothing(before, foreseen):
    for said in foreseen.values():
        assert "no longer have consent: 1" in said and "the run marks as withdrawn" in said
        for place in ("plain", "drawn", "other/d.safetensors", "loras/clp.safetensors"):
            assert str(before.root / place) in said
        assert "photo-0000" not in said
    assert re.search(r"^pre_op photographs +warning ", foreseen["--check"], re.MULTILINE)


def test_a_plan_after_the_build_tells_what_is_marked_already(before, told):
    said = before(*RUN, "--plan")
    assert "marked as withdrawn already" in said and "dataset withdraw" in said


def test_every_command_on_a_marked_set_says_so(before, told):
    said = before("filter", "plain", "--artifacts-only", "--phantom", state="nothing")
    assert "Withdrawn: the LoRA that drew these images" in said
    measure = ["measure", "plain", "--phantom", "--metrics", "lpips", "--device", "cpu", "--out", "m.json"]
    assert "Withdrawn:" in before(*measure, state="nothing")
    refused = before(*DRAW, "--out", "plain", state="nothing", code=2)
    assert "the LoRA that drew what is in plain" in refused and "whose consent was withdrawn" in refused
    page = ["report", "figures/measured.json", "--out", "page.html"]
    assert "Withdrawn:" in before(*page)


@pytest.mark.parametrize("kept", ["all", "images and sidecars", "images", "what the filters reject"])
def test_a_copy_is_named_and_marked_by_what_it_says_itself(before, told, tmp_path, kept):
    copy = tmp_path / "copy"
    shutil.copytree(before.root / "drawn", copy, ignore=shutil.ignore_patterns(MARK, ".*"))
    for path in [] if kept == "all" else [copy / "manifest.jsonl", copy / "generation.json"]:
        path.unlink()
    for path in copy.glob("*.json") if kept == "images" else []:
        path.unlink()
    for path in copy.glob("*.png") if kept == "what the filters reject" else []:
        Image.new("RGB", (128, 128)).save(path)  # no face; its sidecar still says what drew it
    said = before("dataset", "withdraw", copy, code=2)
    assert f"images: {copy}" in said and "--yes" in said
    assert (copy / MARK).is_file(), "it is marked, erased or not"
    refused = 2 if kept == "images" else 0  # nothing says any more that it is a phantom
    said = before("filter", copy, "--artifacts-only", "--phantom", state="nothing", code=refused)
    assert "Withdrawn: the LoRA that drew these images" in said
    (copy / ".lock").touch()
    (copy / "rejected").mkdir(exist_ok=True)
    assert kept != "what the filters reject" or list((copy / "rejected").glob("*.png"))
    said = before("dataset", "withdraw", copy, "--yes")
    assert "not diffusioncleft's" not in said and not copy.exists()


def test_images_of_others_in_the_same_folder_are_left(before, told, tmp_path):
    from PIL import Image

    (drawn,) = (before.root / "drawn").glob("0*.png")
    shutil.copy(drawn, tmp_path / "theirs.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "mine.png")
    (tmp_path / "manifest.jsonl").write_text("of another program\n")
    said = before("dataset", "withdraw", tmp_path, "--yes")
    assert f"images: {tmp_path}" in said and "erased 1 files" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.jsonl", "mine.png"]


def test_what_is_not_ours_is_left_and_named_alone(before, told, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(before.root / "plain", copy)
    (copy / "rejected").mkdir(exist_ok=True)
    (copy / "mine.txt").write_text("mine")
    said = before("dataset", "withdraw", copy, "--yes")
    assert f"left in {copy}: what is not diffusioncleft's: mine.txt" in said
    assert [path.name for path in copy.iterdir()] == ["mine.txt"]


def test_a_converted_lora_without_metadata_of_its_own_is_known_by_its_source(before, told, tmp_path):
    from safetensors.torch import load_file, save_file

    plain, known = tmp_path / "plain.safetensors", tmp_path / "known"
    save_file(load_file(before.root / "loras" / "clp.safetensors"), plain)
    row = {"run": "", "loras": [sha256_file(plain)], "date": "2026-01-01", "by": "x"}
    known.mkdir()
    write_json(known / MARK, {"schema": 1, "withdrawn": [row]})
    shutil.copy(plain, known / "plain.safetensors")
    said = before(
        "lora", "convert", known / "plain.safetensors", tmp_path / "d.safetensors", "--format", "diffusers"
    )
    assert "is marked so too" in said
    assert lora_withdrawal(tmp_path / "d.safetensors", []) is not None
    refused = before(*DRAW, "--lora", tmp_path / "d.safetensors", "--out", tmp_path / "x", code=2)
    assert "d.safetensors learned from a photograph whose consent was withdrawn" in refused


def test_a_set_of_an_earlier_version_is_named_by_the_converted_lora_beside_it(before, told, tmp_path):
    """Its settings say nothing but the hash of the converted file, which the search learns on its way."""
    shutil.copytree(before.root / "drawn", tmp_path / "old", ignore=shutil.ignore_patterns(MARK))
    shutil.copytree(before.root / "other", tmp_path / "other", ignore=shutil.ignore_patterns(MARK))
    for path in (tmp_path / "old").glob("*.json"):
        document = read_json(path)
        document["lora"].pop("training")
        write_json(path, document)
    said = before("dataset", "withdraw", tmp_path, code=2)
    assert str(tmp_path / "old") in said
    assert set_withdrawal(tmp_path / "old") is not None


def test_training_goes_on_from_no_withdrawn_checkpoint_and_starts_over_when_told(before, told):
    said = before.train(code=2)
    assert "a photograph whose consent was withdrawn" in said and "go back to what it was" not in said
    assert "another --output_dir" in said and "--resume no" in said
    before.train("--resume", "no")
    assert lora_withdrawal(before.root / "loras" / "clp.safetensors") is None


def test_consent_given_again_lifts_every_mark(before, told):
    before.consent("yes")
    assert "have consent again" in before.build()
    assert not list(before.root.rglob(MARK))
    figures = json.loads((before.root / "figures" / "measured.json").read_text("utf-8"))
    assert not figures.get("notes")
