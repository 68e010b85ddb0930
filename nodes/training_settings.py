"""From the trainer's widgets to a training recipe."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import sha256_model
from ..diffusioncleft_core.ranges import sides
from ..diffusioncleft_core.recipe.checks import check_places, check_recipe
from ..diffusioncleft_core.recipe.document import shared_fields
from ..diffusioncleft_core.recipe.presets import chosen_recipe, completed_recipe, named_recipe
from ..diffusioncleft_core.recipe.recipe import PAPER_SIDE, Recipe
from ..trainer.kohya import NAMES
from . import places
from .common import AUTO, NONE, PHANTOM
from .opened import DatasetHandle
from .recipe_widgets import WIDGETS, field_value, spelled, unset
from .training_options import UNSET

_ADAPTER_NAMES = ("training-adapter", "training_adapter")
_NO_ADAPTER = (
    "no training adapter in models/loras: a LoRA trained on schnell without one loses its 4-step quality; "
    "docs/comfyui.md says which to get"
)

_WITHOUT_EFFECT = (
    "data.bucket_step",
    "data.cache_on_disk",
    "data.caption_extension",
    "memory.blocks_to_swap",
    "memory.deterministic",
    "memory.dynamo_backend",
    "memory.gradient_checkpointing",
)
"""Fields that the node does not offer, or that a run goes on with, where it was, when they change."""


_PREVIEWS = ("previews.every_n_steps", "previews.size")
"""Set where there is something to preview."""


@dataclass(frozen=True)
class RunPlan:
    """A training that a node is asked for: its recipe, and what is made for it first."""

    name: str
    dataset: DatasetHandle
    source: Any
    recipe: Recipe
    regularisation: int
    regularisation_side: int
    previews: tuple[str, ...]
    bracketed: bool
    warnings: tuple[str, ...]

    @property
    def phantom(self) -> bool:
        return self.recipe.model.phantom

    def identity(self) -> dict[str, Any]:
        """What the result depends on, model files by their content: reads them whole the first time."""
        adapter = self.recipe.network.training_adapter
        groups = ("data", "network", "optimizer", "objective", "memory")
        fields = {
            NAMES[path]: value
            for path, value in shared_fields(self.recipe).items()
            if path.partition(".")[0] in groups and path not in _WITHOUT_EFFECT and value is not None
        }
        return fields | {
            "dataset": self.dataset.sha256,
            "base": self.source.fingerprints(),
            "regularisation": self.regularisation,
            "adapter": sha256_model(adapter) if adapter else None,
        }

    def recipe_in(self, folder: Path) -> Recipe:
        """The recipe of a run in `folder`."""
        places: dict[str, Any] = {"output.folder": folder / "training", "output.name": "lora"}
        if self.regularisation:
            places["data.reg_dir"] = folder / "regularisation"
        if self.previews:
            places["previews.prompts"] = folder / "prompts.txt"
        return check_places(self.recipe.replaced(places), spelled)


def plan_run(inputs: dict[str, Any]) -> RunPlan:
    """Check the widgets' values and turn them into a plan; UserError for what can't be trained.

    Args:
        inputs: the trainer's; `options` is what Cleft Training Options sends, or None.
    """
    import comfy.model_management

    from ..diffusioncleft_core.dataset.settings import training_facts

    inputs = with_options(inputs)

    dataset: DatasetHandle = inputs["dataset"]
    phantom = inputs["base_model"] == PHANTOM
    _check(inputs, dataset, phantom)
    robust = inputs["preset"] == "robust"
    adapter, warnings = _adapter(inputs["training_adapter"], wanted=robust and not phantom)
    model, source = _base(inputs, phantom)
    facts = training_facts(dataset.folder)
    bracketed = facts.bracketed is not False
    previews = _previews(inputs, dataset, bracketed=bracketed)
    choices = _choices(inputs)
    recipe = chosen_recipe(named_recipe(inputs["preset"], phantom=phantom), choices)
    recipe = completed_recipe(recipe, facts, choices).replaced(
        {
            **model,
            "data.train_dir": dataset.folder,
            "network.training_adapter": adapter,
            "memory.device": str(comfy.model_management.get_torch_device()),
            "previews.every_n_steps": inputs["preview_every"] if previews else 0,
            "previews.size": inputs["preview_size"] if previews else 0,
        }
    )
    return RunPlan(
        name=inputs["name"].strip(),
        dataset=dataset,
        source=source,
        recipe=check_recipe(recipe, spelled),
        regularisation=inputs["regularisation_images"],
        regularisation_side=min(PAPER_SIDE, max(recipe.data.resolution)),
        previews=previews,
        bracketed=bracketed,
        warnings=tuple(warnings),
    )


def with_options(inputs: dict[str, Any]) -> dict[str, Any]:
    """The trainer's inputs with every option among them, those that nobody chose as the preset's."""
    return {**UNSET, **(inputs.get("options") or {}), **inputs}


def file_states(inputs: dict[str, Any]) -> list[list[int]]:
    """Size, time and inode of every model file that the trainer's widgets stand for: another file under an
    old name is noticed without reading it. Cleft Training Options tells of its own.
    """
    from ..diffusioncleft_core.flux.source import COMPONENTS

    inputs = with_options(inputs)
    phantom = inputs["base_model"] == PHANTOM
    adapter, _ = _adapter(inputs["training_adapter"], wanted=inputs["preset"] == "robust" and not phantom)
    _, source = _base(inputs, phantom)
    paths = [path for component in COMPONENTS for path in source.paths(component)]
    found = [path.stat() for path in [*paths, *([adapter] if adapter else [])]]
    return [[state.st_size, state.st_mtime_ns, state.st_ino] for state in found]


def check_run(inputs: dict[str, Any]) -> None:
    """Raise the UserError that preparing this run, or opening its base model, would; nothing is written."""
    from ..diffusioncleft_core.flux.transformer import check_transformer

    plan = plan_run(inputs)
    plan.recipe_in(Path("run"))
    _check_balance(plan)
    check_transformer(plan.source)


def _check_balance(plan: RunPlan) -> None:
    """Raise UserError for attributes to balance that the dataset's rows don't say; no image is read."""
    from ..diffusioncleft_core.dataset.folder import dataset_rows, is_dataset
    from ..trainer.balance import attribute_names, check_balanced
    from ..trainer.data import mirrored_attributes

    name, data = spelled("data.balance_by"), plan.recipe.data
    names = attribute_names(data.balance_by, name)
    if names and is_dataset(plan.dataset.folder):
        said = [row.attributes for row in dataset_rows(plan.dataset.folder, "train")]
        mirrored = [mirrored_attributes(attributes) for attributes in said] if data.mirror else []
        check_balanced([*said, *mirrored], names, name)


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
    """What the widgets say of the recipe's fields; what is left to the preset is not among it."""
    chosen: dict[str, Any] = {}
    for widget, path in WIDGETS.items():
        left = unset(widget)
        value = _resolution(inputs[widget]) if widget == "resolution" else inputs[widget]
        if value != left and path not in _PREVIEWS:
            chosen[path] = field_value(widget, value)
    return chosen


