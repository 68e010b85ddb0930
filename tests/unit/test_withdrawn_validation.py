"""What a held-out photograph had a part in when its consent is withdrawn: told, marked, and not refused."""

import csv
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.folder import dataset_rows
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs, read_roles
from diffusioncleft.diffusioncleft_core.dataset.trained import (
    held_out_sources,
    remember_lora,
    remember_training,
    remember_validation,
    trained_photographs,
    training_sources,
)
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import (
    CHOSEN_BY,
    MARK,
    MEASURED_ON,
    RUN_KEY,
    TRAINED_ON,
    known_withdrawals,
    lora_withdrawal,
    read_mark,
    read_register,
    refuse_withdrawn,
    user_register,
)
from diffusioncleft.diffusioncleft_core.files import read_jsonl, sha256_file, write_jsonl
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs
from diffusioncleft.diffusioncleft_core.run.withdrawal import find_chosen, find_withdrawn, note_change
from diffusioncleft.diffusioncleft_core.weight_file import SOURCE_KEY

RUN = "ab" * 32
SETTINGS = BuildSettings(phantom=True, holdout=0.3)


@pytest.fixture
def clinic(tmp_path, analyzer, monkeypatch):
    """A dataset of eight people, two of them held out, and a function that sets consents and builds again."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    photographs, out = tmp_path / "photos", tmp_path / "pre_op"
    table, roles = write_photographs(photographs, 8, "cleft", 2, subjects=8), {}

    def build(**consents):
        """Set the consent of the first photograph of a role; returns what the build said."""
        with table.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        for role, consent in consents.items():
            first = next(row for row in rows if roles[sha256_file(photographs / row["file"])] == role)
            first["consent"] = consent
        with table.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
        told = []
        build_dataset(
            Photographs(photographs, table),
            load_vocabulary().condition("pre_op"),
            out,
            analyzer,
            settings=SETTINGS,
            on_change=lambda change: told.extend(note_change(out, change)),
        )
        return told

    build()
    roles |= read_roles(out)
    return out, build


def trained(out, folder, *parts):
    """A LoRA in `folder`, recorded as of `out` and validated on its hold-out; the first part is its own."""
    folder.mkdir(exist_ok=True)
    remember_training(out, RUN, folder)
    pixels = {row.sha256 for row in dataset_rows(out, "holdout")}
    for part in parts:
        remember_validation(out, RUN, folder, pixels, part)
    return saved(out, folder / "a.safetensors", parts[0])


def saved(out, path, part=None, value=0.0):
    """A LoRA file of the training, recorded with this part of what it was validated on."""
    save_file({"a": np.full(1, value, np.float32)}, path, metadata={RUN_KEY: RUN})
    remember_lora(out, RUN, path, part)
    return path


def test_what_was_validated_on_is_recorded_as_such_and_not_as_trained(clinic, tmp_path):
    out, _ = clinic
    trained(out, tmp_path / "loras", CHOSEN_BY)
    roles = read_roles(out)
    (row,) = [row for row in read_jsonl(out / "trained.jsonl") if "validated_on" in row]
    assert row["part"] == CHOSEN_BY
    assert set(row["validated_on"]) == {source for source, role in roles.items() if role == "holdout"}
    assert trained_photographs(out) == {RUN: training_sources(roles)}
    few = [row.sha256 for row in dataset_rows(out, "holdout")][:1]
    remember_validation(out, "cd" * 32, tmp_path, few, MEASURED_ON)
    last = read_jsonl(out / "trained.jsonl")[-1]
    assert last["part"] == MEASURED_ON
    assert [held_out_sources(out, roles)[source] for source in last["validated_on"]] == few


def test_a_lora_chosen_by_a_withdrawn_photograph_is_named_and_marked_so_and_may_be_used(clinic, tmp_path):
    out, build = clinic
    path = trained(out, tmp_path / "loras", CHOSEN_BY)
    rows = read_jsonl(out / "trained.jsonl")
    hashes = next(row["validated_on"] for row in rows if "validated_on" in row)
    count, said = build(holdout="no")
    assert count == "held-out photographs of pre_op that no longer have consent: 1"
    assert "had a part in choosing the step of these LoRAs" in said and str(path) in said
    assert "learned nothing from them" in said and "--chosen" in said
    (mark,) = json.loads((path.parent / MARK).read_text("utf-8"))["withdrawn"]
    assert mark["part"] == CHOSEN_BY and mark["run"] == RUN and mark["loras"] == [sha256_file(path)]
    assert lora_withdrawal(path) is None and known_withdrawals(out) == []
    refuse_withdrawn(path)
    assert [item.run for item in read_register(user_register(), CHOSEN_BY)] == [RUN]
    left = "".join((out / name).read_text("utf-8") for name in ("trained.jsonl", "withdrawn.jsonl"))
    assert not [source for source in hashes if source in left]
    assert build() == [], "it is said once"


def test_of_several_loras_of_a_training_the_chosen_one_alone_is_named_as_chosen(clinic, tmp_path):
    out, build = clinic
    folder, copies = tmp_path / "loras", tmp_path / "copies"
    path = trained(out, folder, CHOSEN_BY, MEASURED_ON)
    validated = saved(out, folder / "a-step000002.safetensors", MEASURED_ON, 1.0)
    other = saved(out, folder / "a-step000003.safetensors", TRAINED_ON, 2.0)
    copies.mkdir()
    copied = [shutil.copy(file, copies) for file in (path, validated, other)]
    for file in copied:
        remember_lora(out, RUN, file)
    converted = copies / "converted.safetensors"
    save_file(
        {"a": np.ones(2, np.float32)}, converted, metadata={RUN_KEY: RUN, SOURCE_KEY: sha256_file(path)}
    )
    _, chosen, measured = build(holdout="no")
    assert "choosing the step" in chosen and "measured on" in measured
    assert str(path) in chosen and "step00000" not in chosen and f"2 LoRA: {copies}" in chosen
    assert str(validated) in measured and str(path) not in measured and other.name not in measured
    (mark,) = json.loads((folder / MARK).read_text("utf-8"))["withdrawn"]
    assert (mark["part"], mark["loras"]) == (CHOSEN_BY, [sha256_file(path)])
    found = find_chosen([out, copies], [])
    named = {file for item in found for file in item.files if file.suffix == ".safetensors"}
    assert named == {path, copies / path.name, converted}
    _, everything = build(train="no")
    assert f"3 LoRA: {folder}" in everything, "all of them learned from what was trained on"


def test_of_an_earlier_version_every_lora_of_the_training_may_have_been_chosen(clinic, tmp_path):
    out, build = clinic
    path = trained(out, tmp_path / "loras", CHOSEN_BY)
    rows = read_jsonl(out / "trained.jsonl")
    earlier = [{key: row[key] for key in row if key != "part" or "lora" not in row} for row in rows]
    write_jsonl(out / "trained.jsonl", earlier)
    saved(out, path.with_name("b.safetensors"), value=1.0)
    assert f"2 LoRA: {path.parent}" in build(holdout="no")[1]


def test_dataset_withdraw_lists_it_apart_and_leaves_what_is_trained_on_alone(clinic, tmp_path):
    out, build = clinic
    path = trained(out, tmp_path / "loras", CHOSEN_BY)
    build(holdout="no")
    held, unknown = find_withdrawn([out])
    assert held == [] and unknown == []
    (chosen,) = find_chosen([out], held)
    assert chosen.place == path and chosen.kind == "LoRA" and path.parent / MARK in chosen.files
    # Once a photograph that it learned from is withdrawn too, it is withdrawn, and told as that alone.
    told = build(train="no")
    assert any("withdrawn is what learned" in line for line in told)
    assert not any("choosing" in line for line in told)
    assert lora_withdrawal(path) is not None
    held, _ = find_withdrawn([out])
    assert [item.place for item in held] == [path] and find_chosen([out], held) == []
    assert {item.part for item in (*read_mark(path.parent), *read_mark(path.parent, CHOSEN_BY))} == {
        "trained on",
        CHOSEN_BY,
    }


def test_of_a_lora_that_is_withdrawn_already_nobody_is_told_that_it_may_be_used(clinic, tmp_path):
    out, build = clinic
    path = trained(out, tmp_path / "loras", CHOSEN_BY)
    assert any("withdrawn is what learned" in line for line in build(train="no"))
    assert build(holdout="no") == []
    assert {item.run for item in read_register(out / "withdrawn.jsonl", CHOSEN_BY)} == {RUN}
    assert lora_withdrawal(path) is not None and find_chosen([out], find_withdrawn([out])[0]) == []


def test_a_loss_that_was_only_told_marks_nothing_and_is_said(clinic, tmp_path):
    out, build = clinic
    path = trained(out, tmp_path / "loras", MEASURED_ON)
    count, said = build(holdout="no")
    assert "held-out photographs" in count and "their validation loss was measured on them" in said
    assert str(path) in said
    assert not (path.parent / MARK).exists() and not user_register().exists()
    assert find_chosen([out], []) == [] and find_withdrawn([out])[0] == []
    assert [item.run for item in read_register(out / "withdrawn.jsonl", MEASURED_ON)] == [RUN]


def test_consent_that_is_given_again_takes_the_mark_back(clinic, tmp_path):
    out, build = clinic
    path = trained(out, tmp_path / "loras", CHOSEN_BY)
    before = [row for row in read_jsonl(out / "trained.jsonl") if "validated_on" in row]
    build(holdout="no")
    (said,) = build(holdout="yes")
    assert "have consent again" in said
    assert not (path.parent / MARK).exists() and read_register(user_register(), CHOSEN_BY) == []
    assert [row for row in read_jsonl(out / "trained.jsonl") if "validated_on" in row] == before
    assert len(build(holdout="no")) == 2, "a later withdrawal finds it again"


def test_a_consent_withdrawn_while_it_is_trained_marks_the_lora_when_it_is_saved(clinic, tmp_path):
    out, build = clinic
    folder = tmp_path / "loras"
    folder.mkdir()
    pixels = {row.sha256 for row in dataset_rows(out, "holdout")}
    remember_validation(out, RUN, folder, pixels, CHOSEN_BY)
    build(holdout="no")
    saved(out, folder / "other.safetensors", TRAINED_ON, 1.0)
    assert read_mark(folder, CHOSEN_BY)[0].loras == (), "an early stop chose another step's"
    path = folder / "a.safetensors"
    save_file({"a": np.zeros(1, np.float32)}, path, metadata={RUN_KEY: RUN})
    assert [item.part for item in remember_lora(out, RUN, path, CHOSEN_BY)] == [CHOSEN_BY]
    (mark,) = read_mark(folder, CHOSEN_BY)
    assert mark.loras == (sha256_file(path),)
