"""kohya's options that are no field of the recipe: always on here, without effect, or refused and why."""

from collections.abc import Mapping

# Options whose only value here is the one that is listed: given so, they are accepted; else they are refused.
ALWAYS: Mapping[str, tuple[str, ...]] = {
    "network_module": ("networks.lora_flux", "lycoris.kohya"),
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
    "text_encoder_lr": ("0",),
    "network_dropout": ("0", "0.0"),
    "noise_offset": ("0", "0.0"),
    "validation_split": ("0", "0.0"),
}

_PLAIN_LOSS = "the loss is the plain flow-matching loss; leave it out"
_CACHED_TEXT = (
    "text embeddings are cached a caption, so a caption can't change from step to step; leave it out"
)
_CACHED_LATENTS = "latents are cached, so an image can't change from step to step; leave it out"
_ENCODERS = "the text encoders stay frozen; leave it out"
_UPLOAD = "nothing is sent anywhere; copy the file yourself"
_WHOLE_MODEL = "every process holds the whole base; use --base_format or --blocks_to_swap"
_EPOCHS = "give --save_last_n_steps"
_HOLDOUT = (
    "a share drawn at random would put pictures of one person on both sides; give --validation_data_dir, or "
    "reserve people by diffusioncleft dataset build --holdout"
)
_METADATA = "the metadata of the file is written from the run; leave it out"
_RESUME = "a run goes on where it stopped; use --resume"
_NO_DDP = "the few gradients of a LoRA are summed without DistributedDataParallel"
_HISTORY = "the history is in loss.jsonl and in the events on standard output"

_NO_LOADER = "everything is encoded before the first step, and no worker loads images while it trains"
_MEMORY = "weights lie where --memory and --blocks_to_swap put them, and are read by memory map"
_SPEED_OF_CACHE = "images and captions are encoded once, in batches that fit"

WITHOUT_EFFECT: Mapping[str, str] = {
    "max_data_loader_n_workers": _NO_LOADER,
    "persistent_data_loader_workers": _NO_LOADER,
    "highvram": _MEMORY,
    "lowvram": _MEMORY,
    "lowram": _MEMORY,
    "disable_mmap_load_safetensors": _MEMORY,
    "vae_batch_size": _SPEED_OF_CACHE,
    "text_encoder_batch_size": _SPEED_OF_CACHE,
    "skip_cache_check": "the cache is keyed by content, so there is nothing to check",
    "cache_info": "the cache is keyed by content, so there is nothing to keep",
    "ddp_timeout": _NO_DDP,
    "ddp_gradient_as_bucket_view": _NO_DDP,
    "ddp_static_graph": _NO_DDP,
    "console_log_level": _HISTORY,
    "console_log_file": _HISTORY,
    "console_log_simple": _HISTORY,
    "log_prefix": "a run logs into --logging_dir, under --log_tracker_name",
    "log_config": "trackers always get the recipe, without what names a place",
}
"""Options that change how kohya's scripts compute and not what: accepted, and a warning says why they do
nothing here."""

TRANSLATED: Mapping[str, str] = {
    "unet_lr": "--learning_rate, which it takes precedence over",
    "use_8bit_adam": "--optimizer_type AdamW8bit",
    "use_lion_optimizer": "--optimizer_type Lion",
    "fp8_base": "--base_format fp8",
    "fp8_base_unet": "--base_format fp8",
    "nf4_base": "--base_format nf4",
    "torch_compile": "--compile",
    "weighting_scheme": "logit_normal is --timestep_sampling logit_normal",
}
"""Options that are another name of a field's; of `weighting_scheme` only `logit_normal`."""

