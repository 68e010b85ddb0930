"""Thresholds at a stated false-match rate: counted, fitted, or honestly not stated."""

import json

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.analyzer import find_pack, read_pack
from diffusioncleft.diffusioncleft_core.faces.calibration import (
    COUNTED,
    TAIL_FIT,
    calibrate,
    genuine_scores,
    impostor_pairs,
)
from diffusioncleft.diffusioncleft_core.files import sha256_model
from diffusioncleft.diffusioncleft_core.metrics.threshold import (
    PACK,
    PAPER,
    PHOTOGRAPHS,
    WITH_CONTROL,
    AuditThreshold,
    audit_threshold,
)
from diffusioncleft.diffusioncleft_core.ranges import PAPER_SIMILARITY

NOBODY = (np.zeros((0, 512), np.float32), ())


def strangers(n: int, seed: int, dimensions: int = 24) -> np.ndarray:
    """[n, 512] faces of which none is another's, alike enough to have a tail."""
    faces = np.zeros((n, 512), np.float32)
    faces[:, :dimensions] = np.random.default_rng(seed).normal(size=(n, dimensions))
    return faces / np.linalg.norm(faces, axis=1, keepdims=True)


def names(n: int) -> list[str]:
    return [str(place) for place in range(n)]


def plain_pairs(faces: np.ndarray, people: list[str]) -> np.ndarray:
    """Every cosine of two different people, the highest first."""
    return np.sort(
        [float(faces[i] @ faces[j]) for i in range(len(faces)) for j in range(i) if people[i] != people[j]]
    )[::-1]


def test_the_highest_impostor_pairs_are_those_of_a_plain_loop():
    faces, people = strangers(70, 1), [str(place // 2) for place in range(70)]
    pairs, plain = impostor_pairs(faces, people), plain_pairs(faces, people)
    assert pairs.n_pairs == len(plain) and pairs.n_people == 35
    assert np.allclose(pairs.scores, plain[: len(pairs.scores)], atol=1e-6)
    assert len(pairs.scores) >= max(50, 0.02 * len(plain))
    assert len(genuine_scores(faces, people)) == 35


def test_no_more_pairs_than_stated_lie_at_or_above_a_counted_threshold():
    faces = strangers(300, 2)
    (stated,) = calibrate(faces, names(300), (1e-2,))
    share = (plain_pairs(faces, names(300)) >= stated.threshold).mean()
    assert stated.method == COUNTED and 0.0095 < share <= 0.01
    assert stated.ci95[0] < stated.threshold < stated.ci95[1]
    assert stated.rate_ci95[0] < 0.01 < stated.rate_ci95[1]


def test_a_fitted_tail_reaches_where_pairs_can_not_be_counted():
    truth = calibrate(strangers(1500, 3), names(1500), (1e-4,))[0]
    fitted = calibrate(strangers(150, 4), names(150), (1e-4,))[0]
    assert (truth.method, fitted.method) == (COUNTED, TAIL_FIT)
    assert fitted.ci95[0] <= truth.threshold <= fitted.ci95[1]


def test_of_a_fitted_tail_no_more_is_subtracted_than_was_counted():
    """Hardly a pair lies where the tail says that there are some."""
    faces = strangers(150, 4)
    (fitted,) = calibrate(faces, names(150), (3e-5,))
    assert (fitted.method, fitted.rate_ci95[0]) == (TAIL_FIT, 0) and fitted.rate_ci95[1] > 3e-5
    chance = AuditThreshold(fitted.threshold, PACK, fitted, 3e-5).by_chance(270)
    assert (chance.value, chance.ci95[0]) == (0, 0) and chance.ci95[1] > 270 * 3e-5 / 1.1


@pytest.mark.parametrize(("people", "photographs"), [(6, 10), (40, 1)])
def test_too_few_people_or_pairs_are_said_to_be_too_few(people, photographs):
    faces = strangers(people * photographs, 5)
    who = [str(place // photographs) for place in range(len(faces))]
    (stated,) = calibrate(faces, who, (1e-5,))
    assert stated.threshold is None and stated.ci95 is None
    assert stated.reason == (
        f"can't be stated at 1 in 100,000 with n = {stated.n_pairs:,} pairs of {people} people"
    )


def test_the_same_persons_pictures_say_what_a_threshold_misses():
    faces = strangers(200, 6)
    again = faces[:50] + 0.02 * strangers(50, 7, 300)
    both = np.concatenate([faces, again / np.linalg.norm(again, axis=1, keepdims=True)])
    (stated,) = calibrate(both, [*names(200), *names(50)], (1e-2,))
    assert (stated.true_match["k"], stated.true_match["n"]) == (50, 50)
    assert 0.9 < stated.true_match["ci95"][0] < 1


def test_the_embedded_packs_calibration_is_of_its_own_recogniser():
    pack = find_pack("phantom")
    assert pack.calibration.recogniser == sha256_model(pack.folder / "rec.onnx")
    by_rate = {row.rate: row.threshold for row in pack.calibration.thresholds}
    assert list(by_rate) == sorted(by_rate, reverse=True) and min(by_rate) == 1e-5
    assert list(by_rate.values()) == sorted(by_rate.values())
    found = audit_threshold(pack, pack.calibration.recogniser, NOBODY, None)
    assert (found.source, found.value, found.reason) == (PACK, by_rate[1e-5], "")
    assert 0 < found.by_chance(100).value < 0.0011


def test_a_packs_calibration_does_not_count_for_another_recogniser():
    pack = find_pack("phantom")
    found = audit_threshold(pack, "another", (strangers(150, 8), names(150)), None, 1e-3)
    assert found.source == PHOTOGRAPHS and found.by_chance(100) is None


def test_a_weaker_rate_is_stated_where_the_wanted_one_can_not_be():
    pack = find_pack("phantom")
    found = audit_threshold(pack, "another", (strangers(100, 9), names(100)), None, 1e-5)
    assert found.stated.rate == 1e-4
    assert "can't be stated at 1 in 100,000 with n = 4,950 pairs of 100 people" in found.reason


def test_control_faces_help_out_and_the_papers_threshold_is_the_last_resort():
    pack, few = find_pack("phantom"), (strangers(10, 10), names(10))
    helped = audit_threshold(pack, "another", few, strangers(200, 11), 1e-2)
    assert helped.source == WITH_CONTROL
    alone = audit_threshold(pack, "another", few, None, 1e-2)
    assert (alone.source, alone.value, alone.stated) == (PAPER, PAPER_SIMILARITY, None)
    assert alone.as_json()["paper"] == PAPER_SIMILARITY


def test_the_number_of_photographs_with_a_face_does_not_follow_from_a_threshold():
    def said(n: int) -> AuditThreshold:
        return audit_threshold(find_pack("phantom"), "another", (strangers(60, 12)[:n], names(n)), None, 1e-2)

    assert said(56) == said(57) == said(59) != said(60)


def test_a_damaged_calibration_is_one_sentence(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"model")
    rows = [{"rate": 0.01, "threshold": "high"}]
    (tmp_path / "pack.json").write_text(
        json.dumps({"calibration": {"recogniser_sha256": "", "thresholds": rows}}), "utf-8"
    )
    with pytest.raises(UserError, match=r"the calibration in .* is damaged; make it again or remove it"):
        read_pack(tmp_path)
