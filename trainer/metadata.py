"""What is written into the LoRA file, and what a checkpoint has to agree with."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError, safe_open

from ..diffusioncleft_core.dataset.consent import NOT_RECORDED, RECORDED, consent_recorded
from ..diffusioncleft_core.dataset.trained import run_fingerprint
from ..diffusioncleft_core.dataset.withdrawn import RUN_KEY
from ..diffusioncleft_core.environment import versions
from ..diffusioncleft_core.files import read_json, sha256_file, write_json
from ..diffusioncleft_core.flux.packed import PLAIN
from ..diffusioncleft_core.recipe.document import METADATA_KEY, recipe_document
from ..diffusioncleft_core.recipe.presets import steps_tell, told_recipe
from ..diffusioncleft_core.recipe.recipe import Recipe, recipe_fields
from ..diffusioncleft_core.small_counts import is_small, told, told_parts
from .data_order import data_order
from .epochs import steps_an_epoch
from .kohya import NAMES
from .network_args import pairs_of
from .optimizer import optimizer_name
from .prepare import Prepared
from .triggers import trigger_form

_ADDED = (
    "network.form",
    "network.factor",
    "data.balance_by",
    "network.args",
    "optimizer.args",
    "optimizer.cycles",
    "optimizer.power",
    "optimizer.min_lr_ratio",
    "optimizer.decay_steps",
    "optimizer.timescale",
    "objective.logit_mean",
    "objective.logit_std",
    "objective.min_timestep",
    "objective.max_timestep",
    "memory.compile",
    "memory.dynamo_backend",
    "objective.caption_dropout_rate",
    "objective.caption_dropout_every_n_epochs",
    "optimizer.ema_decay",
)


STATE = "state"
"""The folder of checkpoints, below the output folder."""
_SAVED = "saved.json"
_ALWAYS_SO: Mapping[str, Any] = MappingProxyType(
    {
        **dict.fromkeys(("ss_cache_latents", "ss_enable_bucket", "ss_bucket_no_upscale"), True),
        **dict.fromkeys(
            (
                "ss_v2", "ss_full_fp16", "ss_lowram", "ss_fp8_base", "ss_fp8_base_unet",
                "ss_color_aug", "ss_random_crop", "ss_shuffle_caption", "ss_zero_terminal_snr",
                "ss_debiased_estimation", "ss_apply_t5_attn_mask",
            ),
            False,
        ),
        **dict.fromkeys(("ss_noise_offset", "ss_network_dropout"), 0.0),
        "ss_loss_type": "l2",
        "ss_model_prediction_type": "raw",
    }
)  # fmt: skip
"""kohya's names of what is the same in every run of this trainer."""


def fingerprinted(
    recipe: Recipe,
    prepared: Prepared,
    total: int,
    number_format: str,
    base_format: str,
    adapter_sha256: str | None,
) -> dict[str, Any]:
    """Everything that the run's tensors depend on, for a checkpoint to be compared with.

    By kohya's names, which checkpoints on disk have. Locations are absent: content is compared, by hash.
    """
    tensors = [path for path, entry in recipe_fields().items() if entry.setting.tensors]
    optional: list[str] = []
    if prepared.collected.reg:
        optional += ["objective.prior_loss_weight", "objective.prior_target"]
    if recipe.objective.output_preservation_weight:
        optional += ["objective.output_preservation_weight", "objective.other_trigger"]
    if recipe.objective.region_weight != 1:
        optional += ["objective.region_weight"]
    if recipe.network.qkv != "separate":  # the only one there was, so checkpoints do not name it
        optional += ["network.qkv"]
    # What later versions added counts where it is not as it was before: older checkpoints go on.
    defaults = Recipe()
    optional += [path for path in _ADDED if recipe[path] != defaults[path]]
    values = {NAMES[path]: recipe[path] for path in [*tensors, *optional]}
    if recipe.validation.early_stop:  # else validation changes nothing of what is trained
        chosen = ("every_n_steps", "seed", "early_stop")
        values |= {NAMES[f"validation.{name}"]: recipe[f"validation.{name}"] for name in chosen}
    if recipe.network.weights is not None:
        values["network weights"] = sha256_file(recipe.network.weights)
    if recipe.objective.output_preservation_weight:
        values["trigger"] = prepared.trigger
    values |= {
        **prepared.fingerprints,
        "optimizer": optimizer_name(recipe),
        "number format": number_format,
        "training adapter": adapter_sha256,
    }
    if base_format != PLAIN:
        values["base format"] = base_format
    if recipe.optimizer.schedule not in ("constant", "constant_with_warmup", "inverse_sqrt"):
        values["max_train_steps"] = total
    return values


