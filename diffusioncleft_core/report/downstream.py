"""The report's section on use: classifiers that learned from generated faces, and what controls leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..downstream.document import NOT_A_DEVICE, NOTICE
from ..downstream.reading import BELOW, CHANCE, KEPT, LINE
from ..downstream.scores import LEAST_TRAININGS, UNKNOWN
from ..imageset.places import named
from ..statistics import clopper_pearson
from .blocks import (
    PHANTOM_TAG,
    SPACE,
    Block,
    Cell,
    Plots,
    Row,
    Section,
    Table,
    Text,
    count,
    interval,
    percent,
    plain,
    sentence,
)
from .downstream_plots import Marks, learning_curve, reliability_plot
from .measured import PHANTOM_CAVEAT

LEAK_TAG = "people may be known"
LEAK_WARNING = "The test set may share people with the training"
METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "auc": "AUC",
    "brier": "Brier score",
}
SHARES = ("accuracy", "balanced_accuracy", "sensitivity", "specificity")
MUST_BE = {
    CHANCE: "at chance",
    KEPT: "above chance",
    BELOW: "below the source",
    LINE: "the line to beat",
}
CAVEATS = (
    "Intervals resample people, not images: several images of one person say little more than one.",
    "Two classifiers are compared on the same images: a person counts for whichever is right on more of "
    "their images, and the images that would tell are for 80 % power at the accuracies found.",
    "A control is judged by its AUC, with an interval that covers other trainings too. Where several must be "
    "at chance each interval is wider, so that all of them are taken for it in 95 of 100 cases.",
    "Where positives are generated and negatives real, a network can learn “generated” in place of the lip: "
    "the paper has no control for it.",
)


def downstream_section(document: Mapping[str, Any]) -> Section:
    """From `downstream`, which is the content of downstream.json."""
    evidence = document["downstream"]
    blocks: list[Block] = [Text([NOTICE])]
    for name, task in evidence["tasks"].items():
        blocks += task_blocks(name, task)
    caveats = [PHANTOM_CAVEAT, *CAVEATS] if evidence["phantom"] else CAVEATS
    blocks.append(Text(caveats, listed=True, heading="Read with care"))
    lead = (
        "Classifiers that learned from generated faces, on a test set that they and all choices knew nothing "
        "of (section 5.5 of the paper), with controls that tell learning the lip from learning the generator."
    )
    return Section("downstream", "What the images are good for", lead, blocks)


def task_blocks(name: str, task: Mapping[str, Any]) -> list[Block]:
    """Reading, tables and plots of one task."""
    marks = marks_of(task["test"])
    source, figures = next(iter(task["sources"].items()))
    plots = [learning_curve(name, task, marks), reliability_plot(name, task, source, figures, marks)]
    tables = [sources_table(task, marks.tag), controls_table(task, marks.tag)]
    folded = [comparisons_table(task, marks.tag), *groups_tables(task, marks.tag)]
    return [
        Text([task["reading"], test_set(task)], heading=task["title"]),
        *(table for table in tables if table.rows),
        Text([*remarks(task), *unknown_groups(task)], listed=True),
        Plots([plot for plot in plots if plot is not None]),
        *(table for table in folded if table.rows),
    ]


def marks_of(test: Mapping[str, Any]) -> Marks:
    """What every figure of a task is marked with."""
    leak = bool(test.get("leak"))
    tags = [LEAK_TAG if leak else "", "" if test["photographs"] else PHANTOM_TAG]
    return Marks(", ".join(filter(None, tags)), [NOT_A_DEVICE, *([LEAK_WARNING] if leak else [])])


def test_set(task: Mapping[str, Any]) -> str:
    """Who was tested on, and when."""
    test, classes = task["test"], task["classes"]
    what = "photographs" if test["photographs"] else "phantoms"
    said = (
        f"{sentence(classes['positive']).rstrip('.')} against {classes['negative']}; tested on "
        f"{count(test['n'])} {what} of {count(test['n_subjects'])} people, first on {test['touched']}."
    )
    if test["n_not_found"] != 0:
        more = count(test["n_not_found"])
        said += f" On {more} more no lip was found: they have no score and are in no figure."
    if test.get("leak") and test["leak"] not in task["reading"]:
        said += f" {sentence(test['leak'])}"
    if test.get("chosen"):
        said += f" {sentence(test['chosen'])}"
    return said


def figure_cell(metric: str, figure: Mapping[str, Any] | None, tag: str = "", *, short: bool = False) -> Cell:
    """Value, interval and spread of one figure; short: without the spread."""
    if figure is None:
        return Cell("")
    if figure.get("value") is None:
        return Cell("not told" if figure.get("note") else "none", tag="")
    parts = [interval(figure["ci95"], lambda value: shown(metric, value))]
    if figure.get("sd_trainings") is not None and not short:
        parts.append(f"±{SPACE}{deviation(metric, figure['sd_trainings'])} between trainings")
    return Cell(shown(metric, figure["value"]), "; ".join(filter(None, parts)), tag)


def shown(metric: str, value: float | None) -> str:
    return percent(value) if metric in SHARES else plain(value)


def deviation(metric: str, value: float) -> str:
    """How far figures lie apart, in points where they are shares."""
    return f"{100 * value:.1f} points" if metric in SHARES else plain(value)


def sources_table(task: Mapping[str, Any], tag: str) -> Table:
    """What was trained on what, and under it what others reported."""
    rows = [
        Row(
            f"Trained on: {title.replace('_', ' ')}",
            [figure_cell(metric, source[metric], tag) for metric in METRICS],
        )
        for title, source in task["sources"].items()
    ]
    rows += [reported_row(row) for row in task.get("reported") or []]
    return Table("Figures on the test set", ("", *METRICS.values()), rows)


def reported_row(row: Mapping[str, Any]) -> Row:
    """One figure as others printed it, with the exact interval of its number of images."""
    exact = clopper_pearson(round(row["value"] * row["n"]), row["n"])
    metric = str(row["metric"])
    said = f"{interval(exact.ci95)}; n = {row['n']:,}"
    cells = [Cell(shown(metric, row["value"]), said) if key == metric else Cell("") for key in METRICS]
    return Row(f"Reported: {row['method']}", cells)


def controls_table(task: Mapping[str, Any], tag: str) -> Table:
    """Every control, what it must be and how it came out."""
    rows = []
    for control in task["controls"]:
        found = control["figures"] or {}
        rows.append(
            Row(
                str(control["name"]).replace("_", " ").capitalize(),
                [
                    Cell(control["what"], numeric=False),
                    Cell(MUST_BE[control["expected"]], numeric=False),
                    *(
                        figure_cell(metric, found.get(metric), tag, short=True)
                        for metric in ("auc", "balanced_accuracy")
                    ),
                    outcome_cell(control),
                ],
            )
        )
    columns = ("Control", "What was trained", "Must be", "AUC", "Balanced accuracy", "Came out")
    return Table("Controls: what else the classifier may have learned", columns, rows)


def outcome_cell(control: Mapping[str, Any]) -> Cell:
    """The verdict, the interval that it hangs on, and a mark where it is not as it must be."""
    said = ""
    if control.get("judged_by") and control.get("level"):
        low, high = control["judged_by"]
        by_difference = control["expected"] in (BELOW, LINE)
        ends = f"{low:+z.3f} to {high:+z.3f}" if by_difference else f"{low:.2f} to {high:.2f}"
        what = "AUC, source less control:" if by_difference else "AUC"
        said = f"{what} {ends} at {100 * control['level']:.4g}{SPACE}%"
    return Cell(
        control["verdict"], said, "not as it must be" if control["passed"] is False else "", numeric=False
    )


def comparisons_table(task: Mapping[str, Any], tag: str) -> Table:
    rows = []
    for row in task["comparisons"]:
        difference = row["difference"]
        needed = "more than 100,000" if row["n_needed"] is None else f"{row['n_needed']:,}"
        rows.append(
            Row(
                f"{row['a']} less {row['b']}".replace("_", " "),
                [
                    *(difference_cell(metric, difference[metric], tag) for metric in ("accuracy", "auc")),
                    Cell("not told")
                    if row["mcnemar_p"] is None
                    else Cell(
                        plain(row["mcnemar_p"]),
                        f"{count(row['only_a'])} people against {count(row['only_b'])}",
                    ),
                    Cell(needed),
                ],
            )
        )
    columns = ("", "Accuracy", "AUC", "Exact McNemar, p", "Images that would tell")
    return Table("Compared on the same images", columns, rows, folded=True)


def difference_cell(metric: str, figure: Mapping[str, Any], tag: str) -> Cell:
    """A difference with its sign, in points where it is of shares."""
    if figure["value"] is None:
        return Cell("none")

    def signed(value: float) -> str:
        return f"{100 * value:+.1f} points" if metric in SHARES else f"{value:+.3f}"

    ends = figure.get("ci95_trainings") or figure["ci95"]
    return Cell(signed(figure["value"]), interval(ends, signed), tag)


def groups_tables(task: Mapping[str, Any], tag: str) -> list[Table]:
    """The first source's figures by skin tone, age and gender."""
    source = next(iter(task["sources"].values()))
    metrics = ("accuracy", "balanced_accuracy", "auc")
    tables = []
    for kind, groups in source["groups"].items():
        if set(groups) <= {UNKNOWN}:
            continue
        rows = [
            Row(
                "Not known" if name == UNKNOWN else name.capitalize(),
                [
                    Cell(count(figures["accuracy"]["n_subjects"])),
                    *(figure_cell(metric, figures[metric], tag, short=True) for metric in metrics),
                ],
            )
            for name, figures in groups.items()
        ]
        columns = (
            sentence(kind.replace("_", " ")).rstrip("."),
            "People",
            *(METRICS[metric] for metric in metrics),
        )
        tables.append(Table(f"By {kind.replace('_', ' ')}", columns, rows, folded=True))
    return tables


