"""The settings of a run, and what of them the stages depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cluster.work import HERE, Engine
from ..conditions.loader import load_vocabulary
from ..conditions.vocabulary import Condition, Vocabulary
from ..dataset.settings import SMALLEST_SIDE, Photographs
from ..errors import UserError
from ..files import sha256_bytes, sha256_model
from ..generation.settings import GenerationSettings, Sampling
from ..ranges import (
    COUNT,
    HOLDOUT,
    NONE_OR_MORE,
    PAPER_SIMILARITY,
    PHANTOMS,
    REFILLS,
    SEED,
    SIMILARITY,
    STRENGTH,
    check_fields,
    ranged,
)
from ..recipe.recipe import Recipe

if TYPE_CHECKING:
    from ..flux.source import FluxSource

NO_PHOTOGRAPHS = (
    "there are no photographs: give --photos NAME=DIR for each condition, or --phantom to try without any"
)
NO_PHANTOMS = "the phantom draws no condition of this vocabulary: give --photos NAME=DIR"
PHANTOM_CONTROLS = 100
"""Healthy phantoms for the face map."""
PHANTOM_IMAGES = 200
PHANTOM_CELL_IMAGES = 100
"""Images a cell of the trigger experiment in the demo."""
METRICS = ("fid", "lpips")
PREVIEWS = 4
"""Previews in the course of a training."""
BASE_PARTS = {
    "transformer": "base model's transformer",
    "vae": "base model's VAE",
    "clip_l": "base model's CLIP",
    "t5xxl": "base model's T5",
}
"""The base model's parts in words; a text encoder counts with its tokenizer."""


