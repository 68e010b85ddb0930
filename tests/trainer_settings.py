"""The one place where tests make the settings of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def trainer_settings(**values: Any) -> Any:
    """Settings of a small LoRA on the processor in float32; `values` go by the trainer's own names."""
    from diffusioncleft.trainer.config import TrainSettings, checked

    small = {
        "phantom": "pretrained_model_name_or_path" not in values,
        "train_data_dir": Path("photos"),
        "network_dim": 4,
        "network_alpha": 6.0,
        "optimizer_type": "AdamW",
        "num_cpu_threads": 1,
        "device": "cpu",
    }
    return checked(TrainSettings(**{**small, **values}))
