"""The metric nodes' work: the core's figures, as values, words and pictures."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import write_json
from . import places
from .common import ImageSetHandle, core_progress
from .face_work import ReferenceHandle, analyzer_of, pack_of_datasets, private_cache
from .opened import DatasetHandle, withdrawn_notes
from .plots import map_plot, similarity_plot
from .words import without_private_paths

ALL = "all"
PHANTOM_NOTE = "made with phantoms: says nothing about photographs"


@dataclass(frozen=True)
class Measured:
    """The outputs of a node in its order, the words and plots [H, W, 3] uint8 that it shows.

    files: what it wrote, for a client to fetch.
    """

    outputs: tuple[Any, ...]
    text: str
    plots: list[Any] = field(default_factory=list)
    files: list[dict[str, str]] = field(default_factory=list)


def fir(image_set: ImageSetHandle, known: ReferenceHandle, threshold: float, which: str) -> Measured:
    """FIR by pairs and by images, with the histogram of all similarities."""
    measured = _measure(
        [image_set], known.datasets, known.analyzer, _networks(phantom=False), threshold=threshold
    )
    name, metrics = _metrics_of(measured, image_set)
    pairs, images = (
        _figure(metrics, metric, "paper", which, image_set) for metric in ("fir_pairs", "fir_images")
    )
    copies = metrics.get("near_copies", {}).get("robust", {}).get(which)
    found = measured["figures"]["similarity"].get(name, {})
    plot = similarity_plot(name, {which: found[which]} if found.get(which) else {}, measured)
    lines = [
        *measured["notes"],
        f"FIR of {image_set.name} ({which}), threshold {threshold:g}",
        f"pairs: {_percent(pairs)}",
        f"images: {_percent(images)}",
        *([f"near copies: {_percent(copies)}"] if copies and copies["value"] is not None else []),
        f"{pairs['n_images']} images with a face, {pairs['n_no_face']} without, "
        f"{pairs['n_several']} with several",
        *_notes(pairs),
    ]
    text = "\n".join(lines)
    values = (float(pairs["value"]), float(images["value"]), float(images["ci95"][1]))
    return Measured((*values, _image(plot), text, measured, figures_csv(measured)), text, [plot])


def fid(image_set: ImageSetHandle, dataset: DatasetHandle, which: str) -> Measured:
    """The Fréchet distance to the photographs of role train."""
    from ..diffusioncleft_core.report.blocks import count

    networks = _networks("fid", phantom=image_set.phantom and dataset.phantom)
    measured = _measure([image_set], [dataset], None, networks)
    _, metrics = _metrics_of(measured, image_set)
    figure = _figure(metrics, "fid", "paper", which, image_set)
    floor = metrics.get("fid_floor", {}).get("robust", {}).get("real")
    lines = [
        *measured["notes"],
        f"FID of {image_set.name} ({which}): {figure['value']:.3f}",
        f"{figure['n']} images against {count(figure['n_reference'])} photographs",
        *([f"photographs against photographs: {floor['value']:.3f}"] if floor else []),
        *_notes(figure),
    ]
    text = "\n".join(lines)
    return Measured((float(figure["value"]), text, measured, figures_csv(measured)), text)


def lpips(image_set: ImageSetHandle, which: str, pairs: int, seed: int) -> Measured:
    """Mean perceptual distance over random pairs, and over all."""
    networks = _networks("lpips", phantom=image_set.phantom)
    measured = _measure([image_set], [], None, networks, pairs=pairs, seed=seed)
    _, metrics = _metrics_of(measured, image_set)
    sampled = _figure(metrics, "lpips", "paper", which, image_set)
    every = _figure(metrics, "lpips_all_pairs", "robust", which, image_set)
    lines = [
        *measured["notes"],
        f"LPIPS of {image_set.name} ({which})",
        f"{sampled['value']:.4f} over {sampled['n']} random pairs",
        f"{every['value']:.4f} over all {every['n']} pairs",
        *_notes(sampled),
    ]
    text = "\n".join(lines)
    values = (float(sampled["value"]), float(every["value"]))
    return Measured((*values, text, measured, figures_csv(measured)), text)


def report(given: Sequence[tuple[Any, Any]], folder: str, faces: str) -> Measured:
    """Measure one or two sets beside their photographs; write report.json and report.html."""
    from ..diffusioncleft_core.report.blocks import labels_of
    from ..diffusioncleft_core.report.html import write_shared
    from ..diffusioncleft_core.report.pictures import ReportPictures, rejected_panels, sample_panel
    from .pictures import batch_of

    pairs = _paired(given)
    sets: list[ImageSetHandle] = [image_set for image_set, _ in pairs]
    datasets: list[DatasetHandle] = [dataset for _, dataset in pairs]
    phantom = all(item.phantom for item in sets) and all(item.phantom for item in datasets)
    out = places.report_folder(folder, *(item.folder for item in sets))
    analyzer = analyzer_of(pack_of_datasets(faces, datasets))
    measured = _measure(sets, datasets, analyzer, _networks("fid", "lpips", phantom=phantom))
    frame = _frame(sets, phantom)
    document = {**frame, **measured, "notes": [*measured["notes"], *frame["notes"]]}
    write_json(out / "report.json", document)
    known = places.withdrawals()
    panels = {item.condition or ALL: sample_panel(item.folder, phantom=phantom, known=known) for item in sets}
    rejected = [
        panel
        for item in sets
        for panel in rejected_panels(
            item.folder, labels_of(document).name(item.condition or ALL), phantom=phantom, known=known
        )
    ]
    pictures = ReportPictures(samples=panels, rejected=rejected)
    written = write_shared(document, pictures, out / "report.html")
    similarities = document["figures"]["similarity"]
    plots = [similarity_plot(name, variants, document) for name, variants in similarities.items()]
    plane = map_plot(document)
    name = f"{places.shown_name(out)}/report.html"
    text = "\n".join([f"saved {name} and report.json", *_summary(document)])
    outputs = (name, batch_of(plots), _image(plane), text, document, figures_csv(document))
    files = [places.shown_file(file) for file in (*written, out / "report.json")]
    return Measured(outputs, text, [*plots, plane], files)


def _measure(
    sets: Sequence[ImageSetHandle],
    datasets: Sequence[DatasetHandle],
    analyzer: Any,
    networks: Any,
    **settings: Any,
) -> dict[str, Any]:
    """The core's figures, with its progress on the node, and `notes` on sets that are withdrawn.

    What is computed on the way is kept in private.
    """
    import torch

    from ..diffusioncleft_core.metrics.measure import MeasureSettings, measure_sets

    generated = {item.condition or ALL: item.folder for item in sets}
    if len(generated) < len(sets):
        raise UserError("both sets are of the same condition; give one set a condition")
    # Nodes run in inference mode, whose tensors would stay unusable for anything else.
    with core_progress(), torch.inference_mode(False), torch.no_grad():
        measured = measure_sets(
            generated,
            [item.folder for item in datasets],
            analyzer,
            networks,
            MeasureSettings(cache_dir=private_cache("+".join(item.name for item in sets)), **settings),
            warn=lambda message: logging.warning("DiffusionCleft: %s", without_private_paths(message)),
        )
    notes = withdrawn_notes(item.folder for item in sets)
    for note in notes:
        logging.warning("DiffusionCleft: %s", note)
    return {**measured, "notes": notes}


def _metrics_of(measured: dict[str, Any], image_set: ImageSetHandle) -> tuple[str, dict[str, Any]]:
    name = image_set.condition or ALL
    return name, measured["sets"][name]


def _figure(
    metrics: dict[str, Any], metric: str, profile: str, which: str, image_set: ImageSetHandle
) -> dict[str, Any]:
    """One figure; UserError when it could not be measured, with the core's own sentence on why."""
    found = metrics.get(metric, {}).get(profile, {})
    if which not in found:
        raise UserError(
            f"{image_set.name} did not go through the filters; choose raw, or save it with their record"
        )
    figure: dict[str, Any] = found[which]
    if figure["value"] is None:
        raise UserError(f"{metric} could not be measured. {figure.get('note') or 'No face was found.'}")
    return figure


