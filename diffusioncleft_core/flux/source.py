"""Where a base model's parts lie: a diffusers folder, single files, or ComfyUI's model folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import UserError
from ..files import sha256_model
from ..home import below_home, expanded
from . import encoder_keys as text_keys
from . import encoder_keys as vae_keys
from .tensors import check_file, is_gguf, safetensors_in

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
        candidates.append(expanded(named))
    # ComfyUI/custom_nodes/<pack>/diffusioncleft_core/flux/locate.py; the pack may be a link, so both
    # readings.
    for own in (Path(__file__).absolute(), Path(__file__).resolve()):
        candidates += own.parents[4:5]
    candidates += below_home("comfy/ComfyUI")
    roots: list[Path] = []
    for path in candidates:
        if (path / "comfy" / "sd1_tokenizer").is_dir() and path not in roots:
            roots.append(path)
    return roots


def find_model(name: str | Path, folders: Sequence[str]) -> Path | None:
    """A model file by its path, or by its name in ComfyUI's `models/<folder>`."""
    path = expanded(name)
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


_FOLDERS = {"transformer": "transformer", "vae": "vae", "clip_l": "text_encoder", "t5xxl": "text_encoder_2"}
COMPONENTS = tuple(_FOLDERS)
_NAMES = {
    "transformer": "the transformer",
    "vae": "the VAE",
    "clip_l": "the CLIP text encoder",
    "t5xxl": "the T5 text encoder",
}


