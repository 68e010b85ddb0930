"""The caption of a photograph: its sidecar .txt as in kohya-ss, otherwise built from the metadata."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ..conditions import Condition
from ..errors import UserError
from ..files import inside
from ..prompts import build_caption, with_trigger
from .reasons import Rejected

CaptionBuilder = Callable[[Mapping[str, str], str | None], str]
"""(attributes, text of the sidecar or None) -> caption; may raise Rejected."""

_MAX_BYTES = 64 << 10
_BRACKETED_WORD = re.compile(r"\[(\w+)\]")


def read_sidecar(photos: Path, name: str) -> str | None:
    """Text of the .txt file beside the photograph `name`, white space collapsed; None if there is none or it
    is empty.

    UTF-8 with or without BOM, otherwise Windows-1252. Raises Rejected when it leads out of the folder or is
    no text.
    """
    path = (photos / name).with_suffix(".txt")
    if not path.is_file():
        return None
    try:
        inside(photos, path.relative_to(photos))
    except UserError as error:
        raise Rejected(
            "outside", f"its caption {path.name} is a link out of the folder; copy the file itself"
        ) from error
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise Rejected("caption", f"{path.name} has more than {_MAX_BYTES >> 10} kB; shorten it")
        data = path.read_bytes()
    except OSError as error:
        raise Rejected("caption", f"{path.name} can't be read; check its permissions") from error
    if b"\0" in data:
        raise Rejected("caption", f"{path.name} is no UTF-8 text; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    return " ".join(text.split()) or None


def caption_builder(condition: Condition, bracketed: bool) -> CaptionBuilder:
    """How a photograph gets its caption: from its sidecar, which wins, or from its attributes.

    The trigger comes first in the one form (`[CLP]`, or bare) that all captions of a LoRA share: a sidecar
    that begins with it is brought to that form, another one gets it in front. Rejected for another trigger in
    brackets.
    """

    def build(attributes: Mapping[str, str], sidecar: str | None) -> str:
        if sidecar is None:
            return build_caption(condition, attributes, bracketed=bracketed)
        tag = _BRACKETED_WORD.match(sidecar)
        if tag and tag[1] != condition.trigger:
            raise Rejected(
                "caption",
                f"its .txt begins with [{tag[1]}], the trigger is [{condition.trigger}]; correct it",
            )
        return with_trigger(condition, sidecar, bracketed=bracketed)

    return build
