"""What the images are good for, in the report: figures with their intervals, controls and caveats."""

import copy
import csv
import io
import re
from dataclasses import replace

import pytest
from downstream_sets import REPORTED, task
from html_checks import Page, problems
from report_documents import document

from diffusioncleft.diffusioncleft_core.downstream.evidence import downstream_document
from diffusioncleft.diffusioncleft_core.downstream.scores import UNKNOWN
from diffusioncleft.diffusioncleft_core.report.downstream_words import told
from diffusioncleft.diffusioncleft_core.report.drawing import PHANTOM_NOTE
from diffusioncleft.diffusioncleft_core.report.html import UNREADABLE, page_of, write_html, write_shared
from diffusioncleft.diffusioncleft_core.report.pictures import ReportPictures
from diffusioncleft.diffusioncleft_core.report.plain_words import (
    BY_THE_LIP,
    NO_BETTER,
    NOT_BY_THE_LIP,
    NOT_KNOWN_BY_WHAT,
    by_what,
)
from diffusioncleft.diffusioncleft_core.report.summary import summarize

pytestmark = pytest.mark.usefixtures("pages_drawn_once")

FEW = 100
"""Resamples."""
LEAK = "9 of the 120 people in the test set are among those whom the LoRA learned from"


def report_of(evidence, *, phantom=False):
    return {**document(phantom=phantom), "downstream": evidence}


def evidence_of(**parts):
    return downstream_document({"lip_anomaly": task(**parts)}, resamples=FEW)


@pytest.fixture(scope="module")
def evidence():
    return evidence_of(whole=True)


@pytest.fixture
def section(tmp_path):
    def read(evidence, *, phantom=False):
        text = write_html(report_of(evidence, phantom=phantom), None, tmp_path / "r.html").read_text("utf-8")
        assert problems(text) == [] and UNREADABLE not in text
        return re.search(r'<section id="downstream".*?</section>', text, re.DOTALL)[0]

    return read


def words(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).replace("\u00a0", " ").split())


def row_of(html, head):
    found = re.search(
        rf'<tr role="row"><th role="rowheader" scope="row">{head}</th>.*?</tr>', html, re.DOTALL
    )
    assert found, head
    return words(found[0])


def cells(html):
    """Texts of all cells with a figure."""
    return [cell.text for cell in Page(html).all("td") if re.search(r"\d\.\d", cell.text)]


def drawings(evidence, *, phantom=False):
    page = page_of(report_of(evidence, phantom=phantom), ReportPictures())
    return {drawing.name: drawing for drawing in page.drawings}


def test_the_section_is_there_only_where_the_report_has_the_evidence(tmp_path):
    text = write_html(document(), None, tmp_path / "r.html").read_text("utf-8")
    assert 'id="downstream"' not in text
    assert "What the images are good for" not in summarize(document())


def test_ours_and_the_papers_figure_stand_in_one_table_each_with_its_interval(section, evidence):
    html = section(evidence)
    figure = evidence["tasks"]["lip_anomaly"]["sources"]["generated"]["accuracy"]
    ours = row_of(html, "Trained on: generated")
    assert f"{100 * figure['value']:.1f} %" in ours and f"{100 * figure['ci95'][0]:.1f} % to" in ours
    assert "points between trainings" in ours
    papers = row_of(html, re.escape("Reported: DiffusionCleft (paper)"))
    assert "(paper) 79.0 % 95 %: 69.7 % to 86.5 %; n = 100 –" in papers and papers.count("79.0") == 1
    assert "55.8 % to 75.2 %" in row_of(html, "Reported: Healthy faces deformed")
    said = words(html)
    assert "Its positives were generated and its negatives real" in said
    assert "To tell 79.0 % from 66.0 % in four of five cases takes 114 images" in said and "200 where" in said


def test_every_control_shows_what_it_must_be_and_how_it_came_out(section, evidence):
    html = section(evidence)
    for control in evidence["tasks"]["lip_anomaly"]["controls"]:
        row = row_of(html, control["name"].replace("_", " ").capitalize())
        assert control["what"] in row and control["verdict"] in row
    assert "at chance" in row_of(html, "Background") and "98.75 %" in row_of(html, "Background")
    assert "the line to beat" in row_of(html, "Real")
    assert "source less control: -" in row_of(html, "Real")
    assert "not as it must be" not in html


