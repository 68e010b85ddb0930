"""The difference of two FLUX.1 transformers as a LoRA, read and decomposed layer by layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..dataset.consent import NOT_RECORDED
from ..environment import versions
from ..errors import UserError
from ..files import atomic_path, private_dir, read_json, write_json
from ..progress import progress
from ..weight_file import SOURCE_KEY
from .lora_file import PRECISIONS, in_precision, save_tensors
from .lora_keys import LoraFormat, from_state, write
from .lora_merge import Written, tell_ranks
from .lora_rank import of_layers
from .source import FluxSource, find_transformer
from .tensors import Tensors, check_file
from .transformer import open_transformer
from .transformer_keys import ModulePair, bfl_to_diffusers, count_blocks, double_block, is_bfl, single_block

_EXACT_SIDE = 1024
"""Up to this smaller side a difference is decomposed exactly; above by Halko's randomised range finder."""
_OVERSAMPLING, _ITERATIONS = 16, 4
_NUMBERS = torch.float32


def extract_lora(
    base: Path,
    tuned: Path,
    target: Path,
    rank: int,
    *,
    qkv: Literal["joint", "separate"] = "joint",
    format: LoraFormat = "kohya",
    precision: str = "bf16",
) -> Written:
    """Write a LoRA of the blocks' linear layers that turns `base` into `tuned` as nearly as its rank can.

    No more than one layer of each model is in memory. What is done lies in a folder beside `target` until
    the file is written, so that a run that was stopped goes on where it was.

    Args:
        base, tuned: transformers: diffusers folders, single files or GGUF, in whatever precision; of a file
            that holds more, the transformer alone is read.
        target: the file to write.
        rank: of every layer at most.
        qkv: joint: q, k and v, and a single block's MLP, share one down matrix; separate: each has its own.
        format: the keys to write.
        precision: one of `PRECISIONS`.

    Returns:
        Ranks, and errors of the difference in the blocks' linear layers.

    Raises:
        UserError: a file that is no such transformer, models of different sizes, or equal ones.
    """
    sources = [_source(base), _source(tuned)]
    with ExitStack() as stack:
        first, second = (stack.enter_context(open_transformer(source)) for source in sources)
        pairs = _pairs(first, second)
        layers = [
            (pair, parts)
            for pair in pairs
            for parts in ([pair.parts] if qkv == "joint" else [(part,) for part in pair.parts])
        ]
        digests = [source.fingerprint() for source in sources]
        work = target.with_name(f"{target.name}.partial")
        settings = {"models": digests, "rank": rank, "qkv": qkv, "precision": precision}
        _begin(work, settings)
        found: dict[str, tuple[float, float]] = {}
        state: dict[str, torch.Tensor] = {}
        alphas: dict[str, float] = {}
        with progress(len(layers), "extracting", unit="layer") as bar:
            for number, (pair, parts) in enumerate(layers):
                kept = work / f"{number:04d}.safetensors"
                if not _whole(kept):
                    difference = _difference(first, second, pair, parts)
                    _save_layer(kept, difference, rank, PRECISIONS[precision])
                matrices, norms = _read_layer(kept)
                found[pair.bfl if len(parts) > 1 else parts[0]] = norms
                for part, up in _split(pair, parts, matrices, first):
                    state[f"{part}.lora_A.weight"] = matrices["down"]
                    state[f"{part}.lora_B.weight"] = up
                    alphas[part] = float(matrices["down"].shape[0])
                bar.update(1)
        rest = _elsewhere(first, second, pairs)
    if not state:
        raise UserError(f"{base.name} and {tuned.name} have equal blocks, so there is nothing to extract")
    modules = from_state(state, alphas)
    metadata = {
        "ss_base_model_version": "flux1",
        "ss_network_module": "networks.lora_flux",
        "base_model_sha256": digests[0],
        SOURCE_KEY: digests[1],
        "consent": NOT_RECORDED,
        "software": f"diffusioncleft {versions()['diffusioncleft']}",
    }
    tell_ranks(metadata, modules)
    save_tensors(target, write(modules, format), metadata)
    _remove(work)
    left = (
        f"{rest} tensors beside the weights of the blocks' linear layers differ too (biases, norms, outer "
        "layers): they are not in the LoRA"
    )
    ranks = tuple(sorted({module.rank for module in modules.values()}))
    return Written(ranks, of_layers(found), (left,) if rest else ())


