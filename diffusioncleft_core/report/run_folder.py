"""A finished run's folder, or a bare report.json, as the report needs it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_json
from ..filters.stage import filter_summary
from ..imageset.manifest import Reread, image_set_rows
from ..imageset.places import MANIFEST
from ..study.folder import FIGURES, RESULTS
from .blocks import Labels, labels_of
from .folders import RunFolders
from .pictures import (
    Panel,
    ReportPictures,
    folder_panel,
    preview_panels,
    refuse_photographs,
    rejected_panels,
    sample_panel,
)
from .summary import SCHEMA
from .training import loss_curve

BASE_MODEL = "Base model without a LoRA"
ZERO_SHOT = "zero_shot"
HTML = "report.html"
PRIVATE_HTML = "report.private.html"


@dataclass(frozen=True)
class RunReport:
    """A report document and the run's folder it lies in; without a folder there are no pictures."""

    document: dict[str, Any]
    json: Path
    folders: RunFolders | None


def read_report(path: Path) -> RunReport:
    """Read a run's folder or a report.json. UserError when it is neither."""
    json = path / "report.json" if path.is_dir() else path
    if not json.is_file():
        raise UserError(f"{json} does not exist: give the folder of a finished run, or a report.json")
    document = read_json(json, "give the folder of a finished run, or the JSON that a command wrote")
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise UserError(f"{json} is no report of schema {SCHEMA}: make it again with this version")
    folders = RunFolders(json.parent)
    whole = path.is_dir() or any(folders.generated(name).is_dir() for name in conditions_of(document))
    return RunReport(document, json, folders if whole else None)


def conditions_of(document: Mapping[str, Any]) -> list[str]:
    """The run's conditions in its order."""
    return list(dict.fromkeys([*(document.get("training") or {}), *(document.get("generation") or {})]))


def told_trainings(document: Mapping[str, Any]) -> list[str]:
    """The conditions whose training may be shown step by step.

    Of fewer than five photographs the number of steps would tell how many they are.
    """
    training = document.get("training") or {}
    return [
        name
        for name in conditions_of(document)
        if (training.get(name) or {}).get("training_images", 0) is not None
    ]


def collect_pictures(
    folders: RunFolders | None,
    conditions: Sequence[str],
    *,
    phantom: bool,
    previewed: Collection[str] | None = None,
    zero_shot: Path | None = None,
    other_models: Mapping[str, Path] | None = None,
    labels: Labels | None = None,
) -> ReportPictures:
    """The pictures that a run's report may show.

    Args:
        folders: the run's.
        conditions: names, in the report's order.
        phantom: whether all pictures are phantoms.
        zero_shot: images of the base model without a LoRA (default: the run's own `zero_shot` folder).
        other_models: folders of images by the model's name.
        labels: titles of the conditions.
        previewed: the conditions whose previews are among them (default: all).

    Raises:
        UserError: a folder holds photographs.
    """
    labels = labels or labels_of({})
    samples: dict[str, Panel] = {}
    previews: list[Panel] = []
    rejected: list[Panel] = []
    if folders is not None:
        for name in conditions:
            if (folders.generated(name) / MANIFEST).is_file():
                generated = folders.generated(name)
                samples[name] = sample_panel(generated, phantom=phantom)
                rejected += rejected_panels(generated, labels.name(name), phantom=phantom)
            if previewed is not None and name not in previewed:
                continue
            found = folders.training(name) / "previews"
            previews += preview_panels(found, labels.name(name), phantom=phantom)
        if zero_shot is None and (folders.root / ZERO_SHOT).is_dir():
            zero_shot = folders.root / ZERO_SHOT
    panels = [folder_panel(zero_shot, BASE_MODEL)] if zero_shot is not None else []
    panels += [folder_panel(folder, name) for name, folder in (other_models or {}).items()]
    pictures = ReportPictures(samples, panels, previews, rejected)
    if folders is not None:
        refuse_photographs(pictures, folders.private)
    return pictures


def loss_curves(folders: RunFolders, conditions: Sequence[str]) -> dict[str, Any]:
    """`figures.loss` of a run: the loss history of each condition that has one."""
    files = {name: folders.losses(name) for name in conditions}
    return {name: loss_curve(file) for name, file in files.items() if file.is_file()}


def with_loss_curves(report: RunReport) -> dict[str, Any]:
    """The document, with the loss histories of the run's folder where it has none of its own."""
    figures = dict(report.document.get("figures") or {})
    if report.folders is not None and not figures.get("loss"):
        curves = loss_curves(report.folders, told_trainings(report.document))
        if curves:
            figures["loss"] = curves
    return {**report.document, "figures": figures}


def with_decisions(report: RunReport) -> RunReport:
    """The report with its counts of the filters as the run's sets have them now: a person may have decided
    since."""
    counted = dict(report.document.get("filters") or {})
    for name, part in counted.items():
        folder = report.folders.generated(name) if report.folders is not None else None
        if folder is not None and (folder / MANIFEST).is_file():
            rows = Reread(partial(image_set_rows, folder, may_be_empty=True))
            counted[name] = {**part, **filter_summary(rows)}
    return replace(report, document={**report.document, **({"filters": counted} if counted else {})})


def read_study(folders: RunFolders, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """What the analysis of the run's rater study says; None where there is none, or it can't be read."""
    path = folders.study / RESULTS / FIGURES
    if not path.is_file():
        return None
    try:
        found = read_json(path)
    except UserError as error:
        warn(str(error))
        return None
    return found if isinstance(found, dict) else None


def with_study(report: RunReport, warn: Callable[[str], None]) -> RunReport:
    """The report with what raters say as it is known now: people may have rated since.

    A program's ratings stay out where the run did not ask for them.
    """
    found = read_study(report.folders, warn) if report.folders is not None else None
    if not found or (found.get("simulated") and "study" not in report.document):
        return report
    return replace(report, document={**report.document, "study": found})


def with_audits(document: Mapping[str, Any], audits: Sequence[Path]) -> dict[str, Any]:
    """The document with what `diffusioncleft audit` wrote into these files, by condition."""
    found = dict(document.get("audit") or {})
    for path in audits:
        other = read_report(path).document
        if not other.get("condition") or "membership" not in other:
            raise UserError(f"{path} is no audit of a LoRA; give a file that `diffusioncleft audit` wrote")
        if bool(other.get("phantom")) != bool(document.get("phantom")):
            raise UserError(f"{path} and the run are not both of phantoms: give the run's own audit")
        found[str(other["condition"])] = other
    return {**document, "audit": found} if found else dict(document)


def with_measures(document: Mapping[str, Any], measured: Path | None) -> dict[str, Any]:
    """The document with the `sets` and `figures` of another one, which `diffusioncleft measure` wrote."""
    if measured is None:
        return dict(document)
    other = read_report(measured).document
    if bool(other.get("phantom")) != bool(document.get("phantom")):
        raise UserError(f"{measured} and the run are not both of phantoms: give the run's own figures")
    figures = {**(document.get("figures") or {}), **(other.get("figures") or {})}
    behind = other.get("provenance") or {}
    told = {key: behind[key] for key in ("loras", "trainings") if behind.get(key)}
    provenance = {**(document.get("provenance") or {}), **told}
    return {**document, "sets": other.get("sets") or {}, "figures": figures, "provenance": provenance}
