"""The scripts that calibrate the embedded pack and measure the audit come to their end, also on few faces."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.faces.analyzer import PHANTOM_FOLDER
from diffusioncleft.diffusioncleft_core.faces.calibration import RATES
from diffusioncleft.tools import audit_coverage, audit_planted, calibrate_faces
from diffusioncleft.tools.face_pool import FacePool


@pytest.fixture
def written(monkeypatch, tmp_path):
    """What a script writes."""

    def run(script, *options, out=tmp_path / "figures.json"):
        monkeypatch.setattr(sys, "argv", ["script", *options, "--out", str(out)])
        assert script.main() == 0
        return json.loads(out.read_text("utf-8"))

    return run


def pool_of(people, twice):
    """Faces drawn at random; a second picture of a person is nearly the first."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(people, 64))
    faces = np.concatenate([first, first[:twice] + 0.1 * rng.normal(size=(twice, 64))]).astype(np.float32)
    person = np.concatenate([np.arange(people), np.arange(twice)])
    return FacePool(faces / np.linalg.norm(faces, axis=1, keepdims=True), person, person % 3)


def test_calibration_writes_thresholds_into_the_pack(written, tmp_path):
    pack = tmp_path / "pack.json"
    pack.write_bytes((PHANTOM_FOLDER / "pack.json").read_bytes())
    before = json.loads(pack.read_text("utf-8"))
    after = written(calibrate_faces, "--people", "24", "--twice", "4", out=pack)
    stated = after["calibration"].pop("thresholds")
    assert stated and {row["rate"] for row in stated} <= set(RATES)
    assert set(after["calibration"]) == set(before.pop("calibration")) - {"thresholds"}
    assert {key: after[key] for key in before} == before


def test_coverage_of_the_audit(monkeypatch, written):
    few = {
        name: replace(setting, images=30, photographs=15, holdout=10)
        for name, setting in audit_coverage.SETTINGS.items()
    }
    monkeypatch.setattr(audit_coverage, "SETTINGS", few)
    monkeypatch.setattr(audit_coverage, "face_pool", lambda *_: pool_of(400, 20))
    thresholds = audit_coverage.of_thresholds
    monkeypatch.setattr(audit_coverage, "of_thresholds", lambda pool, _, seed: thresholds(pool, 1, seed))
    found = written(audit_coverage, "--repetitions", "2")
    assert set(found["settings"]) == set(few)
    for setting in found["settings"].values():
        assert set(setting["rates"]) == {f"{rate:g}" for rate in audit_coverage.RATES}
    assert found["pairs"] and found["thresholds"]["300 people"]


def test_planted_leaks(monkeypatch, written):
    for name, few in {"TRAINED": 5, "STRANGERS": 6, "COPIES": 2, "IMAGES": 20}.items():
        monkeypatch.setattr(audit_planted, name, few)
    found = written(audit_planted, "--repetitions", "2")["phantom"]
    assert set(found["sets"]) == set(found["found"]) == {audit_planted.AGAIN, *audit_planted.KINDS}
    assert found["found"]["the same picture"]["either"]["value"] == 1
