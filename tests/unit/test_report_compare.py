"""Two runs side by side: what differs, beyond chance or not, and what can't be compared."""

import copy
import json

import pytest
from report_documents import document

from diffusioncleft.cli import main as cli
from diffusioncleft.diffusioncleft_core.files import write_json
from diffusioncleft.diffusioncleft_core.report.compare import (
    OTHER_NETWORK,
    OTHER_NUMBER,
    OTHER_THRESHOLD,
    comparison,
)
from diffusioncleft.diffusioncleft_core.statistics import clopper_pearson


def with_share(report, k, n=200, **changes):
    """The report with so many images that match, in pre-op."""
    found = copy.deepcopy(report)
    share = clopper_pearson(k, n)
    figure = found["sets"]["pre_op"]["fir_images"]["paper"]["raw"]
    figure |= {"value": share.value, "ci95": list(share.ci95), "k": k, "n": n, **changes}
    return found


@pytest.fixture(scope="module")
def run():
    return document()


def row_of(found, metric, variant="raw", name="pre_op", profile="paper"):
    (row,) = [
        row
        for row in found["rows"]
        if (row["metric"], row["variant"], row["set"], row["profile"]) == (metric, variant, name, profile)
    ]
    return row


def test_a_large_difference_is_beyond_chance_and_a_small_one_is_not(run):
    few, many, one_more = (with_share(run, k) for k in (4, 60, 5))
    row = row_of(comparison(few, many), "fir_images")
    assert row["beyond_chance"] and row["difference"] == pytest.approx(0.28)
    assert row["ci95"][0] < 0.28 < row["ci95"][1] and row["ci95"][0] > 0.2
    assert not row_of(comparison(few, one_more), "fir_images")["beyond_chance"]
    assert row_of(comparison(few, few), "fir_images")["difference"] == 0


def test_what_is_not_alike_is_not_compared(run):
    other = with_share(run, 10, threshold=0.7)
    assert row_of(comparison(run, other), "fir_images")["note"] == OTHER_THRESHOLD
    leaks = {"threshold": 0.6, **run["sets"]["pre_op"]["fir_images"]["paper"]["raw"]}
    pair = [copy.deepcopy(run) for _ in range(2)]
    for found, threshold in zip(pair, (0.6, 0.3), strict=True):
        found["sets"]["pre_op"]["leak_images"] = {"robust": {"raw": {**leaks, "threshold": threshold}}}
    assert row_of(comparison(*pair), "leak_images", profile="robust")["note"] == OTHER_THRESHOLD
    other = with_share(run, 10, extractor={"name": "x", "sha256": "ef" * 32, "phantom": True})
    row = row_of(comparison(run, other), "fir_images")
    assert row["note"] == OTHER_NETWORK and row["difference"] is None
    other = copy.deepcopy(run)
    other["sets"]["pre_op"]["fid"]["paper"]["raw"]["n"] = 100
    row = row_of(comparison(run, other), "fid")
    assert row["note"] == OTHER_NUMBER and row["difference"] == 0


def test_the_command_writes_page_markdown_and_figures(run, tmp_path, capsys):
    for name, k in (("one", 4), ("two", 60)):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "report.json", with_share(run, k))
    assert cli.main(["report", "compare", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    written = [tmp_path / "two" / f"comparison.{ending}" for ending in ("html", "md", "json")]
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    page, markdown, figures = (path.read_text("utf-8") for path in written)
    said = "FIR, share of generated images, Pre-op, raw: 2 % and 30 %"
    assert said.replace("2 %", "2.0 %").replace("30 %", "30.0 %") in markdown
    assert (
        "could be chance" in markdown and "<table" in page and str(tmp_path) not in page + markdown + figures
    )
    assert json.loads(figures)["kind"] == "comparison"
    # Made of files of its own kind too, and from bare files.
    (tmp_path / "two" / "comparison.html").unlink()
    out = tmp_path / "again.html"
    files = [str(tmp_path / name / "report.json") for name in ("one", "two")]
    assert cli.main(["report", "compare", *files, "--out", str(out)]) == 0
    assert out.is_file() and out.with_suffix(".md").read_text("utf-8") == markdown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one", "two"], "report compare RUN_A RUN_B"),
        (["compare", "one", "nowhere"], "does not exist"),
        (["compare", "one", "one", "--nearest", "phantom"], "--nearest"),
        (["compare", "one", "one", "--out", "page.txt"], "is no .html"),
    ],
)
def test_mistakes_are_one_line(run, arguments, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "one").mkdir()
    write_json(tmp_path / "one" / "report.json", run)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "one" / "comparison.html").exists()