REFUSED: Mapping[str, str] = {
    "flip_aug": "it leaves the side that the caption names as it is; --mirror exchanges the words too",
    "color_aug": _CACHED_LATENTS,
    "random_crop": _CACHED_LATENTS,
    "face_crop_aug_range": _CACHED_LATENTS,
    "skip_image_resolution": "every readable image is used; take small ones out of the folder",
    "shuffle_caption": _CACHED_TEXT,
    "keep_tokens": _CACHED_TEXT,
    "keep_tokens_separator": _CACHED_TEXT,
    "secondary_separator": _CACHED_TEXT,
    "enable_wildcard": _CACHED_TEXT,
    "caption_tag_dropout_rate": _CACHED_TEXT,
    "token_warmup_min": _CACHED_TEXT,
    "token_warmup_step": _CACHED_TEXT,
    "caption_prefix": "write the prefix into the captions",
    "caption_suffix": "write the suffix into the captions",
    "caption_separator": _CACHED_TEXT,
    "weighted_captions": "captions are read as plain text; leave it out",
    "tokenizer_cache_dir": "nothing is downloaded; use --tokenizer_clip and --tokenizer_t5",
    "output_config": "use --print_recipe, whose output --recipe reads",
    "resize_interpolation": "images are resized by Lanczos; leave it out",
    "caption_extention": "write it --caption_extension",
    "max_token_length": "CLIP reads 77 tokens in FLUX; leave it out",
    "t5xxl_max_token_length": "the T5 length comes from the base model (256 for schnell); leave it out",
    "apply_t5_attn_mask": "FLUX.1 reads the padded text without a mask, as in generation; leave it out",
    "alpha_mask": _PLAIN_LOSS,
    "masked_loss": _PLAIN_LOSS,
    "controlnet_model_name_or_path": "this trainer is for LoRAs, not for ControlNet; leave it out",
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
    "mode_scale": _PLAIN_LOSS,
    "model_prediction_type": "FLUX predicts the velocity; use raw or leave it out",
    "guidance_scale": "schnell has no guidance embedder; use 1.0 or leave it out",
    "model_type": "only FLUX.1 is trained here; leave it out",
    "v2": "only FLUX.1 is trained here; leave it out",
    "v_parameterization": "only FLUX.1 is trained here; leave it out",
    "clip_skip": "FLUX reads CLIP's pooled output; leave it out",
    "text_encoder_lr": _ENCODERS,
    "network_train_text_encoder_only": _ENCODERS,
    "train_text_encoder": _ENCODERS,
    "network_module": "the networks are a LoRA on FLUX and LyCORIS' LoKr; use --network_form",
    "network_dropout": "the LoRA has no dropout; leave it out",
    "scale_weight_norms": "LoRA weights are not renormalised; leave it out",
    "dim_from_weights": "give --network_dim and --network_alpha of the file",
    "base_weights": "use --training_adapter for a LoRA that is on while training",
    "base_weights_multiplier": "use --training_adapter for a LoRA that is on while training",
    "cpu": "use --device cpu",
    "full_fp16": "half precision overflows in FLUX; use --mixed_precision bf16",
    "full_bf16": "the LoRA and its optimizer stay in fp32; use --mixed_precision bf16",
    "deepspeed": _WHOLE_MODEL,
    **dict.fromkeys(
        (
            "zero_stage",
            "offload_optimizer_device",
            "offload_optimizer_nvme_path",
            "offload_param_device",
            "offload_param_nvme_path",
            "zero3_init_flag",
            "zero3_save_16bit_model",
            "fp16_master_weights_and_gradients",
        ),
        _WHOLE_MODEL,
    ),
    "fused_backward_pass": "the optimizer steps once all gradients are there; leave it out",
    "fused_optimizer_groups": "the optimizer steps once all gradients are there; leave it out",
    "blockwise_fused_optimizers": "the optimizer steps once all gradients are there; leave it out",
    "cpu_offload_checkpointing": "use --gradient_checkpointing with --blocks_to_swap",
    "xformers": "attention is torch's scaled_dot_product_attention; use --sdpa or leave it out",
    "split_attn": "attention is torch's scaled_dot_product_attention; use --sdpa or leave it out",
    "split_mode": "use --blocks_to_swap",
    "initial_epoch": _RESUME,
    "initial_step": "use --resume",
    "skip_until_initial_step": "use --resume",
    "save_n_epoch_ratio": _EPOCHS,
    "save_last_n_epochs": _EPOCHS,
    "save_last_n_epochs_state": _EPOCHS,
    "save_last_n_steps_state": "the last two checkpoints are kept; leave it out",
    "sample_sampler": "previews use schnell's own schedule with Euler steps; leave it out",
    "save_model_as": "a LoRA is saved as safetensors; leave it out",
    "vae": "FLUX's autoencoder is given as --ae",
    "resume_from_huggingface": _UPLOAD,
    "huggingface_repo_id": _UPLOAD,
    "huggingface_token": _UPLOAD,
    "huggingface_repo_type": _UPLOAD,
    "huggingface_path_in_repo": _UPLOAD,
    "huggingface_repo_visibility": _UPLOAD,
    "save_state_to_huggingface": _UPLOAD,
    "async_upload": _UPLOAD,
    "log_tracker_config": "trackers get the losses and the recipe; leave it out",
    "wandb_api_key": "a key on a command line is seen by all; run 'wandb login', and give --wandb_online",
    "training_comment": _METADATA,
    "no_metadata": "the metadata say how to use the file and name no photograph; leave it out",
    "metadata_title": _METADATA,
    "metadata_author": _METADATA,
    "metadata_description": _METADATA,
    "metadata_license": _METADATA,
    "metadata_tags": _METADATA,
    "metadata_usage_hint": _METADATA,
    "metadata_thumbnail": _METADATA,
    "metadata_merged_from": _METADATA,
    "metadata_trigger_phrase": "the file's trigger is --trigger",
    "metadata_preprocessor": _METADATA,
    "metadata_is_negative_embedding": _METADATA,
    "lr_scheduler_type": "use --lr_scheduler",
    "lr_scheduler_args": "schedules have options of their own, as --lr_scheduler_num_cycles; leave it out",
    "dataset_class": "no foreign code is loaded; leave it out",
    "dataset_repeats": "use num_repeats in the dataset TOML",
    "in_json": "captions come from manifest.jsonl or from caption files; leave it out",
    "token_string": "train a LoRA, not an embedding; leave it out",
    "validation_split": _HOLDOUT,
    "debug_dataset": "use diffusioncleft dataset show",
}


FALSE = ("false", "no", "0", "off")


def refusal(option: str, value: str) -> str | None:
    """Say in one sentence why kohya's `option` is not honoured; None when `value` is what happens anyway, or
    when `remark` has something to say of it.

    An option that is unknown here too raises KeyError.
    """
    allowed = ALWAYS.get(option)
    if option in TRANSLATED and (option != "weighting_scheme" or value == "logit_normal"):
        return None
    if allowed is not None and (value in allowed or value.lower() in allowed):
        return None
    if option in WITHOUT_EFFECT or (value.lower() in FALSE and (allowed == ("",) or option in REFUSED)):
        return None
    if option in REFUSED:
        return f"--{option} is not honoured: {REFUSED[option]}"
    if allowed is not None:
        only = allowed[0]
        return f"--{option} is always {only or 'on'} here; " + (
            f"give {only} or leave it out" if only else "leave it out"
        )
    raise KeyError(option)


def remark(option: str, value: str) -> str | None:
    """What a user should know of an option that is accepted and does nothing; None: nothing."""
    if option in WITHOUT_EFFECT:
        return None if value.lower() in FALSE else f"--{option} has no effect: {WITHOUT_EFFECT[option]}"
    if ALWAYS.get(option) == ("",) and value.lower() in FALSE:
        return f"--{option} {value} has no effect: it is always on here"
    return None
