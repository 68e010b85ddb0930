"""The run's second half: filters, measurements, zero-shot panel, sheets, report.json and the pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..environment import hardware, versions
from ..files import inside, write_json, write_text
from ..recipe.presets import PAPER
from ..report.blocks import vocabulary_block
from ..report.folders import RunFolders
from ..report.summary import SCHEMA
from .dataset import folder_digests
from .generation import filtered_content, prompts_of, set_fits
from .settings import RunSettings, face_pack_input, metric_weights, sampling_inputs
from .stages import Results, Stage, StageRow, Stages, always

if TYPE_CHECKING:
    from ..faces.analyzer import FaceAnalyzer

FEWEST = 5
"""Real photographs that a count must have to be told."""
PHANTOM_NOTE = (
    "Every figure here was made with phantoms and the embedded phantom models: it says nothing about FLUX.1."
)


def build_report(
    settings: RunSettings,
    facts: Mapping[str, Mapping[str, Any]],
    rows: Sequence[StageRow],
    warnings: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    """The report as JSON values, schema 1."""
    oracle = {name: dict(stages["oracle"]) for name, stages in facts.items() if "oracle" in stages}
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "phantom": settings.phantom,
        "preset": settings.preset,
        "vocabulary": vocabulary_block(settings.vocabulary),
        "notes": notes(settings, warnings),
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
            "seconds": {row.name: round(row.seconds, 1) for row in rows},
            "seconds_this_call": round(seconds, 1),
            "peak_memory_gib": peak_memory(),
        },
    }


def training_facts(stages: Mapping[str, Any], *, phantom: bool) -> dict[str, Any]:
    """What one LoRA was trained on and with; counts of fewer than 5 photographs of people are null."""
    dataset = stages["dataset"]
    facts = {
        **stages["training"],
        "holdout_images": dataset["holdout_images"],
        "set_aside": dict(dataset["set_aside"]),
    }
    if phantom:
        return facts
    facts["set_aside"] = {reason: suppressed(n) for reason, n in facts["set_aside"].items()}
    return facts | {key: suppressed(facts[key]) for key in ("training_images", "holdout_images")}


def suppressed(n: int) -> int | None:
    """A count of photographs, or None for 1 to 4: so few could tell of a person."""
    return None if 0 < n < FEWEST else n


def notes(settings: RunSettings, warnings: Sequence[str]) -> list[str]:
    """What a reader must know before the figures."""
    said = [PHANTOM_NOTE] if settings.phantom else []
    rate, papers = settings.recipe.optimizer.learning_rate, PAPER.optimizer.learning_rate
    if rate != papers:
        said.append(
            f"The learning rate is {rate:g}, not the paper's {papers:g}"
            + (": the phantom model is too small to move at the paper's." if settings.phantom else ".")
        )
    if settings.sampling.strength != 1:
        said.append(
            f"The LoRA is applied at strength {settings.sampling.strength:g}: at 1 its findings are faint."
        )
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
FACES_CACHE = "faces"
Warn = Callable[[str], None]
Generate = Callable[[list[Any]], Any]


def filter_images(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    facts: Mapping[str, Mapping[str, Results]],
    draw_again: Mapping[str, Generate],
    warn: Warn,
) -> Results:
    """Artifacts and identity leaks set aside, each condition against the photographs of all.

    draw_again: by condition, how images are made in place of rejected ones, where refilling is asked for.
    """
    from ..filters.stage import Refill, filter_sets
    from ..filters.text import text_weights
    from ..imageset.copies import COPIES_VERSION, NEAR_COPY, NEAR_COPY_PHANTOM
    from ..imageset.decode import INGEST_VERSION

    def work() -> Results:
        return filter_sets(
            {name: folders.generated(name) for name in facts},
            {name: folders.dataset(name) for name in facts},
            analyzer_of(settings),
            threshold=settings.threshold,
            cache=folders.private / FACES_CACHE,
            refill=Refill(draw_again, settings.refill) if settings.refill else None,
            warn=warn,
        )

    def inputs() -> dict[str, Any]:
        return {
            "generated images": {name: part["generation"]["content"] for name, part in facts.items()},
            "training photographs": {name: part["dataset"]["manifest"] for name, part in facts.items()},
            "threshold": settings.threshold,
            "refill": settings.refill,
            "near copies": [COPIES_VERSION, NEAR_COPY, NEAR_COPY_PHANTOM],
            "decoder": INGEST_VERSION,
            "text models": text_weights(),
            **face_pack_input(settings),
        }

    after = [f"{stage}-{name}" for name in facts for stage in ("dataset", "generation")]
    return stages.run(Stage("filters", inputs, [], work, after, always))


def measure_images(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    facts: Mapping[str, Mapping[str, Results]],
    control: Path | None,
    warn: Warn,
) -> Results:
    """The paper's measurements, raw and filtered, and the list of nearest pairs for the private page.

    control: healthy faces, for the face map.
    """
    from ..imageset.copies import COPIES_VERSION, NEAR_COPY, NEAR_COPY_PHANTOM
    from ..imageset.decode import INGEST_VERSION
    from ..metrics.extractors import load_extractors
    from ..metrics.measure import MeasureSettings, measure_sets
    from ..report.nearest import nearest_pairs, write_nearest

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
                cache_dir=folders.private / FACES_CACHE,
            ),
            warn=warn,
        )
        judge_all_previews(settings, folders, facts, analyzer)
        pairs = nearest_pairs(
            folders.root, generated, datasets, analyzer, cache=folders.private / FACES_CACHE
        )
        write_nearest(folders.private, pairs)
        return measured

    def inputs() -> dict[str, Any]:
        return {
            "filtered images": {name: filtered_content(path) for name, path in generated.items()},
            "training photographs": {name: part["dataset"]["manifest"] for name, part in facts.items()},
            "threshold": settings.threshold,
            "metrics": sorted(settings.metrics),
            "seed": settings.seed,
            "near copies": [COPIES_VERSION, NEAR_COPY, NEAR_COPY_PHANTOM],
            "decoder": INGEST_VERSION,
            "networks": metric_weights(settings),
            **face_pack_input(settings),
            "control faces": folder_digests(control) if control else [],
        }

    stages_before = ("dataset", "training", "generation")
    after = [
        "filters",
        "photographs-control",
        *(f"{stage}-{name}" for name in facts for stage in stages_before),
    ]
    outputs = [folders.private / "nearest.json"]
    return stages.run(Stage("measurements", inputs, outputs, work, after, always))


def judge_all_previews(
    settings: RunSettings,
    folders: RunFolders,
    facts: Mapping[str, Mapping[str, Results]],
    analyzer: FaceAnalyzer,
) -> None:
    """Compare each training's previews with the photographs: the report shows only those unlike all."""
    from ..dataset.references import read_references
    from ..filters.identity import IdentityFilter
    from ..report.nearest import judge_previews

    reference = read_references([folders.dataset(name) for name in facts], analyzer)
    for name in facts:
        previews = folders.training(name) / "previews"
        if previews.is_dir():
            judge_previews(
                previews,
                IdentityFilter(reference, settings.threshold),
                analyzer,
                cache=folders.private / FACES_CACHE,
            )


