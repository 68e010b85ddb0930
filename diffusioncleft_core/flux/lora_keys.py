"""LoRA weights between kohya's, diffusers' and ComfyUI's keys, with ΔW unchanged.

The canonical form is diffusers': two matrices a module, `<module>.lora_A.weight` [rank, in] and
`<module>.lora_B.weight` [out, rank], and an alpha a module; ΔW = alpha / rank · B · A.

The other two name BFL's modules, where q, k, v (and the single blocks' MLP) are one. Separate LoRAs of the
parts are put into it block-diagonally: rank and alpha add up, the scale stays (rank 16, alpha 32 three times
is rank 48, alpha 96). diffusers' `_convert_kohya_flux_lora_to_diffusers` splits it back to equal ΔW at width
3072; so do we, at any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

from ..errors import UserError
from .transformer_keys import ModulePair, linear_modules

LoraFormat = Literal["kohya", "diffusers", "comfyui"]
FORMATS: tuple[LoraFormat, ...] = ("kohya", "diffusers", "comfyui")

_DOWN = (".lora_down.weight", ".lora_A.weight", ".lora.down.weight", ".lora_A")
_UP = (".lora_up.weight", ".lora_B.weight", ".lora.up.weight", ".lora_B")
_OF_ADAPTER = re.compile(r"\.lora_([AB])\.([^.]+)\.weight$")
"""PEFT's own keys, with the adapter's name (`default` unless one was given)."""
_TEXT = ("lora_te", "text_encoder", "text_encoders.", "base_model.text_encoder")
_OTHER_KINDS = (
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("lokr_", "LyCORIS' LoKr"),
    ("hada_", "LyCORIS' LoHa"),
    ("oft_", "OFT"),
    ("lora_mid", "a LoCon with a middle matrix"),
    ("processor.", "an XLabs LoRA"),
    ("bundle_emb", "an embedding"),
)
_OTHER_ENDINGS = (
    (".diff", "a weight difference"),
    (".diff_b", "a weight difference"),
    (".set_weight", "a weight replacement"),
)


@dataclass
class LoraModule:
    """One module's LoRA: `down` [rank, in], `up` [out, rank], ΔW = alpha / rank · up · down."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """The number of rows of `down`."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank

    def delta(self) -> torch.Tensor:
        """ΔW, [out, in], float64."""
        return self.scale * (self.up.double() @ self.down.double())


@dataclass(frozen=True)
class ParsedLora:
    """A LoRA file's modules under diffusers' names, and how the file wrote them."""

    modules: dict[str, LoraModule]
    form: str
    has_alphas: bool
    left_out: int = 0
    """Tensors of the text encoders, which were not taken."""
    adapter: str = ""
    """PEFT's name of the adapter, where the keys hold it."""
    precisions: tuple[str, ...] = ()
    """Number formats of the file's matrices: float32, float8_e4m3fn …; float8 is widened when it is read."""

    def without_effect(self) -> list[str]:
        """Sentences about modules that change nothing: an alpha of 0, or up matrices that are all zero."""
        said = []
        off = sum(module.alpha == 0 for module in self.modules.values())
        if off:
            said.append(
                f"alpha is 0 in {off} of its {len(self.modules)} modules: here and in ComfyUI that switches "
                "them off, while kohya's scripts read it as alpha = rank"
            )
        if not any(bool(module.up.any()) for module in self.modules.values()):
            said.append("all its up matrices are zero: it changes nothing")
        return said

    def not_finite(self) -> str:
        """What stands in place of numbers and where, for a sentence; empty when all are numbers."""
        for name, module in self.modules.items():
            for value in (module.down, module.up, torch.tensor(module.alpha)):
                if not bool(torch.isfinite(value).all()):
                    what = "not-a-number values" if bool(torch.isnan(value).any()) else "infinite values"
                    return f"{what} ({name})"
        return ""


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[str, ModulePair], dict[str, ModulePair], dict[str, str]]:
    """BFL name → pair, BFL name with underscores → pair, diffusers name with underscores → diffusers name."""
    pairs = linear_modules(64, 128)
    dotted = {pair.bfl: pair for pair in pairs}
    flat = {pair.bfl.replace(".", "_"): pair for pair in pairs}
    flat_parts = {part.replace(".", "_"): part for pair in pairs for part in pair.parts}
    return dotted, flat, flat_parts