def decomposed(difference: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`up` [out, k], `down` [k, in] whose product is nearest to `difference` [out, in], k at most `rank`.

    What is below the rounding of float32 is not kept: a difference of lower rank gets that rank.
    """
    if min(difference.shape) <= _EXACT_SIDE:
        left, values, right = torch.linalg.svd(difference, full_matrices=False)
    else:
        # Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1; the sketch is the same in every run.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            asked = min(2 * rank + _OVERSAMPLING, *difference.shape)
            left, values, vectors = torch.svd_lowrank(difference, q=asked, niter=_ITERATIONS)
        right = vectors.T
    floor = values[0] * max(difference.shape) * torch.finfo(difference.dtype).eps
    kept = max(1, min(rank, int((values > floor).sum())))
    root = values[:kept].sqrt()
    return (left[:, :kept] * root).contiguous(), (root[:, None] * right[:kept]).contiguous()


def _source(path: Path) -> FluxSource:
    """A transformer alone: no text encoder or autoencoder is asked for."""
    found = find_transformer(path)
    if found is None:
        raise UserError(f"there is no file or folder {path}; give a FLUX.1 transformer")
    if found.is_dir():
        return FluxSource(folder=found.parent if found.name == "transformer" else found)
    check_file(found, "the transformer", gguf=True)
    return FluxSource(transformer=found)


def _pairs(first: Tensors, second: Tensors) -> list[ModulePair]:
    """The linear layers of the blocks, which both models must have alike."""
    counts = [
        tuple(count_blocks(tensors.names(), name) for name in _kinds(tensors)) for tensors in (first, second)
    ]
    pairs = [pair for index in range(counts[0][0]) for pair in double_block(index)]
    pairs += [pair for index in range(counts[0][1]) for pair in single_block(index)]
    for pair in pairs:
        shapes = [_shape(tensors, pair) for tensors in (first, second)] if counts[0] == counts[1] else []
        if not shapes or shapes[0] != shapes[1]:
            raise UserError(
                f"{first.files[0].name} and {second.files[0].name} are models of different sizes: give a "
                "model and what was tuned from it"
            )
    return pairs


def _kinds(tensors: Tensors) -> tuple[str, str]:
    bfl = is_bfl(tensors.names())
    return ("double_blocks", "single_blocks") if bfl else ("transformer_blocks", "single_transformer_blocks")


def _keys(tensors: Tensors, pair: ModulePair) -> list[str]:
    return [f"{name}.weight" for name in ([pair.bfl] if is_bfl(tensors.names()) else pair.parts)]


def _shape(tensors: Tensors, pair: ModulePair) -> tuple[int, int]:
    """[out, in] of a BFL layer."""
    absent = [key for key in _keys(tensors, pair) if key not in tensors]
    if absent:
        raise UserError(f"{tensors.files[0].name} lacks {absent[0]}; it is no complete FLUX.1 transformer")
    shapes = [tensors.shape(key) for key in _keys(tensors, pair)]
    return sum(shape[0] for shape in shapes), shapes[0][1]


def _rows(tensors: Tensors, pair: ModulePair) -> torch.Tensor:
    """A BFL layer's weight [out, in], float32."""
    found = [tensors.get(key, _NUMBERS) for key in _keys(tensors, pair)]
    return found[0] if len(found) == 1 else torch.cat(found)


def _sizes(pair: ModulePair, tensors: Tensors) -> list[int]:
    rows, columns = _shape(tensors, pair)
    return pair.split_sizes(rows, columns)


def _difference(first: Tensors, second: Tensors, pair: ModulePair, parts: Sequence[str]) -> torch.Tensor:
    """What `second` has more than `first` in these parts of a layer, [out, in]."""
    difference = _rows(second, pair) - _rows(first, pair)
    if len(parts) == len(pair.parts):
        return difference
    return torch.split(difference, _sizes(pair, first))[pair.parts.index(parts[0])]


def _split(
    pair: ModulePair, parts: Sequence[str], matrices: dict[str, torch.Tensor], tensors: Tensors
) -> Iterator[tuple[str, torch.Tensor]]:
    """Each part's rows of `up`; nothing of a layer that is the same in both models."""
    if "up" not in matrices:
        return
    ups = [matrices["up"]] if len(parts) == 1 else torch.split(matrices["up"], _sizes(pair, tensors))
    for part, up in zip(parts, ups, strict=True):
        yield part, up.contiguous()


def _save_layer(path: Path, difference: torch.Tensor, rank: int, dtype: torch.dtype) -> None:
    """Decompose one difference; the file holds its matrices, none where it is zero, and ‖error‖, ‖ΔW‖."""
    if not bool(torch.isfinite(difference).all()):
        raise UserError("a model holds values that are no numbers; get it again")
    tensors: dict[str, torch.Tensor] = {}
    error = norm = float(torch.linalg.matrix_norm(difference.double()))
    if norm:
        up, down = decomposed(difference, rank)
        given = in_precision({"blocks.lora_A": down, "blocks.lora_B": up}, dtype)
        tensors = {"down": given["blocks.lora_A"], "up": given["blocks.lora_B"]}
        difference -= tensors["up"].float() @ tensors["down"].float()
        error = float(torch.linalg.matrix_norm(difference.double()))
    tensors["norms"] = torch.tensor([error, norm], dtype=torch.float64)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def _read_layer(path: Path) -> tuple[dict[str, torch.Tensor], tuple[float, float]]:
    with safe_open(str(path), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    error, norm = tensors.pop("norms").tolist()
    return tensors, (error, norm)


def _whole(path: Path) -> bool:
    try:
        with safe_open(str(path), framework="pt") as file:
            return "norms" in file.keys()  # noqa: SIM118
    except (SafetensorError, OSError):
        return False


def _begin(work: Path, settings: dict[str, object]) -> None:
    """Take up the folder of a run that was stopped, or begin a new one where it had other settings."""
    told = work / "settings.json"
    if not told.is_file() or read_json(told) != settings:
        _remove(work)
        private_dir(work)
        write_json(told, settings)


def _remove(work: Path) -> None:
    """Delete the folder of finished layers; of a folder that is not ours nothing but these."""
    if not work.is_dir():
        return
    for path in [*work.glob("[0-9]*.safetensors"), *work.glob(".writing-*"), work / "settings.json"]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else lies in it
        work.rmdir()


def _elsewhere(first: Tensors, second: Tensors, pairs: Sequence[ModulePair]) -> int:
    """How many tensors differ beside the layers that `pairs` names."""
    ours, theirs = (_others(tensors, pairs) for tensors in (first, second))
    return sum(
        name not in ours or name not in theirs or not torch.equal(ours[name], theirs[name])
        for name in ours.keys() | theirs.keys()
    )


def _others(tensors: Tensors, pairs: Sequence[ModulePair]) -> dict[str, torch.Tensor]:
    """By diffusers' names all but the weights of these layers: biases, norms, the outer layers."""
    linear = {key for pair in pairs for key in _keys(tensors, pair)}
    keys = [key for key in tensors.names() if key not in linear]
    if not is_bfl(tensors.names()):
        return {key: tensors.get(key, _NUMBERS) for key in keys}
    hidden = _shape(tensors, pairs[0])[1]
    converted = bfl_to_diffusers(keys, lambda key: tensors.get(key, _NUMBERS), hidden)
    return {name: value for name, value in converted if isinstance(value, torch.Tensor)}
