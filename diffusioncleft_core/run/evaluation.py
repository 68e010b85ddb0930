"""The run's second half: filters, measurements, zero-shot panel, sheets, report.json and the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..environment import hardware, versions
from ..files import inside, write_json, write_text
from ..recipe.presets import PAPER
from ..report.blocks import vocabulary_block
from ..report.summary import SCHEMA
from ..small_counts import FEWEST, is_small, told
from .dataset import folder_digests
from .generation import draw_plan, filtered_content, prompts_of
from .run import WARNINGS, Run
from .settings import RunSettings, face_pack_input, metric_weights, sampling_inputs
from .stages import Results, Stage, always

if TYPE_CHECKING:
    from ..faces.analyzer import FaceAnalyzer

PHANTOM_NOTE = (
    "Every figure here was made with phantoms and the embedded phantom models: it says nothing about FLUX.1."
)


def build_report(run: Run, seconds: float) -> dict[str, Any]:
    """The report as JSON values, schema 1, before filters and measurements; seconds: of this call."""
    settings, facts = run.settings, run.facts
    oracle = {name: dict(stages["oracle"]) for name, stages in facts.items() if "oracle" in stages}
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "phantom": settings.phantom,
        "preset": settings.preset,
        "vocabulary": vocabulary_block(settings.vocabulary),
        "notes": notes(settings, run.warnings),
        "oracle": oracle,
        "training": {
            name: training_facts(stages, phantom=settings.phantom) for name, stages in facts.items()
        },
        "generation": {name: {"images": stages["generation"]["images"]} for name, stages in facts.items()},
        "provenance": {
            "versions": versions(),
            "hardware": hardware(),
            "seed": settings.seed,
            "base_model_sha256": settings.source.fingerprint(),
            "faces": {name: stages["dataset"]["faces"] for name, stages in facts.items()},
            "seconds": {row.name: round(row.before + row.seconds, 1) for row in run.stages.rows},
            "seconds_this_call": round(seconds, 1),
            "peak_memory_gib": peak_memory(),
        },
    }


def training_facts(stages: Mapping[str, Any], *, phantom: bool) -> dict[str, Any]:
    """What one LoRA was trained on and with.

    Counts of fewer than 5 photographs of people are null, and so is everything they would follow from.
    """
    dataset = stages["dataset"]
    counts = {key: dataset[key] for key in ("holdout_images", "subjects") if key in dataset}
    trained = {key: value for key, value in stages["training"].items() if key != WARNINGS}
    facts = {**trained, **counts, "set_aside": dict(dataset["set_aside"])}
    if phantom:
        return facts
    facts["set_aside"] = {reason: told(n) for reason, n in facts["set_aside"].items()}
    if is_small(facts["training_images"]):
        facts |= without_steps(facts)
    if is_small(facts.get("holdout_images") or 0):
        counts.pop("subjects", None)  # the size of the hold-out follows from the number of people by a rule
        facts.pop("subjects", None)
    return facts | {key: told(facts[key]) for key in ("training_images", *counts)}


def without_steps(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The last step and the recipe of a training without its steps: ten an image tell how few there are."""
    last = {key: value for key, value in (facts["last_step"] or {}).items() if key == "loss"}
    untold = {"optimizer": {"steps": 0}, "previews": {"every_n_steps": 0}}
    recipe = facts["recipe"]
    return {
        "last_step": last,
        "recipe": recipe | {group: {**recipe.get(group, {}), **values} for group, values in untold.items()},
    }


def notes(settings: RunSettings, warnings: Sequence[str]) -> list[str]:
    """What a reader must know before the figures."""
    said = [PHANTOM_NOTE] if settings.phantom else []
    rate, papers = settings.recipe.optimizer.learning_rate, PAPER.optimizer.learning_rate
    if rate != papers:
        said.append(
            f"The learning rate is {rate:g}, not the paper's {papers:g}"
            + (": the phantom model is too small to move at the paper's." if settings.phantom else ".")
        )
    known = settings.vocabulary
    strengths = {name: settings.strength_of(known.condition(name)) for name in settings.conditions}
    if set(strengths.values()) != {1.0}:
        told = ", ".join(f"{name} {strength:g}" for name, strength in strengths.items())
        said.append(f"Strength of the LoRAs: {told}; at 1 their findings are faint.")
    if settings.preset == "robust":
        said.append(
            "Trained with output preservation, so that the finding hangs on the trigger, and with a loss "
            "that counts more where the finding lies; the paper has neither."
        )
    return said + [f"Warning: {message}" for message in warnings]


