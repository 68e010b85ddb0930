"""Checkpoints: all that a run needs to go on to the same tensors, bit for bit, in one safetensors file.

Data order, noise levels and noise are functions of (seed, step), so a checkpoint holds the step, the LoRA's
weights and the optimizer's state, and no state of a random generator. Nothing in it is a pickle. A checksum
over all of it tells a file whose disk changed a bit.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..diffusioncleft_core.dataset.trained import run_fingerprint
from ..diffusioncleft_core.dataset.withdrawn import (
    SAID,
    known_withdrawals,
    metadata_of,
    read_mark,
    withdrawal_of,
)
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import TEMPORARY_PREFIX, atomic_path
from ..diffusioncleft_core.recipe.recipe import Recipe
from ..diffusioncleft_core.weight_file import stand_in
from .events import Events
from .pictures import remove_pictures

_Memory = tuple[int, torch.Size, tuple[int, ...], torch.dtype, torch.device]
_FORMAT = "diffusioncleft training checkpoint 1"
_KEPT = 2
_BESIDE = "beside/"
KEYED = ("images", "regions", "healthy captions", "hold-out", "balanced")
"""What of a run's origins is a fingerprint under the secret key of the cache."""
_EXPLAINED = MappingProxyType({"gradient_accumulation_steps": "times the number of processes"})


@dataclass(frozen=True)
class Beside:
    """What a run keeps beside weights and optimizer: tensors by name, and JSON values by name."""

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


NOTHING_BESIDE = Beside()


@dataclass(frozen=True)
class Checkpoint:
    """`step` optimizer steps are done; `made_from` is what the run's result depends on, and `key_id` tells
    which secret key its fingerprints of images were made with (empty in files of earlier versions). beside:
    what else the run keeps.
    """

    step: int
    made_from: dict[str, Any]
    parameters: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    key_id: str = ""
    beside: Beside = NOTHING_BESIDE


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}.safetensors"


def save_checkpoint(
    folder: Path,
    step: int,
    made_from: Mapping[str, Any],
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: Any,
    key_id: str = "",
    beside: Beside = NOTHING_BESIDE,
) -> Path:
    """Write the checkpoint of `step`, then delete all but the last two. A crash leaves the earlier ones
    whole.
    """
    tensors = {f"parameter/{name}": parameter.detach().contiguous() for name, parameter in parameters.items()}
    tensors |= {f"{_BESIDE}{name}": tensor for name, tensor in beside.tensors.items()}
    known = {_memory(tensor): name for name, tensor in reversed(tensors.items())}
    structure = _split(optimizer.state_dict(), "optimizer", tensors, known)
    header = {"format": _FORMAT, "step": step, "matters": dict(made_from), "optimizer": structure}
    header |= {"key": key_id} if key_id else {}
    header |= {"beside": dict(beside.values)} if beside.values else {}
    tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
    header["sha256"] = _checksum(header, tensors)
    path = checkpoint_path(folder, step)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"checkpoint": json.dumps(header)})
    for old in _checkpoints(folder)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return path


def latest_checkpoint(folder: Path, warn: Callable[[str], None] = lambda message: None) -> Checkpoint | None:
    """Return the newest whole checkpoint of a folder, None if there is none at all.

    `warn` gets a sentence on each that is damaged. Checkpoints of which none is whole raise UserError.
    """
    paths = _checkpoints(folder)
    for path in reversed(paths):
        try:
            found = read_checkpoint(path)
        except UserError:
            warn(
                f"the checkpoint {path} is damaged, so it is not used; the run goes on from the one before it"
            )
            continue
        return found
    if paths:
        raise UserError(
            f"no checkpoint in {folder} is whole; check the disk, and start anew with --resume no"
        )
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; one that is damaged, or another kind of file, raises UserError."""
    if instead := stand_in(path):
        raise UserError(f"{path} {instead}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("checkpoint", "{}"))
            # Copies, because a mapped file may lie at an address that sums in another order.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if header["format"] != _FORMAT:
            raise KeyError("format")
        told = header.pop("sha256", None)  # earlier versions wrote none
        if told is not None and told != _checksum(header, tensors):
            raise ValueError("checksum")
        optimizer, key = _join(header["optimizer"], tensors), header.get("key", "")
        beside = Beside(_below(_BESIDE, tensors), header.get("beside", {}))
        parameters = _below("parameter/", tensors)
        return Checkpoint(header["step"], header["matters"], parameters, optimizer, key, beside)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged or no checkpoint of this trainer; give another, or --resume no"
        ) from error


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def restore(checkpoint: Checkpoint, parameters: Mapping[str, torch.nn.Parameter], optimizer: Any) -> None:
    """Put the checkpoint's weights and optimizer state in place."""
    if set(checkpoint.parameters) != set(parameters):
        raise UserError("the checkpoint belongs to a LoRA on other layers; use --resume no to start anew")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(checkpoint.parameters[name])
    optimizer.load_state_dict(checkpoint.optimizer)


def found_checkpoint(recipe: Recipe, states: Path, events: Events) -> Checkpoint | None:
    """Return where to go on: the output folder's newest checkpoint, a given one, or None to start anew."""
    if recipe.output.resume == "no":
        return None
    if recipe.output.resume == "auto":
        return latest_checkpoint(states, _warner(events))
    return read_checkpoint(Path(recipe.output.resume))


def goes_on_here(checkpoint: Checkpoint | None, states: Path) -> bool:
    """Whether a checkpoint is of the training whose checkpoints lie in `states`, wherever its own file is."""
    return checkpoint is not None and any(
        _made_from(path) == checkpoint.made_from for path in _checkpoints(states)
    )


