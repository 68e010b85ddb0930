"""The rater study as sections of a page: its own (`study_page`), or a run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..study.statistics.equivalence import EACH_TEST
from ..study.statistics.intervals import ENOUGH_RATERS, FEWEST_IMAGES
from ..text import counted
from .blocks import (
    SPACE,
    Block,
    Cell,
    Labels,
    Plots,
    Row,
    Section,
    Table,
    Text,
    interval,
    labels_of,
    percent,
    plain,
)
from .study_ages import ages_plot
from .study_marks import SHOWN, UNTOLD, other_sections
from .study_plots import (
    condition_words,
    difference_plot,
    distribution_plot,
    means_plot,
    scale_parts,
    titled,
)

TOO_FEW = "too few images"
COEFFICIENTS = {
    "agreement": "Same answer, share of the images",
    "ac2": "Gwet’s AC2, ordinal weights",
    "kappa": "Kappa, quadratic weights",
    "icc": "ICC(2,1)",
}


def study_sections(document: Mapping[str, Any]) -> list[Section]:
    """The sections of a study, for its own page or a run's report."""
    labels = labels_of({})
    parts = scale_parts(document)
    said = [
        Text(part["words"], listed=True, heading=titled(name))
        for name, part in document["questions"].items()
        if part["words"]
    ]
    sections = [Section("study-words", "What the raters say", blocks=[Text(document["words"]), *said])]
    if parts:
        sections.append(_ratings(document, labels))
        sections.append(_differences(document, labels))
        sections.append(_agreement(document, parts))
    ages = ages_plot(document, labels)
    if ages is not None:
        lead = (
            "The paper supposes that older faces with an unrepaired cleft look less plausible, generated and "
            "real alike: repair happens in the first year of life. It did not test it. A difference that "
            "stands after the repair too is no matter of the repair."
        )
        sections.append(Section("study-ages", "By age group", lead, [Plots([ages], wide=True)]))
    sections += [*_detection(document), *other_sections(document, labels)]
    sections.append(_method(document))
    return sections


def _ratings(document: Mapping[str, Any], labels: Labels) -> Section:
    found = [distribution_plot(document, origin, labels) for origin in document["sets"]]
    plots = [plot for plot in (*found, means_plot(document, labels)) if plot is not None]
    blocks: list[Block] = [Plots(plots, wide=True)] if plots else []
    blocks += [_means_table(name, part, labels) for name, part in scale_parts(document)]
    lead = "The whole distribution of the answers, as in Figures 3 and 4 of the paper, and their means."
    return Section("study-ratings", "Ratings", lead, blocks)


def _means_table(name: str, part: Mapping[str, Any], labels: Labels) -> Table:
    rows = []
    for cell in part["cells"]:
        head = f"{titled(cell['origin'])}, {condition_words(cell['condition'], labels)}"
        if cell["mean"] is None:
            rows.append(Row(head, [Cell(UNTOLD, numeric=False)] + [Cell("")] * 3))
            continue
        by_rater = ", ".join(plain(value, 2) for value in cell["by_rater"] if value is not None)
        share = cell["high_share"]
        rows.append(
            Row(
                head,
                [
                    Cell(plain(cell["mean"]["value"], 2), interval(cell["mean"]["ci95"], _two)),
                    Cell(by_rater),
                    Cell(percent(share["value"]), interval(share["ci95"])),
                    Cell(f"{cell['images']:,}", counted(cell["ratings"], "rating")),
                ],
            )
        )
    high = next((cell["high_share"]["from"] for cell in part["cells"] if cell["mean"] is not None), 4)
    columns = (SHOWN, "Mean", "Each rater’s", f"{high} or more", "Images")
    return Table(f"{titled(name)}: {part['text']}", columns, rows)


def _differences(document: Mapping[str, Any], labels: Labels) -> Section:
    title = "Beside the real images"
    plot = difference_plot(document, labels)
    if plot is None:
        return Section("study-differences", title, missing="There are no real images to compare with.")
    rows = []
    for name, part in scale_parts(document):
        rows.append(Row(titled(name), group=True))
        for found in part["comparisons"]:
            head = f"{titled(found['origin'])}, {condition_words(found['condition'], labels)}"
            if found["difference"] is None:
                rows.append(Row(head, [Cell(UNTOLD, numeric=False)] + [Cell("")] * 3))
                continue
            rows.append(
                Row(
                    head,
                    [
                        Cell(
                            f"{found['difference']['value']:+.2f}",
                            interval(found["difference"]["ci95"], _signed),
                        ),
                        Cell(_p(found["p"]), "equivalent" if found["equivalent"] else "not shown"),
                        Cell(_superiority(found), _limits_of(found)),
                        _power(found),
                    ],
                )
            )
    columns = (
        SHOWN,
        "Difference",
        f"Equivalence, p (shown below {EACH_TEST:g})",
        "Rated above real",
        "Detectable, 80 %",
    )
    caption = "Difference to real, test of equivalence, ordinal model, and what a study of this size finds"
    margin = document["margin"]
    lead = (
        f"Equivalent means: the whole interval lies within ±{margin:g} points ({document['margin_from']}). "
        f"That is where p is below {EACH_TEST:g}: p is the larger of two one-sided tests, one against each "
        f"end of the margin, of {percent(EACH_TEST)} each; with 5{SPACE}% each, studies with few real images "
        "claimed too often an equivalence that was not there. That equivalence is not shown is no proof of a "
        "difference."
    )
    return Section(
        "study-differences", title, lead, [Plots([plot], wide=True), Table(caption, columns, rows)]
    )