def _networks(*metrics: str, phantom: bool) -> Any:
    """The networks of these metrics: real weights from this machine, on phantoms seeded ones."""
    import torch

    from ..diffusioncleft_core.environment import pick_device
    from ..diffusioncleft_core.metrics.extractors import load_extractors

    with torch.inference_mode(False):
        return load_extractors(metrics, phantom=phantom, device=pick_device(None))


def _paired(given: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    pairs = [(one, other) for one, other in given if one is not None or other is not None]
    for image_set, dataset in pairs:
        check_paired(image_set, dataset)
    return pairs


def check_paired(image_set: Any, dataset: Any) -> None:
    """Raise UserError when one is given and not the other."""
    if (image_set is None) != (dataset is None):
        raise UserError("a set without its dataset, or the other way round; connect both or neither")


def _frame(sets: Sequence[ImageSetHandle], phantom: bool) -> dict[str, Any]:
    """What a report says beside its figures; `filters` where the sets went through them."""
    from ..diffusioncleft_core.dataset.drawn import set_provenance
    from ..diffusioncleft_core.environment import hardware, versions
    from ..diffusioncleft_core.filters.stage import filter_summary
    from .opened import open_set

    rows = {item.condition or ALL: open_set(item.name).rows for item in sets}
    loras = set_provenance({item.condition or ALL: item.folder for item in sets})
    checked = {name: found for name, found in rows.items() if any(row.verdicts for row in found)}
    return {
        "schema": 1,
        "notes": [PHANTOM_NOTE] if phantom else [],
        "filters": {name: filter_summary(found) for name, found in checked.items()},
        "provenance": {"versions": versions(), "hardware": hardware(), **loras},
    }


def _summary(document: dict[str, Any]) -> list[str]:
    """The figures of the paper, one a line."""
    lines = []
    for name, metrics in document["sets"].items():
        for metric in ("fir_pairs", "fir_images", "fid", "lpips"):
            for variant, figure in metrics.get(metric, {}).get("paper", {}).items():
                value = figure.get("value")
                if value is None:
                    continue
                words = _percent(figure) if metric.startswith("fir") else f"{value:.3f}"
                lines.append(f"{name} {metric} ({variant}): {words}")
    return [*lines, *document["notes"]]


def figures_csv(document: dict[str, Any]) -> str:
    """Every figure of a document as a line that a spreadsheet takes."""
    from ..diffusioncleft_core.spreadsheet import csv_text

    rows = []
    for name, metrics in document["sets"].items():
        for metric, profiles in metrics.items():
            for profile, variants in profiles.items():
                for variant, figure in variants.items():
                    if isinstance(figure, dict) and isinstance(figure.get("value"), (int, float)):
                        low, high = figure.get("ci95") or (None, None)
                        value = figure["value"]
                        rows.append((name, metric, profile, variant, value, low, high, figure.get("n")))
    names = ("set", "metric", "profile", "variant", "value", "ci95_low", "ci95_high", "n")
    return csv_text(names, rows)


def _percent(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return (
        f"{100 * figure['value']:.4g} % (95 %: {100 * low:.4g} to {100 * high:.4g}), "
        f"{figure['k']} of {figure['n']}"
    )


def _notes(figure: dict[str, Any]) -> list[str]:
    phantom = [PHANTOM_NOTE] if figure["extractor"]["phantom"] else []
    return [*([figure["note"]] if figure.get("note") else []), *phantom]


def _image(plot: Any) -> Any:
    from .pictures import tensor_of

    return tensor_of(plot)
