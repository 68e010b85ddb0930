"""phantom-flux as ComfyUI's own model, text encoders and autoencoder, without patching ComfyUI.

ComfyUI's loaders know FLUX by the real model's sizes, so the objects are built here from its own classes.
Every weight is accounted for: ComfyUI only logs a missing key, and would then draw noise.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import comfy.ldm.flux.model
import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.text_encoders.flux
import comfy.text_encoders.t5
import torch
from safetensors.torch import load_file

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.flux import (
    encoder_keys as text_keys,
)
from ..diffusioncleft_core.flux import (
    encoder_keys as vae_keys,
)
from ..diffusioncleft_core.flux import (
    transformer_keys,
)
from ..diffusioncleft_core.flux.source import FluxSource, phantom_source

DTYPE = torch.float32


def phantom_model(disable_dynamic: bool = True) -> Any:
    """The transformer as a MODEL: a `ModelPatcher` of ComfyUI's FluxSchnell.

    It is never a dynamic one. ComfyUI calls this again where it needs a fresh copy, as its trainer does.
    """
    offload = management.unet_offload_device()
    with _this_comfyui("the transformer"):
        model = _transformer(offload)
        _fill(model.diffusion_model, _transformer_state(model.diffusion_model))
        patcher = comfy.model_patcher.ModelPatcher(model, management.get_torch_device(), offload)
    patcher.cached_patcher_init = (phantom_model, ())
    return patcher


def phantom_clip() -> Any:
    """Both text encoders as a CLIP, with the phantom's own tokenizers."""
    with _this_comfyui("the text encoders"):
        clip = _text_encoders({})
        for module, state in _text_states(clip.cond_stage_model):
            _fill(module, state)
        return clip


def phantom_vae() -> Any:
    """The autoencoder as a VAE."""
    with _this_comfyui("the autoencoder"):
        return _autoencoder()


@functools.cache
def check_phantom() -> None:
    """Raise UserError when this ComfyUI can't build the phantom.

    Builds all three parts once, large ones without memory, and moves no model of ComfyUI's: a graph may run.
    """
    meta = torch.device("meta")
    with _this_comfyui("the transformer"):
        model = _transformer(meta).diffusion_model
        _check(model, _transformer_state(model))
    with _this_comfyui("the text encoders"):
        cpu = torch.device("cpu")
        where = {"load_device": cpu, "offload_device": cpu, "initial_device": meta}
        for module, state in _text_states(_text_encoders(where).cond_stage_model):
            _check(module, state)
    with _this_comfyui("the autoencoder"):
        _autoencoder()


def _transformer(device: torch.device) -> Any:
    config = _config(phantom_source(), "transformer")
    settings = {
        "image_model": "flux",
        "in_channels": config["in_channels"] // 4,
        "out_channels": config["in_channels"] // 4,
        "patch_size": 2,
        "vec_in_dim": config["pooled_projection_dim"],
        "context_in_dim": config["joint_attention_dim"],
        "hidden_size": config["num_attention_heads"] * config["attention_head_dim"],
        "mlp_ratio": 4.0,
        "num_heads": config["num_attention_heads"],
        "depth": config["num_layers"],
        "depth_single_blocks": config["num_single_layers"],
        "axes_dim": list(config["axes_dims_rope"]),
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": False,
        "dtype": DTYPE,
    }
    if "txt_ids_dims" in {field.name for field in dataclasses.fields(comfy.ldm.flux.model.FluxParams)}:
        settings["txt_ids_dims"] = []  # ComfyUI 0.8 and later ask for it, earlier ones refuse it
    description = comfy.supported_models.FluxSchnell(settings)
    description.set_inference_dtype(DTYPE, None)
    return description.get_model({}, device=device)


def _transformer_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = transformer_keys.diffusers_to_bfl(_weights(phantom_source(), "transformer"))
    return _as_named_by(module, state)


