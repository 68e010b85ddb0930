"""Other vocabularies than the embedded one, from photographs to the report: one condition, and three."""

import re
from pathlib import Path

import pytest
from commands import forked_trainers
from phantom_datasets import photograph

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.conditions.loader import EMBEDDED, load_vocabulary
from diffusioncleft.diffusioncleft_core.files import read_json, read_jsonl
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_healthy

pytestmark = pytest.mark.usefixtures("pages_drawn_once")

DOCS = Path(__file__).resolve().parents[2] / "docs" / "conditions.md"
THIRD = """
[attributes.grade]
title = "grade of the palsy"
values = ["partial", "complete"]

[columns.grade]
title = "grade of the palsy"
values = ["partial", "complete"]

[conditions.acute]
title = "Acute facial palsy"
label = "Palsy"
trigger = "FPAL"
status = "facial palsy"
contrast = "pre_op"
attributes = ["subject", "grade", "skin", "hair_texture", "hair_length", "hair_color", "eyes"]
descriptors = ["grade"]
face = "{a} {subject}'s whole face with {a} [{grade}] facial palsy"
caption = ["{a} {subject}'s whole face with {a} {grade} facial palsy"]
"""
IMAGES = 2
SMALL = ["--n", IMAGES, "--max-train-steps", 2, "--cell-images", 1, "--metrics", "lpips", "--device", "cpu"]


def command(*words: object) -> None:
    with forked_trainers():
        assert main(list(map(str, words))) == 0


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """Two faces for the map, where a run on phantoms draws a hundred."""
    folder = tmp_path_factory.mktemp("healthy")
    write_healthy(folder, 2, 5)
    return folder