def test_the_reading_comes_first_and_a_control_that_failed_is_marked(section):
    html = section(evidence_of(background=1.5))
    reading = (
        "The reading that it learned the lip does not stand: on the background alone it is not at chance"
    )
    assert reading in words(html) and words(html).index(reading) < words(html).index(
        "Figures on the test set"
    )
    assert "above chance not as it must be" in row_of(html, "Background")
    assert html.count("not as it must be") == 1


def test_not_a_diagnostic_device_stands_where_a_figure_stands(section, evidence, tmp_path):
    assert "Not a diagnostic device" in words(section(evidence)).split("Lip anomaly detection")[0]
    for drawing in drawings(evidence).values():
        if drawing.name.startswith(("learning-curve", "reliability")):
            assert b"Not a diagnostic device" in drawing.svg
    text = write_html(report_of(evidence), None, tmp_path / "r.html").read_text("utf-8")
    board = re.search(r'<section id="plain-words".*?</section>', text, re.DOTALL)[0]
    assert "Not a diagnostic device." in words(board)
    assert "Not a diagnostic device" in summarize(report_of(evidence))


def test_that_the_test_set_chose_the_lora_is_said_beside_it_and_marks_nothing(section):
    said = "the LoRA of its images was chosen by an early stop on people of the test set"
    chosen = evidence_of(chosen=said)
    html = words(section(chosen))
    assert f"T{said[1:]}." in html and "people may be known" not in html
    assert f"({said})" in summarize(report_of(chosen))
    assert f"  {said}" in told(chosen["tasks"]["lip_anomaly"])


def test_a_leak_marks_every_figure_table_plot_and_page(section, tmp_path):
    known = evidence_of(leak=LEAK, whole=True)
    html = section(known)
    figures = [text for text in cells(html[: html.index("<svg")]) if "n = " not in text and "AUC" not in text]
    assert len(figures) > 20 and all("people may be known" in text for text in figures)
    captions = [item.text for item in Page(html).all("figcaption")]
    folded = [item.text for item in Page(html).all("caption") if "in numbers" in item.text]
    assert len(captions) == len(folded) == 2 and all(
        "people may be known" in text for text in captions + folded
    )
    compared = html[html.index("Compared on") : html.index("By skin tone")]
    assert all("people may be known" in text for text in cells(compared) if "95" in text)
    assert f"What the classifier learned is not shown: {LEAK}." in words(html)
    for drawing in drawings(known).values():
        if drawing.name.startswith(("learning-curve", "reliability")):
            assert b"may share people with the training" in drawing.svg
    text = write_html(report_of(known), None, tmp_path / "r.html").read_text("utf-8")
    board = re.search(r'<section id="plain-words".*?</section>', text, re.DOTALL)[0]
    assert "so the number may be too high" in words(board)
    assert LEAK in summarize(report_of(known))


def test_without_a_leak_nothing_is_marked(section, evidence, tmp_path):
    assert "people may be known" not in section(evidence)
    assert not any(b"share people" in drawing.svg for drawing in drawings(evidence).values())
    text = write_html(report_of(evidence), None, tmp_path / "r.html").read_text("utf-8")
    assert "too high" not in text


def test_a_leak_that_the_reading_does_not_say_stands_beside_the_test_set(section):
    leaks = evidence_of(leak=LEAK, shuffled_labels=1.5)
    assert "The evaluation leaks" in words(section(leaks))
    assert LEAK in words(section(leaks))
    assert LEAK in summarize(report_of(leaks))


