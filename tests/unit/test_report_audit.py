"""The leak audit on the report's first page, and in its own section."""

import re

import numpy as np
import pytest
from html_checks import problems
from report_documents import CONDITIONS, document

from diffusioncleft.diffusioncleft_core.audit.extraction import Probe, beside, counted, untold
from diffusioncleft.diffusioncleft_core.faces.calibration import StatedThreshold
from diffusioncleft.diffusioncleft_core.metrics.audit import copies_risk
from diffusioncleft.diffusioncleft_core.metrics.gallery import Gallery, People
from diffusioncleft.diffusioncleft_core.metrics.leak import bounded_by_unassessed, leak_figures
from diffusioncleft.diffusioncleft_core.metrics.threshold import PACK, PAPER, AuditThreshold
from diffusioncleft.diffusioncleft_core.report.audit_words import (
    NOT_RUN,
    copies_sentence,
    extraction_sentences,
    membership_sentence,
    provenance,
    risk_sentence,
)
from diffusioncleft.diffusioncleft_core.report.html import UNREADABLE, write_html

pytestmark = pytest.mark.usefixtures("pages_drawn_once")

STATED = StatedThreshold(
    1e-5, 0.8, (0.79, 0.81), (5e-6, 2e-5), "counted", 10**6, 1500, "", {"value": 0.99, "ci95": [0.98, 1.0]}
)
CALIBRATED = AuditThreshold(0.8, PACK, STATED, 1e-5)
EXTRACTOR = {"name": "pack", "sha256": "ab" * 32, "phantom": False, "licence": "MIT"}
JARGON = r"\b(FIR|cosine|embedding|threshold|hold-?out|residual|AUC|n =|raw|recogniser)\b"