@pytest.fixture(scope="module")
def palsy(tmp_path_factory) -> tuple[Path, Path]:
    """The example of the documentation, with photographs that are called palsies."""
    root = tmp_path_factory.mktemp("palsy")
    example = re.search(r"```toml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert example is not None
    file = root / "palsy.toml"
    file.write_text(example[1], encoding="utf-8")
    # `unknown` is none of this vocabulary's genders.
    return file, photograph(root / "photos", "scar", 1, gender="female", grade="partial")


def test_a_vocabulary_of_one_condition_goes_through_every_stage(palsy, healthy, tmp_path, capsys):
    vocabulary, photos = palsy
    out = tmp_path / "run"
    words = [
        "run",
        "--phantom",
        "--vocabulary",
        vocabulary,
        "--photos",
        f"acute={photos}",
        "--control",
        healthy,
        "--out",
        out,
        *SMALL,
    ]
    command(*words, "--plan")
    assert not out.exists()
    assert re.search(r"^training-acute +to do", capsys.readouterr().out, re.MULTILINE)
    command(*words, "--regularization-images", 4)
    report = read_json(out / "report.json")
    assert list(report["sets"]) == list(report["training"]) == ["acute"]
    assert report["oracle"] == {}
    assert (out / "loras" / "acute" / "fpal.safetensors").is_file()
    assert not (out / "zero_shot").exists()
    caption = next(row["caption"] for row in read_jsonl(out / "private" / "acute" / "manifest.jsonl"))
    assert caption.startswith("[FPAL] A woman's whole face with a partial facial palsy")
    prompts = [row["prompt"] for row in read_jsonl(out / "generated" / "acute" / "manifest.jsonl")]
    assert len(prompts) == IMAGES
    assert all(prompt.startswith("[FPAL] ") for prompt in prompts)
    assert not any(
        "FPAL" in row["prompt"] for row in read_jsonl(out / "regularization" / "acute" / "manifest.jsonl")
    )
    page = (out / "report.html").read_text("utf-8")
    assert "Acute facial palsy" in page
    assert not [word for word in ("CleftGAN", "Both", "DiffusionCleft (paper)", "cleft lip") if word in page]


def test_commands_beside_the_run_take_the_vocabulary(palsy, tmp_path, capsys):
    vocabulary, photos = palsy
    named = ["--vocabulary", vocabulary, "--condition", "acute"]
    command("prompt", *named, "--set", "grade=complete")
    command("plan", *named, "--n", 3, "--out", tmp_path / "plan.jsonl")
    command("generate", *named, "--phantom", "--n", 1, "--out", tmp_path / "set", "--device", "cpu")
    dataset = tmp_path / "private"
    command(
        "dataset",
        "build",
        photos,
        "--metadata",
        photos / "metadata.csv",
        *named,
        "--phantom",
        "--out",
        dataset,
    )
    command("filter", tmp_path / "set", "--reference", dataset, "--phantom")
    measured = tmp_path / "measured.json"
    command(
        "measure",
        tmp_path / "set",
        "--reference",
        dataset,
        "--phantom",
        "--metrics",
        "fir",
        "--out",
        measured,
    )
    command("report", measured, "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "Acute" in page
    assert not [word for word in ("CleftGAN", "Both") if word in page]


@pytest.mark.long
def test_a_third_condition_stands_beside_the_two_of_cleft_lip(healthy, tmp_path):
    vocabulary = tmp_path / "three.toml"
    vocabulary.write_text(EMBEDDED.read_text("utf-8") + THIRD, encoding="utf-8")
    names = list(load_vocabulary(vocabulary).conditions)
    assert names == ["pre_op", "post_op", "acute"]
    photos = {
        "pre_op": photograph(tmp_path / "pre", "cleft", 1),
        "post_op": photograph(tmp_path / "post", "scar", 2),
        "acute": photograph(tmp_path / "acute", "scar", 3, grade="complete"),
    }
    out = tmp_path / "run"
    words = ["run", "--phantom", "--vocabulary", vocabulary, "--out", out, *SMALL, "--control", healthy]
    given = {name: ["--photos", f"{name}={folder}"] for name, folder in photos.items()}
    command(*words, *given["pre_op"], *given["acute"])
    loras = {path: path.stat().st_mtime_ns for path in (out / "loras").rglob("*.safetensors")}
    command(*words, *given["acute"], "--photos-pre", photos["pre_op"], "--photos-post", photos["post_op"])
    assert {path: path.stat().st_mtime_ns for path in loras} == loras
    assert not (out / "superseded").exists()
    report = read_json(out / "report.json")
    assert set(report["sets"]) == {*names, "all"}
    assert list(report["oracle"]) == ["pre_op", "post_op"]
    assert report["training"]["acute"]["recipe"]["objective"]["other_trigger"] == "CLP"
    page = (out / "report.html").read_text("utf-8")
    assert all(text in page for text in ("Palsy", "Pre-op", "CleftGAN", ">All<"))
    assert "Both" not in page


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--photos", "acut=PHOTOS"], "Facial palsy has no condition 'acut'; did you mean 'acute'?"),
        (["--photos-pre", "PHOTOS"], "Facial palsy has no condition 'pre_op'"),
        (["--photos", "acute=PHOTOS", "--photos", "acute=PHOTOS"], "--photos names acute twice"),
        (["--metadata", "acute=PHOTOS/metadata.csv"], "add --photos acute=DIR"),
        (["--photos", "acute=PHOTOS", "--metadata", "acute=nowhere.csv"], "--metadata acute=CSV"),
        (["--photos", "PHOTOS"], "is no NAME=PATH"),
        ([], "the phantom draws no condition of this vocabulary: give --photos NAME=DIR"),
    ],
)
def test_photographs_that_do_not_fit_the_vocabulary_are_one_sentence(
    palsy, tmp_path, refused, words, sentence
):
    vocabulary, photos = palsy
    words = [word.replace("PHOTOS", str(photos)) for word in words]
    out = tmp_path / "run"
    assert sentence in refused("run", "--phantom", "--vocabulary", vocabulary, "--out", out, *words)
    assert not out.exists()