def _text_encoders(where: Mapping[str, torch.device]) -> Any:
    """A CLIP without its weights; `where` overrules ComfyUI's choice of devices."""
    source = phantom_source()
    clip_config, t5_config = _config(source, "clip_l"), _config(source, "t5xxl")
    t5_config["dense_act_fn"] = "gelu_pytorch_tanh"  # what gelu_new is called in ComfyUI

    class TextEncoders(comfy.text_encoders.flux.FluxClipModel):
        """FLUX's pair of encoders at the phantom's sizes."""

        def __init__(
            self, device: Any = "cpu", dtype: Any = None, model_options: Mapping[str, Any] | None = None
        ) -> None:
            torch.nn.Module.__init__(self)
            common = {"device": device, "dtype": dtype, "model_options": dict(model_options or {})}
            self.clip_l = comfy.sd1_clip.SDClipModel(
                max_length=clip_config["max_position_embeddings"],
                textmodel_json_config=clip_config,
                special_tokens={
                    "start": clip_config["bos_token_id"],
                    "end": clip_config["eos_token_id"],
                    "pad": clip_config["pad_token_id"],
                },
                return_projected_pooled=False,
                **common,
            )
            # ComfyUI's class has CLIP-L's 49,408 words whatever the configuration says.
            self.clip_l.transformer.set_input_embeddings(
                comfy.ops.manual_cast.Embedding(
                    clip_config["vocab_size"], clip_config["hidden_size"], device=device, dtype=dtype
                )
            )
            self.t5xxl = comfy.sd1_clip.SDClipModel(
                textmodel_json_config=t5_config,
                special_tokens={"end": t5_config["eos_token_id"], "pad": t5_config["pad_token_id"]},
                model_class=comfy.text_encoders.t5.T5,
                **common,
            )
            self.dtypes = {dtype}

    class Tokenizers:
        """What ComfyUI asks of a tokenizer, from the two that lie with the model."""

        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
            self._clip = _Tokenizer(source.tokenizer_folder("clip"))
            self._t5 = _Tokenizer(source.tokenizer_folder("t5"))

        def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> Any:
            return {
                "l": self._clip.tokens(text, return_word_ids),
                "t5xxl": self._t5.tokens(text, return_word_ids),
            }

        def untokenize(self, pairs: Any) -> Any:
            return self._clip.words(pairs)

        def state_dict(self) -> dict[str, Any]:
            return {}

    target = comfy.supported_models_base.ClipTarget(Tokenizers, TextEncoders)
    # On a CPU the default type would be fp16.
    return comfy.sd.CLIP(target, model_options={"dtype": DTYPE, **where})


def _text_states(encoders: Any) -> list[tuple[torch.nn.Module, dict[str, torch.Tensor]]]:
    """Each encoder and its weights."""
    source = phantom_source()
    clip_state = {
        f"text_model.{short}": tensor
        for key, tensor in _weights(source, "clip_l").items()
        if (short := text_keys.clip_key(key)) is not None
    }
    # Projects the pooled text of other models; FLUX takes it unprojected.
    width = _config(source, "clip_l")["hidden_size"]
    clip_state["text_projection.weight"] = torch.eye(width, dtype=DTYPE)
    t5_state = {
        own: tensor
        for key, tensor in _weights(source, "t5xxl").items()
        if (own := text_keys.t5_key(key)) is not None and own != "encoder.embed_tokens.weight"
    }
    return [(encoders.clip_l.transformer, clip_state), (encoders.t5xxl.transformer, t5_state)]


