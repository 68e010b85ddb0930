"""What a run needs: looked for before the first stage, so that all that is missing is named at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

from ..conditions.vocabulary import Condition
from ..dataset.settings import Photographs
from ..environment import check_packages, trainer_device
from ..errors import UserError
from ..report.folders import RunFolders
from .need import Alarming, Need, looked
from .needed_models import base_model, classifiers, networks
from .needed_room import disk, memory
from .run import Run
from .settings import NO_PHANTOMS, NO_PHOTOGRAPHS, RunSettings

PACKAGES = ("accelerate", "diffusers", "insightface", "onnxruntime", "peft", "transformers")
"""What a stage imports when its turn comes."""
STUDY_PACKAGES = ("scipy", "statsmodels")


def check_settings(settings: RunSettings) -> None:
    """Stop before any work when something is missing or wrong: one sentence that names all of it."""
    missing = [need for need in needs_of(settings) if need.problem is not None and need.required]
    told = [
        f"{need.problem}; it is fetched by: {need.fetch}"
        if need.fetch and need.fetch not in str(need.problem)
        else str(need.problem)
        for need in missing
    ]
    if len(told) == 1:
        raise UserError(told[0])
    if told:
        numbered = "; ".join(f"({number}) {text}" for number, text in enumerate(told, start=1))
        raise UserError(f"{len(told)} things are missing or wrong: {numbered}")


def needs_of(settings: RunSettings) -> list[Need]:
    """Everything the run needs, in the order in which a person gets it. Nothing is written."""
    return [
        *options(settings),
        *photographs(settings),
        *base_model(settings),
        *networks(settings),
        *classifiers(settings),
        disk(settings),
        *memory(settings),
    ]


def options(settings: RunSettings) -> Iterator[Need]:
    """The options that no parser can judge alone."""

    def recipe() -> str:
        from ..recipe.checks import check_places, check_recipe
        from .training import training_recipe

        trainer_device(settings.sampling.device, settings.sampling.dtype)
        run = Run(settings, dry=True)
        for condition in chosen(settings):
            run.facts[condition.name]["dataset"] = {"training_images": 1}
            trained = training_recipe(run, condition)
            if "base" in settings.absent:  # said where the base model is looked for
                trained = trained.replaced({"model.base": settings.out})
            check_places(check_recipe(trained))
        return settings.preset

    def conditions() -> str:
        for name in settings.photographs:
            settings.vocabulary.condition(name)
        if not settings.conditions:
            raise UserError(NO_PHANTOMS if settings.phantom else NO_PHOTOGRAPHS)
        for condition in chosen(settings):
            condition.mode(settings.mode)
        if settings.phantom:
            check_findings(settings)
        return f"{', '.join(settings.conditions)}; mode {settings.mode}"

    def folder() -> str:
        if settings.out.exists() and not settings.out.is_dir():
            raise UserError(f"{settings.out} is a file: give a folder for the run")
        return str(settings.out)

    def study() -> str:
        if not settings.phantom:
            raise UserError(
                "--study lets a program rate phantoms: leave it out, and make the study for people after the "
                f"run: diffusioncleft study create {settings.out} --out STUDY"
            )
        return check_packages(STUDY_PACKAGES)

    yield looked("conditions", conditions, asked=True)
    yield looked("recipe", recipe, asked=True)
    yield looked("packages", lambda: check_packages(PACKAGES))
    if settings.study:
        yield looked("rater study", study)
    yield looked("the run's folder", folder, asked=True)


def chosen(settings: RunSettings) -> list[Condition]:
    """The run's conditions, those that the vocabulary does not have left out."""
    return [settings.vocabulary.conditions[name] for name in settings.conditions]


def check_findings(settings: RunSettings) -> None:
    """UserError where the vocabulary asks the phantom for what it can't draw."""
    from ..phantom.face import FINDINGS

    for condition in settings.vocabulary.conditions.values():
        if condition.phantom is not None and condition.phantom.finding not in FINDINGS:
            raise UserError(
                f"the phantom of {condition.name} is to draw {condition.phantom.finding!r}; it draws "
                f"{', '.join(FINDINGS)}: correct the vocabulary"
            )


def photographs(settings: RunSettings) -> Iterator[Need]:
    """Each condition's photographs and table, and the healthy faces of the face map."""
    for condition in chosen(settings):
        if condition.name in settings.photographs:
            given = settings.photographs[condition.name]
            yield looked(f"{condition.name} photographs", partial(admitted, condition, given, settings))

    def control() -> str:
        from ..metrics.sets import measured_set

        assert settings.control is not None
        images, _ = measured_set(settings.control, "control")
        if not images:
            raise UserError(f"there is no image in the control faces' folder {settings.control}")
        return f"{len(images)} images"

    if settings.control is not None:
        yield looked("control faces", control)


def admitted(condition: Condition, given: Photographs, settings: RunSettings) -> str:
    """How many photographs may enter by their rows, `Alarming` where consent was withdrawn; UserError when
    none may.
    """
    from ..conditions.prompts import CaptionForm
    from ..dataset.folder import is_dataset, refuse_overlap
    from ..dataset.folder_consent import STATEMENT_FILE, TABLE, consent_is_gone
    from ..dataset.metadata import unclear_consent
    from ..dataset.unopened import look_through
    from .withdrawal import foreseen

    if not given.folder.is_dir():
        raise UserError(f"the {condition.name} photographs {given.folder} are no folder: check the path")
    dataset = RunFolders(settings.out).dataset(condition.name)
    unknown = given.metadata not in (None, given.folder / TABLE) and not given.metadata.is_file()
    if unknown and not (is_dataset(dataset) and consent_is_gone(given, dataset)):
        raise UserError(
            f"the {condition.name} table {given.metadata} does not exist: give its path with "
            f"--metadata {condition.name}=CSV, docs/dataset.md lists its columns"
        )
    refuse_overlap(given.folder, dataset)
    found = look_through(
        given, condition, dataset=dataset, form=CaptionForm(settings.bracketed, settings.whole_captions)
    )
    reasons = counted([item.reason for item in found.set_aside])
    unclear = f"; {said}" if (said := unclear_consent(found.table.rows)) else ""
    told = "".join(f"; {line}" for line in foreseen(dataset, given, condition))
    if found.lost:
        return Alarming(f"none may enter any more: what learned from them is marked as withdrawn{told}")
    if not found.candidates and is_dataset(dataset):
        return Alarming(
            f"none may enter any more ({reasons}): what an earlier build derived from them is erased{told}"
        )
    if not found.candidates:
        raise UserError(f"no {condition.name} photograph of {given.folder} may enter ({reasons}){unclear}")
    left = f"; set aside unopened: {reasons}" if reasons else ""
    may, of = len(found.candidates), len(found.listing.photographs)
    by = given.metadata.name if given.metadata else STATEMENT_FILE
    entering = f"{may} of {of} may enter by {by}{left}{unclear}{told}"
    return Alarming(entering) if told else entering


def counted(reasons: Sequence[str]) -> str:
    """`3 no_consent, 1 no_row`."""
    return ", ".join(f"{n} {reason}" for reason, n in Counter(reasons).most_common())
