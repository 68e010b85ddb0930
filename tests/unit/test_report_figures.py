"""The report's plots: for a journal's column, for every eye, the same bytes from the same numbers."""

import csv
import io
import itertools
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from html_checks import contrast, luminance
from PIL import Image
from report_documents import CONDITIONS, PHOTOGRAPHS, document

from diffusioncleft.diffusioncleft_core.report import drawing
from diffusioncleft.diffusioncleft_core.report.html import figures_folder, page_of, write_html, write_shared
from diffusioncleft.diffusioncleft_core.report.pictures import ReportPictures

pytestmark = pytest.mark.usefixtures("plots_drawn_once")

NAMES = {
    "face-map",
    *(f"{kind}-{name}" for kind in ("similarity", "loss") for name in CONDITIONS),
    *(f"threshold-{name}" for name in (*CONDITIONS, "all")),
}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A report of photographs with its plots."""
    path = tmp_path_factory.mktemp("run") / "report.html"
    write_shared(document(phantom=False), None, path)
    return path


def figures(document_: dict) -> dict[str, drawing.Drawing]:
    return {found.name: found for found in page_of(document_, ReportPictures()).drawings}


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_each_plot_lies_beside_the_page_in_every_form(written):
    files = {path.name for path in figures_folder(written).iterdir()}
    assert files == {f"{name}.{suffix}" for name in NAMES for suffix in ("svg", "pdf", "png", "csv")}
    assert figures_folder(written).name == "figures"
    assert figures_folder(written.with_name("second.html")).name == "second.figures"


def test_plots_are_as_wide_as_a_journals_column_at_300_dpi(written):
    for name in NAMES:
        width = drawing.DOUBLE if name == "face-map" else drawing.SINGLE
        assert 80 <= width <= 180
        with Image.open(figures_folder(written) / f"{name}.png") as image:
            assert image.width == pytest.approx(width / 25.4 * 300, abs=1)
            assert image.info["dpi"][0] == pytest.approx(300, abs=0.1)
        root = ET.parse(figures_folder(written) / f"{name}.svg").getroot()
        assert float(root.get("width").removesuffix("pt")) == pytest.approx(width / 25.4 * 72, abs=0.1)
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", (figures_folder(written) / f"{name}.pdf").read_bytes())
        assert float(box[1]) == pytest.approx(width / 25.4 * 72, abs=0.1)


def test_no_text_of_a_plot_is_smaller_than_six_and_a_half_points_and_fonts_are_embedded(written):
    for name in NAMES:
        text = (figures_folder(written) / f"{name}.svg").read_text("utf-8")
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", text)]
        assert sizes and min(sizes) >= 6.5
        pdf = (figures_folder(written) / f"{name}.pdf").read_bytes()
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf


def test_a_plot_that_is_there_is_left_and_one_that_changed_or_lost_a_form_is_drawn(tmp_path):
    one, other = list(figures(document(phantom=False)).values())[:2]
    files = {path.name: path for path in drawing.save_drawings([one, other], tmp_path)}
    first = {name: path.read_bytes() for name, path in files.items()}
    files[f"{one.name}.svg"].write_bytes(b"of other numbers")
    files[f"{one.name}.pdf"].write_bytes(b"of other numbers")
    before = {name: path.stat().st_mtime_ns for name, path in files.items()}
    assert set(drawing.save_drawings([one, other], tmp_path)) == set(files.values())
    assert {name: path.read_bytes() for name, path in files.items()} == first
    written = {name for name, path in files.items() if path.stat().st_mtime_ns != before[name]}
    assert written == {f"{one.name}.{suffix}" for suffix in drawing.SUFFIXES}
    files[f"{other.name}.png"].unlink()
    drawing.save_drawings([one, other], tmp_path)
    assert {name: path.read_bytes() for name, path in files.items()} == first


def test_the_page_embeds_the_same_svg_with_words(written):
    page = written.read_text("utf-8")
    for name in NAMES:
        text = (figures_folder(written) / f"{name}.svg").read_text("utf-8")
        assert text[text.index("<svg") :].strip() in page
        root = ET.fromstring(text)
        assert root.find(f"{SVG}title").text and root.find(f"{SVG}desc").text
        assert root.get("aria-labelledby") == f"{name}-title {name}-description"
    assert "in the folder <code>figures</code>" in page


@pytest.mark.long
def test_the_same_numbers_give_the_same_bytes_whatever_the_users_matplotlib_is_set_to(written, tmp_path):
    """In another process, on another day, with another style of the user's own."""
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 9\nsvg.fonttype: path\n")
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from report_documents import document;"
        "from diffusioncleft.diffusioncleft_core.report.html import write_shared;"
        "write_shared(document(phantom=False), None, Path(sys.argv[2]))"
    )
    again = tmp_path / "report.html"
    tests = Path(__file__).resolve().parents[1]
    subprocess.run(
        [sys.executable, "-c", script, str(tests), str(again)],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
    )
    for path in figures_folder(written).iterdir():
        assert (figures_folder(again) / path.name).read_bytes() == path.read_bytes(), path.name
    assert again.read_text("utf-8") == written.read_text("utf-8")


