"""What generated images are good for: a classifier that learns from them, and its figures on others."""

from typing import Any

from comfy_api.latest import io

from ..diffusioncleft_core.errors import UserError
from . import places
from .common import (
    AUTO,
    CATEGORY,
    Classifier,
    Dataset,
    Figures,
    ImageSet,
    Node,
    node_schema,
    output,
    seed_input,
    text_view,
)
from .face_work import known_pack
from .filters import faces_input
from .queued import QueuedNode

TRAINER = "DiffusionCleft_TrainClassifier"
NOT_A_DEVICE = "Not a diagnostic device"
TRAINED_ON = ("positive", "negative", "positive_2", "negative_2")
TESTED_ON = ("positive", "negative")
LEARNED_FROM = ("trained_on", "trained_on_2")


class TrainClassifier(Node):
    """A classifier that learns to tell two classes apart, once a seed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..diffusioncleft_core.downstream.task import known_tasks
        from ..diffusioncleft_core.weights.backbones import BACKBONES, DEFAULT, KINDS, PAPER

        return node_schema(
            node_id=TRAINER,
            display_name="Cleft Train Classifier",
            category=CATEGORY,
            search_aliases=["classifier", "downstream task", "image classification"],
            description=(
                "Trains the paper's lip classifier, or a linear probe, on two classes of images: generated "
                f"sets, or the training photographs of datasets. {NOT_A_DEVICE}."
            ),
            inputs=[
                _images(
                    "positive", "Images that show the finding: a set, or a dataset's training photographs."
                ),
                _images("negative", "Images that don't show it, likewise."),
                io.Combo.Input(
                    "task",
                    options=list(known_tasks()),
                    default="pre_post",
                    tooltip=(
                        "What is told apart. pre_post: unrepaired (positive) from repaired cleft lip. "
                        "lip_anomaly: repaired cleft lip (positive) from healthy."
                    ),
                ),
                io.Combo.Input(
                    "model",
                    options=list(KINDS),
                    default=PAPER,
                    tooltip=(
                        "paper: MobileNetV2 with its first 57 tensors frozen. probe: logistic regression on "
                        "the frozen network, quicker."
                    ),
                ),
                io.Combo.Input(
                    "backbone",
                    options=[AUTO, *BACKBONES],
                    default=AUTO,
                    tooltip=(
                        f"Network that it stands on. auto: {DEFAULT}, the paper's; where all images are "
                        "phantoms the embedded one."
                    ),
                ),
                io.Int.Input(
                    "seeds",
                    default=5,
                    min=1,
                    max=100,
                    tooltip="So many trainings: they tell how far chance alone moves a figure.",
                ),
                seed_input("Seed of the first training."),
                faces_input(),
                _images("positive_2", "More images that show the finding.", optional=True),
                _images("negative_2", "More images that don't show it.", optional=True),
            ],
            outputs=[
                output(Classifier, "classifier", tooltip="For Cleft Evaluate Classifier."),
                output(
                    io.Float,
                    "validation_accuracy",
                    tooltip="Share right, 0 to 1, of the people kept out of training; mean of the trainings.",
                ),
                output(io.String, "text", tooltip="What was learned from, and how it went."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, faces: str | None = None) -> bool | str:
        return known_pack(faces)

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from .classifier_work import check_training
        from .needs import phantom_behind

        places.check_private(places.RUNS)
        _check_apart(node)
        linked = [name for name in TRAINED_ON if node.source(name) is not None]
        check_training(
            [phantom_behind(node, name) for name in linked], node.value("faces"), node.value("backbone")
        )

    @classmethod
    def execute(
        cls,
        positive: Any,
        negative: Any,
        task: str,
        model: str,
        backbone: str,
        seeds: int,
        seed: int,
        faces: str,
        positive_2: Any = None,
        negative_2: Any = None,
    ) -> io.NodeOutput:
        from .classifier_work import Lesson, train

        positives, negatives = (
            tuple(item for item in pair if item is not None)
            for pair in ((positive, positive_2), (negative, negative_2))
        )
        lesson = Lesson(positives, negatives, task, model, backbone, range(seed, seed + seeds), faces)
        trained, accuracy, text = train(lesson)
        return io.NodeOutput(trained, accuracy, text, ui=text_view(text))


class EvaluateClassifier(Node):
    """What a classifier says of a test set, and how good it is there."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_EvaluateClassifier",
            display_name="Cleft Evaluate Classifier",
            category=CATEGORY,
            search_aliases=["classifier", "accuracy", "AUC", "downstream task"],
            description=(
                "Figures of a classifier on images that nothing learned from, with 95 % intervals over "
                "people. A test set with people whom the classifier or a LoRA learned from is refused. "
                f"{NOT_A_DEVICE}."
            ),
            inputs=[
                Classifier.Input("classifier", tooltip="From Cleft Train Classifier."),
                _images(
                    "positive",
                    "Test images that show the finding: of a dataset its hold-out, all of it where nothing "
                    "is held out.",
                ),
                _images("negative", "Test images that don't show it, likewise."),
                io.Boolean.Input(
                    "paper",
                    default=False,
                    tooltip=(
                        "Allow a test set with people who were learned from, as the paper's own probably "
                        "was, and mark its figures."
                    ),
                ),
                Dataset.Input(
                    "trained_on",
                    optional=True,
                    tooltip="A dataset that the LoRA of the generated images learned from …",
                ),
                Dataset.Input("trained_on_2", optional=True, tooltip="… and the other LoRA's."),
            ],
            outputs=[
                output(io.Float, "accuracy", tooltip="Share of the test images that it tells right, 0 to 1."),
                output(io.Float, "balanced_accuracy", tooltip="Mean of sensitivity and specificity, 0 to 1."),
                output(io.Float, "balanced_accuracy_low", tooltip="Lower end of its 95 % interval."),
                output(io.Float, "balanced_accuracy_high", tooltip="Upper end of its 95 % interval."),
                output(io.Float, "auc", tooltip="Area under the ROC curve; 0.5 is chance."),
                output(io.Float, "auc_low", tooltip="Lower end of its 95 % interval."),
                output(io.Float, "auc_high", tooltip="Upper end of its 95 % interval."),
                output(io.Image, "reliability", tooltip="How far its scores can be taken at their word."),
                output(io.String, "text", tooltip="The figures in words, and what they show."),
                output(Figures, "figures", tooltip="The figures as in downstream.json."),
            ],
            is_output_node=True,
        )

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from .classifier_work import check_kind, check_known_people
        from .needs import dataset_behind, phantom_behind

        places.check_private(places.RUNS)
        _check_apart(node)
        trainer = node.source("classifier")
        taught = [(trainer, name) for name in TRAINED_ON] if trainer and trainer.kind == TRAINER else []
        tested = [(node, name) for name in TESTED_ON]
        linked = [(at, name) for at, name in taught + tested if at.source(name) is not None]
        check_kind([phantom_behind(at, name) for at, name in linked])
        if node.value("paper") is False:
            learned = [dataset_behind(at.source(name)) for at, name in taught]
            learned += [dataset_behind(node.source(name)) for name in LEARNED_FROM]
            check_known_people([dataset_behind(node.source(name)) for name in TESTED_ON], learned)

    @classmethod
    def execute(
        cls,
        classifier: Any,
        positive: Any,
        negative: Any,
        paper: bool,
        trained_on: Any = None,
        trained_on_2: Any = None,
    ) -> io.NodeOutput:
        from .classifier_work import evaluate
        from .metrics import given

        known = [item for item in (trained_on, trained_on_2) if item is not None]
        return given(evaluate(classifier, positive, negative, known, paper=paper))


def _check_apart(node: QueuedNode) -> None:
    """Raise UserError when the same images are linked to both classes."""
    positive, negative = (
        {tuple(node.inputs[name]) for name in (side, f"{side}_2") if node.source(name) is not None}
        for side in TESTED_ON
    )
    if positive & negative:
        raise UserError("the same images are given as positive and as negative; give each class its own")


def _images(name: str, tooltip: str, *, optional: bool = False) -> Any:
    """A socket for an image set or a dataset."""
    return io.MultiType.Input(name, [ImageSet, Dataset], optional=optional, tooltip=tooltip)
