"""The report's measurements beside the figures that others reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..conditions.vocabulary import ALL
from .blocks import (
    PHANTOM_TAG,
    Block,
    Cell,
    Labels,
    Row,
    Section,
    Table,
    Text,
    interval,
    is_phantom,
    labels_of,
    sentence,
)
from .metric_names import (
    BESIDE,
    METRICS,
    OF_PHOTOGRAPHS,
    OVER_OTHERS,
    family_of,
    label_of,
    shown_value,
)
from .several import breakdown_tables, ranking_tables

PHANTOM_CAVEAT = (
    "Figures tagged “phantom” were made from drawings or with an embedded or seeded-random extractor: they "
    "say nothing about photographs and can’t be compared with the paper’s."
)
CAVEATS = (
    "FIR is zero after filtering by construction, with the same embedder and threshold; the raw set’s is the "
    "one to quote.",
    "Not one match in 2,000 images still leaves a rate of up to 0.15 % (95 %, one-sided): read the interval, "
    "not the zero.",
    "A condition is compared with its own training images; a leak from another one is seen only against all "
    "of them.",
    "LPIPS has no good value of its own: hold it against the training images’ own LPIPS.",
    "FID and KID to the training images reward copies; to hold-out photographs they do not.",
)


def measured_section(document: Mapping[str, Any]) -> Section:
    """Table 2 and its companions, from `sets`."""
    sets = document.get("sets") or {}
    labels = labels_of(document)
    title = "Figures beside those reported" if labels.columns else "Figures"
    if not sets:
        return Section(
            "figures",
            title,
            missing="This run was not measured: `diffusioncleft measure` adds FIR, FID and LPIPS.",
            blocks=[*([reported_alone(labels)] if labels.columns else []), caveats(labels, phantom=False)],
        )
    phantom = bool(document.get("phantom")) or any(is_phantom(figure) for figure in figures_of(sets))
    blocks: list[Block] = [table_2(sets, labels), caveats(labels, phantom=phantom)]
    blocks += [
        table
        for table in (beside(sets, labels), of_photographs(sets, labels), entered(sets, labels))
        if table.rows
    ]
    figures = document.get("figures") or {}
    blocks += [*ranking_tables(figures, labels), *breakdown_tables(figures, labels)]
    blocks += [notes_of(sets), extractors(sets)]
    lead = (
        "The raw set, every image of the plan, is the headline; the filtered set, what "
        "the filters let through, stands beside it."
    )
    return Section("figures", title, lead, blocks)


def present(sets: Mapping[str, Any], labels: Labels) -> list[str]:
    """The sets of the document in reading order: the vocabulary's, its union last, after all others."""
    known = [name for name in (*labels.names, ALL) if name in sets]
    return [*[name for name in sets if name not in known], *known]


def figure_of(sets: Mapping[str, Any], name: str, metric: str, profile: str, variant: str) -> Any:
    """One figure of the document, or None."""
    at: Any = sets
    for key in (name, metric, profile, variant):
        at = at.get(key) if isinstance(at, Mapping) else None
    return at


