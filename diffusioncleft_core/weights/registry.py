"""The table of external models, `weights.toml`, as typed values."""

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

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
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(names)}"
    raise UserError(f"there is no model {name!r}; {hint}")


def _model(entry: dict[str, Any]) -> Model:
    fields = _tuples(entry)
    files = tuple(WeightFile(**_tuples(item)) for item in fields.pop("file", ()))
    if fields["kind"] not in KINDS:
        raise ValueError(f"kind {fields['kind']!r} of {fields['name']!r} is none of {', '.join(KINDS)}")
    return Model(files=files, **fields)


def _tuples(item: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
