"""The LoRA trainer as a node, and the node that follows a training that runs beside the queue."""

import json
import time
from typing import Any

from comfy_api.latest import io

from ..diffusioncleft_core.errors import UserError
from . import places
from .common import AUTO, CATEGORY, NONE, PHANTOM, Dataset, Node, Training, blocked
from .queued import QueuedNode

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
                io.String.Output(
                    "state", display_name="state", tooltip="preparing, training, interrupted, failed, done."
                ),
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
    from .pictures import batch_of, preview_each

    state = training_run.read_state(run_id)
    previews = training_run.last_previews(run_id)
    plot = training_run.loss_plot(run_id)
    shown = preview_each([*previews, plot])
    name = state.get("lora") or blocked()
    words = training_run.describe(state)
    more = (state["state"],) if with_state else ()
    kept = state.get("checkpoints") or [name]
    return io.NodeOutput(
        name, batch_of([plot]), batch_of(previews), words, run_id, kept, *more, ui={**shown, "text": (words,)}
    )


def _outputs(training_id: str = "training") -> list[Any]:
    return [
        io.AnyType.Output(
            "lora_name",
            display_name="lora_name",
            tooltip="Plugs into lora_name of LoraLoaderModelOnly. Its file name ends in its hash.",
        ),
        io.Image.Output(
            "loss_plot", display_name="loss_plot", tooltip="Loss of every step and its running mean."
        ),
        io.Image.Output(
            "previews",
            display_name="previews",
            tooltip="The last previews; a white point when there is none.",
        ),
        io.String.Output("summary", display_name="summary", tooltip="What was trained, in words."),
        Training.Output(training_id, display_name="training", tooltip="For Cleft Training Status."),
        io.AnyType.Output(
            "checkpoints",
            display_name="checkpoints",
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
        io.Int.Input(
            "steps", default=0, min=0, max=1_000_000, tooltip="Steps. 0: ten a photograph, as the paper."
        ),
        io.Float.Input(
            "learning_rate",
            default=0.0,
            min=0.0,
            max=1.0,
            step=1e-5,
            round=1e-7,
            tooltip="0: the paper's 1e-4; on the phantom 4e-3, since so small a model hardly moves at 1e-4.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**31 - 1,
            tooltip="Order of images, noise levels, noise, first weights.",
        ),
    ]


def _recipe_inputs() -> list[Any]:
    return [
        io.Int.Input("network_dim", default=16, min=1, max=256, tooltip="Rank of the LoRA."),
        io.Float.Input(
            "network_alpha", default=32.0, min=0.1, max=512.0, step=0.1, tooltip="The scale is alpha / rank."
        ),
        io.Combo.Input(
            "network_targets",
            options=["all", "attention", "no_modulation"],
            default="all",
            tooltip="Linear layers of the transformer blocks that get the LoRA.",
        ),
        io.String.Input(
            "resolution",
            default=AUTO,
            tooltip="Base sizes in px, separated by commas. auto: 256,512,768,1024; for phantoms 128.",
        ),
        io.Int.Input(
            "batch_size",
            default=0,
            min=0,
            max=64,
            tooltip="Images in a batch. 0: the preset's: 1; robust on the phantom 2.",
        ),
        io.Int.Input("gradient_accumulation", default=1, min=1, max=64, tooltip="Batches in a step."),
        io.Combo.Input(
            "optimizer",
            options=["AdamW8bit", "AdamW"],
            default="AdamW8bit",
            tooltip="AdamW8bit needs bitsandbytes; without it AdamW is taken, and said.",
        ),
        io.Combo.Input(
            "lr_scheduler",
            options=[AUTO, "constant", "constant_with_warmup", "linear", "cosine"],
            default=AUTO,
            tooltip=(
                "Course of the learning rate. auto: constant; "
                "on the phantom cosine after 50 steps of warm-up."
            ),
        ),
        io.Int.Input(
            "lr_warmup_steps", default=0, min=0, max=10_000, tooltip="Linear warm-up over so many steps."
        ),
        io.Combo.Input(
            "timestep_sampling",
            options=[AUTO, "uniform", "sigmoid", "shift", "schnell"],
            default=AUTO,
            tooltip="Distribution of the noise levels. auto: uniform; robust on the phantom schnell's.",
        ),
        io.Float.Input(
            "weight_decay", default=0.01, min=0.0, max=1.0, step=0.001, tooltip="AdamW's weight decay."
        ),
        io.Float.Input(
            "max_grad_norm",
            default=1.0,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip="Clip the gradient. 0: do not.",
        ),
        io.Int.Input(
            "regularisation_images",
            default=0,
            min=0,
            max=10_000,
            tooltip="Images that the base model makes without the trigger, to train beside. 0: none.",
        ),
        io.Float.Input(
            "prior_loss_weight",
            default=1.0,
            min=0.0,
            max=10.0,
            step=0.1,
            tooltip="Weight of the regularisation.",
        ),
        io.Combo.Input(
            "training_adapter",
            options=[AUTO, NONE, *places.model_files("loras")],
            default=AUTO,
            tooltip=(
                "LoRA that is on while training only. auto (robust): a file in models/loras whose name holds "
                "'training-adapter' or 'training_adapter'. Without one schnell loses its 4-step quality."
            ),
        ),
    ]


def _memory_inputs() -> list[Any]:
    return [
        io.Combo.Input(
            "vae",
            options=[AUTO, *places.model_files("vae")],
            default=AUTO,
            tooltip="Autoencoder of a single-file base model. auto: ae.safetensors.",
        ),
        io.Combo.Input(
            "clip_l",
            options=[AUTO, *places.model_files("text_encoders")],
            default=AUTO,
            tooltip="CLIP-L of a single-file base model. auto: clip_l.safetensors.",
        ),
        io.Combo.Input(
            "t5xxl",
            options=[AUTO, *places.model_files("text_encoders")],
            default=AUTO,
            tooltip="T5-XXL of a single-file base model. auto: t5xxl_fp16.safetensors or its like.",
        ),
        io.Combo.Input(
            "mixed_precision",
            options=[AUTO, "no", "bf16"],
            default=AUTO,
            tooltip="Number format of the frozen base. auto: bf16 on a GPU, float32 on the processor.",
        ),
        io.Boolean.Input("gradient_checkpointing", default=False, tooltip="Compute twice to save memory."),
        io.Int.Input(
            "blocks_to_swap",
            default=0,
            min=0,
            max=57,
            tooltip="Keep so many blocks in main memory and stream them: less GPU memory, slower.",
        ),
        io.Int.Input(
            "checkpoint_every",
            default=250,
            min=1,
            max=100_000,
            tooltip="Steps between checkpoints to resume from.",
        ),
    ]


def _preview_inputs() -> list[Any]:
    return [
        io.String.Input(
            "preview_prompts",
            default="",
            multiline=True,
            tooltip="Prompts of the previews, one a line. Empty: one prompt of the dataset's condition.",
        ),
        io.Int.Input(
            "preview_every",
            default=250,
            min=0,
            max=100_000,
            tooltip="Steps between previews. 0: no previews.",
        ),
        io.Int.Input(
            "preview_size",
            default=0,
            min=0,
            max=2048,
            step=16,
            tooltip="Side in px. 0: 768, or the largest trained.",
        ),
        io.Int.Input(
            "save_every",
            optional=True,
            default=0,
            min=0,
            max=100_000,
            tooltip="Also keep the LoRA every so many steps, for a grid of checkpoints. 0: only the last.",
        ),
        io.Float.Input(
            "output_preservation_weight",
            optional=True,
            default=-1.0,
            min=-1.0,
            max=100.0,
            step=0.1,
            tooltip="Hold the output without the trigger to the base model's. -1: the preset's; 0: off.",
        ),
        io.Float.Input(
            "region_weight",
            optional=True,
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.5,
            tooltip="Weight of the loss where the finding lies. 0: the preset's; 1: as elsewhere.",
        ),
    ]
