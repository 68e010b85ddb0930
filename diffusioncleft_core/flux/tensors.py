"""Reading one component's tensors from safetensors files, whatever wrapping and precision they come in.

Nothing but safetensors, and GGUF for the transformer, is opened: a pickle could run code. float8 and GGUF
weights are brought back to the working precision, with their scales, or given packed as they lie in the file;
what cannot be read exactly is refused by its name.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ..errors import UserError
from ..files import read_json
from ..text import opened
from ..weight_file import stand_in

if TYPE_CHECKING:
    import torch

    from .packed import Packed

_PICKLES = {".ckpt", ".pt", ".pth", ".bin", ".pkl"}
_QUANT_SUFFIXES = (".scale_weight", ".scale_input", ".weight_scale", ".input_scale", ".comfy_quant")
_FLOATS = {"F64", "F32", "F16", "BF16"}
_FLOAT8 = {"F8_E4M3", "F8_E5M2"}
_FOREIGN_QUANT = (
    ("bitsandbytes__", "a bitsandbytes (nf4 or int8) quantisation"),
    (".absmax", "a bitsandbytes (nf4 or int8) quantisation"),
    (".weight_scale_2", "an nvfp4 quantisation"),
    (".qweight", "a packed integer quantisation (SVDQuant, GPTQ or AWQ)"),
    (".wscales", "an SVDQuant (Nunchaku) quantisation"),
    (".SCB", "a bitsandbytes int8 quantisation"),
)


def is_gguf(path: Path) -> bool:
    """Whether a file is GGUF, by its ending or its first bytes."""
    if path.suffix.lower() == ".gguf":
        return True
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(4) == b"GGUF"
    return False


def check_file(path: Path, what: str, *, gguf: bool = False) -> None:
    """Refuse what is not a readable safetensors file, by the name of what it is.

    Args:
        path, what: the file, and what it should hold.
        gguf: whether GGUF is read too.

    Raises:
        UserError: missing, a folder, empty, GGUF, a pickle (by its ending or its first bytes), or what
            `stand_in` knows.
    """
    if path.is_dir():
        raise UserError(f"{what}: {path} is a folder; give the path of a safetensors file in it")
    if not path.is_file():
        raise UserError(f"{what}: there is no file {path}; give the path of a safetensors file")
    with opened(path, what) as file:
        magic = file.read(9)
    if path.suffix.lower() == ".gguf" or magic[:4] == b"GGUF":
        if gguf and magic[:4] == b"GGUF":
            return
        raise UserError(
            f"{what}: {path.name} is a GGUF file, which is read for the transformer alone; use the bf16, "
            "fp16 or fp8 safetensors file"
            if not gguf
            else f"{what}: {path.name} is empty or damaged, no GGUF file; download it again"
        )
    is_safetensors = magic[8:] == b"{"  # after the length of the header, whose bytes can be any
    if path.suffix.lower() in _PICKLES or (magic[:2] in (b"PK", b"\x80\x02") and not is_safetensors):
        raise UserError(
            f"{what}: {path.name} is a pickle ({path.suffix or 'no ending'}), which can run code and is not "
            "opened; "
            "use the safetensors form of the same model"
        )
    if instead := stand_in(path):
        raise UserError(f"{what}: {path.name} {instead}")


class Tensors:
    """One component's tensors in one or several open safetensors files; keys without the component's
    prefix.
    """

    def __init__(self, what: str, handles: Sequence[tuple[Path, Any]], prefix: str) -> None:
        self.what = what
        self.files = [path for path, _ in handles]
        self._where: dict[str, tuple[Any, str]] = {}
        self.scaled = False
        for _, handle in handles:
            for full in handle.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                if full.startswith(prefix):
                    self._where[full[len(prefix) :]] = (handle, full)
        self._scales = self._read_quantisation()

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def names(self) -> list[str]:
        """All weights' names, without the quantisation's own entries."""
        return list(self._where)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of one tensor, without reading it."""
        handle, full = self._where[key]
        return tuple(handle.get_slice(full).get_shape())

    def stored_dtype(self, key: str) -> str:
        """The precision in the file, as safetensors writes it: `F32`, `BF16`, `F8_E4M3` …"""
        handle, full = self._where[key]
        return str(handle.get_slice(full).get_dtype())

    def get(self, key: str, dtype: torch.dtype) -> torch.Tensor:
        """One tensor in `dtype` on the CPU, dequantised."""
        import torch

        tensor = self._raw(key)
        scale = self._scales.get(key)
        if scale is not None:
            factor = scale.to(torch.float32)
            if factor.numel() > 1:
                factor = factor.reshape(-1, *([1] * (tensor.ndim - 1)))
            tensor = tensor.to(torch.float32) * factor
        elif tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            tensor = tensor.to(torch.float32)
        return tensor.to(dtype)

    def packed(self, key: str) -> Packed | None:
        """A matrix as it lies in the file, on the CPU; None for one that is stored wide."""
        from .packed import Packed

        shape = self.shape(key)
        if len(shape) != 2 or self.stored_dtype(key) not in _FLOAT8:
            return None
        scale = self._scales.get(key)
        scales = () if scale is None else (scale.float().reshape(-1, 1),)
        return Packed("fp8", (shape[0], shape[1]), (self._raw(key), *scales))

    def packed_bytes(self, key: str) -> int | None:
        """Bytes of what `packed` gives, by the header; None for one that is stored wide."""
        shape = self.shape(key)
        if len(shape) != 2 or self.stored_dtype(key) not in _FLOAT8:
            return None
        scale = self._scales.get(key)
        return math.prod(shape) + (0 if scale is None else 4 * scale.numel())

    def form(self) -> str:
        """How most of the weights are stored: `plain`, `fp8`, or a GGUF type."""
        from .packed import PLAIN

        counts: dict[str, int] = {}
        for key in self.names():
            kind = self.stored_dtype(key)
            form = "fp8" if kind in _FLOAT8 else PLAIN if kind in _FLOATS else kind
            counts[form] = counts.get(form, 0) + math.prod(self.shape(key))
        return max(counts, key=lambda form: counts[form])

    def _raw(self, key: str) -> torch.Tensor:
        handle, full = self._where[key]
        try:
            tensor: torch.Tensor = handle.get_tensor(full)
        except SafetensorError as error:
            raise UserError(f"{self.what}: tensor {full} cannot be read; download the file again") from error
        return tensor

    def _read_quantisation(self) -> dict[str, torch.Tensor]:
        """Take the quantisation's entries out of the keys; scales by the weight they belong to.

        Two forms are read: `scale_weight` with the marker `scaled_fp8`, and `weight_scale` with `comfy_quant`
        naming a plain float8 format. Both mean weight = float8 · scale; input scales serve float8 arithmetic
        only.
        """
        for key in self._where:
            for sign, name in _FOREIGN_QUANT:
                if sign in key:
                    raise UserError(
                        f"{self.what}: {self.files[0].name} holds {name}, which is not supported; "
                        "use the bf16, fp16 or fp8 file of the same model"
                    )
        for key in [key for key in self._where if key.endswith(".comfy_quant")]:
            text = bytes(self._raw(key).byte().tolist()).decode("utf-8", "replace")
            try:
                described = json.loads(text)
                layout = described.get("format") if isinstance(described, dict) else None
            except ValueError:
                layout = None
            if layout not in ("float8_e4m3fn", "float8_e5m2"):
                raise UserError(
                    f"{self.what}: {self.files[0].name} is quantised as {layout or 'an unknown format'} "
                    "(comfy_quant), which is not supported; use the bf16, fp16 or fp8 file of the same model"
                )
        scales: dict[str, torch.Tensor] = {}
        for key in [key for key in self._where if key.endswith(_QUANT_SUFFIXES)]:
            module, _, kind = key.rpartition(".")
            if kind in ("scale_weight", "weight_scale"):
                weight = f"{module}.weight"
                scale = self._raw(key)
                if weight in self._where and scale.numel() not in (1, self.shape(weight)[0]):
                    raise UserError(
                        f"{self.what}: the scales of {weight} are block-wise, which is not supported; "
                        "use the bf16, fp16 or plain fp8 file of the same model"
                    )
                scales[weight] = scale
                self.scaled = True
        self._where = {
            key: place
            for key, place in self._where.items()
            if not key.endswith(_QUANT_SUFFIXES) and key != "scaled_fp8"
        }
        for key in self._where:
            stored = self.stored_dtype(key)
            if key.endswith(".weight") and stored not in _FLOATS | _FLOAT8:
                raise UserError(
                    f"{self.what}: {self.files[0].name} stores weights as {stored}, which is not supported; "
                    "use the bf16, fp16 or fp8 file of the same model"
                )
        return scales


