"""From the trainer's widgets to the trainer's settings."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import sha256_model
from ..diffusioncleft_core.ranges import sides
from ..diffusioncleft_core.recipe import training_recipe
from . import places
from .common import AUTO, NONE, PHANTOM
from .dataset import DatasetHandle

_ADAPTER_NAMES = ("training-adapter", "training_adapter")
_NO_ADAPTER = (
    "no training adapter in models/loras: a LoRA trained on schnell without one loses its 4-step quality; "
    "docs/comfyui.md says which to get"
)

WIDGETS = {
    "network_dim": "network_dim",
    "network_alpha": "network_alpha",
    "network_targets": "network_targets",
    "gradient_accumulation": "gradient_accumulation_steps",
    "optimizer": "optimizer_type",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "prior_loss_weight": "prior_loss_weight",
}
"""Widgets that always say something, and the trainer's names of what they set."""
LEFT_TO_THE_PRESET = {
    "steps": ("max_train_steps", 0),
    "learning_rate": ("learning_rate", 0.0),
    "batch_size": ("train_batch_size", 0),
    "timestep_sampling": ("timestep_sampling", AUTO),
    "lr_scheduler": ("lr_scheduler", AUTO),
    "lr_warmup_steps": ("lr_warmup_steps", 0),
    "output_preservation_weight": ("output_preservation_weight", -1.0),
    "region_weight": ("region_weight", 0.0),
}
"""Widgets with a value that leaves the choice to the preset: the trainer's name, that value."""


@dataclass(frozen=True)
class RunPlan:
    """Everything a run depends on. `made_from` are the arguments that its result depends on."""

    name: str
    dataset: DatasetHandle
    phantom: bool
    source: Any
    arguments: dict[str, Any]
    made_from: dict[str, Any]
    adapter: Path | None
    regularisation: int
    regularisation_side: int
    previews: tuple[str, ...]
    seed: int
    bracketed: bool
    device: str
    warnings: tuple[str, ...]

    def identity(self) -> dict[str, Any]:
        """What the result depends on, model files by their content: reads them whole the first time."""
        values = {key: value for key, value in self.made_from.items() if key != "train_data_dir"}
        return values | {
            "dataset": self.dataset.sha256,
            "base": self.source.fingerprints(),
            "regularisation": self.regularisation,
            "adapter": sha256_model(self.adapter) if self.adapter else None,
        }

    def settings(self, folder: Path) -> Any:
        """The trainer's settings for a run in `folder`."""
        from ..trainer.config import TrainSettings, checked

        values: dict[str, Any] = {**self.arguments, "output_dir": folder / "training", "output_name": "lora"}
        if self.regularisation:
            values["reg_data_dir"] = folder / "regularisation"
        if self.previews:
            values["sample_prompts"] = folder / "prompts.txt"
        return checked(TrainSettings(**values))


def plan_run(inputs: dict[str, Any]) -> RunPlan:
    """Check the widgets' values and turn them into a plan; UserError for what can't be trained."""
    import comfy.model_management

    from ..diffusioncleft_core.dataset.settings import training_facts

    dataset: DatasetHandle = inputs["dataset"]
    phantom = inputs["base_model"] == PHANTOM
    _check(inputs, dataset, phantom)
    robust = inputs["preset"] == "robust"
    adapter, warnings = _adapter(inputs["training_adapter"], wanted=robust and not phantom)
    base, source = _base(inputs, phantom)
    regularisation = inputs["regularisation_images"]
    facts = training_facts(dataset.folder, phantom=phantom)
    bracketed = facts.bracketed is not False
    previews = _previews(inputs, dataset, bracketed=bracketed)
    device = str(comfy.model_management.get_torch_device())
    recipe = training_recipe(inputs["preset"], facts, _choices(inputs))
    values: dict[str, Any] = {
        **recipe,
        "train_data_dir": dataset.folder,
        "seed": inputs["seed"],
        "mixed_precision": inputs["mixed_precision"],
    }
    without_effect = {
        "gradient_checkpointing": inputs["gradient_checkpointing"],
        "blocks_to_swap": inputs["blocks_to_swap"],
        "checkpoint_every_n_steps": inputs["checkpoint_every"],
        "sample_every_n_steps": inputs["preview_every"] if previews else 0,
        "sample_size": inputs["preview_size"],
        "save_every_n_steps": inputs.get("save_every", 0),
        "device": device,
        "training_adapter": adapter,
        **base,
    }
    return RunPlan(
        name=inputs["name"].strip(),
        dataset=dataset,
        phantom=phantom,
        source=source,
        arguments={**values, **without_effect},
        made_from=values,
        adapter=adapter,
        regularisation=regularisation,
        regularisation_side=min(768, max(recipe["resolution"])),
        previews=previews,
        seed=inputs["seed"],
        bracketed=bracketed,
        device=device,
        warnings=tuple(warnings),
    )


def file_states(inputs: dict[str, Any]) -> list[list[int]]:
    """Size, time and inode of every model file that the widgets stand for: another file under an old name is
    noticed without reading it.
    """
    from ..diffusioncleft_core.flux.source import COMPONENTS

    phantom = inputs["base_model"] == PHANTOM
    adapter, _ = _adapter(inputs["training_adapter"], wanted=inputs["preset"] == "robust" and not phantom)
    _, source = _base(inputs, phantom)
    paths = [path for component in COMPONENTS for path in source.paths(component)]
    found = [path.stat() for path in [*paths, *([adapter] if adapter else [])]]
    return [[state.st_size, state.st_mtime_ns, state.st_ino] for state in found]