def peak_memory() -> dict[str, float]:
    """Peak resident memory in GiB of this process and of its largest child; empty where it is not known."""
    try:
        import resource
        import sys
    except ImportError:
        return {}
    unit = 1 if sys.platform == "darwin" else 1024
    kinds = {"process": resource.RUSAGE_SELF, "largest_child": resource.RUSAGE_CHILDREN}
    return {name: round(resource.getrusage(kind).ru_maxrss * unit / 2**30, 2) for name, kind in kinds.items()}


ZERO_SHOT_IMAGES = 4
"""Images of each of the vocabulary's probes."""


def filter_images(run: Run) -> Results:
    """Artifacts and identity leaks set aside, each condition against the photographs of all.

    Where it is asked for, images are made in place of rejected ones.
    """
    from ..filters.artifacts import FILTER_VERSION, check_limits
    from ..filters.decisions import decisions_in
    from ..filters.settings import FilterSettings, load_filters
    from ..filters.stage import Refill, filter_sets
    from ..filters.text import text_weights
    from ..imageset.copies import COPIES_VERSION, NEAR_COPY
    from ..imageset.decode import INGEST_VERSION

    settings, folders, facts = run.settings, run.folders, run.facts
    draw_again = {
        condition.name: partial(draw_plan, run, condition, warn=run.warn) for condition in run.conditions
    }

    def work() -> Results:
        datasets = {name: folders.dataset(name) for name in facts}
        filters = FilterSettings(
            settings.faces,
            settings.sampling.device.type,
            limits=settings.limits,
            references=tuple(datasets.values()),
            threshold=settings.threshold,
            phantom_base=settings.source.fingerprint() if settings.phantom else None,
        )
        return filter_sets(
            {name: folders.generated(name) for name in facts},
            datasets,
            load_filters(filters),
            cache=folders.faces,
            refill=Refill(draw_again, settings.refill) if settings.refill else None,
            warn=run.warn,
            engine=settings.engine,
        )

    def inputs() -> dict[str, Any]:
        decided = {name: found for name in facts if (found := decisions_in(folders.generated(name)))}
        return {
            "generated images": {name: part["generation"]["content"] for name, part in facts.items()},
            "training photographs": {name: part["dataset"]["manifest"] for name, part in facts.items()},
            "threshold": settings.threshold,
            "artifact filter": [FILTER_VERSION, check_limits(settings.limits)],
            "refill": settings.refill,
            "near copies": [COPIES_VERSION, NEAR_COPY],
            "decoder": INGEST_VERSION,
            "text models": text_weights(),
            **({"what a person decided": decided} if decided else {}),
            **face_pack_input(settings),
        }

    after = [f"{stage}-{name}" for name in facts for stage in ("dataset", "generation")]
    return run.stages.run(Stage("filters", inputs, [], work, after, always))


def measure_images(run: Run, control: Path | None) -> Results:
    """The paper's measurements, raw and filtered, and the list of nearest pairs for the private page.

    control: healthy faces, for the face map.
    """
    from ..imageset.copies import COPIES_VERSION, NEAR_COPY
    from ..imageset.decode import INGEST_VERSION
    from ..metrics.audit import AUDIT_VERSION
    from ..metrics.extractors import load_extractors
    from ..metrics.measure import MeasureSettings, measure_sets
    from ..report.nearest import nearest_pairs, write_nearest

    settings, folders, facts = run.settings, run.folders, run.facts
    generated = {name: folders.generated(name) for name in facts}
    datasets = {name: folders.dataset(name) for name in facts}

    def work() -> Results:
        analyzer = analyzer_of(settings)
        extractors = load_extractors(
            settings.metrics, phantom=settings.phantom, device=settings.sampling.device
        )
        measured = measure_sets(
            generated,
            list(datasets.values()),
            analyzer,
            extractors,
            MeasureSettings(
                threshold=settings.threshold,
                seed=settings.seed,
                control=control,
                cache_dir=folders.faces,
            ),
            warn=run.warn,
            engine=settings.engine,
        )
        judge_all_previews(run, analyzer)
        pairs = nearest_pairs(folders.root, generated, datasets, analyzer, cache=folders.faces)
        write_nearest(folders.private, pairs)
        return measured

    def inputs() -> dict[str, Any]:
        return {
            "filtered images": {name: filtered_content(path) for name, path in generated.items()},
            "training photographs": {name: part["dataset"]["manifest"] for name, part in facts.items()},
            "threshold": settings.threshold,
            "metrics": sorted(settings.metrics),
            "seed": settings.seed,
            "leak audit": AUDIT_VERSION,
            "near copies": [COPIES_VERSION, NEAR_COPY],
            "decoder": INGEST_VERSION,
            "networks": metric_weights(settings),
            **face_pack_input(settings),
            "control faces": folder_digests(control) if control else [],
            "fewest photographs that are told": FEWEST,
        }

    stages_before = ("dataset", "training", "generation")
    after = [
        "filters",
        "photographs-control",
        *(f"{stage}-{name}" for name in facts for stage in stages_before),
    ]
    outputs = [folders.private / "nearest.json"]
    return run.stages.run(Stage("measurements", inputs, outputs, work, after, always))