def faces(n: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(n, 512)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def risk_of(leaks: int, faceless: int = 0) -> dict:
    return audited(leaks, faceless)["residual_risk"]


def audited(leaks: int, faceless: int = 0) -> dict:
    train = faces(100, 1)
    counts = {
        "n_images": 200,
        "n_no_face": faceless,
        "n_unreadable": 0,
        "n_several": 0,
        "extractor": EXTRACTOR,
    }
    gallery = Gallery(People.strangers(train), People.strangers(faces(20, 2)))
    generated = np.concatenate([train[:leaks], faces(200 - leaks, 3)])
    found = leak_figures(generated, gallery, CALIBRATED, counts)
    return {**found, "residual_risk": bounded_by_unassessed(found["residual_risk"])}


def reported(leaks: int) -> dict:
    report = document(phantom=False)
    for name in CONDITIONS:
        for metric, figure in audited(leaks, 3).items():
            part = figure if metric == "leak_control" else {"raw": figure}
            report["sets"][name].setdefault(metric, {})["robust"] = part
    report["figures"] = {
        "audit": {"threshold": CALIBRATED.as_json() | {"extractor": EXTRACTOR}, "second": None}
    }
    return report


def section(report: dict, name: str, path) -> str:
    text = write_html(report, None, path).read_text("utf-8")
    assert problems(text) == [] and UNREADABLE not in text
    found = re.search(rf'<section id="{name}".*?</section>', text, re.DOTALL)[0]
    return " ".join(re.sub(r"<[^>]+>", " ", found).replace("\u00a0", " ").split())


def test_nothing_found_says_how_much_could_be_missed():
    said = risk_sentence(risk_of(0)).replace("\u00a0", " ")
    assert re.fullmatch(
        r"None found by these attacks among 200 images; up to [12]\.\d % could be missed\.", said
    )


def test_the_upper_end_is_never_rounded_down():
    risk = risk_of(0)
    said = float(re.search(r"up to ([\d.]+)", risk_sentence(risk))[1])
    assert said / 100 >= risk["could_be_missed"]


def test_where_nobody_knows_what_is_overlooked_the_sentence_says_so():
    unknown = risk_sentence(risk_of(20) | {"true_match": None})
    assert unknown.endswith("How often the same person is overlooked is not known here, so it may be more.")
    assert not re.findall(JARGON, unknown, re.IGNORECASE) and "overlooked" not in risk_sentence(risk_of(20))


def test_leaks_beyond_chance_and_matches_within_it_read_differently():
    assert "are leaks, beyond what chance finds" in risk_sentence(risk_of(20))
    within = risk_of(1) | {"ci95": [0.0, 0.03]}
    assert risk_sentence(within).startswith("1 of 200 images was found, which is no more than chance allows")


def test_images_without_a_face_are_told_with_what_they_would_add():
    said = risk_sentence(risk_of(0, faceless=10))
    assert "10 more could not be searched; were each of them a leak, it would be up to" in said
    assert "could not be searched" not in risk_sentence(risk_of(0))


@pytest.mark.parametrize("leaks", [0, 20])
def test_a_board_reads_the_audit_on_the_first_page_without_a_word_of_the_trade(tmp_path, leaks):
    words = section(reported(leaks), "plain-words", tmp_path / "report.html")
    assert "What the search for leaks found" in words and NOT_RUN in words
    assert re.findall(JARGON, words, re.IGNORECASE) == []


def test_the_section_has_attack_control_and_what_could_be_missed(tmp_path):
    words = section(reported(20), "audit", tmp_path / "report.html")
    assert "By chance, as the face pack’s calibration lets expect" in words
    assert "20 of 200" in words and "Photographs against those of other people" in words
    assert "The paper’s 0.6 stands beside it" in words


def test_a_report_without_an_audit_says_how_to_get_one(tmp_path):
    assert "No audit was made" in section({"schema": 1}, "audit", tmp_path / "report.html")


def test_what_can_not_be_stated_is_said():
    reason = "can't be stated at 1 in 100,000 with n = 45 pairs of 10 people"
    assert reason in provenance(AuditThreshold(0.6, PAPER, None, 1e-5, reason).as_json())


def test_copies_that_were_found_are_told_without_a_control_too():
    copies = {"value": 0.37, "ci95": [0.28, 0.47], "k": 37, "n": 100, "n_images": 100}
    risk = copies_risk({"near_copies": {"robust": {"raw": copies}}})["residual_copies"]["robust"]["raw"]
    assert copies_sentence(risk) == "Copies of photographs: 37 of 100 images, without a control."


def test_a_risk_that_is_not_told_leaves_the_sections_readable(tmp_path):
    report = reported(3)
    untold = dict.fromkeys(("value", "ci95", "k", "n", "attack", "control", "could_be_missed"))
    report["sets"]["pre_op"]["residual_risk"]["robust"]["raw"] |= {**untold, "note": "Not told: why."}
    assert "Not measured. Not told: why." in section(report, "audit", tmp_path / "report.html")


def asked(learned: int, unseen: int, *, photographs: bool = True) -> list[str]:
    shares = beside(counted([False] * learned), counted([False] * unseen), photographs=photographs)
    return extraction_sentences({"cliques": shares, "found": shares, "near_copies": shares, "seeds": 8})


def test_what_is_not_told_of_few_descriptions_is_said_once():
    (said,) = asked(3, 9)
    assert "repeats its photographs is not told: it was asked with fewer than five descriptions" in said
    (none,) = asked(0, 9)
    assert "repeats its photographs is not known" in none
    assert all(line.endswith(", without a control.") for line in asked(9, 3)) and len(asked(9, 3)) == 3
    assert "each of 3 descriptions" in asked(3, 2, photographs=False)[0]


def test_why_membership_has_no_figure_is_said():
    said = membership_sentence({"against_base": {"value": None, "note": "Not told: why."}})
    assert said.endswith("could not be measured. Not told: why.")


def test_what_will_not_be_told_is_said_before_anything_is_drawn():
    few, every = Probe(8, 3, 0, 0.6), Probe(8, 0, 0, 0.6)
    assert untold(3, 3, few) == [
        "of drawings from fewer than five captions nothing is told; give a larger --captions"
    ]
    assert "the dataset has fewer than five captions" in untold(4, 9, every)[0]
    assert "no control" in untold(9, 4, every)[0] and untold(9, 0, every) == []