@contextmanager
def open_tensors(
    paths: Sequence[Path],
    what: str,
    probes: Sequence[str],
    prefixes: Sequence[str],
) -> Iterator[Tensors]:
    """Open a component's files and find it in them.

    Args:
        paths: one safetensors file, or the shards of one component.
        what: the component's name in messages, "the transformer".
        probes: keys one of which every such component has.
        prefixes: the wrappings to look under, most specific first; "" is a file of its own.

    Raises:
        UserError: not safetensors, unreadable, or the component is not in it.
    """
    with ExitStack() as stack:
        handles: list[tuple[Path, Any]] = []
        for path in paths:
            check_file(path, what)
            try:
                opened = safe_open(str(path), framework="pt", device="cpu")
                handles.append((path, stack.enter_context(opened)))
            except (SafetensorError, OSError, ValueError) as error:
                raise UserError(
                    f"{what}: {path.name} is damaged or no safetensors file ({error}); download it again"
                ) from error
        names = {key for _, handle in handles for key in handle.keys()}  # noqa: SIM118
        yield Tensors(what, handles, find_prefix(names, paths[0], what, probes, prefixes))


def find_prefix(
    names: set[str], path: Path, what: str, probes: Sequence[str], prefixes: Sequence[str]
) -> str:
    """The wrapping under which a file holds the component; UserError where it holds none."""
    for prefix in prefixes:
        if any(prefix + probe in names for probe in probes):
            return prefix
    raise UserError(f"{what}: {path.name} does not hold it ({describe(names)})")


