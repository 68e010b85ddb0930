"""The metric nodes' work: the core's figures, as values, words and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import write_json
from . import places
from .common import core_progress
from .dataset import DatasetHandle
from .face_work import ReferenceHandle, analyzer_of, pack_of_datasets, private_cache
from .plots import face_map, histogram
from .sets import ImageSetHandle

ALL = "all"
PHANTOM_NOTE = "made with phantoms: says nothing about photographs"


@dataclass(frozen=True)
class Measured:
    """The outputs of a node in its order, the words and plots [H, W, 3] uint8 that it shows."""

    outputs: tuple[Any, ...]
    text: str
    plots: list[Any] = field(default_factory=list)


def fir(image_set: ImageSetHandle, known: ReferenceHandle, threshold: float, which: str) -> Measured:
    """FIR by pairs and by images, with the histogram of all similarities."""
    from ..diffusioncleft_core.metrics.identity import embedder_info, identity_figures
    from ..diffusioncleft_core.metrics.measure import faces_of

    side = _side(image_set)
    with core_progress():
        faces = faces_of(side.images, known.analyzer, private_cache(image_set.name), "faces, generated")
    group = _group(side, image_set, which)
    figures, histograms = identity_figures(
        group, faces, known.reference, embedder_info(known.analyzer), threshold
    )
    pairs, images = figures["fir_pairs"]["paper"][which], figures["fir_images"]["paper"][which]
    _need(pairs, "FIR")
    shown = histograms.get(which)
    plot = _similarity_plot(shown, group.name)
    text = "\n".join(
        [
            f"FIR of {image_set.name} ({which}), threshold {threshold:g}",
            f"pairs: {_percent(pairs)}",
            f"images: {_percent(images)}",
            f"{pairs['n_images']} images with a face, {pairs['n_no_face']} without, "
            f"{pairs['n_several']} with several",
            *_notes(pairs),
        ]
    )
    values = (pairs["value"], images["value"], images["ci95"][1])
    return Measured((*values, _image(plot), text, {"sets": {group.name: figures}}), text, [plot])


def fid(image_set: ImageSetHandle, dataset: DatasetHandle, which: str) -> Measured:
    """The Fréchet distance to the photographs of role train."""
    from ..diffusioncleft_core.metrics.measure import frechet_figures, refuse_photographs, with_features

    extractors = _extractors(phantom=image_set.phantom and dataset.phantom, lpips=False)
    refuse_photographs([dataset.folder], extractors)
    side = _side(image_set)
    with core_progress():
        side, real = with_features(side, [dataset.folder], extractors, private_cache(image_set.name), 1, 0)
    group = _group(side, image_set, which)
    figures = frechet_figures(group, side, real, extractors.inception.info.as_json(), 0)
    figure = figures["fid"]["paper"][which]
    _need(figure, "FID")
    lines = [
        f"FID of {image_set.name} ({which}): {figure['value']:.3f}",
        f"{figure['n']} images against {figure['n_reference']} photographs",
        *_floor(figures),
        *_notes(figure),
    ]
    text = "\n".join(lines)
    return Measured((float(figure["value"]), text, {"sets": {group.name: figures}}), text)


def lpips(image_set: ImageSetHandle, which: str, pairs: int, seed: int) -> Measured:
    """Mean perceptual distance over random pairs, and over all."""
    from ..diffusioncleft_core.metrics.measure import perceptual_figures, with_features

    extractors = _extractors(phantom=image_set.phantom, fid=False)
    side = _side(image_set)
    with core_progress():
        side, real = with_features(side, [], extractors, private_cache(image_set.name), pairs, seed)
    group = _group(side, image_set, which)
    figures = perceptual_figures(group, side, real, extractors.perceptual.info.as_json(), pairs)
    sampled, every = figures["lpips"]["paper"][which], figures["lpips_all_pairs"]["robust"][which]
    _need(sampled, "LPIPS")
    text = "\n".join(
        [
            f"LPIPS of {image_set.name} ({which}): {sampled['value']:.4f} over {sampled['n']} random pairs, "
            f"{every['value']:.4f} over all {every['n']}",
            *_notes(sampled),
        ]
    )
    outputs = (float(sampled["value"]), float(every["value"]), text, {"sets": {group.name: figures}})
    return Measured(outputs, text)


def report(given: Sequence[tuple[Any, Any]], folder: str, faces: str) -> Measured:
    """Measure one or two sets beside their photographs; write report.json and report.html."""
    from ..diffusioncleft_core.metrics.measure import measure_sets
    from ..diffusioncleft_core.report.html import write_html

    pairs = _paired(given)
    sets: list[ImageSetHandle] = [image_set for image_set, _ in pairs]
    datasets: list[DatasetHandle] = [dataset for _, dataset in pairs]
    phantom = all(item.phantom for item in (*sets, *datasets))
    out = places.output_folder(folder)
    names = [item.condition or ALL for item in sets]
    if len(set(names)) < len(names):
        raise UserError("both sets are of the same condition; give one set a condition")
    with core_progress():
        measured = measure_sets(
            {name: item.folder for name, item in zip(names, sets, strict=True)},
            [item.folder for item in datasets],
            analyzer_of(pack_of_datasets(faces, datasets)),
            _extractors(phantom=phantom),
            cache_dir=private_cache("+".join(item.name for item in sets)),
        )
    document = {**_frame(sets, phantom), **measured}
    write_json(out / "report.json", document)
    write_html(document, None, out / "report.html")
    shown = document["figures"]
    plots = [_similarity_plot(variants.get("raw"), name) for name, variants in shown["similarity"].items()]
    plane = face_map(shown["pca"], "Faces in two dimensions") if shown["pca"] else _similarity_plot(None, "")
    name = f"{places.shown_name(out)}/report.html"
    text = "\n".join([f"saved {name} and report.json", *_summary(document)])
    from .pictures import batch_of

    outputs = (name, batch_of(plots), _image(plane), text, document)
    return Measured(outputs, text, [*plots, plane])


def _side(image_set: ImageSetHandle) -> Any:
    from ..diffusioncleft_core.metrics.measure import generated_side

    return generated_side({image_set.condition or ALL: image_set.folder}, lambda message: None)


def _group(side: Any, image_set: ImageSetHandle, which: str) -> Any:
    group = side.groups[0]
    if which not in group.variants():
        raise UserError(
            f"{image_set.name} did not go through the filters; choose raw, or save it with their record"
        )
    return group


def _extractors(*, phantom: bool, fid: bool = True, lpips: bool = True) -> Any:
    import torch

    from ..diffusioncleft_core.device import pick_device
    from ..diffusioncleft_core.metrics.features import load_extractors

    device = pick_device(None) if torch.cuda.is_available() else torch.device("cpu")
    with torch.inference_mode(False):
        return load_extractors(phantom=phantom, device=device, fid=fid, lpips=lpips)


def _paired(given: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    pairs = [(one, other) for one, other in given if one is not None or other is not None]
    for image_set, dataset in pairs:
        if image_set is None or dataset is None:
            raise UserError("a set without its dataset, or the other way round; connect both or neither")
    return pairs


def _frame(sets: Sequence[ImageSetHandle], phantom: bool) -> dict[str, Any]:
    """What a report says beside its figures; `filters` where the sets went through them."""
    from ..diffusioncleft_core.filters.summary import filter_summary
    from ..diffusioncleft_core.versions import hardware, versions
    from .set_work import open_set

    rows = {item.condition or ALL: open_set(item.name).rows for item in sets}
    checked = {name: found for name, found in rows.items() if any(row.get("verdicts") for row in found)}
    return {
        "schema": 1,
        "notes": [PHANTOM_NOTE] if phantom else [],
        "filters": {name: filter_summary(found) for name, found in checked.items()},
        "provenance": {"versions": versions(), "hardware": hardware()},
    }


def _need(figure: dict[str, Any], name: str) -> None:
    if figure["value"] is None:
        raise UserError(f"{name} could not be measured: {figure.get('note') or 'no face was found'}")


def _similarity_plot(figure: dict[str, Any] | None, name: str) -> Any:
    title = f"Similarity of generated and training faces, {name}"
    if figure is None:
        return histogram([], None, title, "")
    return histogram(figure["edges"], figure["counts"], title, "cosine similarity", figure["threshold"])


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


def _percent(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return (
        f"{100 * figure['value']:.4g} % (95 %: {100 * low:.4g} to {100 * high:.4g}), "
        f"{figure['k']} of {figure['n']}"
    )


def _floor(figures: dict[str, Any]) -> list[str]:
    floor = figures.get("fid_floor")
    if not floor:
        return []
    return [f"photographs against photographs: {floor['robust']['real']['value']:.3f}"]


def _notes(figure: dict[str, Any]) -> list[str]:
    phantom = [PHANTOM_NOTE] if figure["extractor"]["phantom"] else []
    return [*([figure["note"]] if figure.get("note") else []), *phantom]


def _image(plot: Any) -> Any:
    from .pictures import tensor_of

    return tensor_of(plot)
