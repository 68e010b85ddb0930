"""From the trainer's widgets to the trainer's settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.run.settings import (
    PHANTOM_LEARNING_RATE,
    PHANTOM_SCHEDULE,
    ROBUST,
)
from . import places
from .common import AUTO, NONE, PHANTOM
from .dataset import DatasetHandle

PAPER_RATE = 1e-4
PHANTOM_SIDE = 128
_ADAPTER_NAMES = ("training-adapter", "training_adapter")
_NO_ADAPTER = (
    "no training adapter in models/loras: a LoRA trained on schnell without one loses its 4-step quality; "
    "docs/comfyui.md says which to get"
)


@dataclass(frozen=True)
class RunPlan:
    """Everything a run depends on. `identity` is what its result depends on, without a path."""

    name: str
    dataset: DatasetHandle
    phantom: bool
    source: Any
    arguments: dict[str, Any]
    identity: dict[str, Any]
    regularisation: int
    regularisation_side: int
    previews: tuple[str, ...]
    seed: int
    bracketed: bool
    cpu: bool
    warnings: tuple[str, ...]

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

    dataset: DatasetHandle = inputs["dataset"]
    phantom = inputs["base_model"] == PHANTOM
    _check(inputs, dataset, phantom)
    robust = inputs["preset"] == "robust"
    adapter, warnings = _adapter(inputs["training_adapter"], wanted=robust and not phantom)
    sides = _sides(inputs["resolution"], phantom)
    base, source = _base(inputs, phantom)
    regularisation = inputs["regularisation_images"]
    previews = _previews(inputs, dataset)
    cpu = comfy.model_management.cpu_state == comfy.model_management.CPUState.CPU
    values: dict[str, Any] = {
        "train_data_dir": dataset.folder,
        "network_dim": inputs["network_dim"],
        "network_alpha": inputs["network_alpha"],
        "network_targets": inputs["network_targets"],
        "learning_rate": inputs["learning_rate"] or (PHANTOM_LEARNING_RATE if phantom else PAPER_RATE),
        "max_train_steps": inputs["steps"],
        "resolution": sides,
        "train_batch_size": inputs["batch_size"],
        "gradient_accumulation_steps": inputs["gradient_accumulation"],
        "optimizer_type": inputs["optimizer"],
        "timestep_sampling": inputs["timestep_sampling"],
        "weight_decay": inputs["weight_decay"],
        "max_grad_norm": inputs["max_grad_norm"],
        "prior_loss_weight": inputs["prior_loss_weight"],
        "seed": inputs["seed"],
        "mixed_precision": inputs["mixed_precision"],
        **_schedule(inputs, phantom),
        **_selectivity(inputs, dataset, robust=robust),
    }
    without_effect = {
        "gradient_checkpointing": inputs["gradient_checkpointing"],
        "blocks_to_swap": inputs["blocks_to_swap"],
        "checkpoint_every_n_steps": inputs["checkpoint_every"],
        "sample_every_n_steps": inputs["preview_every"] if previews else 0,
        "sample_size": inputs["preview_size"],
        "save_every_n_steps": inputs.get("save_every", 0),
        "cpu": cpu,
        "training_adapter": adapter,
        **base,
    }
    identity = {key: value for key, value in values.items() if key != "train_data_dir"}
    identity |= {"dataset": dataset.sha256, "base": _names(inputs), "regularisation": regularisation}
    identity |= {"adapter": adapter.name if adapter else None}
    return RunPlan(
        name=inputs["name"].strip(),
        dataset=dataset,
        phantom=phantom,
        source=source,
        arguments={**values, **without_effect},
        identity=identity,
        regularisation=regularisation,
        regularisation_side=min(768, max(sides)),
        previews=previews,
        seed=inputs["seed"],
        bracketed=_bracketed(dataset),
        cpu=cpu,
        warnings=tuple(warnings),
    )


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


def _sides(text: str, phantom: bool) -> tuple[int, ...]:
    from ..trainer.config import DEFAULT_RESOLUTION

    if text.strip() in (AUTO, ""):
        return (PHANTOM_SIDE,) if phantom else DEFAULT_RESOLUTION
    try:
        return tuple(sorted({int(part) for part in text.replace(",", " ").split()}))
    except ValueError:
        raise UserError(f"resolution {text!r} is no list of whole numbers, such as 512,768") from None


def _schedule(inputs: dict[str, Any], phantom: bool) -> dict[str, Any]:
    warmup = inputs["lr_warmup_steps"]
    if inputs["lr_scheduler"] != AUTO:
        return {"lr_scheduler": inputs["lr_scheduler"], "lr_warmup_steps": warmup}
    if phantom:
        return {**PHANTOM_SCHEDULE, **({"lr_warmup_steps": warmup} if warmup else {})}
    return {"lr_scheduler": "constant_with_warmup" if warmup else "constant", "lr_warmup_steps": warmup}


def _selectivity(inputs: dict[str, Any], dataset: DatasetHandle, *, robust: bool) -> dict[str, Any]:
    """What ties the cleft to its trigger, and the loss to the lip: the preset's, or as the widgets say."""
    from ..diffusioncleft_core.conditions import load_vocabulary

    found: dict[str, Any] = dict(ROBUST) if robust else {}
    if inputs.get("output_preservation_weight", -1.0) >= 0:
        found["output_preservation_weight"] = inputs["output_preservation_weight"]
    if inputs.get("region_weight"):
        found["region_weight"] = inputs["region_weight"]
    if found.get("output_preservation_weight"):
        conditions = load_vocabulary().conditions
        found["other_trigger"] = next(
            item.trigger for name, item in conditions.items() if name != dataset.condition
        )
    return found


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


def _previews(inputs: dict[str, Any], dataset: DatasetHandle) -> tuple[str, ...]:
    """The prompts written on the node, else one of the condition's own plan."""
    if not inputs["preview_every"]:
        return ()
    lines = [line.strip() for line in inputs["preview_prompts"].splitlines() if line.strip()]
    if lines:
        return tuple(lines[:16])
    from ..diffusioncleft_core.conditions import load_vocabulary
    from ..diffusioncleft_core.prompts import plain_text, sampling_plan

    condition = load_vocabulary().condition(dataset.condition)
    plan = sampling_plan(condition, 2, inputs["seed"], bracketed=_bracketed(dataset))
    return tuple(plain_text(row.prompt) for row in plan)


def _bracketed(dataset: DatasetHandle) -> bool:
    from ..diffusioncleft_core.dataset.folder import SETTINGS
    from ..diffusioncleft_core.files import read_json

    path = dataset.folder / SETTINGS
    described = read_json(path) if path.is_file() else {}
    return bool(described.get("settings", {}).get("bracketed", True))


def _names(inputs: dict[str, Any]) -> list[str]:
    return [inputs[name] for name in ("base_model", "vae", "clip_l", "t5xxl")]
