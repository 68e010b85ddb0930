"""The LoRA trainer as a node, and the node that follows a training that runs beside the queue."""

import json
import time
from typing import Any

from comfy_api.latest import io

from ..diffusioncleft_core.errors import UserError
from . import places
from .common import (
    CATEGORY,
    PHANTOM,
    Dataset,
    Node,
    Training,
    TrainingOptions,
    blocked,
    node_schema,
    output,
)
from .queued import QueuedNode
from .recipe_widgets import recipe_widget
from .training_options import UNSET

LATEST = "(latest)"
WAIT, DETACHED = "wait", "detached"


class LoraTrainer(Node):
    """Trains one LoRA on a dataset, in a process of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_LoraTrainer",
            display_name="Cleft LoRA Trainer",
            category=CATEGORY,
            description=(
                "Trains a LoRA in a process of its own. Stop it when you like: it saves a checkpoint, and "
                "queueing the same graph again goes on from there."
            ),
            search_aliases=["LoRA training", "train LoRA", "fine-tune", "FLUX trainer", "kohya"],
            inputs=[*_main_inputs(), *_preview_inputs()],
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, base_model: str | None = None) -> bool | str:
        """Only what lies in ComfyUI's model folders: a path in a graph is refused unopened."""
        if base_model is None or base_model in base_models():
            return True
        return (
            f"there is no {base_model!r} in ComfyUI's models/diffusion_models or models/diffusers; "
            "put it there or choose another"
        )

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from ..trainer.launch import check_installed
        from .needs import dataset_behind, options_behind
        from .training_settings import check_run

        if moved := [name for name in UNSET if name in node.inputs]:
            raise UserError(
                f"{', '.join(moved)} moved to the node Cleft Training Options; connect one to options"
            )
        check_installed()
        places.check_private(places.RUNS)
        values, dataset = node.values(), dataset_behind(node.source("dataset"))
        options = options_behind(node)
        linked = {"dataset", "options"}
        if dataset is not None and options is not None and values.keys() >= node.inputs.keys() - linked:
            check_run({**values, "dataset": dataset, "options": options})

    @classmethod
    def fingerprint_inputs(cls, mode: str = WAIT, **kwargs: Any) -> Any:
        """A detached training has another state each time it is asked for; one waited for changes with the
        model files behind the names.
        """
        from .training_settings import file_states

        if mode == DETACHED:
            return time.time()
        try:
            return json.dumps(file_states(kwargs))
        except (KeyError, OSError, UserError):  # a value comes by a link, or `execute` says what is missing
            return ""

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        from . import training_run

        node_id = cls.hidden.unique_id if cls.hidden else None
        run = training_run.prepare_run(inputs)
        if inputs["mode"] == DETACHED:
            training_run.start_detached(run)
        else:
            training_run.train_and_wait(run, node_id)
        return _given(run.run_id)