def unknown_groups(task: Mapping[str, Any]) -> list[str]:
    """One line that stands for the tables of groups of which nothing is known."""
    groups = next(iter(task["sources"].values()))["groups"]
    unknown = [kind.replace("_", " ") for kind, found in groups.items() if set(found) <= {UNKNOWN}]
    return [f"No figures by {named(unknown)}: the test set does not tell them."] if unknown else []


def remarks(task: Mapping[str, Any]) -> list[str]:
    """What must be known beside the tables."""
    said = [
        f"{row['method']}: {sentence(row['caveat'])}"
        for row in task.get("reported") or []
        if row.get("caveat")
    ]
    for row in task.get("needed") or []:
        said.append(needed_sentence(row))
    few = {source["seeds"]["n"] for source in task["sources"].values()} | {
        control["seeds"]["n"] for control in task["controls"] if control.get("seeds")
    }
    if min(few) < LEAST_TRAININGS:
        said.append(
            f"Some classifiers were trained {times(min(few))} alone; fewer than {LEAST_TRAININGS} trainings "
            "say little of how far another one would lie."
        )
    if task.get("saliency"):
        said.append(saliency_sentence(task["saliency"]))
    return said


def times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def needed_sentence(row: Mapping[str, Any]) -> str:
    same, independent = (
        "more than 100,000" if row[key] is None else f"{row[key]:,}" for key in ("n", "n_independent")
    )
    return (
        f"To tell {percent(row['a'])} from {percent(row['b'])} in four of five cases takes {same} images of "
        f"as many people where the worse classifier alone is right on {percent(row['only_worse'])} of them, "
        f"and {independent} where the two err independently of each other (exact McNemar, 5 %)."
    )


def saliency_sentence(saliency: Mapping[str, Any]) -> str:
    """Where on phantoms the classifier looks."""
    if saliency["inside"] is None or saliency["area"] is None:
        return "Grad-CAM on phantoms: there is none, because no picture raised the score anywhere."
    return (
        f"Grad-CAM on phantoms: {percent(saliency['inside'])} of it lies inside the lip’s box, which is "
        f"{percent(saliency['area'])} of the picture."
    )
