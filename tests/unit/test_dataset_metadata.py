"""The table: every usual way of saving a CSV is read, and what is wrong is said in one sentence."""

import pytest

from diffusioncleft.diffusioncleft_core.dataset.matching import match_rows
from diffusioncleft.diffusioncleft_core.dataset.metadata import check_values, read_table
from diffusioncleft.diffusioncleft_core.errors import UserError

HEADER = "file,age_group,consent\n"


def table(tmp_path, data):
    path = tmp_path / "metadata.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_table(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_encodings_and_separators(tmp_path, encoding, separator):
    text = (
        separator.join(["File", "Age Group", "CONSENT"]) + "\r\n" + separator.join(["é ü.JPG", "baby", "Yes"])
    )
    found = table(tmp_path, text.encode(encoding))
    assert found.columns == ("file", "age_group", "consent")
    assert found.rows[0].file == "é ü.JPG"
    assert found.rows[0].values["age_group"] == "baby"
    assert found.rows[0].consent
    assert bool(found.notices) == (encoding == "cp1252")


def test_quotes_blank_lines_and_excels_separator_line(tmp_path):
    found = table(tmp_path, 'sep=;\nfile;age_group;consent\n\n"a; b.jpg";"ba""by";yes\n')
    assert found.rows[0].file == "a; b.jpg"
    assert found.rows[0].values["age_group"] == 'ba"by'
    assert found.rows[0].line == 4


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_excels_separator_line_goes_with_any_end_of_line(tmp_path, end):
    found = table(tmp_path, end.join(["sep=;", "file;consent", "a.jpg;yes", "b.jpg;no", ""]))
    assert [(row.file, row.consent, row.line) for row in found.rows] == [
        ("a.jpg", True, 3),
        ("b.jpg", False, 4),
    ]


@pytest.mark.parametrize("value", ["yes", "YES", " Yes "])
def test_consent_is_yes_in_any_case(tmp_path, value):
    assert table(tmp_path, f"{HEADER}a.jpg,baby,{value}\n").rows[0].consent


@pytest.mark.parametrize("value", ["", "no", "y", "true", "1", "yes?", "yes and no", "ja", "n/a"])
def test_everything_else_is_no_consent(tmp_path, value):
    assert not table(tmp_path, f"{HEADER}a.jpg,baby,{value}\n").rows[0].consent


def test_a_row_with_too_many_fields_has_no_consent(tmp_path):
    row = table(tmp_path, f"{HEADER}a.jpg,baby,yes,yes\n").rows[0]
    assert not row.consent and "more fields" in row.problem


def test_a_short_row_has_no_consent(tmp_path):
    assert not table(tmp_path, f"{HEADER}a.jpg,baby\n").rows[0].consent


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "is empty"),
        ("file,age_group\na.jpg,baby\n", "no column consent"),
        ("name,age\na.jpg,baby\n", "no column file and no column consent"),
        ("file,consent,consent\na.jpg,yes,no\n", "twice"),
        (HEADER, "no row"),
        (b"PK\x03\x04rest of a workbook", "workbook"),
        (b"file,consent\na\0b,yes\n", "no text file"),
        ('file,consent\n"a.jpg,yes\n', "quotes"),
    ],
)
def test_what_is_no_table_is_one_sentence(tmp_path, data, said):
    with pytest.raises(UserError, match=said):
        table(tmp_path, data)


def test_a_missing_table_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_table(tmp_path / "metadata.csv")


def test_names_match_across_unicode_forms_slashes_and_case(tmp_path):
    rows = table(
        tmp_path, "file,consent\ncafe\u0301.jpg,yes\nsub\\b.JPG,yes\nC.jpg,yes\n../d.jpg,yes\n,yes\n"
    ).rows
    matches = match_rows(["caf\u00e9.jpg", "sub/b.jpg", "c.JPG", "C.jpg", "d.jpg"], rows)
    assert matches.rows.keys() == {"caf\u00e9.jpg", "sub/b.jpg", "C.jpg"}
    assert [row.line for row, _ in matches.unmatched] == [5, 6] and matches.notices == ()


def test_an_ambiguous_case_matches_nothing(tmp_path):
    rows = table(tmp_path, "file,consent\nA.JPG,yes\n").rows
    assert match_rows(["a.jpg", "A.jpg"], rows).rows == {}


def matches_of(tmp_path, photographs, *files):
    lines = "".join(f'"{file}",yes\n' for file in files)
    return match_rows(photographs, table(tmp_path, f"file,consent\n{lines}").rows)


@pytest.mark.parametrize(
    "prefix", ["C:\\photos\\", "D:/scans/2019/", "/home/me/", "photos/", "\\\\server\\share\\", ".\\photos\\"]
)
def test_a_folder_before_every_name_is_left_out_and_said(tmp_path, prefix):
    found = matches_of(tmp_path, ["a.png", "sub/b.PNG"], f"{prefix}a.png", f"{prefix}sub\\b.png")
    assert {name: len(rows) for name, rows in found.rows.items()} == {"a.png": 1, "sub/b.PNG": 1}
    assert not found.unmatched
    (told,) = found.notices
    assert f"(2): {prefix}a.png as a.png" in told


def test_a_name_without_its_suffix_is_taken_where_it_means_one_photograph(tmp_path):
    found = matches_of(tmp_path, ["a.png", "b.jpg", "b.png", "c.v2.tif"], "A", "b", r"C:\x\c.v2", "d")
    assert set(found.rows) == {"a.png", "c.v2.tif"}
    assert [meant for _, meant in found.unmatched] == ["; if b.jpg, b.png is meant, write that", ""]


def test_different_folders_before_names_are_no_match_and_say_what_they_may_mean(tmp_path):
    found = matches_of(tmp_path, ["a.png", "b.png"], "x/a.png", "y/a.png", "x/b.png", "../b.png")
    assert found.rows == {} and found.notices == ()
    assert [meant for _, meant in found.unmatched] == [
        "; if a.png is meant, write that",
        "; if a.png is meant, write that",
        "; if b.png is meant, write that",
        "",
    ]


def test_values_are_brought_to_the_vocabularys_spelling_or_named(tmp_path):
    allowed = {"age_group": ("baby", "child"), "side": ("left", "right")}
    row, wrong, blank = table(tmp_path, f"{HEADER}a,BABY,yes\nb,teen,yes\nc,,yes\n").rows
    assert check_values(row, allowed, ["side"]) == ({"age_group": "baby"}, None)
    assert check_values(wrong, allowed, ["side"])[1] == "line 3: age_group is 'teen'; allowed: baby, child"
    assert check_values(blank, allowed, ["side"])[1] == "line 4: age_group is empty; allowed: baby, child"
    assert check_values(blank, allowed, ["side", "age_group"]) == ({}, None)
