"""The page for an ethics board: the run's own numbers beside their control, and what was not measured."""

import re

import pytest
from html_checks import problems
from report_documents import document

from diffusioncleft.diffusioncleft_core.imageset.decode import REASONS
from diffusioncleft.diffusioncleft_core.report.blocks import interval, percent
from diffusioncleft.diffusioncleft_core.report.folders import RunFolders
from diffusioncleft.diffusioncleft_core.report.html import UNREADABLE, write_html
from diffusioncleft.diffusioncleft_core.report.plain_words import (
    PLAIN_REASONS,
    SHARE,
    WITHDRAWN_NOTE,
    limits,
    rough,
    spread,
)
from diffusioncleft.diffusioncleft_core.statistics import clopper_pearson
from diffusioncleft.tools.study_server import make_study

pytestmark = pytest.mark.usefixtures("pages_drawn_once")

JARGON = r"\b(FIR|FID|LPIPS|cosine|embedding|threshold|hold-?out|sidecar|trigger|latent|n =|raw|metadata)\b"


@pytest.fixture
def said(tmp_path):
    """The words of the section; the rest of the report has no plots here."""

    def read(report) -> str:
        report.get("figures", {}).clear()
        for metrics in report.get("sets", {}).values():
            metrics.pop("fir_sweep", None)
        text = write_html(report, None, tmp_path / "report.html").read_text("utf-8")
        assert problems(text) == [] and UNREADABLE not in text
        found = re.search(r'<section id="plain-words".*?</section>', text, re.DOTALL)
        assert text.index('<section id="plain-words"') == text.index("<section"), "it comes first"
        return " ".join(re.sub(r"<[^>]+>", " ", found[0]).replace("\u00a0", " ").split())

    return read


def of_people(**control) -> dict:
    report = document(phantom=False)
    for name, facts in report["training"].items():
        facts |= {"subjects": 97, "holdout_images": 11, "set_aside": {}}
        report["sets"][name]["fir_images"]["paper"]["raw"] |= {
            "value": 0.0025,
            "ci95": [0.0008, 0.0058],
            "k": 5,
            "n": 2000,
            "threshold": 0.55,
        }
        if control:
            report["sets"][name]["fir_control_images"] = {"robust": {"holdout": control}}
    return report


def test_a_board_reads_no_word_of_the_trade(said):
    report = of_people(value=0.1, ci95=[0.02, 0.3], k=2, n=20, threshold=0.55)
    for facts in report["training"].values():
        facts["set_aside"] = dict.fromkeys(REASONS, 7)
    for words in (said(report), said(document()), said({"schema": 1})):
        assert re.findall(JARGON, words, re.IGNORECASE) == []
    assert PLAIN_REASONS.keys() == REASONS.keys()


def test_photographs_people_and_consent_are_counted_as_recorded(said):
    report = of_people()
    report["training"]["pre_op"]["set_aside"] = {"no_consent": 12, "too_small": None}
    report["training"]["post_op"] |= {"training_images": None, "set_aside": {"duplicate": 6}}
    words = said(report)
    assert "The model learned from 100 fewer than 5" in words
    assert "Kept apart, never learned from 11 11" in words
    assert "People in these photographs 97 97" in words
    assert "Consent was not given 12 none" in words
    assert "Smaller than the minimum size fewer than 5 none" in words
    assert "The same picture again none 6" in words
    assert "stands in the consent forms, and is not recorded here" in words


def test_nothing_set_aside_and_nothing_recorded_are_told_apart(said):
    assert "No photograph was set aside." in said(of_people())
    report = of_people()
    for facts in report["training"].values():
        del facts["set_aside"], facts["subjects"]
    words = said(report)
    assert "How many photographs were set aside is not recorded" in words
    assert "People in these photographs not recorded not recorded" in words
    del report["training"]
    assert "Which photographs were used, and how many were set aside, is not recorded" in said(report)


@pytest.mark.parametrize(
    ("ci95", "verdict"),
    [
        ([0.0, 0.0005], "more often than other people do"),
        ([0.001, 0.1], "a difference from other people is not shown, and not ruled out"),
        ([0.02, 0.3], "less often than other people do"),
    ],
)
def test_a_finding_stands_beside_its_control_with_both_ranges(said, ci95, verdict):
    words = said(of_people(value=sum(ci95) / 2, ci95=ci95, k=2, n=20, threshold=0.55))
    assert "From 0.55 on this report counts" in words
    assert "5 of 2,000 0.3 %; range 0.1 % to 0.6 % 2 of 20" in words
    assert words.count(verdict) == 2


def test_copies_that_a_recogniser_does_not_see_stand_beside_their_control_too(said):
    report = of_people()
    copies = {"value": 0.02, "ci95": [0.0055, 0.0504], "k": 4, "n": 200, "threshold": 0.2}
    others = {"value": 0.0, "ci95": [0.0, 0.0036], "k": 0, "n": 1020, "threshold": 0.2}
    for metrics in report["sets"].values():
        metrics["near_copies"] = {"robust": {"raw": copies}}
    report["sets"]["pre_op"]["near_copies_control"] = {"robust": {"holdout": others}}
    words = said(report)
    assert "nearly a copy of a photograph the model learned from" in words
    assert (
        "Pre-op 4 of 200 2.0 %; range 0.5 % to 5.0 % 0 of 1,020 0 %; range 0 % to 0.4 % Synthetic images are "
        "nearly copies more often than photographs of other people are." in words
    )
    assert "Post-op 4 of 200 2.0 %; range 0.5 % to 5.0 % not measured Without a control" in words
    assert "nearly copies of photographs was not measured" not in words
    report["filters"]["pre_op"]["by_kind"]["near_copy"] = 4
    assert "4 as nearly a copy of one, and 18 for any reason" in said(report)


