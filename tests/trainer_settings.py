"""The one place where tests make the settings of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def trainer_settings(**values: Any) -> Any:
    """Settings of a small LoRA on the processor in float32; `values` go by the trainer's own names."""
    from recipes import recipe_of

    from diffusioncleft.diffusioncleft_core.recipe.checks import check_places, check_recipe
    from diffusioncleft.trainer.kohya import spelled

    small = {
        "phantom": "pretrained_model_name_or_path" not in values,
        "train_data_dir": Path("photos"),
        "network_dim": 4,
        "network_alpha": 6.0,
        "optimizer_type": "AdamW",
        "num_cpu_threads": 1,
        "device": "cpu",
    }
    subsets = values.pop("subsets", ())
    recipe = recipe_of(**{**small, **values}).replaced({"data.subsets": subsets})
    return check_places(check_recipe(recipe, spelled), spelled)
