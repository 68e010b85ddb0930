"""kohya's names: the recipe's field of each option, the options always on here, and those refused."""

from collections.abc import Mapping

FIELDS: Mapping[str, str] = {
    "pretrained_model_name_or_path": "model.base",
    "clip_l": "model.clip_l",
    "t5xxl": "model.t5xxl",
    "ae": "model.vae",
    "tokenizer_clip": "model.tokenizer_clip",
    "tokenizer_t5": "model.tokenizer_t5",
    "phantom": "model.phantom",
    "dataset_config": "data.config",
    "train_data_dir": "data.train_dir",
    "reg_data_dir": "data.reg_dir",
    "class_tokens": "data.class_tokens",
    "caption_extension": "data.caption_extension",
    "resolution": "data.resolution",
    "bucket_reso_steps": "data.bucket_step",
    "cache_latents_to_disk": "data.cache_on_disk",
    "cache_dir": "data.cache_dir",
    "output_dir": "output.folder",
    "output_name": "output.name",
    "save_precision": "output.save_precision",
    "save_every_n_steps": "output.save_every_n_steps",
    "save_last_n_steps": "output.save_last_n_steps",
    "checkpoint_every_n_steps": "output.checkpoint_every_n_steps",
    "resume": "output.resume",
    "network_dim": "network.rank",
    "network_alpha": "network.alpha",
    "network_targets": "network.targets",
    "network_qkv": "network.qkv",
    "training_adapter": "network.training_adapter",
    "learning_rate": "optimizer.learning_rate",
    "optimizer_type": "optimizer.name",
    "adam_beta1": "optimizer.beta1",
    "adam_beta2": "optimizer.beta2",
    "adam_eps": "optimizer.epsilon",
    "weight_decay": "optimizer.weight_decay",
    "max_grad_norm": "optimizer.max_grad_norm",
    "lr_scheduler": "optimizer.schedule",
    "lr_warmup_steps": "optimizer.warmup_steps",
    "max_train_steps": "optimizer.steps",
    "train_batch_size": "data.batch_size",
    "gradient_accumulation_steps": "optimizer.accumulation_steps",
    "prior_loss_weight": "objective.prior_loss_weight",
    "prior_target": "objective.prior_target",
    "output_preservation_weight": "objective.output_preservation_weight",
    "other_trigger": "objective.other_trigger",
    "region_weight": "objective.region_weight",
    "timestep_sampling": "objective.timestep_sampling",
    "sigmoid_scale": "objective.sigmoid_scale",
    "discrete_flow_shift": "objective.shift",
    "seed": "objective.seed",
    "mixed_precision": "memory.precision",
    "gradient_checkpointing": "memory.gradient_checkpointing",
    "blocks_to_swap": "memory.blocks_to_swap",
    "device": "memory.device",
    "num_cpu_threads": "memory.cpu_threads",
    "sample_prompts": "previews.prompts",
    "sample_every_n_steps": "previews.every_n_steps",
    "sample_at_first": "previews.at_first",
    "sample_size": "previews.size",
    "sample_steps": "previews.steps",
    "report_every_step": "output.report_every_step",
    "trigger": "data.trigger",
    "prompt_form": "data.prompt_form",
    "stop_file": "output.stop_file",
}
"""The recipe's field of each option of kohya's trainer, and of the options that are ours, in the order of
`--help`."""
DATASET_FIELDS: Mapping[str, str] = {
    "resolution": "data.resolution",
    "batch_size": "data.batch_size",
    "bucket_reso_steps": "data.bucket_step",
}
"""The recipe's field of each key of a dataset TOML."""
NAMES: Mapping[str, str] = {path: name for name, path in FIELDS.items()}


def spelled(path: str) -> str:
    """A recipe's field as an option."""
    return f"--{NAMES[path]}" if path in NAMES else path


