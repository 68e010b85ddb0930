"""Rows that wait on disk: what was put in last comes back, and nothing is left behind."""

import json
from pathlib import Path

import pytest

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.imageset import spool
from diffusioncleft.diffusioncleft_core.imageset.manifest import (
    ImageRow,
    Reread,
    filtered,
    filtered_rows,
    image_set_rows,
)
from diffusioncleft.diffusioncleft_core.imageset.places import Listing, list_images
from diffusioncleft.diffusioncleft_core.imageset.spool import row_spool

ROWS = [
    ImageRow(f"{number:06d}_1.png", index=number, prompt="a face, “é”", seed=1, condition="pre_op")
    for number in range(30)
]


def test_rows_come_back_as_they_were_put_in_last_and_the_file_is_gone(tmp_path):
    with row_spool(tmp_path) as rows:
        for row in ROWS:
            rows.append(row)
        changed = ImageRow("000003_1.png", index=3, verdicts={"accepted": False, "reasons": ["text"]})
        rows[3] = changed
        assert len(rows) == len(ROWS) and rows[3] == changed and rows[29] == ROWS[29]
        assert list(rows) == [*ROWS[:3], changed, *ROWS[4:]]
        for place, row in enumerate(rows):  # may be changed while they are gone through
            rows[place] = ImageRow(row.file, seed=7)
        assert [row.seed for row in rows] == [7] * len(ROWS)
        assert list_images(tmp_path) == Listing(())
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk to write to")
def test_a_full_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", lambda **options: open("/dev/full", "w+b"))  # noqa: SIM115
    with row_spool(tmp_path) as rows:
        with pytest.raises(UserError, match="the disk is full"):
            for row in ROWS:
                rows.append(row)
        with pytest.raises(UserError, match="the disk is full"):
            rows[0]


def test_rows_that_are_read_anew_give_the_filtered_set_that_listed_ones_give(tmp_path):
    accepted, rejected = {"accepted": True, "reasons": []}, {"accepted": False, "reasons": ["text"]}
    stride = 1_000_000
    rows = [
        *(
            ImageRow(f"{n:06d}_1.png", index=n, condition="pre_op", verdicts=rejected if n % 3 else accepted)
            for n in range(9)
        ),
        ImageRow("1000001_1.png", index=stride + 1, attempt=1, condition="pre_op", verdicts=accepted),
        ImageRow("2000001_1.png", index=2 * stride + 1, attempt=2, condition="pre_op", verdicts=accepted),
        ImageRow("1000003_1.png", index=stride + 3, attempt=1, condition="pre_op", verdicts=accepted),
        ImageRow("bare.png", verdicts=accepted),
        ImageRow("unseen.png"),
    ]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows))
    names = [row.name for row in filtered(Reread(lambda: image_set_rows(tmp_path)))]
    assert names == [row.name for row in filtered_rows(iter(rows))]
    assert names == ["000000_1.png", "000003_1.png", "000006_1.png", "1000001_1.png", "bare.png"]
