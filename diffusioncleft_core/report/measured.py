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
    percent,
    plain,
    sentence,
)
from .several import breakdown_tables, ranking_tables

METRICS = {
    "fir_pairs": ("FIR, share of generated–training pairs (lower is better)", "paper"),
    "fir_images": ("FIR, share of generated images (lower is better)", "paper"),
    "fid": ("FID to the training images (lower is better, but copies score best)", "paper"),
    "lpips": ("LPIPS, mean of random pairs (hold it against the training images’ own, below)", "paper"),
}
BESIDE = {
    "fir_images_any": ("FIR of images against every condition’s training photographs", "paper"),
    "leak_images": ("Images with a training face, at the audit’s threshold (see Leak audit)", "robust"),
    "fir_pairs": ("FIR of pairs at the audit’s threshold, interval over images and people", "robust"),
    "near_copies": ("Near copies of training photographs, share of generated images", "robust"),
    "lpips_all_pairs": ("LPIPS over all pairs, exact", "robust"),
    "kid": ("KID to the training images (0: alike)", "robust"),
    "kid_holdout": ("KID to hold-out photographs (0: alike; copying does not help)", "robust"),
    "fid_holdout": ("FID to hold-out photographs (copying does not help)", "robust"),
    "fid_matched": ("FID at the size of the training images’ own (see below)", "robust"),
    "precision": ("Precision: generated images that lie among the training images", "robust"),
    "recall": ("Recall: training images that lie among the generated ones", "robust"),
    "density": ("Density: neighbourhoods a generated image lies in, over those expected", "robust"),
    "coverage": ("Coverage: training images with a generated one in their neighbourhood", "robust"),
    "vendi": ("Vendi score: how many wholly different images the set amounts to", "robust"),
}
OVER_OTHERS = {
    "": ("Fréchet distance to the training images", "paper"),
    "_holdout": ("Fréchet distance to hold-out photographs", "robust"),
    "_kid": BESIDE["kid"],
    "_kid_holdout": BESIDE["kid_holdout"],
    "_precision": BESIDE["precision"],
    "_recall": BESIDE["recall"],
    "_vendi": BESIDE["vendi"],
}
"""Rows for each further extractor, by what follows its name."""
SHARES = (
    *("fir_", "near_copies", "leak_", "residual_", "authenticity"),
    *("precision", "recall", "coverage"),
)
"""How the names of metrics begin that are shares."""
ACRONYMS = ("fir", "fid", "kid", "lpips")
LEAKS = "Leak audit"
FAMILIES = {
    "near_copies": "Near copies",
    **dict.fromkeys(("leak_", "residual_", "distance_ratio", "authenticity"), LEAKS),
}
"""What metrics belong to, by how their names begin; others by their first word."""
OF_PHOTOGRAPHS = {
    "kid_floor": "KID of hold-out photographs to the training images",
    "vendi_reference": "Vendi score of the training images",
    "lpips_reference": "LPIPS of the training images themselves, all pairs",
    "fid_floor": "FID of one half of the training images to the other",
    "fir_control_pairs": "FIR of hold-out photographs, pairs: what other people score",
    "fir_control_images": "FIR of hold-out photographs, images",
    "near_copies_control": "Near copies among hold-out photographs",
}
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


def shown_value(metric: str, value: float | None) -> str:
    if value is None:
        return "not measured"
    if metric.startswith(SHARES) or metric.endswith(("_precision", "_recall", "_coverage")):
        return percent(value)
    if "kid" in metric:
        return plain(value, 4)
    return plain(value, 3 if metric.startswith("lpips") or abs(value) < 10 else 2)


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


def family_of(metric: str) -> str:
    """`FIR` of `fir_pairs`; `Near copies` of `near_copies_control`."""
    name = metric.partition("_")[0]
    own = name.upper() if name in ACRONYMS else name.capitalize()
    return next((family for start, family in FAMILIES.items() if metric.startswith(start)), own)


def label_of(metric: str) -> str:
    """`FIR control pairs` of `fir_control_pairs`; `Leak audit (residual risk)` of `residual_risk`."""
    family = family_of(metric)
    if family == LEAKS:
        return f"{family} ({metric.replace('_', ' ')})"
    return family + metric[len(family) :].replace("_", " ")


def extractor_line(extractor: Mapping[str, Any]) -> str:
    parts: Sequence[str] = [
        str(extractor.get("name", "unknown")),
        "phantom or seeded-random, says nothing about photographs" if extractor.get("phantom") else "",
        f"licence {extractor['licence']}" if extractor.get("licence") else "",
        f"weights sha256 {str(extractor['sha256'])[:16]}…" if extractor.get("sha256") else "",
    ]
    return "; ".join(part for part in parts if part)