def lora_metadata(
    recipe: Recipe, prepared: Prepared, made_from: dict[str, Any], step: int, total: int
) -> dict[str, str]:
    """Return the metadata of the LoRA file: kohya's `ss_*` names where there is one, and ours.

    They name no file, folder or caption: the images are known by count, bucket and a keyed fingerprint. A
    count of fewer than five is not told, and neither are steps from which it would follow.
    """
    collected = prepared.collected
    images = collected.photographs
    shared = told_recipe(recipe, images)
    counted = not steps_tell(recipe, images)
    epochs_counted = counted and not is_small(images)  # so many batches an epoch would tell them
    epoch = steps_an_epoch(recipe, data_order(collected.images, recipe))
    chosen = recipe.objective
    name = prepared.trigger and f"{prepared.trigger}, "
    asked = all(consent_recorded(folder) for folder in {image.folder for image in collected.images})
    values: dict[str, Any] = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "flux-1-schnell/lora",
        "modelspec.implementation": "https://github.com/black-forest-labs/flux",
        "modelspec.title": f"{name}a LoRA for FLUX.1 schnell",
        "modelspec.resolution": "{0}x{0}".format(max(recipe.data.resolution)),
        "modelspec.trigger_phrase": prepared.trigger,
        "modelspec.timestep_range": None
        if (chosen.min_timestep, chosen.max_timestep) == (0, 1000)
        else f"{chosen.min_timestep},{chosen.max_timestep}",
        "ss_base_model_version": "flux1",
        "ss_network_module": "lycoris.kohya" if recipe.network.form == "lokr" else "networks.lora_flux",
        "ss_network_dim": recipe.network.rank,
        "ss_network_alpha": recipe.network.alpha,
        "ss_network_args": json.dumps(network_args) if (network_args := _network_args(recipe)) else None,
        "ss_learning_rate": recipe.optimizer.learning_rate,
        "ss_unet_lr": recipe.optimizer.learning_rate,
        "ss_lr_scheduler": recipe.optimizer.schedule,
        "ss_lr_warmup_steps": recipe.optimizer.warmup_steps,
        "ss_optimizer": made_from["optimizer"]
        + (f"({','.join(recipe.optimizer.args)})" if recipe.optimizer.args else ""),
        "ss_max_grad_norm": recipe.optimizer.max_grad_norm,
        "ss_num_epochs": -(-total // epoch) if epochs_counted else None,
        "ss_epoch": -(-step // epoch) if epochs_counted else None,
        "ss_num_batches_per_epoch": told(epoch * recipe.optimizer.accumulation_steps)
        if epochs_counted
        else None,
        "ss_batch_size_per_device": recipe.data.batch_size,
        "ss_steps": step if counted else None,
        "ss_max_train_steps": total if counted else None,
        "ss_seed": recipe.objective.seed,
        "ss_num_train_images": told(images),
        "ss_num_reg_images": told(collected.reg_photographs),
        "ss_prior_loss_weight": recipe.objective.prior_loss_weight if collected.reg else None,
        "ss_total_batch_size": recipe.data.batch_size,
        "ss_gradient_accumulation_steps": recipe.optimizer.accumulation_steps,
        "ss_gradient_checkpointing": recipe.memory.gradient_checkpointing,
        "ss_mixed_precision": {"torch.bfloat16": "bf16", "torch.float16": "fp16"}.get(
            made_from["number format"], "no"
        ),
        "ss_blocks_to_swap": recipe.memory.blocks_to_swap,
        "ss_min_bucket_reso": recipe.data.bucket_min_side or None,
        "ss_max_bucket_reso": recipe.data.bucket_max_side or None,
        "ss_bucket_reso_steps": recipe.data.bucket_step,
        **_ALWAYS_SO,
        "ss_flip_aug": recipe.data.mirror,
        "ss_caption_dropout_rate": chosen.caption_dropout_rate,
        "ss_caption_dropout_every_n_epochs": chosen.caption_dropout_every_n_epochs,
        "base_format": made_from.get("base format", PLAIN),
        "ss_resolution": ",".join(map(str, recipe.data.resolution)),
        "bucket_counts": json.dumps(told_parts(collected.bucket_counts())),
        "ss_timestep_sampling": recipe.objective.timestep_sampling,
        "ss_sigmoid_scale": chosen.sigmoid_scale
        if chosen.timestep_sampling in ("sigmoid", "shift", "flux_shift")
        else None,
        "ss_discrete_flow_shift": chosen.shift
        if chosen.timestep_sampling in ("shift", "sigma", "logit_normal")
        else None,
        "ss_guidance_scale": 1.0,
        **_words(recipe, prepared),
        "ema_decay": recipe.optimizer.ema_decay or None,
        "effective_scale": recipe.network.alpha / recipe.network.rank,
        "training_adapter_sha256": made_from["training adapter"],
        "prior_target": recipe.objective.prior_target if collected.reg else None,
        "output_preservation_weight": recipe.objective.output_preservation_weight or None,
        "balance_by": recipe.data.balance_by,
        "region_weight": recipe.objective.region_weight if recipe.objective.region_weight != 1 else None,
        "dataset_fingerprint": prepared.fingerprints["images"],
        "consent": RECORDED if asked else NOT_RECORDED,
        "base_model_sha256": prepared.fingerprints["base model"],
        METADATA_KEY: json.dumps(recipe_document(shared)),
        RUN_KEY: run_fingerprint(made_from),
        "software": f"diffusioncleft {versions()['diffusioncleft']}",
    }
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def _network_args(recipe: Recipe) -> dict[str, str]:
    """kohya's and LyCORIS' arguments of the network, with those that its form stands for."""
    form = {
        "lora": {},
        "dora": {"use_dora": "True"},
        "lokr": {"algo": "lokr", "factor": str(recipe.network.factor or -1)},
    }[recipe.network.form]
    return pairs_of(recipe.network.args, "network_args") | form


def saved_steps(path: Path, recipe: Recipe, prepared: Prepared, made_from: dict[str, Any]) -> int | None:
    """Return the steps behind the LoRA file of this very run, written as the recipe has it.

    None where there is none, or neither the file nor the record of `remember_saved` tells.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError):
        return None
    if metadata.get(RUN_KEY) != run_fingerprint(made_from):
        return None
    precision = json.loads(metadata.get(METADATA_KEY, "{}")).get("output", {}).get("save_precision")
    if precision not in (recipe.output.save_precision, None):
        return None
    if any(metadata.get(name, "") != value for name, value in _words(recipe, prepared).items()):
        return None
    if "ss_steps" in metadata:
        return int(metadata["ss_steps"])
    record = path.parent / STATE / _SAVED
    known = read_json(record) if record.is_file() else {}
    return int(known["step"]) if known.get("sha256") == sha256_file(path) else None


def remember_saved(path: Path, step: int) -> None:
    """Note beside the checkpoints, which are not shared, the steps behind a LoRA that does not tell them."""
    write_json(path.parent / STATE / _SAVED, {"sha256": sha256_file(path), "step": step}, private=True)


def _words(recipe: Recipe, prepared: Prepared) -> dict[str, str]:
    """What the file says of prompts, of which no tensor need depend."""
    captions = [image.caption for image in prepared.collected.train]
    form = recipe.data.prompt_form or trigger_form(captions, prepared.trigger)
    return {"trigger": prepared.trigger, "prompt_form": form}
