"""CSV for spreadsheets: texts of people are no formula there and read back as they were."""

import csv
import io
import re

import pytest

from diffusioncleft.diffusioncleft_core.dataset.folder_consent import write_first_table
from diffusioncleft.diffusioncleft_core.dataset.metadata import read_table
from diffusioncleft.diffusioncleft_core.spreadsheet import csv_text, guarded, unguarded

FORMULAS = (
    "-2+3+cmd|' /C calc'!A0",
    "=1+1",
    "+1+cmd|x",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1+1",
    "-",
    "'=1+1",
    "''-x",
)
PLAIN = ("", "12", "-2", "+5", "-0.5", "1e-3", "-1.5E+4", "0.5 0.5", "'quoted'", 'fine, "so"; yes', "a\nb=1")


@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_would_run_begins_with_an_apostrophe(text):
    assert guarded(text) == f"'{text}"
    assert unguarded(guarded(text)) == text


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_formula_stays_as_it_is(text):
    assert guarded(text) == text
    assert unguarded(text) == text


def test_numbers_of_a_table_are_no_texts():
    rows = [[-2, -0.5, "-a", None], ["=x", 1, "", "'=y"]]
    read = list(csv.reader(io.StringIO(csv_text(("=a", "b", "c", "d"), rows))))
    assert read == [["'=a", "b", "c", "d"], ["-2", "-0.5", "'-a", ""], ["'=x", "1", "", "''=y"]]


def test_every_table_of_the_project_is_written_with_the_guard(repository):
    """A file that writes CSV by itself would write a text as it is."""
    found = [
        path.name
        for room in ("diffusioncleft_core", "cli", "nodes", "trainer")
        for path in sorted((repository / room).rglob("*.py"))
        if re.search(r"csv\.(writer|DictWriter)\(", path.read_text(encoding="utf-8"))
    ]
    assert found == ["spreadsheet.py"]


def test_a_first_table_of_photographs_reads_back_the_names_of_their_files(tmp_path):
    names = ["'=a.jpg", "+5.jpg", "-2.jpg", "=1+1.jpg", "@b.jpg", "plain.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    write_first_table(tmp_path, tmp_path / "metadata.csv", ())
    text = (tmp_path / "metadata.csv").read_text("utf-8-sig")
    assert "\n'=1+1.jpg," in text and "\n'-2.jpg," in text and "\nplain.jpg," in text
    assert sorted(row.file for row in read_table(tmp_path / "metadata.csv").rows) == names
