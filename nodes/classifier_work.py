"""The classifier nodes' work: the core's trainings and figures on what comes through sockets."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diffusioncleft_core.downstream.document import NOTICE
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import private_dir, sha256_bytes
from . import places
from .common import AUTO, PHANTOM, ImageSetHandle, blocked, core_progress
from .face_work import USUAL, analyzer_of, private_cache
from .metric_work import PHANTOM_NOTE, Measured
from .opened import DatasetHandle, withdrawn_notes
from .words import without_private_paths

if TYPE_CHECKING:
    from ..diffusioncleft_core.downstream.training import Classifier

Source = ImageSetHandle | DatasetHandle


@dataclass(frozen=True, repr=False)
class ClassifierHandle:
    """What the CLASSIFIER socket carries: a model in a private folder, and what it learned from."""

    name: str
    folder: Path
    sources: tuple[Source, ...]
    pack: str

    def __repr__(self) -> str:
        return f"ClassifierHandle({self.name!r})"


@dataclass(frozen=True)
class Lesson:
    """What Train Classifier is asked for."""

    positive: tuple[Source, ...]
    negative: tuple[Source, ...]
    task: str
    model: str
    backbone: str
    seeds: range
    faces: str

    @property
    def sources(self) -> tuple[Source, ...]:
        return (*self.positive, *self.negative)


def train(lesson: Lesson) -> tuple[ClassifierHandle, float, str]:
    """The classifier, mean accuracy on its validation parts, and words. What was trained before is found."""
    from ..diffusioncleft_core.downstream.cropper import Cropper
    from ..diffusioncleft_core.downstream.task import load_task
    from ..diffusioncleft_core.downstream.train_model import ModelTraining
    from ..diffusioncleft_core.downstream.training import TrainSettings
    from ..diffusioncleft_core.environment import pick_device
    from ..diffusioncleft_core.weights.backbones import load_backbone

    pack, backbone = chosen_models([item.phantom for item in lesson.sources], lesson.faces, lesson.backbone)
    task = load_task(lesson.task)
    with _at_work():
        training = ModelTraining(
            task,
            Cropper.of(task.crop, analyzer_of(pack), _cache, _warn),
            load_backbone(backbone, pick_device(None)),
            TrainSettings(kind=lesson.model),
            lesson.seeds,
            _warn,
        )
        positive, negative = training.crops(*map(_folders, (lesson.positive, lesson.negative)))
        name = f"classifier-{task.name}-{training.key(positive, negative)[:10]}"
        folder = places.run_path(name)

        def keep_private(classifier: "Classifier") -> None:
            private_dir(folder)

        document = _known_model(folder) or training.run(positive, negative, folder, keep_private)
    accuracies = [row["validation_accuracy"] for row in document["trainings"]]
    handle = ClassifierHandle(name, folder, lesson.sources, pack)
    return handle, sum(accuracies) / len(accuracies), _trained_words(name, document)


def evaluate(
    classifier: ClassifierHandle,
    positive: Source,
    negative: Source,
    trained_on: Sequence[DatasetHandle],
    *,
    paper: bool,
) -> Measured:
    """The figures of a classifier on one test set, with the plot of its reliability."""
    from ..diffusioncleft_core.downstream.cropper import Cropper
    from ..diffusioncleft_core.downstream.evaluate_model import Judge
    from ..diffusioncleft_core.downstream.evidence import downstream_document
    from ..diffusioncleft_core.downstream.held_out import learned_people
    from ..diffusioncleft_core.downstream.leak import choosing_people
    from ..diffusioncleft_core.downstream.model import read_model
    from ..diffusioncleft_core.downstream.withdrawn import refuse_withdrawn_model
    from ..diffusioncleft_core.environment import pick_device
    from ..diffusioncleft_core.report.downstream_words import told
    from .pictures import tensor_of
    from .plots import reliability

    check_kind([item.phantom for item in (*classifier.sources, positive, negative)])
    model = read_model(classifier.folder)
    refuse_withdrawn_model(model, places.withdrawals())
    labelled = [(positive.folder, 1), (negative.folder, 0)]
    learned = (*classifier.sources, *trained_on)
    datasets = [item.folder for item in learned if isinstance(item, DatasetHandle)]
    tested = classifier.folder / f"tested-{_digest(positive, negative)}"
    with _at_work():
        cropper = Cropper.of(model.task.crop, analyzer_of(classifier.pack), _cache, _warn)
        others = places.dataset_folders()
        evidence = Judge.of(model, cropper, pick_device(None)).evaluate(
            labelled,
            learned_people(model.learners, datasets, others),
            tested,
            choosers=choosing_people(model.loras, [*datasets, *others]),
            paper=paper,
            dates=places.run_folder("tested"),
        )
        document = downstream_document({model.task.name: evidence})
    task = document["tasks"][model.task.name]
    notes = _withdrawn([positive, negative])
    text = "\n".join([*notes, *told(task), *([PHANTOM_NOTE] if document["phantom"] else []), NOTICE])
    plot = reliability(model.task.name, task)
    figures = {**document, "notes": notes}
    return Measured((*_values(task), tensor_of(plot), text, figures), text, [plot])


def chosen_models(phantom: Sequence[bool | None], faces: str, backbone: str) -> tuple[str, str]:
    """Face pack and backbone, `auto` by whether all images are phantoms.

    Raises:
        UserError: phantoms and photographs meet, or photographs and what knows phantoms alone.
    """
    from ..diffusioncleft_core.weights.backbones import BACKBONES, DEFAULT

    check_kind(phantom)
    photographs = False in phantom
    if faces == PHANTOM and photographs:
        raise UserError("the phantom's face models know phantoms alone; choose a face pack such as buffalo_l")
    pack = faces if faces != AUTO else USUAL if photographs else PHANTOM
    network = backbone if backbone != AUTO else PHANTOM if pack == PHANTOM else DEFAULT
    if pack != PHANTOM and network in BACKBONES and BACKBONES[network].phantom:
        raise UserError(f"the backbone {network!r} knows phantoms alone; choose {DEFAULT}, or {AUTO}")
    return pack, network


def check_training(phantom: Sequence[bool | None], faces: Any, backbone: Any) -> None:
    """Raise UserError when what a training needs is not on this machine, as far as the graph tells it.

    phantom: of each connected input whether it brings phantoms; None where only the run will tell.
    """
    from ..diffusioncleft_core.downstream.train_model import PACKAGES, check_classifiers
    from ..diffusioncleft_core.environment import check_packages
    from .needs import check_faces

    check_kind(phantom)
    if not (isinstance(faces, str) and isinstance(backbone, str)):
        return
    if None in phantom and False not in phantom and AUTO in (faces, backbone):
        return
    pack, network = chosen_models(phantom, faces, backbone)
    check_packages(PACKAGES)
    check_faces(pack)
    check_classifiers(network)


def check_kind(phantom: Sequence[bool | None]) -> None:
    """Raise UserError when phantoms and photographs meet."""
    if True in phantom and False in phantom:
        raise UserError(
            "some of the images are phantoms and others are not; train and test on images of one kind"
        )


def check_known_people(
    tested: Sequence[DatasetHandle | None], learned: Sequence[DatasetHandle | None]
) -> None:
    """Raise UserError when datasets to be tested on hold people of those learned from, which lie there."""
    from ..diffusioncleft_core.downstream.held_out import check_datasets

    there = [
        [item for item in items if item is not None and item.folder.is_dir()] for items in (tested, learned)
    ]
    phantom = all(item.phantom for items in there for item in items)
    check_datasets(*([item.folder for item in items] for items in there), phantom=phantom)


@contextlib.contextmanager
def _at_work() -> Iterator[None]:
    """The core's progress on the node; nodes run in inference mode, in which nothing learns."""
    import torch

    with core_progress(), torch.inference_mode(False), torch.enable_grad():
        yield