@lru_cache(maxsize=1)
def _pair_of() -> dict[str, ModulePair]:
    return {part: pair for pair in linear_modules(64, 128) for part in pair.parts}


def parse(
    tensors: Mapping[str, torch.Tensor],
    default_alphas: Mapping[str, float] | float | None = None,
    *,
    transformer_only: bool = False,
) -> ParsedLora:
    """Read a LoRA in any of the known forms.

    kohya (`lora_unet_…`), LyCORIS' plain LoRA (`lycoris_…`), diffusers and PEFT (`transformer.…`,
    `base_model.model.…`, bare), ComfyUI (`diffusion_model.…`, `model.diffusion_model.…`, with BFL's or
    diffusers' module names).

    Args:
        tensors: the file's tensors.
        default_alphas: where the file has no `.alpha`: one alpha, or alphas by diffusers module name as the
            file's metadata give them. Without either alpha = rank, the scale 1.
        transformer_only: leave out what belongs to the text encoders instead of refusing it.

    Raises:
        UserError: another kind of adapter, several of them, text-encoder weights, an unknown module, half a
            pair.
    """
    adapters: set[str] = set()
    precisions: set[str] = set()
    downs: dict[str, torch.Tensor] = {}
    ups: dict[str, torch.Tensor] = {}
    alphas: dict[str, float] = {}
    left_out = 0
    for key, tensor in tensors.items():
        if key.startswith(_TEXT):
            if not transformer_only:
                raise UserError(
                    f"the LoRA has text-encoder weights ({key}), and the encoders stay frozen here; take the "
                    "transformer's part with: diffusioncleft lora convert FILE OUT --transformer-only"
                )
            left_out += 1
            continue
        kinds = [kind for sign, kind in _OTHER_KINDS if sign in key]
        kinds += [kind for end, kind in _OTHER_ENDINGS if key.endswith(end)]
        if kinds:
            raise UserError(
                f"the file holds {kinds[0]} ({key}), not the plain LoRA that this is for: convert "
                "it to one first"
            )
        if not key.endswith(".alpha"):
            precisions.add(str(tensor.dtype).removeprefix("torch."))
        if tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            tensor = tensor.float()
        if key.endswith(".alpha") and tensor.numel() == 1:
            alphas[key.removesuffix(".alpha")] = float(tensor.float().item())
        elif (end := _ending(key, _DOWN)) is not None:
            downs[key.removesuffix(end)] = tensor
        elif (end := _ending(key, _UP)) is not None:
            ups[key.removesuffix(end)] = tensor
        elif (named := _OF_ADAPTER.search(key)) is not None:
            adapters.add(named[2])
            (downs if named[1] == "A" else ups).setdefault(key[: named.start()], tensor)
        else:
            raise UserError(f"{key} belongs to no LoRA form this program knows (kohya, diffusers, ComfyUI)")
    if len(adapters) > 1:
        names = [repr(name) for name in sorted(adapters)]
        raise UserError(
            f"the file holds {len(names)} LoRAs, PEFT's adapters {', '.join(names[:-1])} and {names[-1]}; "
            "save each into a file of its own"
        )
    if not downs:
        of_what = " of the transformer, only of its text encoders" if left_out else ""
        raise UserError(f"the file holds no LoRA{of_what}")
    if lonely := sorted((set(downs) ^ set(ups)) | (set(alphas) - set(downs))):
        raise UserError(
            f"the LoRA is incomplete: {lonely[0]} has only a part of its tensors; get the file again"
        )
    modules: dict[str, LoraModule] = {}
    forms: set[str] = set()
    for name, down in downs.items():
        form, target = resolve(name)
        forms.add(form)
        up = ups[name]
        if down.ndim == 4:
            down, up = down.flatten(1), up.flatten(1)
        if down.ndim != 2 or up.ndim != 2 or up.shape[1] != down.shape[0]:
            raise UserError(f"the LoRA's matrices of {name} do not fit together; get the file again")
        rank = float(down.shape[0])
        if name in alphas:
            alpha = alphas[name]
        elif isinstance(default_alphas, Mapping):
            alpha = default_alphas.get(target, rank) if isinstance(target, str) else rank
        else:
            alpha = rank if default_alphas is None else float(default_alphas)
        module = LoraModule(down, up, alpha)
        split = {target: module} if isinstance(target, str) else split_fused(target, module)
        for part, value in split.items():
            if part in modules:
                raise UserError(f"the LoRA has {part} twice, in two forms; get a clean file")
            modules[part] = value
    form = " and ".join(sorted(forms))
    return ParsedLora(modules, form, bool(alphas), left_out, "".join(adapters), tuple(sorted(precisions)))