def _autoencoder() -> Any:
    source = phantom_source()
    config = _config(source, "vae")
    channels, latents = config["block_out_channels"], config["latent_channels"]
    state = vae_keys.to_single_file(_weights(source, "vae"))
    # Built from parts, ComfyUI's class has quantisation layers, which FLUX's has not: they change nothing.
    for name, size in (("quant_conv", 2 * latents), ("post_quant_conv", latents)):
        state[f"{name}.weight"] = torch.eye(size, dtype=DTYPE)[:, :, None, None]
        state[f"{name}.bias"] = torch.zeros(size, dtype=DTYPE)
    parts = {
        "double_z": True,
        "z_channels": latents,
        "resolution": config["sample_size"],
        "in_channels": 3,
        "out_ch": 3,
        "ch": channels[0],
        "ch_mult": [count // channels[0] for count in channels],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    vae = comfy.sd.VAE(
        sd=dict(state), config={"params": {"ddconfig": parts, "embed_dim": latents}}, dtype=DTYPE
    )
    vae.latent_channels = latents
    _check(vae.first_stage_model, state)
    return vae


class _Tokenizer:
    """A word-level tokenizer of fixed length, with ComfyUI's emphasis: `(word:1.2)`."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        self._length = int(self._tokenizer.model_max_length)
        empty = self._tokenizer("", padding=False)["input_ids"]
        self._start, self._end = empty[:-1], empty[-1:]

    def tokens(self, text: str, with_word_ids: bool) -> list[list[tuple[Any, ...]]]:
        """One batch of `model_max_length` (token, weight) or (token, weight, word), as ComfyUI wants it."""
        parts = comfy.sd1_clip.token_weights(comfy.sd1_clip.escape_important(text), 1.0)
        found: list[tuple[int, float, int]] = []
        for word, (part, weight) in enumerate(parts, start=1):
            plain = comfy.sd1_clip.unescape_important(part)
            ids = self._tokenizer(plain, add_special_tokens=False, padding=False, truncation=False)[
                "input_ids"
            ]
            found += [(token, weight, word) for token in ids]
        found = found[: self._length - len(self._start) - len(self._end)]
        row = [*_unweighted(self._start), *found, *_unweighted(self._end)]
        row += [(self._tokenizer.pad_token_id, 1.0, 0)] * (self._length - len(row))
        return [row if with_word_ids else [(token, weight) for token, weight, _ in row]]

    def words(self, pairs: Any) -> list[Any]:
        return [(pair, self._tokenizer.convert_ids_to_tokens(int(pair[0]))) for pair in pairs]


def _unweighted(ids: list[int]) -> list[tuple[int, float, int]]:
    return [(token, 1.0, 0) for token in ids]


def _config(source: FluxSource, component: str) -> dict[str, Any]:
    folder = source.component_folder(component)
    assert folder is not None
    return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def _weights(source: FluxSource, component: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    for file in source.files(component):
        state |= load_file(file)
    return {key: tensor.to(DTYPE) for key, tensor in state.items()}


def _as_named_by(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with a layer's only parameter called what this module calls it.

    Black Forest Labs' files and ComfyUI before 0.13 have `query_norm.scale`, later releases
    `query_norm.weight`.
    """
    own = set(module.state_dict())
    layers: dict[str, list[str]] = {}
    for key in own:
        layers.setdefault(key.rpartition(".")[0], []).append(key)
    only = {layer: keys[0] for layer, keys in layers.items() if len(keys) == 1}
    return {
        key if key in own else only.get(key.rpartition(".")[0], key): tensor for key, tensor in state.items()
    }


def _fill(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    _check(module, state)
    module.load_state_dict(dict(state), strict=True)


def _check(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError when a weight is missing, left over or of another shape."""
    own = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in state.items()}
    odd = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
    if odd:
        raise ValueError(f"{odd[0]}, {len(odd)} weights in all")


@contextlib.contextmanager
def _this_comfyui(what: str) -> Iterator[None]:
    """Whatever fails while ComfyUI's own classes are put together means one thing to the user.

    Nodes run in inference mode, whose tensors nothing could be trained on.
    """
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"this release of ComfyUI builds {what} otherwise than the phantom needs "
            f"({type(error).__name__}: {error}); use a release that docs/comfyui.md names"
        ) from error
