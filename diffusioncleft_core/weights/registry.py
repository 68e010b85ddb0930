"""External models: the table, where each is looked for, and whether it is the pinned file."""

import importlib.util
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_json, sha256_file
from ..home import cache_home, expanded
from ..text import nearest
from ..weight_file import stand_in

TABLE = Path(__file__).with_name("weights.toml")
KINDS = ("torch_hub", "hub_folder", "face_pack", "single_files", "package")


@dataclass(frozen=True)
class WeightFile:
    """One file of a model; `sha256` where it is known, else its first digits, else neither."""

    name: str
    url: str | None = None
    sha256: str | None = None
    sha256_start: str | None = None
    size: int | None = None
    """Bytes."""
    folders: tuple[str, ...] = ()
    """ComfyUI's model folders, most usual first."""

    def fits(self, sha256: str) -> bool | None:
        """Whether a file's hash is the pinned one; None when nothing is pinned."""
        if self.sha256:
            return sha256 == self.sha256
        return sha256.startswith(self.sha256_start) if self.sha256_start else None


@dataclass(frozen=True)
class Model:
    """One external model, as `weights.toml` describes it."""

    name: str
    kind: str
    purpose: str
    licence: str
    remark: str = ""
    files: tuple[WeightFile, ...] = ()
    repo: str | None = None
    archive: str | None = None
    package: str | None = None
    required: tuple[str, ...] = ()
    fetch: tuple[str, ...] = ()


def read_registry(table: Path = TABLE) -> list[Model]:
    """Every model of the table, in its order. Raises ValueError for a kind or a field it does not know."""
    entries = tomllib.loads(table.read_text(encoding="utf-8"))["model"]
    return [_model(entry) for entry in entries]


def find_entry(name: str, models: list[Model] | None = None) -> Model:
    """The model called `name`. Raises UserError with the nearest name."""
    known = read_registry() if models is None else models
    for model in known:
        if model.name == name:
            return model
    names = [model.name for model in known]
    near = nearest(name, names)
    hint = f"did you mean {near!r}?" if near else f"choose one of: {', '.join(names)}"
    raise UserError(f"there is no model {name!r}; {hint}")


def _model(entry: dict[str, Any]) -> Model:
    fields = _tuples(entry)
    files = tuple(WeightFile(**_tuples(item)) for item in fields.pop("file", ()))
    if fields["kind"] not in KINDS:
        raise ValueError(f"kind {fields['kind']!r} of {fields['name']!r} is none of {', '.join(KINDS)}")
    return Model(files=files, **fields)


def _tuples(item: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}


ENVIRONMENT = "DIFFUSIONCLEFT_WEIGHTS"
"""An own folder of weights: <folder>/<model>/<file>, or <folder>/<file>."""
COMFYUI_FACES = "insightface"


@dataclass(frozen=True)
class Found:
    """What was found of a model: its files by name, what is missing, and the kind of place."""

    model: Model
    files: dict[str, Path] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    place: str = ""
    """own folder, torch hub, HF cache, insightface, ComfyUI or package; "" when nothing was found."""

    @property
    def complete(self) -> bool:
        return bool(self.files) and not self.missing


def own_folders(own: Path | None = None) -> list[Path]:
    """The folder that was given and the environment's."""
    folders = [] if own is None else [expanded(own)]
    named = os.environ.get(ENVIRONMENT, "")
    return folders + [expanded(entry) for entry in named.split(os.pathsep) if entry]


def torch_hub_checkpoints() -> Path | None:
    """Torch hub's folder, as `torch.hub.get_dir` finds it, without importing torch; None without a home."""
    named, cache = os.environ.get("TORCH_HOME"), cache_home()
    if named is None and cache is None:
        return None
    return (expanded(named) if named is not None else Path(cache or "") / "torch") / "hub" / "checkpoints"


def hf_cache() -> Path | None:
    """The Hugging Face cache, as huggingface_hub finds it, without importing it; None without a home."""
    for name, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if os.environ.get(name):
            return expanded(os.path.expandvars(os.environ[name])) / below
    cache = cache_home()
    return None if cache is None else cache / "huggingface" / "hub"


def places(model: Model, own: Path | None = None) -> list[tuple[str, Path]]:
    """(kind of place, folder) pairs that are searched for a model's files, in order."""
    found = [("own folder", folder / model.name) for folder in own_folders(own)]
    found += [("own folder", folder) for folder in own_folders(own)]
    found += list(_usual_places(model))
    return found


def looked_for(model: Model, own: Path | None = None) -> list[Path]:
    """Every folder that is searched for a model, in order."""
    folders = [folder for _, folder in places(model, own)]
    folders += [folder for file in model.files for _, folder in _comfyui_folders(file)]
    return list(dict.fromkeys(folders))


def find_model(model: Model, own: Path | None = None) -> Found:
    """The first place that holds the model whole, else the one that holds most of it.

    The files of `single_files` may lie in different places.
    """
    if model.kind == "single_files":
        return _find_single_files(model, own)
    best = Found(model, missing=_wanted(model))
    for place, folder in places(model, own):
        found = _in_folder(model, folder, place)
        if found.complete:
            return found
        if len(found.files) > len(best.files):
            best = found
    return best