@dataclass(frozen=True)
class FluxSource:
    """A base model's files. Either `folder` is set (diffusers layout), or the four single files are.

    One all-in-one checkpoint stands in all four places. Tokenizer folders are optional overrides.
    """

    folder: Path | None = None
    transformer: Path | None = None
    vae: Path | None = None
    clip_l: Path | None = None
    t5xxl: Path | None = None
    tokenizer_clip: Path | None = None
    tokenizer_t5: Path | None = None

    @classmethod
    def from_arguments(
        cls,
        base: str | Path,
        *,
        vae: str | Path | None = None,
        clip_l: str | Path | None = None,
        t5xxl: str | Path | None = None,
        tokenizer_clip: str | Path | None = None,
        tokenizer_t5: str | Path | None = None,
    ) -> FluxSource:
        """The source that a command line's arguments mean.

        Args:
            base: a diffusers folder, or the transformer's (or an all-in-one checkpoint's) safetensors file;
                a bare file name is also looked for in ComfyUI's models.
            vae, clip_l, t5xxl: the other single files; by default their usual names beside `base`, then
                ComfyUI's.
            tokenizer_clip, tokenizer_t5: tokenizer folders; see `locate.find_tokenizer`.

        Raises:
            UserError: a file that is not there or is refused by its kind (a pickle; GGUF, but for `base`).
        """
        tokenizers = {
            "tokenizer_clip": expanded(tokenizer_clip) if tokenizer_clip is not None else None,
            "tokenizer_t5": expanded(tokenizer_t5) if tokenizer_t5 is not None else None,
        }
        path = find_transformer(base)
        if path is None:
            raise UserError(
                f"no base model at {base}; give a diffusers folder of FLUX.1 schnell or its safetensors file"
            )
        if path.is_dir():
            source = cls(folder=path, **tokenizers)
            source.check_folder()
            return source
        check_file(path, "the transformer", gguf=True)
        held = _parts_in(path)
        given = {"vae": vae, "clip_l": clip_l, "t5xxl": t5xxl}
        files = {
            part: path if given[part] is None and part in held else find_part(part, given[part], path)
            for part in given
        }
        for part, file in files.items():
            check_file(file, _NAMES[part])
        return cls(transformer=path, **files, **tokenizers)

    def check_folder(self) -> None:
        """Raise UserError unless the folder has a diffusers FLUX.1's component folders."""
        assert self.folder is not None
        needed = (*_FOLDERS.values(), "tokenizer", "tokenizer_2")
        absent = [
            name
            for name in needed
            if not (self.folder / name).is_dir()
            and not (name == "tokenizer" and self.tokenizer_clip)
            and not (name == "tokenizer_2" and self.tokenizer_t5)
        ]
        if absent:
            raise UserError(
                f"{self.folder} is no complete diffusers folder of FLUX.1 schnell: it lacks "
                f"{', '.join(absent)}; "
                "give a complete folder or the transformer's safetensors file"
            )

    def component_folder(self, component: str) -> Path | None:
        """The diffusers folder of `component` (`transformer`, `vae`, `clip_l`, `t5xxl`); None for single
        files.
        """
        return None if self.folder is None else self.folder / _FOLDERS[component]

    def files(self, component: str) -> list[Path]:
        """The safetensors files of `component`, all shards in order."""
        folder = self.component_folder(component)
        if folder is not None:
            return safetensors_in(folder, _NAMES[component])
        single: Path | None = getattr(self, component)
        if single is None:
            raise UserError(f"{_NAMES[component]}: no file was given for it")
        return [single]

    def tokenizer_folder(self, kind: str) -> Path:
        """The tokenizer's folder of `kind`, `clip` or `t5`."""
        given = self.tokenizer_clip if kind == "clip" else self.tokenizer_t5
        if self.folder is not None and given is None:
            return self.folder / ("tokenizer" if kind == "clip" else "tokenizer_2")
        return find_tokenizer(kind, given, self.clip_l if kind == "clip" else self.t5xxl)

    def fingerprint(self, component: str = "transformer") -> str:
        """SHA-256 of a component's content, 64 hexadecimal digits; for a text encoder with its tokenizer.

        A single file's is the file's own hash; a folder's is the hash of its files' hashes (`config.json`
        too). The scheduler's configuration is in none: sampling and training use schnell's own schedule.
        """
        digests = [sha256_model(path) for path in self.paths(component)]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def paths(self, component: str) -> list[Path]:
        """Every file that `component` comes from: weights, configuration and a text encoder's tokenizer."""
        paths = list(self.files(component))
        folder = self.component_folder(component)
        if folder is not None and (folder / "config.json").is_file():
            paths.append(folder / "config.json")
        if component in ("clip_l", "t5xxl"):
            tokenizer = self.tokenizer_folder("clip" if component == "clip_l" else "t5")
            paths += sorted(
                file for file in tokenizer.iterdir() if file.suffix in (".json", ".txt", ".model")
            )
        return paths

    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of every component: all that a picture or a LoRA owes to the base model."""
        return {component: self.fingerprint(component) for component in COMPONENTS}


def examined_source(
    base: str | Path,
    *,
    clip_l: Path | None = None,
    t5xxl: Path | None = None,
    vae: Path | None = None,
    tokenizer_clip: Path | None = None,
    tokenizer_t5: Path | None = None,
) -> tuple[FluxSource, dict[str, UserError]]:
    """The source that `FluxSource.from_arguments` gives, or what there is of it.

    Returns:
        The source, and for each part that was not found (`vae`, `clip_l`, `t5xxl`) why.

    Raises:
        UserError: there is nothing at `base` at all.
    """
    given = {"vae": vae, "clip_l": clip_l, "t5xxl": t5xxl}
    tokenizers = {"tokenizer_clip": tokenizer_clip, "tokenizer_t5": tokenizer_t5}
    try:
        return FluxSource.from_arguments(base, **given, **tokenizers), {}
    except UserError:
        path = find_transformer(base)
        if path is None:
            raise
    if path.is_dir():
        return FluxSource(folder=path, **tokenizers), {}
    parts: dict[str, Path] = {}
    absent: dict[str, UserError] = {}
    for part, name in given.items():
        try:
            parts[part] = find_part(part, name, path)
        except UserError as error:
            absent[part] = error
    return FluxSource(transformer=path, **parts, **tokenizers), absent


def phantom_source() -> FluxSource:
    """The embedded phantom-flux: a tiny FLUX.1 trained on rendered healthy faces.

    Raises:
        UserError: the package lies here without its models.
    """
    folder = Path(__file__).resolve().parents[1] / "phantom" / "models" / "phantom-flux"
    if not (folder / "transformer").is_dir():
        raise UserError(
            "the embedded phantom-flux model is missing from this installation; install the package again"
        )
    return FluxSource(folder=folder)


def _parts_in(path: Path) -> set[str]:
    """Which of vae, clip_l, t5xxl an all-in-one checkpoint holds besides the transformer."""
    if is_gguf(path):
        return set()
    try:
        with safe_open(str(path), framework="pt", device="cpu") as handle:
            names = set(handle.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"the transformer: {path.name} is damaged or no safetensors file ({error}); download it again"
        ) from error
    probes = {
        "vae": (vae_keys.PREFIXES[:-1], vae_keys.PROBES),
        "clip_l": (text_keys.CLIP_PREFIXES[:-1], text_keys.CLIP_PROBES),
        "t5xxl": (text_keys.T5_PREFIXES[:-1], text_keys.T5_PROBES),
    }
    return {
        part
        for part, (prefixes, keys) in probes.items()
        if any(prefix + key in names for prefix in prefixes for key in keys)
    }