def _resolution(text: str) -> Any:
    if text.strip() in (AUTO, ""):
        return AUTO
    try:
        return sides(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"resolution: {error}") from None


def _base(inputs: dict[str, Any], phantom: bool) -> tuple[dict[str, Any], Any]:
    """The base model as fields of the recipe, and as a FluxSource."""
    from ..diffusioncleft_core.flux.source import FluxSource, phantom_source

    if phantom:
        return {}, phantom_source()
    name = inputs["base_model"]
    if name in places.diffusers_folders():
        folder = places.diffusers_folder(name)
        return {"model.base": folder}, FluxSource.from_arguments(folder)
    file = places.model_file("diffusion_models", name)
    kinds = {
        "vae": ("vae", "ae.safetensors"),
        "clip_l": ("text_encoders", "clip_l"),
        "t5xxl": ("text_encoders", "t5xxl"),
    }
    parts = {part: _part(inputs[part], *where) for part, where in kinds.items()}
    tokenizers = _tokenizers()
    source = FluxSource.from_arguments(file, **parts, **tokenizers)
    fields = {
        "model.base": file,
        "model.vae": source.vae,
        "model.clip_l": source.clip_l,
        "model.t5xxl": source.t5xxl,
        **{f"model.{name}": path for name, path in tokenizers.items()},
    }
    return fields, source


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