def _agreement(document: Mapping[str, Any], parts: Sequence[tuple[str, Mapping[str, Any]]]) -> Section:
    title = "Agreement"
    known = [(name, part) for name, part in parts if part["agreement"] is not None]
    if not known:
        return Section("study-agreement", title, missing="Agreement needs two raters on the same images.")
    rows = [
        Row(label, [_coefficient(part["agreement"][key], share=key == "agreement") for _, part in known])
        for key, label in COEFFICIENTS.items()
    ]
    rows.insert(
        1,
        Row(
            "– by chance, each answering as often as it did",
            [Cell(percent(part["agreement"]["chance"])) for _, part in known],
        ),
    )
    again = [part["repeats"] for _, part in known]
    if any(again):
        cells = [
            Cell("") if found is None else _coefficient(found["same"], share=True, n=found["pictures"])
            for found in again
        ]
        rows.append(Row("The same rater, shown a picture twice", cells))
    lead = (
        "Two raters who give nearly every image the highest answer agree nearly always, and kappa is near "
        "zero: it takes agreement on a frequent answer for luck. AC2 does not, and is the one to read there. "
        "Where the same answer is no more frequent than by chance, no coefficient shows that the raters see "
        "the same in an image."
    )
    whole = all(each["images"] is not None for each in document["sets"].values())
    caption = "Agreement between raters, over all images" + ("" if whole else " of sets that are told of")
    return Section(
        "study-agreement", title, lead, [Table(caption, ("", *(titled(name) for name, _ in known)), rows)]
    )


def _coefficient(figure: Mapping[str, Any], *, share: bool, n: int | None = None) -> Cell:
    show = percent if share else _two
    if figure["value"] is None:
        return Cell("none", "all ratings are the same")
    if figure["ci95"] is None:
        return Cell(show(figure["value"]), "no interval: too few answers off the most frequent one")
    small = interval(figure["ci95"], show)
    return Cell(show(figure["value"]), small if n is None else f"{small}; {counted(n, 'picture')}")


def _detection(document: Mapping[str, Any]) -> list[Section]:
    rows = []
    for part in document["questions"].values():
        for found in part.get("detection", []):
            rows.append(Row(f"{titled(found['origin'])} and real", group=True))
            for key, label, show in (
                ("accuracy", "Called what it is, both kinds alike (chance: 50 %)", percent),
                ("hits", "Generated pictures called generated", percent),
                ("false_alarms", "Real pictures called generated", percent),
                ("d_prime", "d′ (chance: 0)", _two),
                ("bias", "Bias c (above 0: rather says real)", _signed),
            ):
                value = found[key]
                rows.append(Row(label, [Cell(show(value["value"]), interval(value["ci95"], show))]))
    if not rows:
        return []
    table = Table("Real or generated?", ("", "Value"), rows)
    return [Section("study-detection", "Real or generated", blocks=[table])]


def _method(document: Mapping[str, Any]) -> Section:
    about = (
        f"With fewer than {ENOUGH_RATERS} raters they are about these raters."
        if document["raters"] < ENOUGH_RATERS
        else "The raters’ own variation is in them."
    )
    lines = [
        "Intervals of means, shares and differences solve the score equation of a bounded mean, each image "
        f"being one draw; differences square and add the distances of both limits (MOVER). {about}",
        "Agreement: AC2 (Gwet 2014), weighted kappa (Cohen 1968, Conger 1980), ICC(2,1) (Shrout & Fleiss "
        "1979), with the jackknife’s variance over images. Kappa and ICC have no interval where too few "
        "answers leave the most frequent one.",
        "How often each kind of interval is right, and where it is not often enough, was counted on "
        "simulated raters with a known truth: `experiments/study_coverage.json`; "
        "`docs/study-statistics.md` explains each.",
    ]
    ordinal = [found.get("ordinal", {}) for _, part in scale_parts(document) for found in part["comparisons"]]
    lines += dict.fromkeys(found["approximated"] for found in ordinal if "approximated" in found)
    return Section("study-method", "How it was computed", blocks=[Text(lines)])


def _superiority(found: Mapping[str, Any]) -> str:
    ordinal = found.get("ordinal") or {}
    return percent(ordinal["superiority"]["value"]) if "superiority" in ordinal else ""


def _power(found: Mapping[str, Any]) -> Cell:
    """What a study of this size finds; of a handful of images that is no more than a guess."""
    if min(found["images"], found["real_images"]) < FEWEST_IMAGES:
        return Cell(TOO_FEW, numeric=False)
    power = found["power"]
    return Cell(f"{power['detectable']:.2f}", f"equivalence {percent(power['equivalence'])}")


def _limits_of(found: Mapping[str, Any]) -> str:
    ordinal = found.get("ordinal") or {}
    return interval(ordinal["superiority"]["ci95"]) if "superiority" in ordinal else ""


def _two(value: float) -> str:
    return f"{value:.2f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.5 else "0.5"
