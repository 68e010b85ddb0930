"""Ratings as a table and as CSV: ours read back, and one made elsewhere read in."""

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.study.items import Item, read_items, write_items
from diffusioncleft.diffusioncleft_core.study.ratings import (
    COLUMNS,
    Rating,
    rating_table,
    read_ratings,
    write_ratings,
)

GROUPS = {"age_group": "baby", "skin_tone": None, "gender": "female"}
ITEMS = (
    Item("aa", "generated", "pre_op", GROUPS),
    Item("bb", "photographs", "post_op"),
    Item("cc", "generated", "pre_op", GROUPS, repeat_of="aa"),
    Item("dd", "generated", "pre_op", practice=True),
)
RATINGS = (
    Rating("R1", "aa", "realism", 5, 3.25, "2026-11-02T10:00:00+00:00"),
    Rating("R1", "bb", "realism", 4),
    Rating("R1", "cc", "realism", 3, 1.0),
    Rating("R1", "dd", "realism", 1, 9.0),
    Rating("R1", "aa", "wrong", [0.25, 0.875]),
    Rating("R2", "aa", "remark", '=HYPERLINK("x"), "quoted"; ñ'),
    Rating("R2", "bb", "remark", "'plain"),
    Rating("R2", "bb", "origin", "real"),
)


@pytest.fixture
def table():
    return rating_table(RATINGS, ITEMS, {"photographs": "real"})


def columns(table):
    return [
        *(getattr(table, name).tolist() for name in COLUMNS if name not in GROUPS and name != "seconds"),
        *(table.groups[name].tolist() for name in GROUPS),
    ]


def test_the_table_knows_each_picture_and_leaves_practice_out(table):
    assert len(table) == 7 and "dd" not in table.item
    assert table.role.tolist()[:2] == ["generated", "real"]
    assert table.groups["age_group"].tolist()[:2] == ["baby", None]
    first, again = table.of("realism"), table.again("realism")
    assert first.scores.tolist() == [5.0, 4.0] and first.item.tolist() == ["aa", "bb"]
    assert again.scores.tolist() == [3.0] and again.repeat_of.tolist() == ["aa"]
    assert table.questions == ("realism", "wrong", "remark", "origin")
    with pytest.raises(UserError, match="is no point of a scale"):
        _ = table.of("origin").scores


def test_a_table_reads_back_as_it_was_written(table, tmp_path):
    write_ratings(tmp_path / "ratings.csv", table)
    again = read_ratings(tmp_path / "ratings.csv")
    assert columns(again) == columns(table)
    assert np.array_equal(again.seconds, table.seconds, equal_nan=True)
    text = (tmp_path / "ratings.csv").read_text("utf-8-sig")
    assert "'=HYPERLINK" in text, "a spreadsheet would take the text for a formula"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_made_elsewhere_needs_five_columns(separator, tmp_path):
    lines = [
        "Rater,Item,Origin,Question,Value",
        "Dr A,IMG 1.jpg,real,realism,5",
        "Dr B,IMG 1.jpg,real,realism,4",
    ]
    (tmp_path / "theirs.csv").write_bytes("\r\n".join(lines).replace(",", separator).encode("utf-8-sig"))
    table = read_ratings(tmp_path / "theirs.csv")
    assert table.scores.tolist() == [5.0, 4.0] and table.rater.tolist() == ["Dr A", "Dr B"]
    assert table.role.tolist() == ["real", "real"] and table.condition.tolist() == [None, None]
    assert np.isnan(table.seconds).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rater,item,question,value\nA,1,realism,5\n", "has no column origin"),
        ("rater,item,origin,question,value\n", "has no rating"),
        ("rater,item,origin,question,value\nA,1,real,realism,\n", "line 2 of .* has no value; fill it in"),
        ("rater,item,origin,question,value\nA,1,real,realism,5,6\n", "line 2 of .* has more fields"),
        ("rater,item,origin,question,value,value\nA,1,real,realism,5,5\n", "has the column value twice"),
        (
            "rater,item,origin,question,value\nA,1,real,realism,5\nA,1,real,realism,4\n",
            "line 3 of .*: rater 'A' has a second answer to 'realism' on item '1'",
        ),
        ("rater,item,origin,question,value,role\nA,1,x,realism,5,y\n", "role is 'y'; give generated or real"),
        ("rater,item,origin,question,value,seconds\nA,1,x,realism,5,y\n", "seconds is 'y'; give a number"),
        ('rater,item,origin,question,value\nA,1,x,realism,"5', "can't be read as CSV"),
    ],
)
def test_a_table_that_is_wrong_says_where(text, said, tmp_path):
    (tmp_path / "theirs.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read_ratings(tmp_path / "theirs.csv")


def test_a_rating_of_another_study_is_refused():
    with pytest.raises(UserError, match="item 'zz' was rated and is not in the study"):
        rating_table([Rating("R1", "zz", "realism", 5)], ITEMS)


def test_a_key_reads_back_and_a_damaged_one_says_so(tmp_path):
    write_items(tmp_path / "key.jsonl", ITEMS)
    assert read_items(tmp_path / "key.jsonl") == ITEMS
    assert ITEMS[2].picture == "aa" and ITEMS[0].picture == "aa"
    (tmp_path / "key.jsonl").write_text('{"id": "aa"}\n')
    with pytest.raises(UserError, match=r"key.jsonl is damaged"):
        read_items(tmp_path / "key.jsonl")