def test_numbers_beside_a_plot_are_those_of_the_report():
    report = document(phantom=False)
    found = figures(report)
    rows = [row for row in table(found["similarity-pre_op"].numbers()) if row["set"] == "raw"]
    counts = report["figures"]["similarity"]["pre_op"]["raw"]["counts"]
    shares = [float(row["share_of_pairs_percent"]) for row in rows]
    assert shares == pytest.approx([100 * count / sum(counts) for count in counts], abs=1e-4)
    sweep = report["sets"]["all"]["fir_sweep"]["paper"]["raw"]
    rows = [row for row in table(found["threshold-all"].numbers()) if row["counted"] == "images"]
    assert [float(row["share"]) for row in rows] == [step["images"]["value"] for step in sweep]
    assert [int(row["n"]) for row in rows] == [step["images"]["n"] for step in sweep]
    rows = table(found["loss-post_op"].numbers())
    assert [float(row["mean_loss"]) for row in rows] == report["figures"]["loss"]["post_op"]["loss"]["mean"]


def test_the_face_map_holds_all_groups_and_no_photograph_as_a_point():
    report = document(phantom=False)
    report["figures"]["pca"]["control"] = None
    report["figures"]["pca"]["control_counts"] = [[7, *[None] * 11], *[[None] * 12] * 11]
    found = figures(report)["face-map"]
    rows = table(found.numbers())
    assert {row["group"] for row in rows} == {
        *(f"{name}, {kind}" for name in ("Pre-op", "Post-op") for kind in ("generated", "photographs")),
        "Control, photographs",
    }
    assert all(int(row["faces"]) >= 5 for row in rows if row["group"].endswith("photographs"))
    edges = report["figures"]["pca"]["edges_x"]
    middles = {round((low + high) / 2, 6) for low, high in itertools.pairwise(edges)}
    places = {round(float(row["component_1"]), 6) for row in rows if row["group"].endswith("photographs")}
    assert places <= middles, "photographs are at the middle of a cell"


@pytest.mark.parametrize(("n_real", "said"), [(None, "too few"), (9, "n = 9 is too few")])
def test_the_face_map_says_where_photographs_are_too_few_to_draw(n_real, said, tmp_path):
    report = document(phantom=False)
    report["figures"]["pca"]["real"]["pre_op"] = [[None] * 12] * 12
    report["figures"]["pca"]["n_real"]["pre_op"] = n_real
    wanted = f"Pre-op, photographs: not drawn, {said}"
    assert wanted in figures(report)["face-map"].description
    assert wanted in figures(report)["face-map"].svg.decode("utf-8")
    assert f"{wanted}." in write_html(report, None, tmp_path / "a.html").read_text("utf-8")