def test_copies_that_were_not_looked_for_are_said_not_to_be(said):
    report = of_people()
    assert "Whether synthetic images are nearly copies of photographs was not measured." in said(report)
    assert "nearly a copy" not in said(report)


def test_the_row_that_compares_with_every_group_is_called_by_its_name(said):
    words = said(of_people())
    assert "The row “Both” compares every image with the photographs of every group" in words
    report = of_people()
    del report["sets"]["all"]
    assert "The row “" not in said(report)


def test_without_a_control_nothing_is_concluded(said):
    words = said(of_people())
    assert "5 of 2,000 0.3 %; range 0.1 % to 0.6 % not measured Without a control" in words
    assert "up to 0.6 % (pre-op, 2,000 images), up to 0.6 % (post-op, 2,000 images)" in words


def test_what_was_not_measured_is_said_not_to_be(said):
    words = said({"schema": 1})
    assert "Whether synthetic images are like people in the photographs was not measured" in words
    assert "were not sorted: none was set aside" in words
    report = of_people()
    report["sets"]["pre_op"]["fir_images"]["paper"]["raw"] |= {"value": None, "ci95": None}
    assert "Pre-op not measured" in said(report)
    unrated = "Whether clinicians find the images real and medically right was not measured"
    assert unrated in said(report)
    for study, told in (({"simulated": True}, True), ({"simulated": False}, False)):
        assert (f"{unrated}." in limits({**report, "study": study}, phantom=False)) is told


def test_a_phantom_run_says_that_no_person_was_photographed(said):
    words = said(document())
    assert "is a drawing by a computer program" in words and "They say nothing about people" in words
    assert "can’t tell for certain" in words, "who named the pictures drawings may have been wrong"
    assert "is a drawing by a computer program" not in said(of_people())


def test_a_withdrawn_run_says_so_first_and_may_not_be_shared(said):
    report = of_people() | {"notes": [WITHDRAWN_NOTE]}
    words = said(report)
    assert words.index("no longer valid") < words.index("Whose photographs")
    assert "May be shared" not in words and "Must not be shared" in words
    assert "no longer valid" not in said(of_people()) and "May be shared" in said(of_people())


def test_what_a_person_saw_is_told_and_that_nobody_looked(said):
    report = of_people()
    report["filters"]["pre_op"]["reviewed"] = {"pairs": 6, "same_person": 1, "not_same": 4, "unsure": 1}
    words = said(report)
    assert "Pre-op: a person looked at 6 images" in words
    assert "1 same person, 4 not the same, 1 unsure" in words
    assert "Post-op: no person has looked at the most alike images" in words


def test_the_number_of_people_is_not_told_where_the_hold_out_would_follow_from_it(said):
    report = of_people()
    report["training"]["pre_op"] |= {"holdout_images": None}
    del report["training"]["pre_op"]["subjects"]
    words = said(report)
    assert "never learned from fewer than 5 11" in words
    assert "People in these photographs not told 97" in words


def test_a_control_is_spoken_of_where_there_is_one(said):
    assert "are the control" in said(of_people(value=0.1, ci95=[0.02, 0.3], k=2, n=20, threshold=0.55))
    words = said(of_people())
    assert "are the control" not in words and "would be the control" in words


def test_images_set_aside_are_counted_with_their_range(said):
    words = said(of_people())
    assert (
        "of 200 synthetic images 1 was set aside as too like a photograph of any group (0.5 %; range" in words
    )
    assert "and 18 for any reason" in words


@pytest.mark.parametrize(
    ("share", "ci95", "words"),
    [
        (0.0, (0.0, 0.000526), "0 %; 0 % to 0.1 %"),
        (0.0004, (0.0001, 0.0011), "less than 0.1 %; less than 0.1 % to 0.1 %"),
        (0.25, (0.2, 0.3004), "25.0 %; 20.0 % to 30.0 %"),
        (0.9996, (0.9963, 1.0), "more than 99.9 %; 99.6 % to 100 %"),
    ],
)
def test_a_board_reads_one_decimal(share, ci95, words):
    assert f"{rough(share)}; {spread(ci95)}".replace("\u00a0", " ") == words


def test_a_range_is_the_same_in_plain_words_and_in_the_tables():
    for k in range(1, 200):
        found = clopper_pearson(k, 200)
        low, high = found.ci95
        if low >= 0.01 and high < 0.999:
            assert interval(found.ci95) == f"95\u00a0%: {spread(found.ci95)}"
            assert percent(found.value) == rough(found.value)


def test_the_private_folder_of_a_study_in_the_run_is_not_to_be_shared(tmp_path):
    """Nothing that holds a copy of a photograph lies outside a folder that the page names."""
    run = RunFolders(tmp_path / "run")
    study = make_study(run.study, n=3, practice=0, side=64)
    kept = [study.image(item.id) for item in study.items if study.has_image(item.id)]
    kept += [path for path in run.root.rglob("*") if path.name in ("key.jsonl", "sources.jsonl")]
    assert len(kept) > 3
    for path in kept:
        assert run.private.name in path.relative_to(run.root).parts
    (closed,) = [line for line in SHARE if line.startswith("Must not be shared")]
    assert f"any folder named `{run.private.name}`, wherever" in closed
    assert f"`{run.study.name}/{run.private.name}`" in closed
