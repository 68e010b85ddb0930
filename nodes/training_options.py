"""What a training can be told beside its preset, as a node of its own: the recipe's fields by group."""

import json
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.recipe.recipe import recipe_fields
from . import places
from .common import AUTO, CATEGORY, NONE, Node, TrainingOptions, advanced, node_schema, output, text_view
from .recipe_widgets import WIDGETS, field_value, recipe_widget, unset

_ON_THE_TRAINER = ("steps", "preview_every")
FILES = {"training_adapter": "loras", "vae": "vae", "clip_l": "text_encoders", "t5xxl": "text_encoders"}
"""Files of ComfyUI's model folders that a training is told of, by the folder."""
UNSET: dict[str, Any] = {
    **{widget: unset(widget) for widget in WIDGETS if widget not in _ON_THE_TRAINER},
    **dict.fromkeys(FILES, AUTO),
    "regularisation_images": 0,
    "preview_prompts": "",
}
"""Every option, and its value that leaves the choice to the preset."""


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `values` that differ from the preset's; UserError, by name, for one that can't be."""
    found = {name: values[name] for name, left in UNSET.items() if values.get(name, left) != left}
    for name in found.keys() & WIDGETS.keys() - {"resolution"}:  # a text, which the trainer reads
        field_value(name, found[name])
    return found


class LoraTrainingOptions(Node):
    """Everything else that a training can be told; what is left alone stays the preset's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_TrainingOptions",
            display_name="Cleft Training Options",
            category=CATEGORY,
            description=(
                "Changes what the preset says, for Cleft LoRA Trainer. Only what differs from the preset is "
                "sent on; auto, and the 0 or -1 that a tooltip names, is the preset's."
            ),
            search_aliases=["learning rate", "LoRA rank", "training settings", "optimizer", "resolution"],
            inputs=[*_basic_inputs(), *_further_inputs(), *_later_inputs()],
            outputs=[
                output(TrainingOptions, "options", tooltip="For Cleft LoRA Trainer."),
                output(io.String, "summary", tooltip="What differs from the preset, in words."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        vae: str | None = None,
        clip_l: str | None = None,
        t5xxl: str | None = None,
        training_adapter: str | None = None,
    ) -> bool | str:
        """Only files in ComfyUI's model folders: a path in a graph is refused before anything opens it."""
        given = {"vae": vae, "clip_l": clip_l, "t5xxl": t5xxl, "training_adapter": training_adapter}
        for name, value in given.items():
            if value is not None and value not in _files(name):
                return (
                    f"there is no {value!r} in ComfyUI's models/{FILES[name]}; put it there or choose another"
                )
        return True

    @classmethod
    def fingerprint_inputs(cls, **kwargs: Any) -> str:
        """Another file under an old name is another option."""
        found = []
        for name, kind in FILES.items():
            if kwargs.get(name, AUTO) not in (AUTO, NONE, None):
                try:
                    state = places.model_file(kind, kwargs[name]).stat()
                except (OSError, UserError):
                    continue
                found.append([state.st_size, state.st_mtime_ns, state.st_ino])
        return json.dumps(found)

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        options = chosen(inputs)
        told = "\n".join(f"{name}: {value}" for name, value in options.items()) or "all as the preset has it"
        return io.NodeOutput(options, told, ui=text_view(told))


def _basic_inputs() -> list[Any]:
    return [
        _field("learning_rate", step=1e-5, round=1e-7),
        _field("network_dim"),
        _field("network_alpha", largest=512.0, step=0.1),
        _field("resolution"),
        _field("batch_size", largest=64),
        _field("seed", max=2**31 - 1),
        io.Int.Input(
            "regularisation_images",
            optional=True,
            display_name="objective: regularisation images",
            default=0,
            min=0,
            max=10_000,
            tooltip="Images that the base model makes without the trigger, to train beside. 0: none.",
        ),
    ]


def _further_inputs() -> list[Any]:
    return [
        _field("multi_resolution", basic=False),
        _field("network_form", basic=False, note="A DoRA file is read by ComfyUI, not by diffusers."),
        _field("network_targets", basic=False),
        _field("network_qkv", basic=False),
        _model_file(
            "training_adapter",
            "network: training adapter",
            "LoRA that is on while training only. auto (robust): a file in models/loras whose name holds "
            "'training-adapter' or 'training_adapter'. Without one schnell loses its 4-step quality.",
        ),
        _field(
            "optimizer",
            basic=False,
            note="AdamW8bit needs bitsandbytes; without it AdamW is taken, and said.",
        ),
        _field("lr_scheduler", basic=False),
        _field("lr_warmup_steps", basic=False),
        _field("gradient_accumulation", basic=False, largest=64),
        _field("weight_decay", basic=False, step=0.001),
        _field("max_grad_norm", basic=False, largest=100.0, step=0.1),
        _field("ema_decay", basic=False, largest=0.9999, step=0.001),
        _field("timestep_sampling", basic=False),
        _field("sigmoid_scale", basic=False, largest=100.0, step=0.1),
        _field("shift", basic=False, largest=100.0, step=0.1),
        _field("output_preservation_weight", basic=False, step=0.1),
        _field("region_weight", basic=False, largest=100.0, step=0.5),
        _field("prior_loss_weight", basic=False, step=0.1),
        _field("prior_target", basic=False),
        _field("caption_dropout_rate", basic=False, step=0.01),
        _field("validate_every", basic=False, note="On the dataset's hold-out."),
        _field("early_stop", basic=False, note="Needs validate_every."),
        _field("mixed_precision", basic=False, note="auto: bf16 on a GPU, float32 on the processor."),
        _field("base_format", basic=False),
        _field("gradient_checkpointing", basic=False),
        _field("blocks_to_swap", basic=False, largest=57, note="-1: as the memory asks for."),
        _field("memory_limit", basic=False, largest=192.0, step=1.0, note="0: what is free."),
        _field("compile", basic=False, note="Needs triton on a GPU."),
        _field("deterministic", basic=False),
        _field("preview_size", basic=False, step=16),
        _field("save_precision", basic=False),
        _field("save_every", basic=False),
        _field("checkpoint_every", basic=False),
        _model_file("vae", "model: vae", "Autoencoder of a single-file base model. auto: ae.safetensors."),
        _model_file(
            "clip_l", "model: clip_l", "CLIP-L of a single-file base model. auto: clip_l.safetensors."
        ),
        _model_file(
            "t5xxl",
            "model: t5xxl",
            "T5-XXL of a single-file base model. auto: t5xxl_fp16.safetensors or its like.",
        ),
        io.String.Input(
            "preview_prompts",
            optional=True,
            default="",
            multiline=True,
            tooltip="Prompts of the previews, one a line. Empty: one prompt of the dataset's condition.",
        ),
    ]


def _later_inputs() -> list[Any]:
    """What came later stands at the end: saved workflows hold the values by their place."""
    return [
        _field("mirror", basic=False),
        _field("balance_by", basic=False, note="Empty: each image equally often."),
        _field("lokr_factor", basic=False, note="Needs network_form lokr."),
    ]


def _field(widget: str, **options: Any) -> Any:
    """The widget of a field, labelled with its group; optional, as a graph may name only what it changes."""
    entry = recipe_fields()[WIDGETS[widget]]
    label = f"{entry.group}: {entry.name.removesuffix('_n_steps').replace('_', ' ')}"
    return recipe_widget(widget, display_name=label, optional=True, **options)


def _files(name: str) -> list[str]:
    first = [AUTO, NONE] if name == "training_adapter" else [AUTO]
    return [*first, *places.model_files(FILES[name])]


def _model_file(name: str, label: str, tooltip: str) -> Any:
    """A file in one of ComfyUI's model folders; auto chooses."""
    return io.Combo.Input(
        name,
        optional=True,
        display_name=label,
        options=_files(name),
        default=AUTO,
        tooltip=tooltip,
        **advanced(),
    )
