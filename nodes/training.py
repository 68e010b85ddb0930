"""The LoRA trainer as a node, and the node that follows a training that runs beside the queue."""

import json
import time
from typing import Any

from comfy_api.latest import io

from ..diffusioncleft_core.errors import UserError
from . import places
from .common import AUTO, CATEGORY, NONE, PHANTOM, Dataset, Node, Training, blocked, output
from .queued import QueuedNode
from .recipe_widgets import recipe_widget

LATEST = "(latest)"
WAIT, DETACHED = "wait", "detached"


class LoraTrainer(Node):
    """Trains one LoRA on a dataset, in a process of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffusionCleft_LoraTrainer",
            display_name="Cleft LoRA Trainer",
            category=CATEGORY,
            description=(
                "Trains a LoRA in a process of its own. Stop it when you like: it saves a checkpoint, and "
                "queueing the same graph again goes on from there."
            ),
            inputs=[*_main_inputs(), *_recipe_inputs(), *_memory_inputs(), *_preview_inputs()],
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        base_model: str | None = None,
        vae: str | None = None,
        clip_l: str | None = None,
        t5xxl: str | None = None,
        training_adapter: str | None = None,
    ) -> bool | str:
        """Only files in ComfyUI's model folders: a path in a graph is refused before anything opens it."""
        wanted = (
            (base_model, base_models(), "diffusion_models or models/diffusers"),
            (vae, [AUTO, *places.model_files("vae")], "vae"),
            (clip_l, [AUTO, *places.model_files("text_encoders")], "text_encoders"),
            (t5xxl, [AUTO, *places.model_files("text_encoders")], "text_encoders"),
            (training_adapter, [AUTO, NONE, *places.model_files("loras")], "loras"),
        )
        for value, known, folder in wanted:
            if value is not None and value not in known:
                return f"there is no {value!r} in ComfyUI's models/{folder}; put it there or choose another"
        return True

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from ..trainer.launch import check_installed
        from .needs import dataset_behind
        from .training_settings import check_run

        check_installed()
        places.check_private(places.RUNS)
        values, dataset = node.values(), dataset_behind(node.source("dataset"))
        if dataset is not None and values.keys() == node.inputs.keys() - {"dataset"}:
            check_run({**values, "dataset": dataset})

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
        return io.Schema(
            node_id="DiffusionCleft_TrainingStatus",
            display_name="Cleft Training Status",
            category=CATEGORY,
            description="State, loss and previews of a training; the LoRA's name as soon as it is done.",
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
        recipe_widget("learning_rate", step=1e-5, round=1e-7),
        recipe_widget("seed", max=2**31 - 1),
    ]


def _recipe_inputs() -> list[Any]:
    return [
        recipe_widget("network_dim"),
        recipe_widget("network_alpha", largest=512.0, step=0.1),
        recipe_widget("network_targets"),
        recipe_widget("resolution"),
        recipe_widget("batch_size", largest=64),
        recipe_widget("gradient_accumulation", largest=64),
        recipe_widget("optimizer", note="AdamW8bit needs bitsandbytes; without it AdamW is taken, and said."),
        recipe_widget("lr_scheduler"),
        recipe_widget("lr_warmup_steps"),
        recipe_widget("timestep_sampling"),
        recipe_widget("weight_decay", step=0.001),
        recipe_widget("max_grad_norm", largest=100.0, step=0.1),
        io.Int.Input(
            "regularisation_images",
            default=0,
            min=0,
            max=10_000,
            tooltip="Images that the base model makes without the trigger, to train beside. 0: none.",
        ),
        recipe_widget("prior_loss_weight", step=0.1),
        _model_file(
            "training_adapter",
            "loras",
            "LoRA that is on while training only. auto (robust): a file in models/loras whose name holds "
            "'training-adapter' or 'training_adapter'. Without one schnell loses its 4-step quality.",
            NONE,
        ),
    ]


def _memory_inputs() -> list[Any]:
    return [
        _model_file("vae", "vae", "Autoencoder of a single-file base model. auto: ae.safetensors."),
        _model_file(
            "clip_l", "text_encoders", "CLIP-L of a single-file base model. auto: clip_l.safetensors."
        ),
        _model_file(
            "t5xxl",
            "text_encoders",
            "T5-XXL of a single-file base model. auto: t5xxl_fp16.safetensors or its like.",
        ),
        recipe_widget("mixed_precision", note="auto: bf16 on a GPU, float32 on the processor."),
        recipe_widget("gradient_checkpointing"),
        recipe_widget("blocks_to_swap", largest=57),
        recipe_widget("checkpoint_every"),
    ]


def _model_file(name: str, folder: str, tooltip: str, *more: str) -> Any:
    """A file in one of ComfyUI's model folders; auto chooses."""
    options = [AUTO, *more, *places.model_files(folder)]
    return io.Combo.Input(name, options=options, default=AUTO, tooltip=tooltip)


def _preview_inputs() -> list[Any]:
    return [
        io.String.Input(
            "preview_prompts",
            default="",
            multiline=True,
            tooltip="Prompts of the previews, one a line. Empty: one prompt of the dataset's condition.",
        ),
        recipe_widget("preview_every", default=250),
        recipe_widget("preview_size", step=16),
        recipe_widget("save_every", optional=True),
        recipe_widget("output_preservation_weight", optional=True, step=0.1),
        recipe_widget("region_weight", optional=True, largest=100.0, step=0.5),
    ]