def _known_model(folder: Path) -> "dict[str, Any] | None":
    """What an earlier training left there; None where nothing did, or it is damaged."""
    from ..diffusioncleft_core.downstream.model import FILE_NAME, read_model

    if (folder / FILE_NAME).is_file():
        with contextlib.suppress(UserError):
            return dict(read_model(folder).document)
    return None


def _trained_words(name: str, document: dict[str, Any]) -> str:
    from ..diffusioncleft_core.downstream.train_model import words_of
    from ..diffusioncleft_core.report.blocks import count

    counts, kind = document["trained_on"], document["classifier"]["kind"]
    not_found = counts["not_found"]
    return "\n".join(
        [
            f"{name}: {document['task']['title']}, {kind} on {document['backbone']['name']}",
            f"{count(counts['positive'])} positive and {count(counts['negative'])} negative images of "
            f"{count(counts['people'])} people",
            *([f"without a lip, left out: {count(not_found)}"] if not_found != 0 else []),
            *(words_of(training) for training in document["trainings"]),
            *([PHANTOM_NOTE] if document["phantom"] else []),
            NOTICE,
        ]
    )


def _values(task: dict[str, Any]) -> list[Any]:
    """The floats in the node's order; what is not told keeps what needs it from running."""
    from ..diffusioncleft_core.report.downstream_words import ends_of

    figures = next(iter(task["sources"].values()))
    values = [figures["accuracy"]["value"]]
    for metric in ("balanced_accuracy", "auc"):
        found = figures[metric]
        values += [None] * 3 if found["value"] is None else [found["value"], *ends_of(found)]
    return [blocked() if value is None else float(value) for value in values]


def _withdrawn(sources: Sequence[Source]) -> list[str]:
    notes = withdrawn_notes(item.folder for item in sources if isinstance(item, ImageSetHandle))
    for note in notes:
        logging.warning("DiffusionCleft: %s", note)
    return notes


def _folders(sources: Sequence[Source]) -> list[Path]:
    return [item.folder for item in sources]


def _cache(folder: Path) -> Path:
    """Where faces and crops of a generated set are kept: where the metric nodes keep its faces."""
    return private_cache(places.shown_name(folder))


def _digest(*sources: Source) -> str:
    return sha256_bytes("\n".join(str(item.folder) for item in sources).encode())[:10]


def _warn(message: str) -> None:
    logging.warning("DiffusionCleft: %s", without_private_paths(message))
