"""Messages as a browser may see them: no command line options, no paths of this machine.

The core's sentences are written for a shell as well. Every browser that is connected sees a node's message,
and ComfyUI puts it into its log.
"""

from __future__ import annotations

import re
from pathlib import Path

from . import places

_FOLDER = r"""[^/\\\s'",;:]+"""
_INSIDE = r"""(?:[/\\][^\s'",;:]*)?"""
"""In a message: a folder's name whose end nothing else tells, and what lies in the folder."""
_IMAGE = re.compile(r"(?:\bimages[/\\])?\b[0-9a-f]{16}\.png\b")
"""An image of a dataset: its name is part of its pixels' hash."""
_COMMAND = re.compile(r"`[^`]*`|'diffusioncleft [^']*'|diffusioncleft [a-z]+[^;,.()\n]*")
"""A command to be run in a shell stays whole."""
_IN_BRACKETS = re.compile(r" ?\(-{2}[a-z][\w-]*( [A-Z]+)?\)")
_OPTION = re.compile(r"(?<![\w-])-{2}([a-z][\w-]*)( folder\b)?")
_NAMES = {"out": "folder", "ae": "vae", "size": "resolution", "backbone": "backbone", "lr": "learning_rate"}
_PATH = re.compile(r"""(?<![\w:/.~])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'",;:()]+[/\\])+([^\s/\\'",;:()]*)""")
"""An absolute path of two parts or more, of either system."""


def for_browser(message: str) -> str:
    """The message with options called by their widgets' names, and paths by their last part."""
    message = without_private_paths(message)
    for root, name in _known_places():
        message = message.replace(f"{root}/", f"{name}/").replace(str(root), name)
    message = _PATH.sub(lambda found: f"…/{found[1]}" if found[1] else "…", message)
    parts, last = [], 0
    for command in _COMMAND.finditer(message):
        parts += [_without_options(message[last : command.start()]), command[0]]
        last = command.end()
    return "".join([*parts, _without_options(message[last:])])


def without_private_paths(message: str) -> str:
    """The message with what lies in private folders called by the name of its dataset, run or study alone.

    A file's name in a dataset is part of its hash, so it goes as well as the folder.
    """
    for kind in places.PRIVATE:
        for root in places.roots(kind):
            names = sorted((path.name for path in places.folders_below(root)), key=len, reverse=True)
            known = "|".join([*map(re.escape, names), _FOLDER])
            for text in {str(root.resolve()), str(root)}:
                below = rf"{re.escape(text)}[/\\]({known})(?![\w-]){_INSIDE}"
                message = re.sub(below, r"\1", message).replace(text, kind)
    return _IMAGE.sub("a photograph", message)


def _without_options(text: str) -> str:
    text = _IN_BRACKETS.sub("", text)
    return _OPTION.sub(lambda found: _NAMES.get(found[1], found[1].replace("-", "_")), text)


def _known_places() -> list[tuple[Path, str]]:
    """ComfyUI's folders, which a user knows by their names; the deepest first."""
    import folder_paths

    found = [
        (Path(folder_paths.get_output_directory()), "output"),
        (Path(folder_paths.get_input_directory()), "input"),
        (Path(folder_paths.get_temp_directory()), "temp"),
        (Path(folder_paths.models_dir), "models"),
        (Path(folder_paths.base_path), "ComfyUI"),
    ]
    return sorted(found, key=lambda place: -len(str(place[0])))
