"""Loading FLUX.1 schnell's components from a diffusers folder or from ComfyUI's single files, without a
network.

Both ways read the same: tensors one by one, brought to the working precision, every key accounted for. A
missing or an unexpected key is an error, never a silently random weight.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..files import read_json
from ..progress import progress
from . import encoder_keys as text_keys
from . import encoder_keys as vae_keys
from . import transformer_keys
from .gguf_file import open_gguf
from .packed import PLAIN, STORED, FrozenLinear, Packed, pack
from .source import FluxSource
from .streaming import BlockStream
from .tensors import Tensors, is_gguf, open_tensors

T5_LENGTH = 256
"""schnell's text length in tokens; a tokenizer with a smaller maximum (the phantom's) uses that."""

CLIP_LENGTH = 77


@dataclass(frozen=True)
class TextEncoders:
    """CLIP-L and T5 with their tokenizers; `t5_length` and `clip_length` in tokens."""

    tokenizer: Any
    text_encoder: Any
    tokenizer_2: Any
    text_encoder_2: Any
    t5_length: int
    clip_length: int


def shipped_config(name: str) -> dict[str, Any]:
    """One of the real model's configurations: `transformer`, `vae`, `clip_l`, `t5xxl`, `scheduler`."""
    path = Path(__file__).parent / "configs" / f"{name}.json"
    config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return config


def load_transformer(
    source: FluxSource,
    device: torch.device,
    dtype: torch.dtype,
    form: str = PLAIN,
    streamed_blocks: int = 0,
) -> Any:
    """The `FluxTransformer2DModel`, frozen, in evaluation mode, loaded tensor by tensor.

    Args:
        source: the base model's files.
        device: where it is to be.
        dtype: of what is not packed, and of everything that is computed.
        form: of the blocks' matrices: `plain`; `stored`, as they lie in the file; or one of
            `packed.FORMATS`, in which a file that is stored so already is left as it is.
        streamed_blocks: the linear weights of the last so many blocks stay in main memory.

    Raises:
        UserError: FLUX.1 dev and other variants, quantised forms that are not supported, missing keys, more
            streamed blocks than may be spared (one must stay), a package that `form` needs and is missing.
    """
    from diffusers import FluxTransformer2DModel

    with open_transformer(source) as tensors:
        config = _transformer_config(source, tensors)
        model = _empty(FluxTransformer2DModel.from_config, config)
        filling = _Filling(model, tensors, device, dtype, form, _last_blocks(config, streamed_blocks))
        with _read(tensors) as counted:
            for name, value in _diffusers_tensors(tensors, config, dtype, form, counted):
                filling.put(name, value)
        return filling.done()


def base_form(source: FluxSource, form: str) -> str:
    """The form in which `load_transformer` keeps most of the weights: `plain`, or what they are packed in."""
    if form != STORED:
        return form
    with open_transformer(source) as tensors:
        return tensors.form()


def block_names(config: Mapping[str, Any]) -> list[str]:
    """The transformer's blocks in the order of the forward pass."""
    double, single = int(config["num_layers"]), int(config["num_single_layers"])
    names = [f"transformer_blocks.{index}" for index in range(double)]
    return names + [f"single_transformer_blocks.{index}" for index in range(single)]


def _last_blocks(config: Mapping[str, Any], count: int) -> frozenset[str]:
    names = block_names(config)
    if count >= len(names) and count:
        raise UserError(
            f"--blocks_to_swap is {count}; this model has {len(names)} blocks, so at most {len(names) - 1}"
        )
    return frozenset(names[len(names) - count :])


def pack_blocks(transformer: Any, form: str, dtype: torch.dtype, streamed_blocks: int = 0) -> None:
    """Pack the linear layers of a transformer that is there already, where they are.

    Args:
        transformer: with LoRAs or without; those stay as they are.
        form: see `load_transformer`; a layer that is packed already stays in its form.
        dtype: the base model's number format.
        streamed_blocks: the weights of the last so many blocks go to main memory.
    """
    last = _last_blocks(transformer.config, streamed_blocks)
    for name in block_names(transformer.config):
        if form == PLAIN and name not in last:
            continue
        for parent, child, linear in list(_linears(transformer.get_submodule(name))):
            if isinstance(linear, FrozenLinear):
                packed = linear.packed
            else:
                packed = pack(linear.weight.detach(), form)
            if name in last:
                packed = packed.mapped(lambda part: part.to("cpu"))
            setattr(parent, child, FrozenLinear(packed, linear.bias, dtype, streamed=name in last))
    _stream(transformer, transformer.device)


