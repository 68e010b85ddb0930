"""The page of a report document: what it says, that it stands alone, and that everyone can read it."""

import re

import pytest
from html_checks import Page, contrast, problems
from report_documents import document

from diffusioncleft.diffusioncleft_core.report.html import TEMPLATES, UNREADABLE, write_html

pytestmark = pytest.mark.usefixtures("pages_drawn_once")


@pytest.fixture
def page(tmp_path):
    def write(report):
        return write_html(report, None, tmp_path / "report.html").read_text("utf-8")

    return write


def section(text: str, name: str) -> str:
    found = re.search(rf'<section id="{name}".*?</section>', text, re.DOTALL)
    assert found, name
    return found[0]


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).replace("\u00a0", " ").split())


def row_of(html: str, head: str, after: str = "") -> str:
    """The first row with this header, behind the words `after`."""
    place = html.index(after)
    found = re.search(
        rf'<tr role="row"><th role="rowheader" scope="row">{head}</th>.*?</tr>', html[place:], re.DOTALL
    )
    assert found, head
    return words(found[0])


@pytest.mark.parametrize("phantom", [True, False])
def test_a_whole_report_stands_alone_and_is_sound_for_keyboard_and_screen_reader(page, phantom):
    text = page(document(phantom=phantom))
    assert problems(text) == []
    assert UNREADABLE not in text


def test_figures_stand_beside_the_papers_and_cleftgans(page):
    figures = section(page(document()), "figures")
    fid = row_of(figures, "Both", "FID to the training images")
    assert "31.20" in fid and "5.911" in fid and "21.03" in fid
    assert "0.542" in row_of(figures, "Pre-op", "LPIPS, mean of random pairs")
    fir = row_of(figures, "Post-op", "FIR, share of generated–training pairs")
    assert "0.0002 %" in fir and "of 40,200" in fir
    assert "by construction" in figures and "5 of 200,000 pairs" in figures


def test_every_figure_of_a_phantom_extractor_says_so_next_to_it(page):
    text = page(document())
    figures = Page(section(text, "figures"))
    shown = [cell for cell in figures.all("td") if re.search(r"31\.20|0\.4[104]|22\.00", cell.text)]
    assert len(shown) > 10
    assert all("phantom" in cell.text for cell in shown)
    for name in ("similarity", "embedding"):
        captions = Page(section(text, name)).all("figcaption")
        assert captions and all("phantom" in caption.text for caption in captions)
    assert all("phantom" in caption.text for caption in Page(section(text, "oracle")).all("caption"))


def test_nothing_is_called_phantom_where_real_extractors_measured(page):
    text = page(document(phantom=False))
    assert '<span class="tag">phantom</span>' not in text
    assert "Phantom run" not in text


def test_counts_of_fewer_than_five_photographs_are_suppressed(page):
    report = document(phantom=False)
    report["training"]["pre_op"]["holdout_images"] = None
    text = page(report)
    assert "&lt;5" in row_of(section(text, "rejections"), "Text or watermark")
    assert "&lt;5" in row_of(section(text, "training"), "Held out")


@pytest.mark.parametrize(
    ("part", "name", "sentence"),
    [
        ("sets", "figures", "was not measured"),
        ("filters", "rejections", "No filter ran"),
        ("oracle", "oracle", "only phantoms have"),
        ("provenance", "provenance", "does not say what made it"),
        ("figures", "embedding", "There is no map of face embeddings"),
        ("figures", "training", "no loss history"),
    ],
)
def test_a_missing_part_is_one_honest_line(page, part, name, sentence):
    report = document()
    del report[part]
    text = page(report)
    assert sentence in words(section(text, name))
    assert problems(text) == []


def test_a_document_of_nothing_but_its_schema_is_a_page(page):
    text = page({"schema": 1})
    assert problems(text) == []
    assert text.count('class="missing"') >= 8


def test_a_part_in_a_foreign_shape_costs_that_part_alone(page):
    report = document() | {"filters": {"pre_op": {"surprise": 1}}, "oracle": [1, 2]}
    text = page(report)
    assert words(section(text, "rejections")).endswith(UNREADABLE)
    assert UNREADABLE in section(text, "oracle")
    assert "31.20" in section(text, "figures")