def require_file(name: str, own: Path | None = None) -> Path:
    """The one file of a model, its hash checked. Raises UserError when it is missing or another one."""
    model = find_entry(name)
    file = model.files[0]
    found = find_model(model, own)
    path = found.files.get(file.name)
    if path is None:
        looked = ", ".join(map(str, looked_for(model, own)))
        if not looked:
            raise UserError(
                f"{file.name} ({model.purpose}) was looked for nowhere: no home folder is known; run: "
                f"diffusioncleft weights fetch {name} --dir FOLDER, and set {ENVIRONMENT} to it"
            )
        raise UserError(
            f"{file.name} ({model.purpose}) is in none of {looked}; run: diffusioncleft weights fetch "
            f"{name}, or copy it there from another machine (docs/weights.md)"
        )
    again = f"delete it and run: diffusioncleft weights fetch {name}"
    if instead := stand_in(path):
        raise UserError(f"{path} {instead.partition('; ')[0]}; {again}")
    if file.fits(sha256_file(path)) is False:
        raise UserError(f"{path} is damaged or another file: its sha256 is not the pinned one; {again}")
    return path


def _usual_places(model: Model) -> Iterator[tuple[str, Path]]:
    from ..faces.analyzer import search_folders
    from ..flux.source import comfyui_roots

    if model.kind == "torch_hub":
        if folder := torch_hub_checkpoints():
            yield "torch hub", folder
    elif model.kind == "package":
        spec = importlib.util.find_spec(model.package or "")
        if spec is not None and spec.origin:
            yield "package", Path(spec.origin).parent
    elif model.kind == "hub_folder":
        yield from (("HF cache", folder) for folder in _snapshots(model.repo or ""))
    elif model.kind == "face_pack":
        yield from (("insightface", folder / model.name) for folder in search_folders())
        for root in comfyui_roots():
            yield "ComfyUI", root / "models" / COMFYUI_FACES / "models" / model.name
            yield "ComfyUI", root / "models" / COMFYUI_FACES / model.name
        yield from (("HF cache", folder) for folder in _snapshots(model.repo or ""))


def _snapshots(repo: str) -> list[Path]:
    """The repository's snapshots in the Hugging Face cache, the newest first; their folder without one."""
    cache = hf_cache()
    if not repo or cache is None:
        return []
    folder = cache / f"models--{repo.replace('/', '--')}" / "snapshots"
    if not folder.is_dir():
        return [folder]
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)


def _wanted(model: Model) -> tuple[str, ...]:
    return model.required or tuple(file.name for file in model.files)


def _in_folder(model: Model, folder: Path, place: str) -> Found:
    if not model.required:
        files = {f.name: folder / f.name for f in model.files if (folder / f.name).is_file()}
        missing = tuple(f.name for f in model.files if f.name not in files)
        return Found(model, files, missing, place if files else "")
    files, lacking = {}, []
    for pattern in model.required:
        matches = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        files |= {path.relative_to(folder).as_posix(): path for path in matches}
        lacking += [] if matches else [pattern]
    lacking += _missing_shards(folder, model.required)
    return Found(model, files, tuple(lacking), place if files else "")


def _missing_shards(folder: Path, patterns: Iterable[str]) -> list[str]:
    """Shards that an index names and that are not there: an interrupted download looks whole without this."""
    lacking = []
    for parent in {(folder / pattern).parent for pattern in patterns if pattern.endswith(".safetensors")}:
        for index in sorted(parent.glob("*.safetensors.index.json")):
            try:
                shards = set(read_json(index)["weight_map"].values())
            except (UserError, KeyError, AttributeError, TypeError):
                lacking.append(index.relative_to(folder).as_posix())
                continue
            gone = sorted(name for name in shards if not (parent / str(name)).is_file())
            lacking += [(parent / name).relative_to(folder).as_posix() for name in gone]
    return lacking


def _find_single_files(model: Model, own: Path | None) -> Found:
    files: dict[str, Path] = {}
    found_in: list[str] = []
    for file in model.files:
        for place, folder in [*places(model, own), *_comfyui_folders(file)]:
            if (folder / file.name).is_file():
                files[file.name] = folder / file.name
                found_in.append(place)
                break
    missing = tuple(file.name for file in model.files if file.name not in files)
    return Found(model, files, missing, ", ".join(dict.fromkeys(found_in)))


def _comfyui_folders(file: WeightFile) -> list[tuple[str, Path]]:
    from ..flux.source import comfyui_roots

    return [("ComfyUI", root / "models" / name) for root in comfyui_roots() for name in file.folders]


_BLOB = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Verdict:
    """`state`: `sound` (the pinned hash, or the hub's own name of the file), `wrong`, or `not pinned`."""

    name: str
    path: Path
    sha256: str
    state: str


def verify(found: Found) -> list[Verdict]:
    """Hash every file that was found. Reads all of them: 34 GB for FLUX.1 takes minutes."""
    pinned = {file.name: file for file in found.model.files}
    verdicts = []
    for name, path in found.files.items():
        sha256 = sha256_file(path)
        fits = pinned[name].fits(sha256) if name in pinned else None
        if fits is None:
            fits = _as_the_hub_names_it(path, sha256)
        state = "not pinned" if fits is None else "sound" if fits else "wrong"
        verdicts.append(Verdict(name, path, sha256, state))
    return verdicts


def _as_the_hub_names_it(path: Path, sha256: str) -> bool | None:
    """The Hugging Face cache names a large file by its sha256 and links to it; None for any other file."""
    name = path.resolve().name
    return name == sha256 if path.is_symlink() and _BLOB.fullmatch(name) else None