def test_figures_of_phantoms_say_so(section):
    drawn = evidence_of(photographs=False, whole=True)
    html = section(drawn, phantom=True)
    figures = [text for text in cells(html) if "95" in text and "n = " not in text and "AUC" not in text]
    assert all("phantom" in text for text in figures if "points" in text) and "240 phantoms" in words(html)
    assert "Grad-CAM on phantoms: 71.0 % of it lies inside the lip’s box, which is 30.0 %" in words(html)
    drawn["tasks"]["lip_anomaly"]["saliency"]["inside"] = None
    assert "Grad-CAM on phantoms: there is none" in words(section(drawn, phantom=True))
    assert all(PHANTOM_NOTE.encode() in drawing.svg for drawing in drawings(drawn, phantom=True).values())


def test_small_groups_are_not_told(section, evidence):
    html = section(evidence)
    age = html[html.index("By age group") :]
    assert "&lt;5" in row_of(age, "Baby") and "not told" in row_of(age, "Baby")
    assert "not told" not in row_of(html[html.index("By skin tone") :], "Dark")


def test_groups_that_are_not_known_have_a_line_and_no_table(section):
    unknown = evidence_of(whole=True)
    for source in unknown["tasks"]["lip_anomaly"]["sources"].values():
        source["groups"]["skin_tone"] = {UNKNOWN: next(iter(source["groups"]["skin_tone"].values()))}
    html = section(unknown)
    assert "No figures by skin tone: the test set does not tell them" in words(html)
    assert "By skin tone" not in html and "By age group" in html and "Not known" not in html


def test_few_trainings_and_lips_that_were_not_found_are_said(section, evidence):
    assert "On 7 more no lip was found" in words(section(evidence))
    assert "trained" in words(section(evidence)) and "say little of" not in words(section(evidence))
    plain = task()
    once = replace(plain, sources={"generated": plain.sources["generated"][:1]}, controls=())
    few = words(section(downstream_document({"t": once}, resamples=FEW)))
    assert "trained once alone; fewer than 5 trainings" in few
    assert "no control was run" in few
    four = replace(plain, sources={"generated": plain.sources["generated"][:4]}, controls=())
    assert "trained 4 times alone" in words(section(downstream_document({"t": four}, resamples=FEW)))


def test_a_figure_that_is_not_told_is_no_number_anywhere(section):
    small = task(n=8)
    html = section(downstream_document({"t": small}, resamples=FEW))
    assert "not told" in row_of(html, "Trained on: generated")
    assert not re.search(r"<svg", html), "no plot of what is not told"
    report = report_of(downstream_document({"t": small}, resamples=FEW))
    assert "| not told |" in summarize(report)


def table(drawing):
    return list(csv.DictReader(io.StringIO(drawing.numbers())))


def test_plots_lie_in_the_folder_with_the_numbers_that_they_show(evidence, tmp_path):
    write_shared(report_of(evidence), None, tmp_path / "report.html")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    for stem in ("learning-curve-lip_anomaly", "reliability-lip_anomaly"):
        assert {f"{stem}.{suffix}" for suffix in ("svg", "pdf", "png", "csv")} <= names
    found = drawings(evidence)
    block = evidence["tasks"]["lip_anomaly"]
    curve = table(found["learning-curve-lip_anomaly"])
    assert [int(row["images"]) for row in curve] == [100, 200, 500, 1000, 2000]
    for row, point in zip(curve, block["curve"], strict=True):
        ends = [float(row["ci95_low"]), float(row["ci95_high"])]
        assert [float(row["balanced_accuracy"]), *ends] == [
            point["balanced_accuracy"]["value"],
            *point["balanced_accuracy"]["ci95"],
        ]
    bins = table(found["reliability-lip_anomaly"])
    told = [row for row in block["sources"]["generated"]["reliability"] if row["value"] is not None]
    assert [float(row["share_positive"]) for row in bins] == [row["value"] for row in told]
    assert all(int(row["people"]) >= 5 for row in bins)
    write_shared(document(phantom=False), None, tmp_path / "report.html")
    assert not any("learning-curve" in path.name for path in (tmp_path / "figures").iterdir()), "old ones go"


def test_no_bin_at_an_end_of_the_scale_is_cut(evidence):
    svg = drawings(evidence)["reliability-lip_anomaly"].svg.decode("utf-8")
    assert "<use " in svg and not re.search(r'<g clip-path="[^"]*">\s*<use ', svg)


