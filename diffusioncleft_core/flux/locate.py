"""Where FLUX.1's files are looked for on this machine. Nothing here opens a connection."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError

_TRANSFORMER_FOLDERS = ("diffusion_models", "unet", "checkpoints")
_VAE_NAMES = ("ae.safetensors", "flux_ae.safetensors", "flux1-ae.safetensors")
_CLIP_NAMES = ("clip_l.safetensors",)
_T5_NAMES = (
    "t5xxl_fp16.safetensors",
    "t5xxl_bf16.safetensors",
    "t5xxl_fp8_e4m3fn_scaled.safetensors",
    "t5xxl_fp8_e4m3fn.safetensors",
)


def comfyui_roots() -> list[Path]:
    """ComfyUI checkouts, most specific first: `$COMFYUI_PATH`, the one this pack lies in,
    `~/comfy/ComfyUI`.
    """
    candidates = []
    if named := os.environ.get("COMFYUI_PATH"):
        candidates.append(Path(named).expanduser())
    # ComfyUI/custom_nodes/<pack>/diffusioncleft_core/flux/locate.py; the pack may be a link, so both
    # readings.
    for own in (Path(__file__).absolute(), Path(__file__).resolve()):
        candidates += own.parents[4:5]
    candidates.append(Path("~/comfy/ComfyUI").expanduser())
    roots: list[Path] = []
    for path in candidates:
        if (path / "comfy" / "sd1_tokenizer").is_dir() and path not in roots:
            roots.append(path)
    return roots


def find_model(name: str | Path, folders: Sequence[str]) -> Path | None:
    """A model file by its path, or by its name in ComfyUI's `models/<folder>`."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    if path.is_absolute():
        return None
    for root in comfyui_roots():
        for folder in folders:
            candidate = root / "models" / folder / path
            if candidate.is_file():
                return candidate
    return None


def find_transformer(name: str | Path) -> Path | None:
    """The base model's file: a path, or a name in ComfyUI's diffusion_models, unet or checkpoints folder."""
    return find_model(name, _TRANSFORMER_FOLDERS)


def find_part(part: str, given: str | Path | None, beside: Path) -> Path:
    """The file of `part` (`vae`, `clip_l`, `t5xxl`).

    Looked for: the given path or name; else under its usual names beside the transformer, then in ComfyUI.

    Raises:
        UserError: nothing found, with the names that were looked for.
    """
    names, folders, option = {
        "vae": (_VAE_NAMES, ("vae",), "--ae"),
        "clip_l": (_CLIP_NAMES, ("text_encoders", "clip"), "--clip_l"),
        "t5xxl": (_T5_NAMES, ("text_encoders", "clip"), "--t5xxl"),
    }[part]
    if given is not None:
        found = find_model(given, folders)
        if found is None:
            raise UserError(f"{option}: there is no file {given}; give the path of {names[0]}")
        return found
    for name in names:
        if (beside.parent / name).is_file():
            return beside.parent / name
    for name in names:
        found = find_model(name, folders)
        if found is not None:
            return found
    raise UserError(
        f"no {names[0]} beside {beside.name} nor in ComfyUI's models/{folders[0]}; give its path with "
        f"{option}"
    )


def find_tokenizer(kind: str, given: Path | None, beside: Path | None) -> Path:
    """The tokenizer folder of `kind`, `clip` or `t5`.

    Looked for: the given folder; `tokenizer_clip`, `clip_tokenizer` or `tokenizer` (for T5 `tokenizer_t5`,
    `t5_tokenizer` or `tokenizer_2`) beside the encoder's file; ComfyUI's own checkout.

    Raises:
        UserError: no such folder, with what was looked for.
    """
    option = f"--tokenizer_{kind}"
    if given is not None:
        if not given.is_dir():
            raise UserError(f"{option}: there is no folder {given}; give the tokenizer's folder")
        return given
    names = (f"tokenizer_{kind}", f"{kind}_tokenizer", "tokenizer" if kind == "clip" else "tokenizer_2")
    if beside is not None:
        for name in names:
            if (beside.parent / name).is_dir():
                return beside.parent / name
    own = Path("comfy/sd1_tokenizer") if kind == "clip" else Path("comfy/text_encoders/t5_tokenizer")
    for root in comfyui_roots():
        if (root / own).is_dir():
            return root / own
    raise UserError(
        f"no {kind.upper()} tokenizer: no folder {names[0]} beside the text encoder and no ComfyUI checkout "
        f"(COMFYUI_PATH); give the folder with {option}"
    )