def _ending(key: str, endings: tuple[str, ...]) -> str | None:
    return next((end for end in endings if key.endswith(end)), None)


def resolve(name: str) -> tuple[str, str | ModulePair]:
    """The form a module's name is written in, and what it is: a diffusers module or a BFL one."""
    dotted, flat, flat_parts = _tables()
    for prefix, form in (("lora_unet_", "kohya"), ("lora_transformer_", "kohya"), ("lycoris_", "lycoris")):
        if name.startswith(prefix):
            short = name.removeprefix(prefix)
            if short in flat:
                return form, flat[short]
            if short in flat_parts:
                return form, flat_parts[short]
    for prefix, form in (
        ("base_model.model.transformer.", "raw PEFT"),
        ("base_model.model.diffusion_model.", "raw PEFT"),
        ("base_model.model.model.diffusion_model.", "raw PEFT"),
        ("model.diffusion_model.", "checkpoint"),
        ("base_model.model.", "raw PEFT"),
        ("transformer.", "diffusers"),
        ("diffusion_model.", "comfyui"),
        ("", "bare"),
    ):
        if name.startswith(prefix):
            short = name.removeprefix(prefix)
            if short in dotted:
                return form, dotted[short]
            if short in _pair_of():
                return form, short
    raise UserError(f"the LoRA's module {name} is none of FLUX.1's; it belongs to another model")


def split_fused(pair: ModulePair, module: LoraModule) -> dict[str, LoraModule]:
    """A BFL module's LoRA as LoRAs of its diffusers parts, with equal ΔW.

    A part takes only the columns of `up` that reach its rows, so that block-diagonal files come back at
    their own rank; a genuinely joint LoRA keeps the whole `down` in each part. A part that nothing reaches
    is left out.
    """
    if pair.swap_halves:
        first, second = module.up.chunk(2, dim=0)
        return {pair.parts[0]: LoraModule(module.down, torch.cat([second, first]), module.alpha)}
    if len(pair.parts) == 1:
        return {pair.parts[0]: module}
    count, rank = len(pair.parts), module.rank
    sizes = pair.split_sizes(module.up.shape[0], hidden=module.down.shape[1])
    if min(sizes) <= 0 or sum(sizes) != module.up.shape[0]:
        raise UserError(f"the LoRA of {pair.bfl} has {module.up.shape[0]} rows, which is no FLUX.1 layer's")
    rows = torch.split(module.up, sizes)
    columns = [part.any(dim=0) for part in rows]
    chunk = rank // count
    equal = rank % count == 0 and all(
        not bool(reach[: index * chunk].any()) and not bool(reach[(index + 1) * chunk :].any())
        for index, reach in enumerate(columns)
    )
    result: dict[str, LoraModule] = {}
    untouched = not any(bool(reach.any()) for reach in columns)
    for index, (part, up, reach) in enumerate(zip(pair.parts, rows, columns, strict=True)):
        if equal:
            keep = torch.zeros(rank, dtype=torch.bool)
            keep[index * chunk : (index + 1) * chunk] = True
        elif untouched:
            keep = torch.ones(rank, dtype=torch.bool)
        else:
            keep = reach
        kept = int(keep.sum())
        if kept:
            result[part] = LoraModule(
                module.down[keep].contiguous(), up[:, keep].contiguous(), module.scale * kept
            )
    return result