def test_the_curve_shows_the_line_to_beat_and_its_lowest_interval(evidence):
    found = drawings(evidence)["learning-curve-lip_anomaly"]
    line = evidence["tasks"]["lip_anomaly"]["controls"][6]["figures"]["balanced_accuracy"]["value"]
    assert f"Trained on photographs: {100 * line:.1f}" in found.description
    assert b"trained on photographs" in found.svg and b"chance" in found.svg
    for points, drawn in ((0, False), (1, False), (2, True)):
        short = copy.deepcopy(evidence)
        del short["tasks"]["lip_anomaly"]["curve"][points:]
        assert ("learning-curve-lip_anomaly" in drawings(short)) is drawn


def test_a_part_in_a_foreign_shape_costs_that_section_alone(tmp_path):
    report = report_of({"schema": 1, "tasks": {"t": {"title": "x"}}})
    text = write_html(report, None, tmp_path / "r.html").read_text("utf-8")
    found = re.search(r'<section id="downstream".*?</section>', text, re.DOTALL)[0]
    assert UNREADABLE in found


def test_the_board_reads_a_sentence_in_plain_words(evidence, tmp_path):
    text = write_html(report_of(evidence), None, tmp_path / "r.html").read_text("utf-8")
    said = words(re.search(r'<section id="plain-words".*?</section>', text, re.DOTALL)[0])
    figure = evidence["tasks"]["lip_anomaly"]["sources"]["generated"]["accuracy"]
    value, low = (f"{100 * number:.1f} %" for number in (figure["value"], figure["ci95"][0]))
    assert (
        "A computer program that learned from generated images told “repaired cleft lip” from “healthy” "
        f"rightly in {value} of 240 photographs (range {low} to"
    ) in said
    assert "With both kinds counted alike that is" in said and "where guessing gives 50 %" in said
    assert BY_THE_LIP.strip() in said and "The reading that it learned the lip stands" not in said


def told_to_a_board(evidence):
    (block,) = evidence["tasks"].values()
    return by_what(block, block["sources"]["generated"])


@pytest.mark.parametrize(
    ("parts", "reading", "told"),
    [
        ({"whole": True}, "learned the lip stands", BY_THE_LIP),
        ({"background": 1.5}, "does not stand", NOT_BY_THE_LIP),
        ({"leak": LEAK}, "is not shown", NOT_KNOWN_BY_WHAT),
        ({"n": 12}, "can’t be told", NOT_KNOWN_BY_WHAT),
        ({"generated": 0.0}, "nothing to explain", NO_BETTER),
        ({"generated": 0.0, "shuffled_labels": 2.0}, "The evaluation leaks", NOT_BY_THE_LIP),
    ],
)
def test_the_board_is_told_in_its_own_words_what_the_reading_says(parts, reading, told):
    evidence = evidence_of(**parts)
    assert reading in evidence["tasks"]["lip_anomaly"]["reading"]
    assert told_to_a_board(evidence) == told


def test_the_summary_holds_the_reading_and_a_line_for_each_source(evidence):
    said = summarize(report_of(evidence))
    block = evidence["tasks"]["lip_anomaly"]
    assert f"- Lip anomaly detection: {block['reading']}" in said
    lines = [line for line in said.splitlines() if line.startswith("| Lip anomaly detection |")]
    assert [line.split(" | ")[1] for line in lines] == ["generated", "deformed"]
    auc = block["sources"]["generated"]["auc"]
    assert f"| {auc['value']:.3f} | {auc['ci95'][0]:.3f} to {auc['ci95'][1]:.3f} | 240 |" in lines[0]


def test_the_papers_second_figure_has_its_interval_too(section):
    second = replace(task(), reported=[{**REPORTED[0], "value": 0.84}])
    html = section(downstream_document({"pre_post": second}, resamples=FEW))
    assert "84.0 % 95 %: 75.3 % to 90.6 %; n = 100" in row_of(
        html, re.escape("Reported: DiffusionCleft (paper)")
    )