def test_figures_that_could_not_be_measured_are_said_not_to_be(page):
    report = document()
    for metric in ("fir_pairs", "fid", "lpips"):
        report["sets"]["pre_op"][metric]["paper"]["raw"].update(value=None, ci95=None)
    report["sets"]["pre_op"]["fid"]["paper"]["raw"]["note"] = "No photograph could be read."
    for sweep in report["sets"]["pre_op"]["fir_sweep"]["paper"]["raw"]:
        sweep["pairs"] = sweep["images"] = {"value": None, "ci95": None, "k": 0, "n": 0}
    raw = report["figures"]["similarity"]["pre_op"]["raw"]
    raw.update(counts=None, mean=None)
    report["figures"]["pca"]["real"]["pre_op"] = [[None] * 12] * 12
    report["figures"]["pca"]["generated"]["pre_op"] = []
    text = page(report)
    assert UNREADABLE not in text
    assert "not measured" in row_of(section(text, "figures"), "Pre-op")
    assert "No photograph could be read" in row_of(section(text, "figures"), "Pre-op", "FID to the training")
    assert problems(text) == []


def test_what_a_document_says_is_text_and_never_markup(page):
    report = document()
    report["notes"] = ["<script>alert(1)</script> and `code <b>`"]
    report["filters"]["pre_op"]["by_skin"]["<img src=x>"] = {"n": 1, "rejected": 0}
    report["provenance"]["versions"]["<b>"] = "</td>"
    text = page(report)
    assert problems(text) == []
    assert "&lt;script&gt;" in text


def palettes() -> list[dict[str, str]]:
    style = (TEMPLATES / "report.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks]


def test_light_dark_and_printed_colours_have_the_contrast_of_wcag_aa():
    light, dark, printed = palettes()
    assert light.keys() == dark.keys() == printed.keys()
    for palette in (light, dark, printed):
        for ink in ("ink", "muted", "link"):
            assert contrast(palette[ink], palette["ground"]) >= 4.5, ink
        for pair in ("tag", "private"):
            assert contrast(palette[f"{pair}-ink"], palette[f"{pair}-ground"]) >= 4.5, pair


def test_no_colour_is_named_outside_the_palette():
    style = (TEMPLATES / "report.css").read_text("utf-8")
    rest = re.sub(r":root \{.*?\}", "", style, flags=re.DOTALL)
    assert not re.findall(r"#[0-9a-f]{3,6}\b|rgb\(", rest)


def test_the_filters_own_summary_is_what_the_page_reads(page):
    from diffusioncleft.diffusioncleft_core.filters.stage import filter_summary, photographs_summary
    from diffusioncleft.diffusioncleft_core.imageset.manifest import ImageRow

    def row(index, reasons, **more):
        verdicts = {"accepted": not reasons, "reasons": reasons}
        attributes = {"skin": "dark", "subject": "girl"}
        return ImageRow(f"{index}.png", index=index, attributes=attributes, verdicts=verdicts, **more)

    rows = [row(0, []), row(1, ["text", "eye_bar"]), row(2, ["identity_leak"]), row(1, [], attempt=1)]
    summary = filter_summary(rows) | {
        "training_photographs": photographs_summary([{"reasons": ["text"]}] * 9)
    }
    text = section(page(document() | {"filters": {"pre_op": summary}}), "rejections")
    assert UNREADABLE not in text
    assert "66.7 % 2 of 3" in row_of(text, "Pre-op")
    assert row_of(text, "Text or watermark").endswith("9")
    assert "2 of 3" in row_of(text, "Dark") and "2 of 3" in row_of(text, "Child")
    assert "in place of rejected images 1, accepted of them 1" in words(text)


def test_a_note_that_many_figures_share_is_said_once(page):
    report = document()
    for name in report["sets"]:
        report["sets"][name]["fid"]["paper"]["raw"]["note"] = "To the training images, as in the paper"
    text = section(page(report), "figures")
    assert text.count("as in the paper") == 1
    assert "FID: To the training images, as in the paper." in text
