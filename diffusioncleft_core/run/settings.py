"""The settings of a run, its folders, and the check that everything it needs is there before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..conditions.loader import load_vocabulary
from ..conditions.vocabulary import Vocabulary
from ..dataset.consent import read_statement
from ..environment import trainer_device
from ..errors import UserError
from ..files import sha256_bytes, sha256_model
from ..generation.sampling import Sampling
from ..ranges import COUNT, HOLDOUT, NONE_OR_MORE, REFILLS, SEED, SIMILARITY, check_fields, ranged
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
PHANTOM_STRENGTH = 1.5
"""Strength of a phantom's LoRA in generation: 10 steps an image leave it too faint at 1."""
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
class Photographs:
    """One condition's photographs and their table; without one the folder's CONSENT.txt gives consent."""

    folder: Path
    metadata: Path | None


@dataclass(frozen=True)
class RunSettings:
    """What a run is asked to do.

    photographs: by condition of the vocabulary; empty under `phantom`, which then renders its own. faces:
    name or folder of the face pack. recipe: of all trainings, without what the datasets add. preset: its name
    in the report. sampling: how pictures are drawn, in every stage. n: images a condition; holdout: share of
    subjects, 0 to 0.5. threshold: cosine similarity from which a face counts as a training face's.
    refill: how often a rejected image is made again. metrics: out of `METRICS`, beside FIR.
    """

    out: Path
    source: FluxSource
    sampling: Sampling
    faces: str
    phantom: bool = False
    vocabulary: Vocabulary = field(default_factory=load_vocabulary)
    photographs: Mapping[str, Photographs] = field(default_factory=dict)
    preset: str = "robust"
    n: int = ranged(COUNT, default=2000)
    mode: str = "paper"
    bracketed: bool = True
    holdout: float = ranged(HOLDOUT, default=0.1)
    seed: int = ranged(SEED, default=0)
    regularization_images: int = ranged(NONE_OR_MORE, default=0)
    control: Path | None = None
    cell_images: int = ranged(COUNT, default=PHANTOM_CELL_IMAGES)
    threshold: float = ranged(SIMILARITY, default=0.6)
    refill: int = ranged(REFILLS, default=0)
    metrics: tuple[str, ...] = METRICS
    recipe: Recipe = field(default_factory=Recipe)
    redo: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions of this run, in the vocabulary's order."""
        known = self.vocabulary.conditions
        if self.phantom and not self.photographs:
            return tuple(name for name, condition in known.items() if condition.phantom is not None)
        return tuple(name for name in known if name in self.photographs)

    def seed_for(self, *purpose: str) -> int:
        """A seed of its own for each purpose, 31 bits, from the run's seed."""
        return int(sha256_bytes("/".join((str(self.seed), *purpose)).encode())[:8], 16) >> 1


def check_settings(settings: RunSettings) -> None:
    """Stop before any work when something is missing. One sentence, naming what."""
    trainer_device(settings.sampling.device, settings.sampling.dtype)
    for name in settings.photographs:
        settings.vocabulary.condition(name)
    if not settings.conditions:
        raise UserError(NO_PHOTOGRAPHS if not settings.phantom else NO_PHANTOMS)
    if settings.control is not None:
        from ..metrics.sets import measured_set

        if not measured_set(settings.control, "control")[0]:
            raise UserError(f"there is no image in the control faces' folder {settings.control}")
    for condition, photographs in settings.photographs.items():
        if not photographs.folder.is_dir():
            raise UserError(f"the {condition} photographs {photographs.folder} are no folder: check the path")
        if photographs.metadata is None:
            read_statement(photographs.folder)
        elif not photographs.metadata.is_file():
            raise UserError(
                f"the {condition} table {photographs.metadata} does not exist: give its path with "
                f"--metadata {condition}=CSV, docs/dataset.md lists its columns"
            )
    adapter = settings.recipe.network.training_adapter
    if adapter is not None and not adapter.is_file():
        raise UserError(f"there is no file {adapter}: check --training-adapter")
    if settings.phantom:
        check_findings(settings)
    check_models(settings)


def check_findings(settings: RunSettings) -> None:
    """UserError where the vocabulary asks the phantom for what it can't draw."""
    from ..phantom.face import FINDINGS

    for condition in settings.vocabulary.conditions.values():
        if condition.phantom is not None and condition.phantom.finding not in FINDINGS:
            raise UserError(
                f"the phantom of {condition.name} is to draw {condition.phantom.finding!r}; it draws "
                f"{', '.join(FINDINGS)}: correct the vocabulary"
            )


def check_models(settings: RunSettings) -> None:
    """Base model, face pack and the measurements' networks are there; embedded ones only under --phantom."""
    from ..faces.analyzer import find_pack
    from ..filters.text import load_text_reader
    from ..flux.source import phantom_source
    from ..weights.registry import require_file

    if settings.out.exists() and not settings.out.is_dir():
        raise UserError(f"{settings.out} is a file: give a folder for the run")
    pack = find_pack(settings.faces)
    if pack.phantom_only and not settings.phantom:
        raise UserError(
            "the embedded face pack knows phantoms and nothing else: give --faces a pack such as buffalo_l"
        )
    if not settings.phantom and settings.source.fingerprint() == phantom_source().fingerprint():
        raise UserError(
            "the embedded base model draws phantoms and nothing else: give --base with FLUX.1 schnell"
        )
    load_text_reader()
    if not settings.phantom:
        for metric, weights in (("fid", "inception-fid"), ("lpips", "lpips-alexnet")):
            if metric in settings.metrics:
                require_file(weights)


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


def metric_weights(settings: RunSettings) -> dict[str, str]:
    """SHA-256 of the networks of FID and LPIPS; none under --phantom, which has seeded ones."""
    from ..weights.registry import require_file

    names = {"fid": "inception-fid", "lpips": "lpips-alexnet"} if not settings.phantom else {}
    return {name: sha256_model(require_file(names[name])) for name in names if name in settings.metrics}