def test_a_plot_of_drawings_says_so_itself():
    assert all(drawing.PHANTOM_NOTE.encode() in found.svg for found in figures(document()).values())
    real = figures(document(phantom=False)).values()
    assert not any(drawing.PHANTOM_NOTE.encode() in found.svg for found in real)


def test_fir_over_the_threshold_stands_beside_its_control():
    report = document(phantom=False)
    control = {"value": 2 / 11, "ci95": [0.02, 0.52], "k": 2, "n": 11, "threshold": 0.6}
    report["sets"]["pre_op"]["fir_control_images"] = {"robust": {"holdout": control}}
    found = figures(report)["threshold-pre_op"]
    assert "photographs of others, n = 11" in found.svg.decode("utf-8")
    row = next(row for row in table(found.numbers()) if row["counted"] == "control images")
    assert (row["k"], row["n"], row["ci95_high"]) == ("2", "11", "0.52")


def test_a_plot_that_the_report_no_longer_has_is_deleted_and_other_files_stay(tmp_path):
    path = tmp_path / "report.html"
    report = document(phantom=False)
    write_shared(report, None, path)
    (tmp_path / "figures" / "mine.svg").write_text("<svg/>")
    report["figures"] = {"similarity": {"pre_op": report["figures"]["similarity"]["pre_op"]}}
    report["sets"] = {}
    write_shared(report, None, path)
    names = {found.stem for found in (tmp_path / "figures").iterdir()}
    assert names == {"similarity-pre_op", "mine"}


def test_a_name_of_a_condition_leads_out_of_no_folder(tmp_path):
    report = {"schema": 1, "figures": {"similarity": {}}}
    raw = document()["figures"]["similarity"]["pre_op"]["raw"]
    report["figures"]["similarity"]["../../x y"] = {"raw": raw}
    files = write_shared(report, None, tmp_path / "in" / "a" / "report.html")
    assert all(file.is_relative_to(tmp_path / "in" / "a") for file in files) and len(files) == 5


def test_what_draws_nothing_does_not_load_the_plotting_library(tmp_path):
    script = (
        "import sys; from pathlib import Path;"
        "import diffusioncleft.cli.main, diffusioncleft.cli.report;"
        "from diffusioncleft.diffusioncleft_core.report import html, run_folder, similarity, face_map;"
        "html.write_shared({'schema': 1}, None, Path('report.html'));"
        "assert not [name for name in sys.modules if name.startswith('matplotlib')]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    assert not (tmp_path / "figures").exists()


def rgb(color: str) -> np.ndarray:
    """Linear light [3] of `#rrggbb`."""
    parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* [3] under D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(np.clip(xyz / [0.9505, 1.0, 1.089], 1e-6, None))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009, severity 1.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_of_one_plot_are_told_apart_by_every_eye(kind):
    colours = drawing.COLOURS
    for together in (
        [colours["first"], colours["second"], drawing.CONTROL],
        [colours["first"], colours["second"], colours["third"]],
        [drawing.INK, colours["third"], drawing.CONTROL],
    ):
        seen = [lab(np.clip(np.array(BLINDNESS[kind]) @ rgb(colour), 0, 1)) for colour in together]
        for i, one in enumerate(seen):
            for other in seen[i + 1 :]:
                assert np.linalg.norm(one - other) > 15


def test_colours_stand_out_from_white_paper():
    assert luminance("#ffffff") == pytest.approx(1)
    for colour in (*drawing.COLOURS.values(), drawing.CONTROL, drawing.ALARM, drawing.INK):
        assert contrast(colour, "#ffffff") >= 3


def test_photographs_that_are_counted_are_those_of_the_document():
    found = figures(document(phantom=False))["face-map"]
    for label, name in (("Pre-op", "pre_op"), ("Post-op", "post_op")):
        assert re.search(rf"{label}, photographs: \d+ of {PHOTOGRAPHS[name]}", found.description)