# Options whose only value here is the one that is listed: given so, they are accepted; else they are refused.
ALWAYS: Mapping[str, tuple[str, ...]] = {
    "network_module": ("networks.lora_flux",),
    "network_train_unet_only": ("",),
    "cache_latents": ("",),
    "cache_text_encoder_outputs": ("",),
    "cache_text_encoder_outputs_to_disk": ("",),
    "enable_bucket": ("",),
    "bucket_no_upscale": ("",),
    "sdpa": ("",),
    "mem_eff_attn": ("",),
    "save_model_as": ("safetensors",),
    "guidance_scale": ("1", "1.0"),
    "model_prediction_type": ("raw",),
    "loss_type": ("l2",),
    "weighting_scheme": ("none", "uniform"),
    "save_state": ("",),
    "save_state_on_train_end": ("",),
    "full_path": ("",),
    "no_half_vae": ("",),
    "sample_sampler": ("euler",),
    "dynamo_backend": ("no",),
    "min_timestep": ("0",),
    "max_timestep": ("1000",),
    "text_encoder_lr": ("0",),
    "caption_dropout_rate": ("0", "0.0"),
    "network_dropout": ("0", "0.0"),
    "noise_offset": ("0", "0.0"),
}

_PLAIN_LOSS = "the loss is the plain flow-matching loss; leave it out"
_CACHED_TEXT = (
    "text embeddings are cached a caption, so a caption can't change from step to step; leave it out"
)
_CACHED_LATENTS = "latents are cached, so an image can't change from step to step; leave it out"
_ENCODERS = "the text encoders stay frozen; leave it out"
_QUANTISED = "the base is trained around in bf16; use --blocks_to_swap to save memory"
_LOGGING = "the history is in loss.jsonl and in the events on standard output; leave it out"
_UPLOAD = "nothing is sent anywhere; copy the file yourself"
_COMPILE = "compiled blocks are not supported; leave it out"
_ONE_PROCESS = "training runs in one process; leave it out"
_LAYERS = "use --network_targets to choose layers"
_EPOCHS = "give the interval in steps"
_HOLDOUT = "a hold-out is reserved by diffusioncleft dataset build --holdout; leave it out"
_METADATA = "the metadata of the file is written from the run; leave it out"
_STEPS = "steps are counted, not epochs; use --max_train_steps"

