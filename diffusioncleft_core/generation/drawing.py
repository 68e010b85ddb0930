"""What draws the rows of a plan: batches that any worker can draw, and the worker that draws them.

Each picture is a function of its row, the models and the number of images at once, and of nothing else: a
network gives other last bits for another number of images at once, so a batch of which rows are there already
is filled up with one of its own. What the others show, and in which place, makes no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from ..conditions.plan_rows import Plan, PlanRow
from ..errors import UserError
from ..imageset.synthetic import image_png
from .folder import image_record, shared_record
from .sampler import ImageSampler, PromptEmbeddings, embed_prompts, release_memory
from .settings import GenerationSettings

BLOCK = 4096
"""Rows whose prompts are encoded before the transformer is loaded: 8 GB of FLUX's embeddings in bfloat16."""
BLOCK_IN_MEMORY = 512
"""The same where they have no folder of their own, 1 GB."""


@dataclass(frozen=True)
class Batch:
    """Rows drawn at once. size: images of the batch, of which those beyond the rows are thrown away."""

    rows: tuple[PlanRow, ...]
    size: int

    def split(self) -> list[Batch]:
        """Its rows one by one, to the same pictures."""
        return [Batch((row,), self.size) for row in self.rows]


@dataclass(frozen=True)
class Drawn:
    """The pictures of a batch, the bytes of a PNG each, in the rows' order. streamed: see `ImageSampler`."""

    pictures: list[bytes]
    streamed: bool


class Batches(Sequence[Batch]):
    """The batches of the `pending` rows, of the size in which a call that draws all of `plan` draws them.

    Each is made when it is asked for: there may be as many as a plan has rows.
    """

    def __init__(self, plan: Plan, pending: Plan, at_once: int) -> None:
        self._at_once, self._left = at_once, len(plan) % at_once
        last = {row.index for row in plan[len(plan) - self._left :]} if self._left else set()
        self._whole = Plan(row for row in pending if row.index not in last)
        self._rest = tuple(row for row in pending if row.index in last)
        self._full = -(-len(self._whole) // at_once)

    def __len__(self) -> int:
        return self._full + bool(self._rest)

    @overload
    def __getitem__(self, place: int) -> Batch: ...
    @overload
    def __getitem__(self, place: slice) -> list[Batch]: ...
    def __getitem__(self, place: int | slice) -> Batch | list[Batch]:
        if isinstance(place, slice):
            return [self._batch(at) for at in range(*place.indices(len(self)))]
        return self._batch(range(len(self))[place])

    def _batch(self, place: int) -> Batch:
        if place == self._full:
            return Batch(self._rest, self._left)
        start = place * self._at_once
        return Batch(tuple(self._whole[start : start + self._at_once]), self._at_once)


@dataclass(frozen=True)
class Drawing:
    """How the worker of a set is built; can be sent to another process.

    Attributes:
        settings: what is drawn with. In another process its device is that process's own of that kind.
        record: what the images have in common, as `shared_record` gives it where the call was made.
        embeddings: a folder for embeddings that memory does not hold; None keeps them in memory.
        elsewhere: whether the worker may be on another host, whose model files are then compared with the
            record.
    """

    settings: GenerationSettings
    record: Mapping[str, Any] = field(repr=False)
    embeddings: Path | None = None
    elsewhere: bool = False

    def __call__(self) -> RowDrawer:
        if self.elsewhere:
            check_models(self.settings, self.record)
        return RowDrawer(self)


class RowDrawer:
    """Draws batches: the text encoders first, then, when they are gone, the transformer."""

    def __init__(self, drawing: Drawing) -> None:
        self._settings, self._record, self._folder = drawing.settings, drawing.record, drawing.embeddings
        self._embeddings: PromptEmbeddings | None = None
        self._sampler: ImageSampler | None = None

    def prepare(self, jobs: Sequence[Batch]) -> None:
        """Encode the prompts of all their rows."""
        self.close()
        sampling = self._settings.sampling
        prompts = [row.prompt for job in jobs for row in job.rows]
        self._embeddings = embed_prompts(
            self._settings.source, prompts, sampling.device, sampling.dtype, self._folder
        )

    def do(self, job: Batch) -> Drawn:
        """Draw the rows of a batch that was prepared."""
        assert self._embeddings is not None
        sampling, sampler = self._settings.sampling, self._loaded()
        rows = [*job.rows, *[job.rows[-1]] * (job.size - len(job.rows))]
        texts = [self._embeddings.get(row.prompt) for row in rows]
        pixels = sampler.draw(texts, [row.seed for row in rows], sampling.size, sampling.steps)
        pictures = [
            image_png(picture, image_record(row, self._record, {}))
            for row, picture in zip(job.rows, pixels, strict=False)
        ]
        return Drawn(pictures, sampler.streamed)

    def close(self) -> None:
        """Let the models and the embeddings go."""
        self._sampler = None
        if self._embeddings is not None:
            self._embeddings.close()
            self._embeddings = None
            release_memory(self._settings.sampling.device)

    def _loaded(self) -> ImageSampler:
        if self._sampler is None:
            sampling = self._settings.sampling
            self._sampler = ImageSampler(self._settings.source, sampling.device, sampling.dtype)
            self._sampler.use_lora(self._settings.lora, sampling.strength)
        return self._sampler


def check_models(settings: GenerationSettings, record: Mapping[str, Any]) -> None:
    """Raise UserError where the model files of this host are not those that the set is drawn with."""
    here = shared_record(settings)
    other = [name for name, key in (("base model", "base"), ("LoRA", "lora")) if here[key] != record[key]]
    if other:
        raise UserError(
            f"the {' and the '.join(other)} on a worker's host differ from those here: put the same files at "
            "the same paths on every host"
        )
