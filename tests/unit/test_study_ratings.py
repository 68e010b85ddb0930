"""Ratings as a table and as CSV: ours read back, and one made elsewhere read in."""

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.study.items import Item, read_items, write_items
from diffusioncleft.diffusioncleft_core.study.ratings import (
    Rating,
    rating_table,
)
from diffusioncleft.diffusioncleft_core.study.ratings_file import (
    COLUMNS,
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
        *(
            (
                f"rater,item,origin,question,value,seconds\nA,1,x,realism,5,{seconds}\n",
                f"line 2 of .*: seconds is '{seconds}'; give a number from 0 to .*, or leave it empty",
            )
            for seconds in ("y", "inf", "nan", "-1", "-1e400", "1e400", "٣")
        ),
        ('rater,item,origin,question,value\nA,1,x,realism,"5', "can't be read as CSV"),
    ],
)
def test_a_table_that_is_wrong_says_where(text, said, tmp_path):
    (tmp_path / "theirs.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read_ratings(tmp_path / "theirs.csv")


HEADER = "rater,item,origin,role,condition,repeat_of,question,value\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ("1,x,,,,realism", "1,y,,,,realism"),
            "line 3 of .*: origin of item '1' is y, and in line 2 of .*is x",
        ),
        (
            ("1,x,,pre_op,,realism", "1,x,,post_op,,realism"),
            "condition of item '1' is post_op, and in line 2",
        ),
        (
            ("1,x,,pre_op,,realism", "1,x,,,,realism"),
            "condition of item '1' is empty, and in line 2 .*pre_op",
        ),
        (("1,x,real,,,realism", "1,x,generated,,,realism"), "role of item '1' is generated, and in line 2"),
        (
            ("1,x,,,,realism", "2,x,,,3,realism"),
            "line 3 of .*: repeat_of of item '2' is '3', which no line answ",
        ),
        (
            ("1,x,,,,realism", "2,x,,,2,realism"),
            "line 3 of .*: repeat_of of item '2' is '2', the item itself",
        ),
        (
            ("1,x,,,,realism", "2,x,,,1,realism", "3,x,,,2,realism"),
            "line 4 of .*: repeat_of of item '3' is '2', which shows another's picture again",
        ),
        (("1,x,,,,realism", "2,y,,,1,realism"), "whose origin is x in line 2 .* and not y"),
    ],
)
def test_a_table_that_contradicts_itself_says_which_lines(lines, said, tmp_path):
    text = "".join(f"R{number},{line},5\n" for number, line in enumerate(lines))
    (tmp_path / "theirs.csv").write_text(HEADER + text)
    with pytest.raises(UserError, match=said):
        read_ratings(tmp_path / "theirs.csv")


def test_a_picture_that_was_rated_in_its_second_showing_alone_counts_and_reads_back(tmp_path):
    table = rating_table([Rating("R1", "cc", "realism", 4)], ITEMS)
    assert table.of("realism").scores.tolist() == [4.0]
    write_ratings(tmp_path / "ratings.csv", table)
    assert columns(read_ratings(tmp_path / "ratings.csv")) == columns(table)


def test_digits_of_other_scripts_are_no_points_of_a_scale(tmp_path):
    for value in ("５", "٥", "+5", "5_0", "0.٥ 0.5"):
        (tmp_path / "theirs.csv").write_text(f"rater,item,origin,question,value\nA,1,x,q,{value}\n", "utf-8")
        assert read_ratings(tmp_path / "theirs.csv").value.tolist() == [value]


def test_answers_of_two_kinds_are_texts_without_a_design_and_it_is_said(tmp_path):
    lines = ["A,1,x,remark,12", "A,2,x,remark,fine", "A,3,x,remark,0.5 0.5", "A,1,x,realism,5"]
    (tmp_path / "r.csv").write_text("\n".join(["rater,item,origin,question,value", *lines]))
    table = read_ratings(tmp_path / "r.csv")
    assert table.value.tolist() == ["12", "fine", "0.5 0.5", 5]
    (notice,) = table.notices
    assert "line 3 of" in notice and "remark is 'fine' and elsewhere a whole number" in notice


def test_a_line_is_told_by_where_it_begins(tmp_path):
    text = 'rater,item,origin,question,value,seconds\nA,1,x,remark,"two\nlines",\nA,2,x,remark,"\n\nb",x\n'
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(UserError, match=r"line 4 of .*seconds is 'x'"):
        read_ratings(tmp_path / "r.csv")


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