def fuse(pair: ModulePair, parts: Mapping[str, LoraModule]) -> LoraModule:
    """The LoRAs of a BFL module's diffusers parts as one LoRA of it, with equal ΔW; absent parts get zeros.

    Parts that share one `down` (they were split from a joint LoRA) keep its rank; others go block-diagonal.
    """
    present = [(index, parts[part]) for index, part in enumerate(pair.parts) if part in parts]
    first = present[0][1]
    if pair.swap_halves:
        head, tail = first.up.chunk(2, dim=0)
        return LoraModule(first.down, torch.cat([tail, head]), first.alpha)
    if len(pair.parts) == 1:
        return first
    hidden = first.down.shape[1]
    sizes = [hidden] * 3 + [4 * hidden] * (len(pair.parts) - 3)
    for index, module in present:
        sizes[index] = module.up.shape[0]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    shared = share_down([module for _, module in present])
    rank = first.rank if shared else sum(module.rank for _, module in present)
    up = torch.zeros(sum(sizes), rank, dtype=first.up.dtype)
    column = 0
    for index, module in present:
        block = module.up if module.scale == first.scale else module.up * (module.scale / first.scale)
        up[starts[index] : starts[index] + sizes[index], column : column + module.rank] = block
        column += 0 if shared else module.rank
    down = first.down if shared else torch.cat([module.down for _, module in present])
    return LoraModule(down, up, first.scale * rank)


def share_down(parts: Sequence[LoraModule]) -> bool:
    """Whether LoRAs of one BFL module's parts have one down matrix, as kohya's scripts train them."""
    first = parts[0]
    return all(
        part.alpha == first.alpha
        and part.down.shape == first.down.shape
        and torch.equal(part.down, first.down)
        for part in parts[1:]
    )


def write(modules: Mapping[str, LoraModule], form: LoraFormat) -> dict[str, torch.Tensor]:
    """A LoRA's tensors under the keys of `form`.

    `kohya` and `comfyui` carry alphas. `diffusers` has none, because its readers disagree about them: the
    scale is multiplied into `lora_B`, exactly where alpha/rank is a power of two, else in float32.
    """
    tensors: dict[str, torch.Tensor] = {}
    if form == "diffusers":
        for name, module in modules.items():
            tensors[f"transformer.{name}.lora_A.weight"] = module.down.contiguous()
            tensors[f"transformer.{name}.lora_B.weight"] = _scaled(module.up, module.scale)
        return tensors
    grouped: dict[str, tuple[ModulePair, dict[str, LoraModule]]] = {}
    for name, module in modules.items():
        pair = _pair_of()[name]
        grouped.setdefault(pair.bfl, (pair, {}))[1][name] = module
    for bfl, (pair, parts) in grouped.items():
        fused = fuse(pair, parts)
        name = "lora_unet_" + bfl.replace(".", "_") if form == "kohya" else f"diffusion_model.{bfl}"
        tensors[f"{name}.lora_down.weight"] = fused.down.contiguous()
        tensors[f"{name}.lora_up.weight"] = fused.up.contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(fused.alpha, dtype=torch.float32)
    return tensors


def _scaled(up: torch.Tensor, scale: float) -> torch.Tensor:
    exact = up.float() * scale
    narrow = exact.to(up.dtype)
    return narrow.contiguous() if torch.equal(narrow.float(), exact) else exact.contiguous()


def from_state(
    state: Mapping[str, torch.Tensor], alphas: Mapping[str, float] | float
) -> dict[str, LoraModule]:
    """A canonical state (`<module>.lora_A.weight`, `.lora_B.weight`) with its alphas as modules."""
    modules = {}
    for key, down in state.items():
        if key.endswith(".lora_A.weight"):
            name = key.removesuffix(".lora_A.weight")
            alpha = alphas[name] if isinstance(alphas, Mapping) else float(alphas)
            modules[name] = LoraModule(down, state[f"{name}.lora_B.weight"], alpha)
    return modules


def to_state(modules: Mapping[str, LoraModule]) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Modules as a canonical state and its alphas."""
    state: dict[str, torch.Tensor] = {}
    for name, module in modules.items():
        state[f"{name}.lora_A.weight"] = module.down
        state[f"{name}.lora_B.weight"] = module.up
    return state, {name: module.alpha for name, module in modules.items()}