def _stream(transformer: Any, device: torch.device) -> None:
    """Let the streamed layers come to the device block by block."""
    blocks = [
        [
            layer
            for layer in transformer.get_submodule(name).modules()
            if isinstance(layer, FrozenLinear) and layer.streamed
        ]
        for name in block_names(transformer.config)
    ]
    if streamed := [layers for layers in blocks if layers]:
        BlockStream.of(streamed, device)


def _linears(module: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Linear]]:
    for parent in module.modules():
        for name, child in parent.named_children():
            # In a ModuleDict peft keeps its LoRAs.
            if isinstance(child, torch.nn.Linear) and not isinstance(parent, torch.nn.ModuleDict):
                yield parent, name, child


def _diffusers_tensors(
    tensors: Tensors, config: Mapping[str, Any], dtype: torch.dtype, form: str, counted: Callable[[], None]
) -> Iterator[tuple[str, transformer_keys.Weight]]:
    """All tensors by diffusers' keys, the blocks' matrices packed where the file's form is to stay."""

    def get(key: str) -> transformer_keys.Weight:
        counted()
        packed = tensors.packed(key) if form != PLAIN and _is_matrix(key) else None
        return packed if packed and form in (STORED, packed.form) else tensors.get(key, dtype)

    keys = tensors.names()
    if transformer_keys.is_bfl(keys):
        hidden = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
        yield from transformer_keys.bfl_to_diffusers(keys, get, hidden)
    else:
        for key in keys:
            yield key, get(key)


def _is_matrix(key: str) -> bool:
    """Whether a key is of the weight of a block's linear layer (a norm's scale is `.weight` too)."""
    return "blocks." in key and key.endswith(".weight")


class _Filling:
    """A transformer without weights on its way to one with all of them."""

    def __init__(
        self,
        model: Any,
        tensors: Tensors,
        device: torch.device,
        dtype: torch.dtype,
        form: str,
        streamed: frozenset[str],
    ) -> None:
        self._model, self._tensors, self._device, self._dtype = model, tensors, device, dtype
        self._form, self._streamed = form, streamed
        self._expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        self._found: dict[str, tuple[int, ...]] = {}

    def put(self, name: str, value: transformer_keys.Weight) -> None:
        """Give one parameter its values; what the model has not is told when all are there."""
        self._found[name] = tuple(value.shape)
        if self._expected.get(name) != self._found[name]:
            return
        parent, _, leaf = name.rpartition(".")
        module = self._model.get_submodule(parent)
        streamed = ".".join(name.split(".")[:2]) in self._streamed
        quantised = self._form not in (PLAIN, STORED)
        linear = isinstance(module, torch.nn.Linear) and _is_matrix(name)
        if linear and (streamed or quantised or isinstance(value, Packed)):
            if isinstance(value, torch.Tensor):
                value = pack(
                    value.to(self._device) if quantised else value, self._form if quantised else PLAIN
                )
            home = torch.device("cpu") if streamed else self._device
            packed = value.mapped(lambda part: part.to(home))
            layer = FrozenLinear(packed, module.bias, self._dtype, streamed=streamed)
            self._model.set_submodule(parent, layer)
        else:
            assert isinstance(value, torch.Tensor)
            module._parameters[leaf] = torch.nn.Parameter(value.to(self._device), requires_grad=False)

    def done(self) -> Any:
        """The model, once its tensors were found to be all that it has."""
        _check_shapes(self._expected, self._found, self._tensors)
        self._model.requires_grad_(False)
        self._model.eval()
        self._model.to(self._device)
        _stream(self._model, self._device)
        return self._model