def judge_all_previews(run: Run, analyzer: FaceAnalyzer) -> None:
    """Compare each training's previews with the photographs: the report shows only those unlike all."""
    from ..dataset.references import read_references
    from ..filters.identity import IdentityFilter
    from ..report.nearest import judge_previews

    folders = run.folders
    reference = read_references([folders.dataset(name) for name in run.facts], analyzer)
    for name in run.facts:
        previews = folders.training(name) / "previews"
        if previews.is_dir():
            judge_previews(
                previews,
                IdentityFilter(reference, run.settings.threshold),
                analyzer,
                cache=folders.faces,
            )


def draw_zero_shot(run: Run) -> Results:
    """What the base model draws without any LoRA, asked with the vocabulary's probes."""
    from ..generation.folder import set_fits
    from ..generation.generate import draw_all
    from ..generation.plans import zero_shot_plan
    from ..report.run_folder import ZERO_SHOT

    settings, out = run.settings, run.folders.root / ZERO_SHOT
    plan = zero_shot_plan(settings.vocabulary.zero_shot, ZERO_SHOT_IMAGES, settings.seed)

    def work() -> Results:
        drawn = draw_all(settings.base_alone(), plan, out, role="control", engine=settings.engine)
        return {"images": drawn.total}

    def fits() -> bool:
        return set_fits(settings.base_alone(), plan, out)

    inputs = {"prompts and seeds": prompts_of(plan), **sampling_inputs(settings)}
    return run.stages.run(Stage("zero-shot", lambda: inputs, [out], work, fits=fits))


def write_report(
    run: Run,
    filtered: Results,
    measured: Results,
    seconds: float,
    downstream: Results | None = None,
    study: Results | None = None,
    audited: Results | None = None,
) -> None:
    """report.json, summary.md and the two pages; made anew each time, they cost little."""
    from ..report.blocks import labels_of
    from ..report.html import write_private_html, write_shared
    from ..report.nearest import read_nearest
    from ..report.run_folder import HTML, PRIVATE_HTML, collect_pictures, loss_curves, told_trainings
    from ..report.summary import summarize

    folders, conditions, phantom = run.folders, list(run.facts), run.settings.phantom
    document = {
        **build_report(run, seconds),
        "filters": filtered,
        "sets": measured["sets"],
        "figures": measured["figures"],
        **({"downstream": downstream} if downstream else {}),
        **({"study": study} if study else {}),
        **({"audit": audited} if audited else {}),
    }
    document["figures"] = {**document["figures"], "loss": loss_curves(folders, told_trainings(document))}
    write_json(inside(folders.root, folders.report.name), document)
    write_text(inside(folders.root, folders.summary.name), summarize(document))
    labels = labels_of(document)
    previewed = told_trainings(document)
    pictures = collect_pictures(folders, conditions, phantom=phantom, labels=labels, previewed=previewed)
    write_shared(document, pictures, inside(folders.root, HTML))
    pairs = read_nearest(folders.private)
    if pairs:
        page = folders.private / PRIVATE_HTML
        write_private_html(
            pairs,
            folders.root,
            page,
            phantom=phantom,
            threshold=run.settings.threshold,
            labels=labels,
        )


def analyzer_of(settings: RunSettings) -> FaceAnalyzer:
    from ..faces.analyzer import load_face_analyzer

    return load_face_analyzer(settings.faces, device=settings.sampling.device.type)
