"""The report of a run's folder: its pictures, what it must not show, the private page, the command."""

import base64
import io
import os
import re
import shutil
import stat
from urllib.parse import unquote

import numpy as np
import pytest
from html_checks import problems
from PIL import Image
from report_documents import CONDITIONS
from report_folders import COPIED, FACELESS, IMAGES, TEXT, make_run, save

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.references import read_references
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import Withdrawal, add_marks
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
from diffusioncleft.diffusioncleft_core.files import read_jsonl, sha256_file, write_json, write_jsonl
from diffusioncleft.diffusioncleft_core.filters.apply import filter_set
from diffusioncleft.diffusioncleft_core.filters.artifacts import ArtifactFilter
from diffusioncleft.diffusioncleft_core.filters.identity import IdentityFilter
from diffusioncleft.diffusioncleft_core.filters.verdicts import Filters
from diffusioncleft.diffusioncleft_core.generation.plans import zero_shot_plan
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
from diffusioncleft.diffusioncleft_core.imageset.places import SETTINGS
from diffusioncleft.diffusioncleft_core.report.folders import RunFolders
from diffusioncleft.diffusioncleft_core.report.html import UNREADABLE, write_html, write_private_html
from diffusioncleft.diffusioncleft_core.report.nearest import (
    judge_previews,
    nearest_pairs,
    read_nearest,
    write_nearest,
)
from diffusioncleft.diffusioncleft_core.report.pictures import (
    NOT_COMPARED,
    WITHDRAWN,
    Picture,
    evenly,
    folder_panel,
    preview_panels,
    rejected_panels,
    sample_panel,
    shared_ending,
    thumbnail,
    withheld,
)
from diffusioncleft.diffusioncleft_core.report.plain_words import WITHDRAWN_NOTE as NOTE
from diffusioncleft.diffusioncleft_core.report.run_folder import (
    RunReport,
    collect_pictures,
    conditions_of,
    read_report,
    told_trainings,
    with_loss_curves,
    with_measures,
)
from diffusioncleft.diffusioncleft_core.report.summary import length_of, write_contact_sheet
from diffusioncleft.diffusioncleft_core.report.withdrawn import with_withdrawal
from diffusioncleft.diffusioncleft_core.run.evaluation import without_steps

pytestmark = pytest.mark.usefixtures("pages_drawn_once")


@pytest.fixture(scope="module")
def faces():
    return load_face_analyzer("phantom", threads=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory, faces) -> RunFolders:
    return make_run(tmp_path_factory.mktemp("run of people"), faces)


@pytest.fixture(scope="module")
def pairs(run, faces):
    return nearest_pairs(
        run.root,
        {name: run.generated(name) for name in CONDITIONS},
        {name: run.dataset(name) for name in CONDITIONS},
        faces,
        cache=run.private / "faces",
    )


@pytest.fixture(scope="module")
def shared(run, tmp_path_factory) -> str:
    report = read_report(run.root)
    document = with_loss_curves(report)
    pictures = collect_pictures(report.folders, conditions_of(document), phantom=True)
    path = write_html(document, pictures, tmp_path_factory.mktemp("page") / "report.html")
    return path.read_text("utf-8")


@pytest.mark.parametrize(
    ("phantom", "told"),
    [(True, "learned from rendered phantoms"), (False, "compared each with the training photographs")],
)
def test_over_the_samples_stands_what_was_checked_of_them(run, tmp_path, phantom, told):
    report = read_report(run.root)
    document = with_loss_curves(report) | {"phantom": phantom}
    pictures = collect_pictures(report.folders, conditions_of(document), phantom=phantom)
    text = write_html(document, pictures, tmp_path / "report.html").read_text("utf-8")
    assert told in text.split('id="samples"')[1].split("</section>")[0]


def small(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BOX), dtype=float)


