"""Loading FLUX.1 schnell's transformer from a diffusers folder or a single file, in the form for training.

Tensors are read one by one, brought to the working precision or packed, and every key is accounted for: a
missing or an unexpected key is an error, never a silently random weight.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from ..errors import UserError
from . import transformer_keys
from .components import shipped_config
from .filling import check_shapes, counted_reading, empty, folder_config
from .gguf_file import open_gguf
from .packed import PLAIN, STORED, FrozenLinear, Packed, pack
from .source import FluxSource
from .streaming import BlockStream
from .tensors import Tensors, is_gguf, open_tensors


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
        model = empty(FluxTransformer2DModel.from_config, config)
        filling = _Filling(model, tensors, device, dtype, form, _last_blocks(config, streamed_blocks))
        with counted_reading(tensors) as counted:
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
        check_shapes(self._expected, self._found, self._tensors)
        self._model.requires_grad_(False)
        self._model.eval()
        self._model.to(self._device)
        _stream(self._model, self._device)
        return self._model


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


def _transformer_config(source: FluxSource, tensors: Tensors) -> dict[str, Any]:
    config = folder_config(source, "transformer")
    if config is None:
        config = transformer_keys.infer_config(tensors, shipped_config("transformer"))
    name = tensors.files[0].name
    if config.get("guidance_embeds"):
        transformer_keys.raise_guidance(name if source.folder is None else source.folder.name)
    transformer_keys.check_channels(int(config["in_channels"]), name)
    return config