REFUSED: Mapping[str, str] = {
    "flip_aug": "mirroring an image swaps the side of the cleft that its caption names; leave it out",
    "color_aug": _CACHED_LATENTS,
    "random_crop": _CACHED_LATENTS,
    "face_crop_aug_range": _CACHED_LATENTS,
    "skip_image_resolution": "every readable image is used; take small ones out of the folder",
    "skip_cache_check": "the cache is keyed by content and always checked; leave it out",
    "vae_batch_size": "images are encoded one at a time, once; leave it out",
    "shuffle_caption": _CACHED_TEXT,
    "keep_tokens": _CACHED_TEXT,
    "keep_tokens_separator": _CACHED_TEXT,
    "secondary_separator": _CACHED_TEXT,
    "enable_wildcard": _CACHED_TEXT,
    "caption_tag_dropout_rate": _CACHED_TEXT,
    "caption_dropout_every_n_epochs": _CACHED_TEXT,
    "caption_dropout_rate": "caption dropout is not supported; leave it out",
    "token_warmup_min": _CACHED_TEXT,
    "token_warmup_step": _CACHED_TEXT,
    "caption_prefix": "write the prefix into the captions",
    "caption_suffix": "write the suffix into the captions",
    "caption_separator": _CACHED_TEXT,
    "weighted_captions": "captions are read as plain text; leave it out",
    "max_token_length": "CLIP reads 77 tokens in FLUX; leave it out",
    "t5xxl_max_token_length": "the T5 length comes from the base model (256 for schnell); leave it out",
    "apply_t5_attn_mask": "FLUX.1 reads the padded text without a mask, as in generation; leave it out",
    "alpha_mask": _PLAIN_LOSS,
    "masked_loss": _PLAIN_LOSS,
    "conditioning_data_dir": "this trainer is for LoRAs, not for ControlNet; leave it out",
    "noise_offset": _PLAIN_LOSS,
    "noise_offset_random_strength": _PLAIN_LOSS,
    "multires_noise_iterations": _PLAIN_LOSS,
    "multires_noise_discount": _PLAIN_LOSS,
    "ip_noise_gamma": _PLAIN_LOSS,
    "ip_noise_gamma_random_strength": _PLAIN_LOSS,
    "adaptive_noise_scale": _PLAIN_LOSS,
    "min_snr_gamma": _PLAIN_LOSS,
    "debiased_estimation_loss": _PLAIN_LOSS,
    "scale_v_pred_loss_like_noise_pred": _PLAIN_LOSS,
    "v_pred_like_loss": _PLAIN_LOSS,
    "zero_terminal_snr": _PLAIN_LOSS,
    "huber_schedule": _PLAIN_LOSS,
    "huber_c": _PLAIN_LOSS,
    "huber_scale": _PLAIN_LOSS,
    "loss_type": _PLAIN_LOSS,
    "weighting_scheme": _PLAIN_LOSS,
    "logit_mean": "--timestep_sampling sigmoid has mean 0 and --sigmoid_scale; leave it out",
    "logit_std": "use --timestep_sampling sigmoid with --sigmoid_scale",
    "mode_scale": _PLAIN_LOSS,
    "min_timestep": "the whole range of noise levels is trained; leave it out",
    "max_timestep": "the whole range of noise levels is trained; leave it out",
    "model_prediction_type": "FLUX predicts the velocity; use raw or leave it out",
    "guidance_scale": "schnell has no guidance embedder; use 1.0 or leave it out",
    "model_type": "only FLUX.1 is trained here; leave it out",
    "v2": "only FLUX.1 is trained here; leave it out",
    "v_parameterization": "only FLUX.1 is trained here; leave it out",
    "clip_skip": "FLUX reads CLIP's pooled output; leave it out",
    "text_encoder_lr": _ENCODERS,
    "network_train_text_encoder_only": _ENCODERS,
    "train_text_encoder": _ENCODERS,
    "text_encoder_batch_size": _ENCODERS,
    "unet_lr": "the LoRA has one learning rate: use --learning_rate",
    "network_module": "the only network is a LoRA on FLUX; leave it out",
    "network_args": _LAYERS,
    "network_dropout": "the LoRA has no dropout; leave it out",
    "scale_weight_norms": "LoRA weights are not renormalised; leave it out",
    "dim_from_weights": "give --network_dim and --network_alpha of the file",
    "base_weights": "use --training_adapter for a LoRA that is on while training",
    "base_weights_multiplier": "use --training_adapter for a LoRA that is on while training",
    "cpu": "use --device cpu",
    "fp8_base": _QUANTISED,
    "fp8_base_unet": _QUANTISED,
    "nf4_base": _QUANTISED,
    "full_fp16": "half precision overflows in FLUX; use --mixed_precision bf16",
    "full_bf16": "the LoRA and its optimizer stay in fp32; use --mixed_precision bf16",
    "deepspeed": _ONE_PROCESS,
    "ddp_timeout": _ONE_PROCESS,
    "ddp_gradient_as_bucket_view": _ONE_PROCESS,
    "ddp_static_graph": _ONE_PROCESS,
    "torch_compile": _COMPILE,
    "dynamo_backend": _COMPILE,
    "fused_backward_pass": "the optimizer steps once all gradients are there; leave it out",
    "fused_optimizer_groups": "the optimizer steps once all gradients are there; leave it out",
    "blockwise_fused_optimizers": "the optimizer steps once all gradients are there; leave it out",
    "cpu_offload_checkpointing": "use --gradient_checkpointing with --blocks_to_swap",
    "lowram": "weights are read by memory map; leave it out",
    "highvram": "use --blocks_to_swap 0, which is the default",
    "xformers": "attention is torch's scaled_dot_product_attention; use --sdpa or leave it out",
    "mem_eff_attn": "attention is torch's scaled_dot_product_attention; use --sdpa or leave it out",
    "split_attn": "attention is torch's scaled_dot_product_attention; use --sdpa or leave it out",
    "split_mode": "use --blocks_to_swap",
    "max_data_loader_n_workers": "everything is cached before the first step; leave it out",
    "persistent_data_loader_workers": "everything is cached before the first step; leave it out",
    "max_train_epochs": _STEPS,
    "initial_epoch": _STEPS,
    "initial_step": "use --resume",
    "skip_until_initial_step": "use --resume",
    "save_every_n_epochs": _EPOCHS,
    "save_n_epoch_ratio": _EPOCHS,
    "save_last_n_epochs": _EPOCHS,
    "save_last_n_epochs_state": _EPOCHS,
    "save_last_n_steps_state": "the last two checkpoints are kept; leave it out",
    "sample_every_n_epochs": _EPOCHS,
    "sample_sampler": "previews use schnell's own schedule with Euler steps; leave it out",
    "save_model_as": "a LoRA is saved as safetensors; leave it out",
    "vae": "FLUX's autoencoder is given as --ae",
    "network_weights": "a run starts from a fresh LoRA; use --resume to go on with an interrupted one",
    "resume_from_huggingface": _UPLOAD,
    "huggingface_repo_id": _UPLOAD,
    "huggingface_token": _UPLOAD,
    "async_upload": _UPLOAD,
    "logging_dir": _LOGGING,
    "log_with": _LOGGING,
    "log_prefix": _LOGGING,
    "log_tracker_name": _LOGGING,
    "log_tracker_config": _LOGGING,
    "log_config": _LOGGING,
    "wandb_api_key": _LOGGING,
    "wandb_run_name": _LOGGING,
    "training_comment": _METADATA,
    "no_metadata": "the metadata say how to use the file and name no photograph; leave it out",
    "metadata_title": _METADATA,
    "metadata_author": _METADATA,
    "metadata_description": _METADATA,
    "metadata_license": _METADATA,
    "metadata_tags": _METADATA,
    "optimizer_args": "use --adam_beta1, --adam_beta2, --adam_eps and --weight_decay",
    "use_8bit_adam": "use --optimizer_type AdamW8bit",
    "use_lion_optimizer": "the optimizers are AdamW8bit and AdamW",
    "lr_scheduler_num_cycles": "cosine falls once over the run; leave it out",
    "lr_scheduler_power": "the schedules are constant, constant_with_warmup, linear and cosine; leave it out",
    "lr_scheduler_type": "use --lr_scheduler",
    "lr_scheduler_args": "the schedules are constant, constant_with_warmup, linear and cosine; leave it out",
    "lr_decay_steps": "use --lr_scheduler linear or cosine",
    "dataset_class": "no foreign code is loaded; leave it out",
    "dataset_repeats": "use num_repeats in the dataset TOML",
    "in_json": "captions come from manifest.jsonl or from caption files; leave it out",
    "token_string": "train a LoRA, not an embedding; leave it out",
    "validation_split": _HOLDOUT,
    "validation_seed": _HOLDOUT,
    "validate_every_n_steps": "there is no validation loss; leave it out",
    "debug_dataset": "use diffusioncleft dataset show",
    "console_log_level": _LOGGING,
    "console_log_file": _LOGGING,
    "console_log_simple": _LOGGING,
}


def refusal(option: str, value: str) -> str | None:
    """Say in one sentence why kohya's `option` is not honoured; None when `value` is what happens anyway.

    An option that is unknown here too raises KeyError.
    """
    allowed = ALWAYS.get(option)
    if allowed is not None and value in allowed:
        return None
    if option in REFUSED:
        return f"--{option} is not honoured: {REFUSED[option]}"
    if allowed is not None:
        only = allowed[0]
        return f"--{option} is always {only or 'on'} here; " + (
            f"give {only} or leave it out" if only else "leave it out"
        )
    raise KeyError(option)