def pictures_in(html: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/\w+;base64,([A-Za-z0-9+/=]+)", html)
    return [small(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def photographs_in(run: RunFolders) -> list[np.ndarray]:
    found = []
    for name in CONDITIONS:
        for row in read_image_set(run.dataset(name)):
            with Image.open(run.dataset(name) / row.file) as image:
                found.append(small(image))
    return found


def likeness(html: str, photographs: list[np.ndarray]) -> float:
    """The smallest mean absolute difference, in levels, between any picture of a page and any photograph."""
    return min(np.abs(picture - photo).mean() for picture in pictures_in(html) for photo in photographs)


def test_a_runs_page_shows_samples_previews_zero_shot_and_losses(shared):
    assert problems(shared) == [] and UNREADABLE not in shared
    assert "There are no pictures" not in shared
    assert "no loss history" not in shared and 'id="loss-pre_op-title"' in shared
    assert "Base model without a LoRA" in shared and "a cleft lip scar" in shared
    assert "previews: “[CLP] A girl&#39;s whole face.”" in shared
    assert "rejected: text or watermark" in shared
    assert len(pictures_in(shared)) == 2 * (IMAGES - 2) + 2 * 2 * 3 + 2 + 2
    assert len(shared) < 8e6


def test_no_photograph_its_name_or_its_hash_is_in_what_may_be_shared(run, shared):
    telling = {"photo-0", str(run.root), "run of people"}
    for name in CONDITIONS:
        for row in read_image_set(run.dataset(name)):
            file = run.dataset(name) / row.file
            data = base64.b64encode(file.read_bytes()).decode()
            telling |= {row.sha256, file.stem, sha256_file(file), data[200:260]}
        for photo in run.photographs(name).glob("*.png"):
            telling |= {sha256_file(photo), photo.name}
    for text in (shared, run.report.read_text("utf-8")):
        assert [word for word in telling if word in text] == []


def test_no_pixel_of_a_photograph_is_on_the_shared_page_though_one_was_generated(run, shared):
    photographs = photographs_in(run)
    copied = next(run.generated("pre_op").glob(f"{COPIED:06d}_*.png"))
    found = thumbnail(Picture(copied, "a copy", ""))
    assert likeness(found.src, photographs) < 2, "the comparison finds a photograph in a thumbnail"
    assert likeness(shared, photographs) > 6


def test_thumbnails_say_that_they_are_synthetic(shared):
    data = re.search(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", shared)[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert b"trainedAlgorithmicMedia" in image.info["xmp"]


def test_images_too_like_a_training_face_or_without_a_face_are_not_samples(run):
    panel = sample_panel(run.generated("pre_op"), phantom=True)
    shown = {int(picture.path.name[:6]) for picture in panel.pictures}
    assert shown == set(range(IMAGES)) - {COPIED, FACELESS}
    assert "2 before the last of them may not be shown" in panel.note
    assert [picture.badge for picture in panel.pictures if picture.badge] == ["rejected: text or watermark"]
    assert TEXT in shown


def test_rejected_images_are_shown_by_reason_with_the_synthetic_mark(run, shared):
    panels = {
        panel.title: panel for panel in rejected_panels(run.generated("pre_op"), "Pre-op", phantom=True)
    }
    assert list(panels) == [
        "Pre-op: no face (unassessed)",
        "Pre-op: text or watermark",
        "Pre-op: too like a training face",
    ]
    text = panels["Pre-op: text or watermark"]
    assert [int(picture.path.name[:6]) for picture in text.pictures] == [TEXT]
    assert text.pictures[0].badge == "synthetic" and "rejected (text or watermark)" in text.pictures[0].alt
    for title in ("Pre-op: no face (unassessed)", "Pre-op: too like a training face"):
        assert not panels[title].pictures and "None of 1 may be shown: too like" in panels[title].note
    part = shared.split('id="rejections"')[1].split("</section>")[0]
    assert "<h3>Pre-op: text or watermark</h3>" in part and '<span class="tag">synthetic</span>' in part


def test_a_withdrawn_set_shows_no_image_in_any_panel(run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run.generated("pre_op"), folder)
    assert rejected_panels(folder, "Pre-op", phantom=True)
    assert with_withdrawal({"schema": 1}, [], [folder]) == {"schema": 1}
    add_marks(folder, [Withdrawal("ab" * 32, (), "2026-01-01", "a dataset")])
    panels = [sample_panel(folder, phantom=True), folder_panel(folder, "SDXL")]
    assert [(panel.pictures, panel.note) for panel in panels] == [((), WITHDRAWN)] * 2
    assert rejected_panels(folder, "Pre-op", phantom=True) == []
    assert with_withdrawal({"schema": 1}, [], [folder])["notes"] == [NOTE]


def test_a_set_of_a_lora_that_only_this_machine_knows_as_withdrawn_shows_none_either(run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run.generated("pre_op"), folder)
    write_json(folder / SETTINGS, {"lora": {"sha256": "cd" * 32}})
    known = [Withdrawal("ab" * 32, ("cd" * 32,), "2026-01-01", "a dataset")]
    assert sample_panel(folder, phantom=True).pictures and rejected_panels(folder, "Pre-op", phantom=True)
    assert not sample_panel(folder, phantom=True, known=known).pictures
    assert rejected_panels(folder, "Pre-op", phantom=True, known=known) == []


def test_an_image_of_several_faces_is_shown_of_phantoms_only():
    """The largest face alone is compared: the other may be anyone's."""
    verdicts = {
        "reasons": ["several_faces"],
        "identity": {"rejected": False, "max_similarity": 0.3, "threshold": 0.6},
    }
    assert withheld(verdicts, phantom=False)
    assert not withheld(verdicts, phantom=True)


def test_the_steps_of_a_training_are_those_it_made():
    assert length_of({"steps": 0, "epochs": 20}, {"step": 2000, "loss": 0.1}) == 2000
    assert length_of({"steps": 0, "epochs": 20}, {"loss": 0.1}) == "20 epochs"
    assert length_of({"steps": 7}, {}) == 7


def test_a_training_of_few_photographs_is_not_shown_step_by_step(run, tmp_path):
    document = read_report(run.root).document
    document["training"]["pre_op"]["training_images"] = None
    assert told_trainings(document) == ["post_op"]
    report = RunReport(document, run.report, run)
    assert list(with_loss_curves(report)["figures"]["loss"]) == ["post_op"]
    pictures = collect_pictures(run, CONDITIONS, phantom=True, previewed=told_trainings(document))
    assert all(panel.title.startswith("Post-op") for panel in pictures.previews)
    document["training"]["pre_op"] |= without_steps(document["training"]["pre_op"])
    text = write_html(document, None, tmp_path / "report.html").read_text("utf-8")
    assert "10 a training image" in text


def test_images_that_no_filter_compared_are_shown_of_phantoms_only(run, tmp_path):
    folder = shutil.copytree(run.generated("pre_op"), tmp_path / "pre_op")
    rows = [{**row, "verdicts": {}} for row in read_jsonl(folder / "manifest.jsonl")]
    write_jsonl(folder / "manifest.jsonl", rows)
    assert len(sample_panel(folder, phantom=True).pictures) == IMAGES
    panel = sample_panel(folder, phantom=False)
    assert not panel.pictures and panel.note == NOT_COMPARED


def test_a_contact_sheet_leaves_out_what_a_report_must_not_show(run, tmp_path):
    shown = write_contact_sheet(run.generated("pre_op"), tmp_path / "sheet.png", "Pre-op", phantom=True)
    assert shown == IMAGES - 2


def test_previews_of_people_are_shown_once_they_were_compared_and_found_unlike(run, faces, tmp_path):
    folder = shutil.copytree(run.training("pre_op") / "previews", tmp_path / "previews")
    photograph = next(row for row in read_image_set(run.dataset("pre_op")) if row.role == "train")
    with Image.open(run.dataset("pre_op") / photograph.file) as image:
        save(folder / "step_000300_01.png", np.asarray(image), "A boy's face.")
    before = preview_panels(folder, "Pre-op", phantom=False)
    assert not any(panel.pictures for panel in before) and "6 of 6 previews" in before[0].note
    references = read_references([run.dataset(name) for name in CONDITIONS], faces)
    verdicts = judge_previews(folder, IdentityFilter(references), faces, cache=tmp_path / "faces")
    assert verdicts["step_000300_01.png"]["rejected"]
    after = preview_panels(folder, "Pre-op", phantom=False)
    shown = {picture.path.name for panel in after for picture in panel.pictures}
    assert shown == {name for name, verdict in verdicts.items() if not verdict["rejected"]}
    assert "step_000300_01.png" not in shown


def test_a_folder_of_photographs_is_no_other_models_images(tmp_path):
    """The inside of a dataset that is not this run's, and photographs whose table lies one folder up."""
    inside, listed = tmp_path / "private" / "images", tmp_path / "photos" / "pre_op"
    filters = Filters(ArtifactFilter(load_face_analyzer("phantom")))
    for folder in (inside, listed):
        folder.mkdir(parents=True)
        save(folder / "a.png", np.full((64, 48, 3), 90, np.uint8), "A boy's face")
    (tmp_path / "private" / "PRIVATE.txt").write_text("private")
    (listed.parent / "metadata.csv").write_text("file,consent\npre_op/a.png,yes\n")
    for folder, said in ((inside, "a private folder"), (listed, "as photographs have,")):
        for use in (lambda one: folder_panel(one, "SDXL"), lambda one: filter_set(one, filters)):
            with pytest.raises(UserError, match=f"{said} and can't be a folder of generated images"):
                use(folder)
        assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_a_photograph_of_the_run_in_a_zero_shot_folder_is_refused(run, tmp_path):
    photograph = next(row for row in read_image_set(run.dataset("post_op")) if row.role == "train")
    shutil.copy(run.dataset("post_op") / photograph.file, tmp_path / "1.png")
    with pytest.raises(UserError, match="one of the run's photographs"):
        collect_pictures(run, CONDITIONS, phantom=True, other_models={"SDXL": tmp_path})
    with pytest.raises(UserError, match="dataset of photographs"):
        collect_pictures(run, CONDITIONS, phantom=True, zero_shot=run.dataset("pre_op"))


def test_the_nearest_pair_is_the_copy_and_its_photograph(run, pairs):
    copies = [pair for pair in pairs if pair.similarity > 0.99]
    assert {(pair.condition, pair.photograph_condition) for pair in copies} == {(c, c) for c in CONDITIONS}
    assert all(f"{COPIED:06d}_" in pair.generated for pair in copies)
    assert [pair.similarity for pair in pairs] == sorted((p.similarity for p in pairs), reverse=True)
    assert all(pair.photograph.startswith("private/") for pair in pairs)
    assert not any(f"{FACELESS:06d}_" in pair.generated for pair in pairs)


def test_the_private_page_is_marked_and_its_owners_alone(run, pairs, tmp_path):
    private = tmp_path / "private"
    write_nearest(private, pairs)
    assert read_nearest(private) == pairs
    path = write_private_html(pairs, run.root, private / "report.private.html")
    text = path.read_text("utf-8")
    assert problems(text, alone=False) == []
    assert "<title>PRIVATE" in text and "shows photographs of people" in text and "noindex" in text
    assert not pictures_in(text), "it points to the pictures and holds none"
    links = [unquote(found) for found in re.findall(r'<img src="([^"]+)"', text)]
    assert len(links) == 2 * len(pairs)
    assert all((private / found).is_file() for found in links)
    assert text.count('<span class="tag">match</span>') >= 2
    if os.name == "posix":
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_photograph_that_is_purged_is_gone_from_the_private_page(run, pairs, tmp_path):
    path = write_private_html(pairs[:1], tmp_path, tmp_path / "private" / "page.html")
    text = path.read_text("utf-8")
    assert text.count("This file is gone") == 2 and "<img" not in text


def test_a_purge_erases_the_list_of_pairs_that_names_its_photographs(run, command, tmp_path):
    copy = RunFolders(tmp_path / "copy")
    shutil.copytree(run.root, copy.root)
    copy.stages.mkdir(exist_ok=True)
    for name in ("nearest.json", "report.private.html"):
        (copy.private / name).write_text("damaged, and still not in the way")
    done = command("dataset", "purge", copy.dataset("pre_op"), "--yes")
    assert done.returncode == 0, done.stderr
    assert not copy.dataset("pre_op").exists()
    assert not (copy.private / "nearest.json").exists()
    assert not (copy.private / "report.private.html").exists()
    assert copy.generated("pre_op").is_dir() and copy.dataset("post_op").is_dir()


def test_the_command_makes_both_pages_again_and_says_where(run, command, tmp_path):
    other = tmp_path / "sdxl"
    save(other / "a.png", np.full((64, 48, 3), 90, np.uint8), "A boy's face with a cleft lip")
    (other / "b.png").write_bytes(b"no image")
    done = command("report", run.root, "--other-model", f"SDXL={other}", "--nearest", "phantom")
    assert done.returncode == 0, done.stderr
    page = run.root / "report.html"
    private = run.private / "report.private.html"
    assert str(page) in done.stdout and str(private) in done.stdout
    text = page.read_text("utf-8")
    assert problems(text) == []
    assert "<h3>SDXL</h3>" in text
    assert "shows phantom photographs" in private.read_text("utf-8")


def test_a_bare_document_makes_a_page_without_pictures(run, command, tmp_path):
    shutil.copy(run.report, tmp_path / "elsewhere.json")
    done = command("report", tmp_path / "elsewhere.json", "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "There are no pictures in this report" in text and not pictures_in(text)


def test_figures_measured_later_join_the_run(run, tmp_path):
    report = read_report(run.root)
    measured = {key: report.document.pop(key) for key in ("sets", "figures")}
    write_json(tmp_path / "measured.json", {"schema": 1, "phantom": True, **measured})
    document = with_measures(with_loss_curves(report), tmp_path / "measured.json")
    assert document["sets"] == measured["sets"]
    assert document["figures"]["pca"] and document["figures"]["loss"]
    write_json(tmp_path / "measured.json", {"schema": 1, "phantom": False, **measured})
    with pytest.raises(UserError, match="not both of phantoms"):
        with_measures(document, tmp_path / "measured.json")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "finished run"),
        (["foreign.json"], "no report of schema 1"),
        (["bare.json", "--other-model", "SDXL"], "no NAME=PATH"),
        (["bare.json", "--zero-shot", "missing"], "no folder"),
        (["bare.json", "--zero-shot", "empty"], "has no image"),
        (["bare.json", "--nearest", "phantom"], "no private folder"),
        (["bare.json", "--out", "empty"], "is a folder"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, refused, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign.json").write_text('{"schema": 7}')
    (tmp_path / "bare.json").write_text('{"schema": 1}')
    assert sentence in refused("report", *arguments)


def test_the_zero_shot_plan_asks_the_papers_two_questions():
    one, two = probes = load_vocabulary().zero_shot
    plan = zero_shot_plan(probes, 3, seed=1)
    assert [row.prompt for row in plan] == [one] * 3 + [two] * 3
    assert len({row.seed for row in plan}) == len({row.index for row in plan}) == 6
    assert plan == zero_shot_plan(probes, 3, seed=1) != zero_shot_plan(probes, 3, seed=2)


def test_the_shared_ending_of_prompts_is_whole_sentences_and_never_a_whole_prompt():
    assert shared_ending(["A girl. One face.", "A boy. One face."]) == " One face."
    assert shared_ending(["Same. One.", "Same. One."]) == " One."
    assert shared_ending(["A girl", "A boy"]) == ""
    assert shared_ending(["Alone."]) == ""


def test_a_long_progression_keeps_its_first_and_last_step():
    assert evenly(list(range(100)), 6) == [0, 20, 40, 59, 79, 99]
    assert evenly([1, 2], 6) == [1, 2]
