"""When a consent counts as withdrawn, and how what learned from it is known."""

import csv
import json

import numpy as np
import pytest
from phantom_datasets import phantom_dataset
from safetensors.numpy import save_file

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.drawn import traced
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs
from diffusioncleft.diffusioncleft_core.dataset.trained import remember_lora, remember_training
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import (
    MARK,
    RUN_KEY,
    known_withdrawals,
    lora_withdrawal,
    refuse_withdrawn,
)
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import read_jsonl, write_json
from diffusioncleft.diffusioncleft_core.generation.folder import changed_settings
from diffusioncleft.diffusioncleft_core.imageset.writer import made_from

RUN = "ab" * 32


@pytest.fixture
def clinic(tmp_path, analyzer, monkeypatch):
    """A dataset of four people, and a function that changes the table and builds again."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    photographs, out = tmp_path / "photos", tmp_path / "pre_op"
    phantom_dataset(photographs, "pre_op", out, analyzer, n=4, seed=2)
    table = photographs / "metadata.csv"

    def build(**columns):
        """Change the first row, and return what the build said of consent."""
        with table.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        rows[trained_row(out, rows, photographs)] |= columns
        with table.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
        said = []
        build_dataset(
            Photographs(photographs, table),
            load_vocabulary().condition("pre_op"),
            out,
            analyzer,
            settings=BuildSettings(phantom=True),
            on_change=said.append,
        )
        return said

    return out, build


def trained_row(out, rows, photographs):
    """The table's first row that was trained on at the first build."""
    from diffusioncleft.diffusioncleft_core.files import sha256_file

    kept = out.parent / "first.json"
    if not kept.is_file():
        roles = json.loads((out / "roles.json").read_text("utf-8"))
        names = [row["file"] for row in rows]
        kept.write_text(
            str(next(i for i, n in enumerate(names) if roles[sha256_file(photographs / n)] == "train"))
        )
    return int(kept.read_text())


def lora(folder, name="a.safetensors", run=RUN):
    folder.mkdir(exist_ok=True)
    save_file({"a": np.zeros(1, np.float32)}, folder / name, metadata={RUN_KEY: run} if run else {})
    return folder / name


def trained(out, folder):
    remember_training(out, RUN, folder)
    path = lora(folder)
    remember_lora(out, RUN, path)
    return path


def test_a_row_that_is_wrong_in_another_value_is_no_withdrawal(clinic, tmp_path):
    out, build = clinic
    path = trained(out, tmp_path / "loras")
    assert build(age_group="toddler") == []
    assert lora_withdrawal(path) is None
    (change,) = build(consent="no")
    assert change.gone == 0, "it was not among those to be trained on any more"
    assert [item.run for item in change.withdrawn] == [RUN]
    with pytest.raises(UserError, match="whose consent was withdrawn"):
        refuse_withdrawn(path)


def test_the_photographs_hashes_go_and_one_keyed_hash_of_all_stays(clinic, tmp_path):
    out, build = clinic
    trained(out, tmp_path / "loras")
    before = [row["photographs"] for row in read_jsonl(out / "trained.jsonl") if "photographs" in row]
    assert len(before) == 1 and len(before[0]) == 3
    build(consent="no")
    left = (out / "trained.jsonl").read_text("utf-8") + (out / "withdrawn.jsonl").read_text("utf-8")
    left += (tmp_path / "loras" / MARK).read_text("utf-8")
    assert not [sha256 for sha256 in before[0] if sha256 in left]
    (change,) = build(consent="yes")
    assert [item.run for item in change.restored] == [RUN]
    assert known_withdrawals(out) == [] and not (tmp_path / "loras" / MARK).exists()
    again = [row["photographs"] for row in read_jsonl(out / "trained.jsonl") if "photographs" in row]
    assert again == before, "a later withdrawal finds it again"


def test_a_consent_withdrawn_while_the_lora_is_trained_marks_it_when_it_is_saved(clinic, tmp_path):
    out, build = clinic
    folder = tmp_path / "loras"
    folder.mkdir()
    remember_training(out, RUN, folder)
    assert len(build(consent="no")[0].withdrawn) == 1
    path = lora(folder)
    assert remember_lora(out, RUN, path)
    assert json.loads((folder / MARK).read_text("utf-8"))["withdrawn"][0]["loras"]
    assert lora_withdrawal(path) is not None


def test_a_lora_without_metadata_is_known_by_its_content_and_others_beside_it_are_not(clinic, tmp_path):
    out, build = clinic
    folder = tmp_path / "loras"
    remember_training(out, RUN, folder)
    plain = lora(folder, "plain.safetensors", run="")
    remember_lora(out, RUN, plain)
    build(consent="no")
    assert lora_withdrawal(plain) is not None
    assert lora_withdrawal(lora(folder, "other.safetensors", run="cd" * 32)) is None
    (folder / MARK).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        lora_withdrawal(plain)


def test_a_set_of_an_earlier_version_goes_on_though_it_does_not_say_what_its_lora_came_from(tmp_path):
    path = lora(tmp_path / "loras")
    record = {"lora": traced(path, "0f" * 32, 1.0), "prompt": "a face", "seed": 1}
    assert record["lora"]["training"] == RUN
    earlier = {**record, "lora": {"sha256": "0f" * 32, "strength": 1.0}}
    write_json(tmp_path / "generation.json", earlier)
    assert changed_settings(tmp_path, record) == []
    assert changed_settings(tmp_path, {"lora": {**record["lora"], "strength": 2.0}}) == ["lora"]
    pixels = np.zeros((64, 64, 3), np.uint8)
    assert made_from(record, pixels) == made_from(earlier, pixels), "ComfyUI would save it twice"