def figures_of(sets: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every figure that has an extractor."""
    found = []
    for metrics in sets.values():
        for profiles in metrics.values():
            for variants in profiles.values():
                found += [f for f in variants.values() if isinstance(f, Mapping) and f.get("extractor")]
    return found


def figure_cell(metric: str, figure: Mapping[str, Any] | None) -> Cell:
    """Value, interval, n and note of one figure, tagged where a phantom extractor made it."""
    if figure is None:
        return Cell("")

    def show(value: float) -> str:
        return shown_value(metric, value)

    parts = [interval(figure.get("ci95"), show), sizes(metric, figure), *remarks(figure)]
    return Cell(
        shown_value(metric, figure.get("value")),
        "; ".join(part for part in parts if part),
        PHANTOM_TAG if is_phantom(figure) else "",
    )


def sizes(metric: str, figure: Mapping[str, Any]) -> str:
    """`5 of 200,000`, or `n = 2,000 against 100`."""
    n = figure.get("n")
    if n is None:
        return ""
    if figure.get("k") is not None:
        return f"{figure['k']:,} of {n:,}"
    reference = figure.get("n_reference")
    against = metric.startswith(("fid", "kid")) and reference is not None
    return f"n = {n:,}" + (f" against {reference:,}" if against else "")


def remarks(figure: Mapping[str, Any]) -> list[str]:
    """The range of a floor, and why a figure could not be measured."""
    said = []
    if figure.get("range"):
        low, high = figure["range"]
        said.append(f"{low:.2f} to {high:.2f} over the draws")
    if figure.get("note") and figure.get("value") is None:
        said.append(str(figure["note"]).rstrip("."))
    return said


def our_cells(sets: Mapping[str, Any], name: str, metric: str, profile: str) -> list[Cell]:
    """This run's own figures of one set, raw and filtered."""
    return [
        figure_cell(metric, figure_of(sets, name, metric, profile, variant))
        for variant in ("raw", "filtered")
    ]


def reported_cells(metric: str, name: str, labels: Labels) -> list[Cell]:
    """What each other method reports, in the order of the columns."""
    found = {figure.method: figure.value for figure in labels.of(metric, name)}
    return [Cell(shown_value(metric, found[method]) if method in found else "") for method in labels.columns]


def table_2(sets: Mapping[str, Any], labels: Labels) -> Table:
    rows: list[Row] = []
    for metric, (label, profile) in METRICS.items():
        lines = []
        for name in present(sets, labels):
            ours = our_cells(sets, name, metric, profile)
            theirs = reported_cells(metric, name, labels)
            if not all(cell.empty for cell in [*ours, *theirs]):
                lines.append(Row(labels.name(name), [*ours, *theirs]))
        rows += [Row(label, group=True), *lines] if lines else []
    columns = ("", "This run, raw", "This run, filtered", *labels.columns.values())
    return Table("Identity, likeness and diversity, measured as the paper does", columns, rows)


def reported_alone(labels: Labels) -> Table:
    """What others report, where the run itself was not measured."""
    rows: list[Row] = []
    for metric, (label, _) in METRICS.items():
        lines = []
        for name in (*labels.names, ALL):
            theirs = reported_cells(metric, name, labels)
            if not all(cell.empty for cell in theirs):
                lines.append(Row(labels.name(name), theirs))
        rows += [Row(label, group=True), *lines] if lines else []
    return Table(f"What {' and '.join(labels.columns.values())} report", ("", *labels.columns.values()), rows)


def beside(sets: Mapping[str, Any], labels: Labels) -> Table:
    rows: list[Row] = []
    for metric, (label, profile) in {**BESIDE, **over_others(sets)}.items():
        lines = []
        for name in present(sets, labels):
            cells = our_cells(sets, name, metric, profile)
            if not all(cell.empty for cell in cells):
                lines.append(Row(labels.name(name), cells))
        rows += [Row(label, group=True), *lines] if lines else []
    columns = ("", "This run, raw", "This run, filtered")
    return Table("The same questions asked more strictly", columns, rows)


def over_others(sets: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Rows of the extractors beside Inception, by metric: those that have a Fréchet distance of their own."""
    names = dict.fromkeys(
        metric
        for metrics in sets.values()
        for metric, profiles in metrics.items()
        if metric not in METRICS and metric not in BESIDE and f"{metric}_kid" in metrics
    )
    return {
        f"{name}{suffix}": (f"{label}, over {name}", profile)
        for name in names
        for suffix, (label, profile) in OVER_OTHERS.items()
    }


def of_photographs(sets: Mapping[str, Any], labels: Labels) -> Table:
    names = present(sets, labels)
    rows = []
    for metric, label in OF_PHOTOGRAPHS.items():
        cells = []
        for name in names:
            variants = (sets[name].get(metric) or {}).get("robust") or {}
            cells.append(figure_cell(metric, next(iter(variants.values()), None)))
        if not all(cell.empty for cell in cells):
            rows.append(Row(label, cells))
    columns = ("", *(labels.name(name) for name in names))
    return Table("What real photographs score, measured more strictly", columns, rows)


def entered(sets: Mapping[str, Any], labels: Labels) -> Table:
    """How many images stand behind the face figures, and how many could not enter."""
    keys = {
        "n_images": "Images",
        "n_no_face": "No face",
        "n_several": "Several faces",
        "n_unreadable": "Damaged",
    }
    rows = []
    for name in present(sets, labels):
        for variant in ("raw", "filtered"):
            figure = figure_of(sets, name, "fir_images", "paper", variant)
            if figure is not None:
                cells = [Cell(f"{figure[key]:,}" if figure.get(key) is not None else "") for key in keys]
                reference = figure.get("n_reference")
                cells.append(Cell("not told" if reference is None else f"{reference:,}"))
                rows.append(Row(f"{labels.name(name)}, {variant}", cells))
    columns = ("Set", *keys.values(), "Training faces")
    return Table("Images behind the face figures: those without a face did not enter", columns, rows)


def caveats(labels: Labels, *, phantom: bool) -> Text:
    lines = ([PHANTOM_CAVEAT] if phantom else []) + [*CAVEATS, *labels.reported_notes]
    return Text(lines, listed=True, heading="Read with care")


def notes_of(sets: Mapping[str, Any]) -> Text:
    """The notes of the figures that were measured, once each, after the metrics that share them."""
    metrics_of: dict[str, dict[str, None]] = {}
    for metrics in sets.values():
        for metric, profiles in metrics.items():
            for variants in profiles.values():
                for figure in variants.values():
                    if isinstance(figure, Mapping) and figure.get("note") and figure.get("value") is not None:
                        label = label_of(metric)
                        metrics_of.setdefault(sentence(str(figure["note"])), {})[label] = None
    lines = [f"{', '.join(labels)}: {note}" for note, labels in metrics_of.items()]
    return Text(lines, listed=True, heading="Notes on the figures")


def extractors(sets: Mapping[str, Any]) -> Text:
    """Which model made which figure, its licence and the hash of its weights, once each."""
    used: dict[str, list[str]] = {}
    for metrics in sets.values():
        for metric, profiles in metrics.items():
            for variants in profiles.values():
                for figure in variants.values():
                    if isinstance(figure, Mapping) and figure.get("extractor"):
                        names = used.setdefault(extractor_line(figure["extractor"]), [])
                        family = family_of(metric)
                        names += [family] if family not in names else []
    lines = [f"{', '.join(names)}: {line}" for line, names in used.items()]
    return Text(lines, listed=True, heading="Extractors")


def extractor_line(extractor: Mapping[str, Any]) -> str:
    parts: Sequence[str] = [
        str(extractor.get("name", "unknown")),
        "phantom or seeded-random, says nothing about photographs" if extractor.get("phantom") else "",
        f"licence {extractor['licence']}" if extractor.get("licence") else "",
        f"weights sha256 {str(extractor['sha256'])[:16]}…" if extractor.get("sha256") else "",
    ]
    return "; ".join(part for part in parts if part)