def clear_for_new(recipe: Recipe, states: Path) -> None:
    """Remove what an earlier training drew and told; unless for `--resume auto`, where there are none, its
    checkpoints and the LoRAs of its single steps too. The finished LoRA stays until the new one takes its
    place.
    """
    remove_pictures(recipe.output.folder)  # while the checkpoints tell whose they are
    if recipe.output.resume != "auto":
        for path in _step_loras(recipe):
            path.unlink(missing_ok=True)
        remove_checkpoints(states)


def check_checkpoint(
    checkpoint: Checkpoint, made_from: Mapping[str, Any], folder: Path, key_id: str, events: Events
) -> None:
    """Raise UserError for a checkpoint that this run in `folder` can't or mustn't go on from."""
    refuse_withdrawn_checkpoint(checkpoint, folder)
    check_made_from(checkpoint, made_from, folder, key_id=key_id, warn=_warner(events))


def _warner(events: Events) -> Callable[[str], None]:
    return lambda message: events.emit("warning", message=message, private=True)


def refuse_withdrawn_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Raise UserError for a checkpoint of a training that learned from a photograph without consent."""
    run = run_fingerprint(checkpoint.made_from)
    if withdrawal_of({run}, [*known_withdrawals(), *read_mark(folder)]) is not None:
        raise UserError(
            f"the checkpoint in {folder} {SAID}, so it is not continued: train anew, into another "
            "--output_dir or here with --resume no; 'diffusioncleft dataset withdraw' erases what is there"
        )


def check_made_from(
    checkpoint: Checkpoint,
    made_from: Mapping[str, Any],
    output_dir: Path,
    *,
    key_id: str = "",
    warn: Callable[[str], None] = lambda message: None,
) -> None:
    """Raise UserError, with what changed, if other settings, images or models made the checkpoint.

    With another `key_id` than the checkpoint's, as when the cache that held the key was removed, fingerprints
    of equal images differ: they are not compared, and `warn` gets a sentence that says so.
    """
    old, new = checkpoint.made_from, json.loads(json.dumps(dict(made_from)))
    keyed: tuple[str, ...] = ()
    if checkpoint.key_id and key_id and checkpoint.key_id != key_id:
        keyed = KEYED
        warn(
            f"the secret key by which the run in {output_dir} knew its images is gone, as when its cache was "
            "removed: the run goes on, and whether the images are the same can't be told"
        )
    changed = [
        f"{_explained(name)} was {_short(old.get(name))}, is {_short(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in keyed
    ]
    if changed:
        raise UserError(
            f"the checkpoint in {output_dir} can't be continued: {', '.join(changed)}; go back to what it "
            "was, "
            "choose another --output_dir, or start anew with --resume no"
        )


def remove_checkpoints(folder: Path) -> None:
    """Delete all checkpoints of a folder, and what a killed process left half-written."""
    leftovers = folder.glob(f"{TEMPORARY_PREFIX}*") if folder.is_dir() else ()
    for path in (*_checkpoints(folder), *leftovers):
        path.unlink(missing_ok=True)


def _step_loras(recipe: Recipe) -> list[Path]:
    """The LoRAs that an earlier training of this name saved on its way, but for one that this begins with."""
    pattern = re.compile(rf"{re.escape(recipe.output.name)}-step\d{{6,}}\.safetensors")
    needed = (recipe.network.weights, recipe.network.training_adapter)
    kept = {path.resolve() for path in needed if path}
    found = recipe.output.folder.glob("*.safetensors")
    return [path for path in found if pattern.fullmatch(path.name) and path.resolve() not in kept]


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"), key=lambda path: (len(path.name), path.name))


def _made_from(path: Path) -> Any:
    """What a checkpoint's header says it was made from; None for a file without."""
    try:
        return json.loads(metadata_of(path).get("checkpoint", "{}")).get("matters")
    except (ValueError, AttributeError):
        return None


def _checksum(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the header without its checksum, and every tensor with its name, type and shape."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _split(value: Any, name: str, tensors: dict[str, torch.Tensor], known: dict[_Memory | None, str]) -> Any:
    """Move the tensors of a nested structure into `tensors` and return the rest as JSON that names them.

    Dictionaries become lists of pairs, because JSON knows no integer keys. `known` finds a tensor that is
    there already by its memory: AdamW8bit shares its quantisation maps.
    """
    if isinstance(value, torch.Tensor):
        memory = _memory(value)
        if memory is None or memory not in known:
            tensors[name] = value.detach().contiguous()
            known[memory] = name
            return {"tensor": name}
        return {"tensor": known[memory]}
    if isinstance(value, Mapping):
        pairs = value.items()
        return {"mapping": [[key, _split(entry, f"{name}/{key}", tensors, known)] for key, entry in pairs]}
    if isinstance(value, (list, tuple)):
        rows = [_split(entry, f"{name}/{index}", tensors, known) for index, entry in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": rows}
    return {"value": value}


def _memory(tensor: torch.Tensor) -> _Memory | None:
    """Where a tensor's values lie and how they are read; None for one without values."""
    if not tensor.numel():
        return None
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _join(structure: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    kind, content = next(iter(structure.items()))
    if kind == "tensor":
        return tensors[content]
    if kind == "mapping":
        return {key: _join(entry, tensors) for key, entry in content}
    if kind in ("list", "tuple"):
        rows = [_join(entry, tensors) for entry in content]
        return tuple(rows) if kind == "tuple" else rows
    return content


def _explained(name: str) -> str:
    return f"{name} ({_EXPLAINED[name]})" if name in _EXPLAINED else name


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
