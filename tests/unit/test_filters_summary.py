"""Which rows are raw, which are filtered, and what the report is told of them."""

from dataclasses import replace

import pytest
from PIL import Image

from diffusioncleft.diffusioncleft_core.conditions.plan import REFILL_STRIDE, attempt_of
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import write_json, write_jsonl
from diffusioncleft.diffusioncleft_core.filters.stage import (
    filter_summary,
    photographs_summary,
    rows_to_refill,
    unfilled,
)
from diffusioncleft.diffusioncleft_core.imageset.manifest import (
    ImageRow,
    filtered_rows,
    instead_of,
    listed_rows,
    raw_rows,
    read_image_set,
    unlisted,
    write_image_set,
)


def row(index, *reasons, seen=True, skin="dark", subject="girl"):
    verdicts = {"accepted": not reasons, "reasons": list(reasons)} if seen else {}
    given = {
        "file": f"{index:06d}_{index + 7}.png",
        "index": index,
        "attempt": attempt_of(index),
        "prompt": f"prompt {index % REFILL_STRIDE}",
        "seed": index + 7,
        "condition": "pre_op",
        "attributes": {"skin": skin, "subject": subject},
        "verdicts": verdicts,
    }
    return ImageRow.from_json(given)


ROWS = [
    row(0),
    row(1, "text", "eye_bar"),
    row(2, "text", skin="pale", subject="baby"),
    row(3, seen=False),
    row(REFILL_STRIDE + 1),
    row(REFILL_STRIDE + 2, "identity_leak", skin="pale", subject="baby"),
]


def test_raw_is_the_first_attempt_and_filtered_is_what_was_accepted_of_any():
    assert [r.index for r in raw_rows(ROWS)] == [0, 1, 2, 3]
    assert [r.index for r in filtered_rows(ROWS)] == [0, REFILL_STRIDE + 1]


def test_an_image_that_is_taken_back_counts_in_the_place_of_what_was_made_again():
    again = [row(REFILL_STRIDE + 1), row(2 * REFILL_STRIDE + 1), row(REFILL_STRIDE + 0)]
    rows = [row(1), *again, replace(row(REFILL_STRIDE + 1), condition="post_op")]
    assert [item.file for item in filtered_rows(rows)] == [rows[0].file, rows[3].file, rows[4].file]
    assert instead_of(rows[0], rows) == again[:2]
    assert filter_summary(rows[:4])["refill"]["filtered"] == 2
    bare = [ImageRow(f"{name}.png", verdicts={"accepted": True, "reasons": []}) for name in "ab"]
    assert filtered_rows(bare) == bare


def test_what_was_drawn_for_a_larger_number_is_called_so(tmp_path):
    for index in range(3):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{index:06d}_{index + 7}.png")
        write_json(tmp_path / f"{index:06d}_{index + 7}.json", {"index": index, "seed": index + 7})
    Image.new("RGB", (64, 64)).save(tmp_path / "foreign.png")
    write_image_set(tmp_path, [row(0)])
    foreign, ours = unlisted(tmp_path)
    assert "foreign.png" in foreign and "000001_8.png" not in foreign
    assert "drawn for a larger number" in ours and "(2): 000001_8.png, 000002_9.png" in ours


def test_the_summary_counts_the_raw_set_by_kind_skin_and_age_and_the_refill_apart():
    found = filter_summary(ROWS)
    assert (found["n"], found["accepted"], found["rejected"], found["unassessed"]) == (4, 1, 2, 1)
    assert found["by_kind"]["text"] == 2 and found["by_kind"]["eye_bar"] == 1
    assert found["by_kind"]["identity_leak"] == 0
    assert found["by_skin"] == {"dark": {"n": 3, "rejected": 1}, "pale": {"n": 1, "rejected": 1}}
    assert found["by_age"] == {"baby": {"n": 1, "rejected": 1}, "child": {"n": 3, "rejected": 1}}
    assert found["refill"] == {"made": 2, "accepted": 1, "attempts": 1, "filtered": 2, "missing": 2}
    assert filter_summary(ROWS[:2])["refill"] is None


def test_few_photographs_are_not_told_apart_from_each_other():
    verdicts = [{"reasons": ["text"]}] * 4 + [{"reasons": ["eye_bar"]}] * 5 + [{"reasons": []}] * 20
    found = photographs_summary(verdicts)
    assert found["n"] == 29
    assert found["by_kind"]["text"] is None and found["by_kind"]["eye_bar"] == 5
    assert found["by_kind"]["no_face"] == 0 and "identity_leak" not in found["by_kind"]