@dataclass(frozen=True)
class RunSettings:
    """What a run is asked to do.

    Attributes:
        out: the run's folder.
        source: the base model.
        sampling: how pictures are drawn, in every stage; its strength counts for no LoRA.
        strength: of the LoRAs in generation; None: 1, on phantoms what the vocabulary gives each condition.
        faces: name or folder of the face pack.
        phantom: allows the embedded models, and renders photographs where none are given.
        phantoms: how many of those each condition trains on (None: the vocabulary's).
        photographs: by condition of the vocabulary; empty under `phantom`, which then renders its own.
        preset: the recipe's name in the report.
        n: images a condition.
        mode: of the prompt plan.
        bracketed: trigger as `[CLP]` rather than `CLP`.
        holdout: share of subjects, 0 to 0.5.
        min_side: px, of a photograph's shorter side (None: 256, on phantoms 64).
        regularization_images: images of the base model trained beside the photographs.
        control: folder of healthy faces for the face map.
        cell_images: images a cell of the trigger experiment, on phantoms.
        threshold: cosine similarity from which a face counts as a training face's.
        limits: those of the artifact filter that are not its defaults.
        refill: how often a rejected image is made again.
        metrics: out of `METRICS`, beside FIR.
        downstream: tasks of the classifiers that try the images, by name or file; none by default.
        study: make a rater study of the images and let a program rate it, on phantoms.
        audit: drawings a caption with which each LoRA is audited; 0: none.
        recipe: of all trainings, without what the datasets add.
        redo: make everything anew.
        engine: who draws, filters and measures; trainings are this machine's own.
        absent: parts of the base model that were not found (`base` for all of it), by the error that says so.
    """

    out: Path
    source: FluxSource
    sampling: Sampling
    faces: str
    phantom: bool = False
    phantoms: int | None = ranged(PHANTOMS, default=None)
    strength: float | None = ranged(STRENGTH, default=None)
    vocabulary: Vocabulary = field(default_factory=load_vocabulary)
    photographs: Mapping[str, Photographs] = field(default_factory=dict)
    preset: str = "robust"
    n: int = ranged(COUNT, default=2000)
    mode: str = "paper"
    bracketed: bool = True
    holdout: float = ranged(HOLDOUT, default=0.1)
    min_side: int | None = ranged(SMALLEST_SIDE, default=None)
    seed: int = ranged(SEED, default=0)
    regularization_images: int = ranged(NONE_OR_MORE, default=0)
    control: Path | None = None
    cell_images: int = ranged(COUNT, default=PHANTOM_CELL_IMAGES)
    threshold: float = ranged(SIMILARITY, default=PAPER_SIMILARITY)
    limits: Mapping[str, float] = field(default_factory=dict)
    refill: int = ranged(REFILLS, default=0)
    metrics: tuple[str, ...] = METRICS
    downstream: tuple[str, ...] = ()
    study: bool = False
    audit: int = ranged(NONE_OR_MORE, default=0)
    recipe: Recipe = field(default_factory=Recipe)
    redo: bool = False
    engine: Engine = field(default=HERE, compare=False, repr=False)
    absent: Mapping[str, UserError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions of this run, in the vocabulary's order."""
        known = self.vocabulary.conditions
        if self.phantom and not self.photographs:
            return tuple(name for name, condition in known.items() if condition.phantom is not None)
        return tuple(name for name in known if name in self.photographs)

    @property
    def whole_captions(self) -> bool:
        """Captions in the form of prompts; to the paper's recipe belong the paper's, clinical facts alone."""
        return self.preset != "paper"

    def base_alone(self) -> GenerationSettings:
        """What the base model's own pictures are drawn with."""
        return GenerationSettings(self.source, self.sampling)

    def with_lora(self, condition: Condition, lora: Path) -> GenerationSettings:
        """What a condition's pictures are drawn with."""
        sampling = replace(self.sampling, strength=self.strength_of(condition))
        return GenerationSettings(self.source, sampling, lora)

    def strength_of(self, condition: Condition) -> float:
        """Strength of a condition's LoRA in every picture of the run."""
        if self.strength is not None:
            return self.strength
        return condition.phantom.strength if self.phantom and condition.phantom else 1.0

    def seed_for(self, *purpose: str) -> int:
        """A seed of its own for each purpose, 31 bits, from the run's seed."""
        return int(sha256_bytes("/".join((str(self.seed), *purpose)).encode())[:8], 16) >> 1


def base_inputs(settings: RunSettings) -> dict[str, str]:
    """The base model's parts by content: each has a share in every picture and every LoRA."""
    return {BASE_PARTS[part]: digest for part, digest in settings.source.fingerprints().items()}


def sampling_inputs(settings: RunSettings) -> dict[str, Any]:
    """What pictures are drawn with, beside the LoRA."""
    drawn = settings.sampling
    sampling = [drawn.steps, drawn.width, drawn.height, str(drawn.dtype)]
    return {**base_inputs(settings), "sampling": sampling}


def vocabulary_input(settings: RunSettings) -> dict[str, str]:
    """The conditions' file, from which captions and prompts come."""
    return {"vocabulary": settings.vocabulary.sha256}


def face_pack_input(settings: RunSettings) -> dict[str, Any]:
    """The face models by content, whatever their folder is called, with how they are run."""
    from ..faces.analyzer import find_pack

    pack = find_pack(settings.faces)
    return {"face pack": [pack.weights(), pack.det_size, pack.det_thresh, pack.phantom_only]}


def downstream_backbone(settings: RunSettings) -> str:
    """What the classifiers stand on: the paper's network, of phantoms the embedded one."""
    from ..faces.analyzer import PHANTOM
    from ..weights.backbones import DEFAULT

    return PHANTOM if settings.phantom else DEFAULT


def metric_weights(settings: RunSettings) -> dict[str, str]:
    """SHA-256 of the networks of FID and LPIPS; none under --phantom, which has seeded ones."""
    from ..metrics.extractors import EXTRACTORS
    from ..weights.registry import require_file

    wanted = [] if settings.phantom else [name for name in EXTRACTORS if name in settings.metrics]
    return {name: sha256_model(require_file(EXTRACTORS[name].weights)) for name in wanted}
