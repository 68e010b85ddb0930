"""Texts without names: what stands in a result may be pasted into a public bug report.

Every path that the user gave goes, with the names of its folders and files; so do the user's and the
computer's name; and whatever else looks like a path or a file name, wherever it came from.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.home import expanded, home, user_name

SHORTEST = 3
"""Names of fewer letters are not replaced by themselves: they stand in every other word."""
_PATH = re.compile(r"(?<![\w>.])(?:[A-Za-z]:[\\/]|\\\\|~[\\/]|/(?=[\w.~]))[^\s'\"`,;()|<>]*")
_FILE = re.compile(
    r"[^\s'\"`,;:()|<>/\\]+\.(?:safetensors|onnx|json|jsonl|toml|csv|txt|png|jpe?g|webp|bmp|tiff?|heic|gguf"
    r"|ckpt|pth?|bin|pkl|npz|model|py)\b",
    re.IGNORECASE,
)
_COMMON_WORD = re.compile(r"[a-z]{1,8}")
"""A folder's name that is also a word of our own sentences; its path is replaced all the same."""
_STANDARD = {
    "transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler", "models",
    "the", "and", "for", "home", "usr", "var", "tmp", "opt", "mnt", "data", "dev", "root",
}  # fmt: skip


class Redaction:
    """Replaces names by what they stand for."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """`paths`: everything that the user gave or that was found for them."""
        names: dict[str, str] = {}
        for path in paths:
            for form in _forms(path):
                for place in (form, *form.parents):
                    if len(place.parts) > 1 or place == form:
                        names[str(place)] = "<path>"
                telling = [part for part in form.parts[:-1] if not _COMMON_WORD.fullmatch(part)]
                for part in (form.name, *telling):
                    if part.lower() not in _STANDARD:
                        names.setdefault(part, "<name>")
        for folder in filter(None, (home(), Path.cwd(), Path(tempfile.gettempdir()))):
            for form in _forms(folder):
                names[str(form)] = "<path>"
        for name in _people_and_hosts():
            names[name] = "<name>"
        wanted = [name for name in names if len(name) >= SHORTEST and name not in (os.sep, ".", "..")]
        wanted.sort(key=len, reverse=True)
        self._names = names
        self._known = (
            re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in wanted)) if wanted else None
        )

    def __call__(self, text: str) -> str:
        """`text` without names, paths and file names."""
        if self._known is not None:
            text = self._known.sub(lambda match: self._names[match.group()], text)
        return _FILE.sub("<file>", _PATH.sub("<path>", text))


def _forms(path: Path) -> set[Path]:
    """The path as given, absolute, and with its links followed."""
    forms = {path, path.absolute()}
    with contextlib.suppress(UserError):
        forms.add(expanded(path).absolute())
    with contextlib.suppress(OSError, RuntimeError, UserError):
        forms.add(expanded(path).resolve())
    return forms


def _people_and_hosts() -> set[str]:
    found = {platform.node(), platform.node().partition(".")[0]}
    found |= {user_name()} | {
        os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "HOSTNAME", "COMPUTERNAME")
    }
    # The administrator's name and "localhost" are on every computer, and "root" is in "root mean square".
    return {name for name in found if name.lower() not in ("", "root", "localhost")}