def describe(names: set[str]) -> str:
    """What a file with these keys seems to be, in words, for a message."""

    def has(*parts: str) -> bool:
        return any(part in name for name in names for part in parts)

    if has("lora_up", "lora_A", "lora_down", "lora_B"):
        return "it is a LoRA"
    if has("distilled_guidance_layer"):
        return "it is a Chroma model"
    if has("double_stream_modulation_img"):
        return "it is a FLUX.2 model"
    if has("joint_blocks."):
        return "it is an SD3 model"
    if has("input_blocks.", "down_blocks.0.attentions"):
        return "it is a Stable Diffusion model"
    if has("double_blocks.", "single_transformer_blocks."):
        return "it is a FLUX transformer"
    if has("SelfAttention"):
        return "it is a T5 text encoder"
    if has("text_model.", "token_embedding"):
        return "it is a CLIP text encoder"
    if has("decoder.conv_in"):
        return "it is a VAE"
    return "its keys are of no kind this program knows"


def safetensors_in(folder: Path, what: str) -> list[Path]:
    """The safetensors file of a diffusers component folder, or all its shards.

    Raises:
        UserError: none there, or only pickles.
    """
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if indices:
        listed = read_json(indices[0]).get("weight_map", {})
        shards = sorted({Path(str(name)).name for name in listed.values()})
        if shards:
            return [folder / name for name in shards]
    files = sorted(folder.glob("*.safetensors"))
    if len(files) > 1:
        plain = [file for file in files if file.name.count(".") == 1]
        files = plain if len(plain) == 1 else files
    if len(files) == 1:
        return files
    if not files and any(file.suffix in _PICKLES for file in folder.glob("*")):
        raise UserError(
            f"{what}: {folder} has only pickles (.bin, .pt), which can run code and are not opened; "
            "use the safetensors form of the same model"
        )
    found = "no safetensors file" if not files else f"{len(files)} safetensors files and no index"
    raise UserError(f"{what}: {found} in {folder}; give a complete diffusers folder")