def test_a_refill_keeps_prompt_and_attributes_and_takes_a_seed_of_its_own():
    wanted = rows_to_refill(ROWS, 3)
    assert [item.index for item in wanted] == [2 * REFILL_STRIDE + 2]
    assert wanted[0].prompt == "prompt 2" and wanted[0].attributes == {"skin": "pale", "subject": "baby"}
    assert wanted[0].seed not in {r.seed for r in ROWS} and 0 <= wanted[0].seed < 2**48
    assert rows_to_refill(ROWS, 3) == wanted
    assert rows_to_refill(ROWS, 1) == []
    assert [item.index for item in unfilled(ROWS)] == [2]


def test_a_set_that_was_not_generated_is_not_refilled():
    with pytest.raises(UserError, match="can be refilled"):
        unfilled([ImageRow("a.png")])


def test_a_manifest_keeps_every_field_and_refuses_what_is_none(tmp_path):
    rows = [*ROWS, ImageRow("photo.png", sha256="5" * 64, region=[1.0, 2.0, 3.0, 4.0], others={"eye": 3})]
    write_image_set(tmp_path, rows)
    assert read_image_set(tmp_path) == rows
    for damaged, sentence in (
        ({"file": "../outside.png"}, "leads out"),
        ({"index": 3}, "no 'file'"),
        ({"file": "a.png", "index": "three"}, "'index' of a.png in .* is no whole number"),
        ({"file": "a.png", "verdicts": "accepted"}, "'verdicts' of a.png in .* is no JSON object"),
        ({"file": "a.png", "healthy_caption": ["x"]}, "'healthy_caption' of a.png in .* is no text"),
    ):
        write_jsonl(tmp_path / "manifest.jsonl", [damaged])
        with pytest.raises(UserError, match=sentence):
            read_image_set(tmp_path)
    write_image_set(tmp_path, [])
    with pytest.raises(UserError, match="lists no image"):
        read_image_set(tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        read_image_set(tmp_path / "nowhere")


def test_rows_of_earlier_versions_come_back_as_they_were(tmp_path):
    """What generation and a dataset build wrote before rows were one type, field by field."""
    generated = {
        "file": "000003_10.png",
        "index": 3,
        "attempt": 0,
        "width": 64,
        "height": 64,
        "condition": "pre_op",
        "role": "generated",
        "attributes": {},
        "prompt": "[CLP] a girl",
        "seed": 10,
        "lora": None,
        "verdicts": {},
    }
    saved = {**generated, "file": "000004_10.png", "index": 4, "made_from": "6" * 64}
    photograph = {
        "file": "images/5.png",
        "sha256": "5" * 64,
        "width": 64,
        "height": 96,
        "condition": "pre_op",
        "role": "train",
        "attributes": {"skin": "dark"},
        "caption": "[CLP] a girl",
        "subject": "s",
    }
    for given in (generated, saved, photograph):
        write_jsonl(tmp_path / "manifest.jsonl", [given])
        assert [row.to_json() for row in read_image_set(tmp_path)] == [given]


def test_a_manifest_is_written_and_read_row_by_row(tmp_path):
    """The first row is on disk before the last is made, and read before the last is looked at."""
    seen = []

    def rows():
        for index in range(5_000):
            if index == 4_999:
                seen.append(max(path.stat().st_size for path in tmp_path.glob(".writing-*")))
            yield row(index)

    write_image_set(tmp_path, rows())
    assert seen and seen[0] > 0
    with open(tmp_path / "manifest.jsonl", "a", encoding="utf-8") as handle:
        handle.write("{damaged}\n")
    reader = listed_rows(tmp_path)
    assert next(reader).index == 0
    with pytest.raises(UserError, match="line 5001"):
        list(reader)


def test_words_that_rows_have_in_common_are_in_memory_once(tmp_path):
    rows = [row(index) for index in range(3)]
    write_image_set(tmp_path, rows)
    first, second, _ = read_image_set(tmp_path)
    assert first == rows[0]
    assert first.condition is second.condition
    for one, other in ((first.attributes, second.attributes), (first.verdicts, second.verdicts)):
        assert all(mine is theirs for mine, theirs in zip(one, other, strict=True))
    assert first.attributes["skin"] is second.attributes["skin"]