def check_run(inputs: dict[str, Any]) -> None:
    """Raise the UserError that preparing this run, or opening its base model, would; nothing is written."""
    from ..diffusioncleft_core.flux.components import check_transformer

    plan = plan_run(inputs)
    plan.settings(Path("run"))
    check_transformer(plan.source)


def _check(inputs: dict[str, Any], dataset: DatasetHandle, phantom: bool) -> None:
    name = inputs["name"].strip()
    if not name or not all(letter.isalnum() or letter in "-_" for letter in name) or len(name) > 60:
        raise UserError(f"{name!r} can't begin a file name; use letters, digits, '-' and '_'")
    if not dataset.n_train:
        raise UserError(f"the dataset {dataset.name} has no photograph to train on; build it again")
    if not dataset.condition:
        raise UserError(f"the dataset {dataset.name} mixes conditions; build one dataset a condition")
    if phantom and not dataset.phantom:
        raise UserError(
            f"the phantom's base model learns phantoms alone and {dataset.name} holds photographs; "
            "choose FLUX.1 schnell as base_model"
        )


def _adapter(choice: str, *, wanted: bool) -> tuple[Path | None, list[str]]:
    if choice not in (AUTO, NONE):
        return places.model_file("loras", choice), []
    if choice == NONE or not wanted:
        return None, []
    for name in places.model_files("loras"):
        if any(part in name.lower() for part in _ADAPTER_NAMES):
            return places.model_file("loras", name), []
    return None, [_NO_ADAPTER]


def _choices(inputs: dict[str, Any]) -> dict[str, Any]:
    """What the widgets say by the trainer's names; what is left to the preset is not among it."""
    chosen: dict[str, Any] = {setting: inputs[widget] for widget, setting in WIDGETS.items()}
    for widget, (setting, preset) in LEFT_TO_THE_PRESET.items():
        if inputs.get(widget, preset) != preset:
            chosen[setting] = inputs[widget]
    if "lr_scheduler" in chosen:
        chosen["lr_warmup_steps"] = inputs["lr_warmup_steps"]
    if inputs["resolution"].strip() not in (AUTO, ""):
        try:
            chosen["resolution"] = sides(inputs["resolution"])
        except argparse.ArgumentTypeError as error:
            raise UserError(f"resolution: {error}") from None
    return chosen


def _base(inputs: dict[str, Any], phantom: bool) -> tuple[dict[str, Any], Any]:
    """The trainer's arguments that name the base model, and the same as a FluxSource."""
    from ..diffusioncleft_core.flux.source import FluxSource, phantom_source

    if phantom:
        return {"phantom": True}, phantom_source()
    name = inputs["base_model"]
    if name in places.diffusers_folders():
        folder = places.diffusers_folder(name)
        return {"pretrained_model_name_or_path": folder}, FluxSource.from_arguments(folder)
    file = places.model_file("diffusion_models", name)
    kinds = {
        "vae": ("vae", "ae.safetensors"),
        "clip_l": ("text_encoders", "clip_l"),
        "t5xxl": ("text_encoders", "t5xxl"),
    }
    parts = {part: _part(inputs[part], *where) for part, where in kinds.items()}
    tokenizers = _tokenizers()
    source = FluxSource.from_arguments(file, **parts, **tokenizers)
    arguments = {
        "pretrained_model_name_or_path": file,
        "ae": source.vae,
        "clip_l": source.clip_l,
        "t5xxl": source.t5xxl,
        **tokenizers,
    }
    return arguments, source


def _part(choice: str, kind: str, usual: str) -> Path | None:
    """The chosen file; for auto the first whose name is the usual one, else what the core finds."""
    if choice != AUTO:
        return places.model_file(kind, choice)
    for name in places.model_files(kind):
        if Path(name).name.lower().startswith(usual):
            return places.model_file(kind, name)
    return None


def _tokenizers() -> dict[str, Path]:
    """ComfyUI's own tokenizer folders: single files hold none."""
    import comfy

    root = Path(next(iter(comfy.__path__)))
    found = {
        "tokenizer_clip": root / "sd1_tokenizer",
        "tokenizer_t5": root / "text_encoders" / "t5_tokenizer",
    }
    return {name: path for name, path in found.items() if path.is_dir()}


def _previews(inputs: dict[str, Any], dataset: DatasetHandle, *, bracketed: bool) -> tuple[str, ...]:
    """The prompts written on the node, else one of the condition's own plan."""
    if not inputs["preview_every"]:
        return ()
    lines = [line.strip() for line in inputs["preview_prompts"].splitlines() if line.strip()]
    if lines:
        return tuple(lines[:16])
    from ..diffusioncleft_core.conditions.plan import sampling_plan
    from ..diffusioncleft_core.conditions.prompts import plain_text
    from .conditions import condition_of

    condition = condition_of(dataset.condition)
    plan = sampling_plan(condition, 2, inputs["seed"], bracketed=bracketed)
    return tuple(plain_text(row.prompt) for row in plan)