def draw_zero_shot(settings: RunSettings, folders: RunFolders, stages: Stages) -> Results:
    """What the base model draws without any LoRA, asked with the vocabulary's probes."""
    from ..generation.generate import generate
    from ..generation.plans import zero_shot_plan
    from ..report.run_folder import ZERO_SHOT

    out = folders.root / ZERO_SHOT
    plan = zero_shot_plan(settings.vocabulary.zero_shot, ZERO_SHOT_IMAGES, settings.seed)

    def work() -> Results:
        return {"images": generate(settings.source, None, plan, out, settings.sampling, role="control").total}

    def fits() -> bool:
        return set_fits(settings, out, plan, None)

    inputs = {"prompts and seeds": prompts_of(plan), **sampling_inputs(settings)}
    return stages.run(Stage("zero-shot", lambda: inputs, [out], work, fits=fits))


def write_report(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    facts: Mapping[str, Mapping[str, Results]],
    filtered: Results,
    measured: Results,
    warnings: list[str],
    seconds: float,
) -> None:
    """report.json, summary.md and the two pages; made anew each time, they cost little."""
    from ..report.blocks import labels_of
    from ..report.html import write_html, write_private_html
    from ..report.nearest import read_nearest
    from ..report.run_folder import HTML, PRIVATE_HTML, collect_pictures, loss_curves
    from ..report.summary import summarize

    document = {
        **build_report(settings, facts, stages.rows, warnings, seconds),
        "filters": filtered,
        "sets": measured["sets"],
        "figures": {**measured["figures"], "loss": loss_curves(folders, list(facts))},
    }
    write_json(inside(folders.root, folders.report.name), document)
    write_text(inside(folders.root, folders.summary.name), summarize(document))
    labels = labels_of(document)
    pictures = collect_pictures(folders, list(facts), phantom=settings.phantom, labels=labels)
    write_html(document, pictures, inside(folders.root, HTML))
    pairs = read_nearest(folders.private)
    if pairs:
        page = folders.private / PRIVATE_HTML
        write_private_html(
            pairs,
            folders.root,
            page,
            phantom=settings.phantom,
            threshold=settings.threshold,
            labels=labels,
        )


def analyzer_of(settings: RunSettings) -> FaceAnalyzer:
    from ..faces.analyzer import load_face_analyzer

    return load_face_analyzer(settings.faces, device=settings.sampling.device.type)