class TrainingStatus(Node):
    """How far a training is, whichever way it was started."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_TrainingStatus",
            display_name="Cleft Training Status",
            category=CATEGORY,
            description="State, loss and previews of a training; the LoRA's name as soon as it is done.",
            search_aliases=["training progress", "loss curve", "stop training"],
            inputs=[
                io.Combo.Input(
                    "run",
                    options=[LATEST, *places.run_names()],
                    default=LATEST,
                    tooltip="The training to show. A connected trainer comes before it.",
                ),
                io.Boolean.Input(
                    "stop",
                    default=False,
                    tooltip=(
                        "Ask a detached training to save a checkpoint and stop. Queue the trainer to go on."
                    ),
                ),
                io.Boolean.Input(
                    "wait",
                    default=False,
                    tooltip=(
                        "Wait here until the training ends. The queue waits too; stop gives it free again."
                    ),
                ),
                Training.Input("training", optional=True, tooltip="The trainer whose training is shown."),
            ],
            outputs=[
                *_outputs("followed"),
                output(io.String, "state", tooltip="preparing, training, interrupted, failed, done."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, run: str | None = None) -> bool | str:
        if run in (None, LATEST) or run in places.run_names():
            return True
        return f"there is no training run {run!r}; choose one that is listed"

    @classmethod
    def fingerprint_inputs(cls, **kwargs: Any) -> Any:
        return time.time()

    @classmethod
    def execute(cls, run: str, stop: bool, wait: bool, training: str | None = None) -> io.NodeOutput:
        from . import training_run

        names = places.run_names()
        if training is None and run == LATEST and not names:
            raise UserError("there is no training yet; queue a Cleft LoRA Trainer first")
        run_id = training or (names[0] if run == LATEST else run)
        if stop:
            training_run.ask_to_stop(run_id)
        if wait:
            training_run.wait_for(run_id, cls.hidden.unique_id if cls.hidden else None)
        return _given(run_id, with_state=True)


def base_models() -> list[str]:
    """What can be trained: the phantom, single files, whole diffusers folders."""
    return [PHANTOM, *places.model_files("diffusion_models"), *places.diffusers_folders()]


def _given(run_id: str, *, with_state: bool = False) -> io.NodeOutput:
    """Name of the LoRA, plot, previews and words of a run. Without a LoRA yet, what needs it does not run."""
    from . import training_run
    from .pictures import batch_of, preview_each, preview_synthetic

    state = training_run.read_state(run_id)
    previews = training_run.last_previews(run_id)
    plot = training_run.loss_plot(run_id)
    shown = preview_synthetic(previews, "Preview of a training.")
    shown["images"] += preview_each([plot])["images"]
    name = state.get("lora") or blocked()
    words = training_run.describe(state)
    more = (state["state"],) if with_state else ()
    kept = state.get("checkpoints") or [name]
    return io.NodeOutput(
        name, batch_of([plot]), batch_of(previews), words, run_id, kept, *more, ui={**shown, "text": (words,)}
    )


def _outputs(training_id: str = "training") -> list[Any]:
    return [
        output(
            io.AnyType,
            "lora_name",
            tooltip="Plugs into lora_name of LoraLoaderModelOnly. Its file name ends in its hash.",
        ),
        output(
            io.Image, "loss_plot", tooltip="Mean loss over the steps, and the band of 10 to 90 % of them."
        ),
        output(io.Image, "previews", tooltip="The last previews; a white point when there is none."),
        output(io.String, "summary", tooltip="What was trained, in words."),
        Training.Output(training_id, display_name="training", tooltip="For Cleft Training Status."),
        output(
            io.AnyType,
            "checkpoints",
            is_output_list=True,
            tooltip="Names of the LoRAs kept on the way and of the last; what is connected runs for each.",
        ),
    ]


def _main_inputs() -> list[Any]:
    return [
        Dataset.Input(
            "dataset", tooltip="Photographs to train on; of them only those of role train are used."
        ),
        io.String.Input(
            "name", default="cleft", tooltip="Beginning of the LoRA's file name; letters, digits, - and _."
        ),
        io.Combo.Input(
            "base_model",
            options=base_models(),
            default=PHANTOM,
            tooltip=(
                "FLUX.1 schnell: a file in models/diffusion_models or a folder in models/diffusers. "
                "phantom: the tiny embedded model, for datasets of phantoms only."
            ),
        ),
        io.Combo.Input(
            "preset",
            options=["robust", "paper"],
            default="robust",
            tooltip=(
                "robust: with a training adapter, which keeps schnell a 4-step model; without the trigger "
                "the base model's output is preserved, and the loss counts more where the finding lies. "
                "paper: the paper's recipe, without any of these."
            ),
        ),
        io.Combo.Input(
            "mode",
            options=[WAIT, DETACHED],
            default=WAIT,
            tooltip=(
                "wait: the queue waits for the LoRA. detached: the node returns at once and the training "
                "runs beside the queue; follow it with Cleft Training Status. Both then share the GPU."
            ),
        ),
        recipe_widget("steps"),
    ]


def _preview_inputs() -> list[Any]:
    return [
        recipe_widget("preview_every", default=250),
        TrainingOptions.Input(
            "options",
            optional=True,
            tooltip="Cleft Training Options: whatever is to differ from the preset.",
        ),
    ]