@contextlib.contextmanager
def _read(tensors: Tensors) -> Iterator[Callable[[], None]]:
    """To be called at each tensor that is read: a large model takes minutes."""
    with progress(len(tensors.names()), f"loading {tensors.what}", unit="tensor", leave=False) as bar:
        yield lambda: bar.update(1)


def check_transformer(source: FluxSource) -> None:
    """Raise UserError for what `load_transformer` would refuse by its header: FLUX.1 dev, Fill, damage."""
    with open_transformer(source) as tensors:
        _transformer_config(source, tensors)


def open_transformer(source: FluxSource) -> contextlib.AbstractContextManager[Tensors]:
    """The transformer's tensors by name, unread."""
    files = source.files("transformer")
    found = ("the transformer", transformer_keys.PROBES, transformer_keys.PREFIXES)
    if len(files) == 1 and is_gguf(files[0]):
        return open_gguf(files[0], *found)
    return open_tensors(files, *found)


def adapted_sides(tensors: Tensors) -> int:
    """The sum of both sides of every layer that a LoRA adapts: times the rank, its parameters."""
    shapes = [tensors.shape(name) for name in tensors.names() if "blocks." in name]
    return sum(sum(shape) for shape in shapes if len(shape) == 2)


def _transformer_config(source: FluxSource, tensors: Tensors) -> dict[str, Any]:
    config = _folder_config(source, "transformer")
    if config is None:
        config = transformer_keys.infer_config(tensors, shipped_config("transformer"))
    name = tensors.files[0].name
    if config.get("guidance_embeds"):
        transformer_keys.raise_guidance(name if source.folder is None else source.folder.name)
    transformer_keys.check_channels(int(config["in_channels"]), name)
    return config


def load_vae(source: FluxSource, device: torch.device, dtype: torch.dtype) -> Any:
    """The 16-channel `AutoencoderKL`, frozen, in evaluation mode."""
    from diffusers import AutoencoderKL

    with open_tensors(source.files("vae"), "the VAE", vae_keys.PROBES, vae_keys.PREFIXES) as tensors:
        config = _folder_config(source, "vae") or vae_keys.infer_config(tensors, shipped_config("vae"))
        state = {key: tensors.get(key, dtype) for key in tensors.names()}
        if vae_keys.is_single_file_form(list(state)):
            state = vae_keys.to_diffusers(state)
        model = _empty(AutoencoderKL.from_config, config)
        return _fill(model, state, tensors, device)


