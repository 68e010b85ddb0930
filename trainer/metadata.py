"""What is written into the LoRA file, and what a checkpoint has to agree with."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..diffusioncleft_core.environment import versions
from .config import TrainSettings
from .optimizer import optimizer_name
from .prepare import Prepared
from .triggers import trigger_form

# Settings that the tensors depend on. Paths are absent: content is compared, by hash.
_MATTERS = (
    "network_dim", "network_alpha", "learning_rate", "adam_beta1", "adam_beta2", "adam_eps", "weight_decay",
    "max_grad_norm", "lr_scheduler", "lr_warmup_steps", "train_batch_size", "gradient_accumulation_steps",
    "network_targets", "timestep_sampling", "sigmoid_scale", "discrete_flow_shift", "seed",
)  # fmt: skip


def what_matters(
    settings: TrainSettings, prepared: Prepared, total: int, number_format: str, adapter_sha256: str | None
) -> dict[str, Any]:
    """Return everything that the run's tensors depend on, for the checkpoint to be compared with."""
    matters: dict[str, Any] = {name: getattr(settings, name) for name in _MATTERS}
    matters |= prepared.fingerprints
    matters |= {
        "optimizer": optimizer_name(settings),
        "number format": number_format,
        "training adapter": adapter_sha256,
    }
    if prepared.collected.reg:
        matters |= {"prior_loss_weight": settings.prior_loss_weight, "prior_target": settings.prior_target}
    if settings.output_preservation_weight:
        matters |= {
            "output_preservation_weight": settings.output_preservation_weight,
            "trigger": prepared.trigger,
            "other_trigger": settings.other_trigger,
        }
    if settings.region_weight != 1:
        matters |= {"region_weight": settings.region_weight, "regions": prepared.fingerprints["regions"]}
    if settings.lr_scheduler in ("linear", "cosine"):
        matters["max_train_steps"] = total
    return matters


def run_fingerprint(matters: dict[str, Any]) -> str:
    """SHA-256 of what matters. The images are in it by their keyed fingerprint only."""
    return hashlib.sha256(json.dumps(matters, sort_keys=True).encode()).hexdigest()


def lora_metadata(
    settings: TrainSettings, prepared: Prepared, matters: dict[str, Any], step: int, total: int
) -> dict[str, str]:
    """Return the metadata of the LoRA file: kohya's `ss_*` names where there is one, and ours.

    They name no file, folder or caption: the images are known by count, bucket and a keyed fingerprint.
    """
    collected = prepared.collected
    captions = [image.caption for image in collected.train]
    values: dict[str, Any] = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "flux-1-schnell/lora",
        "modelspec.implementation": "https://github.com/black-forest-labs/flux",
        "ss_base_model_version": "flux1",
        "ss_network_module": "networks.lora_flux",
        "ss_network_dim": settings.network_dim,
        "ss_network_alpha": settings.network_alpha,
        "ss_learning_rate": settings.learning_rate,
        "ss_lr_scheduler": settings.lr_scheduler,
        "ss_lr_warmup_steps": settings.lr_warmup_steps,
        "ss_optimizer": matters["optimizer"],
        "ss_steps": step,
        "ss_max_train_steps": total,
        "ss_seed": settings.seed,
        "ss_num_train_images": len(collected.train),
        "ss_num_reg_images": len(collected.reg),
        "ss_prior_loss_weight": settings.prior_loss_weight if collected.reg else None,
        "ss_total_batch_size": settings.train_batch_size,
        "ss_gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "ss_gradient_checkpointing": settings.gradient_checkpointing,
        "ss_mixed_precision": "bf16" if "bfloat16" in matters["number format"] else "no",
        "ss_resolution": ",".join(map(str, settings.resolution)),
        "bucket_counts": json.dumps(collected.bucket_counts()),
        "ss_timestep_sampling": settings.timestep_sampling,
        "ss_discrete_flow_shift": settings.discrete_flow_shift
        if settings.timestep_sampling == "shift"
        else None,
        "ss_guidance_scale": 1.0,
        "trigger": prepared.trigger,
        "prompt_form": settings.prompt_form or trigger_form(captions, prepared.trigger),
        "effective_scale": settings.network_alpha / settings.network_dim,
        "training_adapter_sha256": matters["training adapter"],
        "prior_target": settings.prior_target if collected.reg else None,
        "output_preservation_weight": settings.output_preservation_weight or None,
        "region_weight": settings.region_weight if settings.region_weight != 1 else None,
        "dataset_fingerprint": prepared.fingerprints["images"],
        "base_model_sha256": prepared.fingerprints["base model"],
        "run_fingerprint": run_fingerprint(matters),
        "software": f"diffusioncleft {versions()['diffusioncleft']}",
    }
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def saved_steps(path: Path, matters: dict[str, Any]) -> int | None:
    """Return the steps behind the LoRA file of this very run, None if there is none."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError):
        return None
    mine = metadata.get("run_fingerprint") == run_fingerprint(matters)
    return int(metadata["ss_steps"]) if mine else None
