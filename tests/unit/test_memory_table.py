"""The table of cards in docs/training.md is what the plan and the measurements give."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts" / "memory_table.py"))


def test_the_page_has_the_table_that_the_script_makes(script):
    text = (ROOT / "docs" / "training.md").read_text("utf-8")
    assert script["page"](text) == text, "run: python scripts/memory_table.py"


def test_every_cell_is_measured_or_said_to_be_computed(script):
    rows = script["table"]().strip().splitlines()[2:]
    assert len(rows) == len(script["CARDS"]) * len(script["SIDES"])
    for row in rows:
        *_, memory, seconds, _ = (cell.strip() for cell in row.split("|"))
        for told in (*memory.split(";"), seconds):
            assert told.endswith((", measured", ", computed"))
        assert "measured" not in memory or "int8" not in row, "int8 was not measured"