def load_text_encoders(source: FluxSource, device: torch.device, dtype: torch.dtype) -> TextEncoders:
    """CLIP-L and T5 with their tokenizers, frozen, in evaluation mode."""
    tokenizer = _load_tokenizer(source.tokenizer_folder("clip"), "CLIP")
    tokenizer_2 = _load_tokenizer(source.tokenizer_folder("t5"), "T5")
    text_encoder = _load_clip(source, tokenizer, device, dtype)
    clip_length = min(CLIP_LENGTH, tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
    # ComfyUI's copy of the tokenizer says 8192, where CLIP has 77 positions.
    tokenizer.model_max_length = clip_length
    return TextEncoders(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        tokenizer_2=tokenizer_2,
        text_encoder_2=_load_t5(source, device, dtype),
        t5_length=min(T5_LENGTH, tokenizer_2.model_max_length),
        clip_length=clip_length,
    )


def _load_clip(source: FluxSource, tokenizer: Any, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    files = source.files("clip_l")
    with open_tensors(
        files, "the CLIP text encoder", text_keys.CLIP_PROBES, text_keys.CLIP_PREFIXES
    ) as tensors:
        ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        config = _folder_config(source, "clip_l") or text_keys.infer_clip_config(
            tensors, shipped_config("clip_l"), ids
        )
        model = _empty(CLIPTextModel, CLIPTextConfig.from_dict(config))
        prefix = "text_model." if any(key.startswith("text_model.") for key in model.state_dict()) else ""
        state = {
            prefix + short: tensors.get(key, dtype)
            for key in tensors.names()
            if (short := text_keys.clip_key(key)) is not None
        }
        return _fill(model, state, tensors, device)


def _load_t5(source: FluxSource, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import T5Config, T5EncoderModel

    files = source.files("t5xxl")
    with open_tensors(files, "the T5 text encoder", text_keys.T5_PROBES, text_keys.T5_PREFIXES) as tensors:
        config = _folder_config(source, "t5xxl") or text_keys.infer_t5_config(
            tensors, shipped_config("t5xxl")
        )
        model = _empty(T5EncoderModel, T5Config.from_dict(config))
        state: dict[str, torch.Tensor] = {}
        with _read(tensors) as counted:
            for key in tensors.names():
                counted()
                own = text_keys.t5_key(key)
                if own is not None:
                    # fp16 overflows in this layer; transformers keeps it in fp32 as well.
                    wide = dtype == torch.float16 and own.endswith(".wo.weight")
                    state[own] = tensors.get(key, torch.float32 if wide else dtype)
        tokens = state.get("shared.weight", state.get("encoder.embed_tokens.weight"))
        if tokens is not None:
            state["shared.weight"] = state["encoder.embed_tokens.weight"] = tokens
        model = _fill(model, state, tensors, device)
        model.tie_weights()
        return model


def _load_tokenizer(folder: Path, what: str) -> Any:
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise UserError(f"the {what} tokenizer: there is no folder {folder}; give a complete model folder")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the {what} tokenizer in {folder} cannot be opened ({_first_line(error)})"
        ) from error


def _folder_config(source: FluxSource, component: str) -> dict[str, Any] | None:
    """`config.json` of a diffusers folder's component; None for single files."""
    folder = source.component_folder(component)
    if folder is None:
        return None
    config: dict[str, Any] = read_json(folder / "config.json")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unknown method")
        raise UserError(
            f"{folder} is quantised by {method}, which is not supported; use the bf16 folder or the fp8 "
            "single file"
        )
    return config


def _empty(build: Any, config: Any) -> Any:
    """A module without storage for its weights; its buffers are real."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return build(config)


def _fill(model: Any, state: Mapping[str, torch.Tensor], tensors: Tensors, device: torch.device) -> Any:
    """Give `model` its weights, check that each has one and that none is left, freeze it and move it."""
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    _check_shapes(expected, {key: tuple(value.shape) for key, value in state.items()}, tensors)
    model.load_state_dict(dict(state), strict=True, assign=True)
    model.requires_grad_(False)
    model.eval()
    return model.to(device)


def _check_shapes(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], tensors: Tensors
) -> None:
    """Raise UserError unless exactly the expected tensors were found."""
    name = tensors.files[0].name
    missing = sorted(set(expected) - set(found))
    unexpected = sorted(set(found) - set(expected))
    wrong = sorted(key for key in set(expected) & set(found) if expected[key] != found[key])
    for keys, fault in ((missing, "lacks"), (unexpected, "has unknown"), (wrong, "has wrongly shaped")):
        if keys:
            more = f" and {len(keys) - 2} more" if len(keys) > 2 else ""
            raise UserError(
                f"{tensors.what}: {name} {fault} tensors ({', '.join(keys[:2])}{more}); it is damaged or "
                "another model"
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


RESERVE_BYTES = 3 << 30
"""GPU memory that pictures and activations need beside the transformer's weights."""


def place(transformer: Any, device: torch.device, free_bytes: int | None = None) -> bool:
    """Bring the transformer to `device`, or let diffusers stream it layer by layer where it is too big.

    FLUX.1 has 24 GB of weights in bfloat16, as much as the GPU of many a user holds.

    Args:
        transformer: on the CPU.
        device: where it is to work.
        free_bytes: memory on the device; None asks CUDA, and trusts any other device.

    Returns:
        Whether it is there whole.
    """
    if free_bytes is None and device.type == "cuda":
        free_bytes = torch.cuda.mem_get_info(device)[0]
    weights = sum(parameter.nbytes for parameter in transformer.parameters())
    if free_bytes is None or weights + RESERVE_BYTES <= free_bytes:
        transformer.to(device)
        return True
    transformer.enable_group_offload(
        onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level"
    )
    return False


def stream_changed(transformer: Any) -> None:
    """After a LoRA came or went: let a streamed transformer stream the layers that it has now."""
    from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading

    _maybe_remove_and_reapply_group_offloading(transformer)
