"""The base model as far as it is there: what is missing or damaged is a finding, not the end."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..flux.locate import find_part, find_transformer
from ..flux.source import FluxSource


def examined_source(
    base: Path,
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
