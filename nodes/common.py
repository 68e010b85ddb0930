"""What all nodes share: the category, the socket types, messages a person can read, the interrupt button."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..diffusioncleft_core.errors import UserError, system_sentence
from ..diffusioncleft_core.ranges import Range
from .places import is_private
from .words import for_browser

CATEGORY = "DiffusionCleft"
AUTO, NONE, PHANTOM = "auto", "none", "phantom"
"""Choices that stand in several nodes' lists."""

# What travels on a socket is a small value that names things in their folders, never a photograph.
Dataset = io.Custom("DIFFUSIONCLEFT_DATASET")
Row = io.Custom("DIFFUSIONCLEFT_ROW")
ImageSet = io.Custom("DIFFUSIONCLEFT_IMAGE_SET")
Reference = io.Custom("DIFFUSIONCLEFT_REFERENCE")
Training = io.Custom("DIFFUSIONCLEFT_TRAINING")
TrainingOptions = io.Custom("DIFFUSIONCLEFT_TRAINING_OPTIONS")
Classifier = io.Custom("DIFFUSIONCLEFT_CLASSIFIER")
Figures = io.Custom("DIFFUSIONCLEFT_FIGURES")
Verdicts = io.Custom("DIFFUSIONCLEFT_VERDICTS")


@dataclass(frozen=True)
class ImageSetHandle:
    """What the IMAGE_SET socket carries: a folder under ComfyUI's output folder."""

    name: str
    folder: Path
    condition: str
    phantom: bool


_MOST_LINE, _MOST_LINES = 500, 50_000
"""Characters of a text of one line, and of several."""


class Refusal(UserError):
    """A user's mistake as a node says it."""

    __module__ = "builtins"  # ComfyUI shows the class with its module, which here is a path of the machine


class Node(io.ComfyNode):
    """What every node does around its own work: numbers checked before it, errors made readable after it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, wrap in (("define_schema", _with_firm_bounds), ("execute", _guarded)):
            method = cls.__dict__.get(name)
            # ComfyUI clones the classes, with what is wrapped already.
            if isinstance(method, classmethod) and not hasattr(method.__func__, "__wrapped__"):
                setattr(cls, name, classmethod(wrap(method.__func__)))


def node_schema(*, search_aliases: Sequence[str] = (), **fields: Any) -> io.Schema:
    """A node's schema; search words go with it where a release knows them."""
    known = "search_aliases" in inspect.signature(io.Schema).parameters
    return io.Schema(**fields, **({"search_aliases": list(search_aliases)} if known else {}))


def advanced() -> dict[str, Any]:
    """The option of an input that folds it away, where a release knows it."""
    return {"advanced": True} if "advanced" in inspect.signature(io.Int.Input).parameters else {}


class FirmLow(float):
    """A lower bound that not-a-number does not pass: ComfyUI refuses a value where `value < bound`."""

    def __gt__(self, value: Any) -> bool:
        return not self <= value


def number_ranges(schema: Any) -> dict[str, Range]:
    """What each INT and FLOAT input of a schema takes, by the input's name."""
    kinds: dict[str, type[int] | type[float]] = {"INT": int, "FLOAT": float}
    declared = [item for item in schema.inputs if item.get_io_type() in kinds]
    return {item.id: Range(kinds[item.get_io_type()], item.min, item.max) for item in declared}


def check_numbers(schema: Any, values: Mapping[str, Any]) -> None:
    """Raise UserError, by the input's name, for a number out of its range or not finite, linked ones too."""
    for name, allowed in number_ranges(schema).items():
        given = values.get(name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None:  # an optional input, or one that is not evaluated yet
                allowed.check(value, name)


def check_texts(schema: Any, values: Mapping[str, Any]) -> None:
    """Raise UserError, by the input's name, for a text that is too long or holds control characters."""
    for item in schema.inputs:
        if item.get_io_type() != "STRING":
            continue
        given = values.get(item.id)
        for text in given if isinstance(given, list) else [given]:
            if isinstance(text, str):
                most = _MOST_LINES if item.multiline or item.force_input else _MOST_LINE
                if len(text) > most:
                    raise UserError(f"{item.id} has {len(text)} characters; {most} are allowed")
                if any(ord(letter) < 32 and letter not in "\n\r\t" for letter in text):
                    raise UserError(f"{item.id} holds control characters; write it anew")


def _with_firm_bounds(define_schema: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(define_schema)
    def wrapped(cls: Any) -> Any:
        schema = define_schema(cls)
        for item in schema.inputs:
            if item.get_io_type() == "FLOAT":
                item.min = FirmLow(item.min)
        return schema

    return wrapped


def _guarded(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Let a user's mistake become the node's message, without the private folders' paths.

    The message goes to every browser that is connected and to the log. Raised outside the handler, it leaves
    the original, which may hold a path, out of the traceback that ComfyUI logs.
    """

    @functools.wraps(execute)
    def wrapped(cls: Any, **inputs: Any) -> Any:
        try:
            schema = cls.define_schema()
            check_numbers(schema, inputs)
            check_texts(schema, inputs)
            return execute(cls, **inputs)
        except UserError as error:
            message = for_browser(str(error))
        except OSError as error:
            if isinstance(error.filename, str) and is_private(Path(error.filename)):
                message = f"a file in a private folder can't be used ({error.strerror}); check the dataset"
            elif sentence := system_sentence(error):
                message = for_browser(sentence)
            else:
                raise
        raise Refusal(message)

    return wrapped


def stop_if_interrupted() -> None:
    """Raise ComfyUI's own exception when the user pressed the stop button."""
    import comfy.model_management

    comfy.model_management.throw_exception_if_processing_interrupted()


def progress_bar(total: int) -> Any:
    """The progress bar of the node that is executing."""
    import comfy.utils

    return comfy.utils.ProgressBar(total)


@contextlib.contextmanager
def core_progress() -> Iterator[None]:
    """Show the core's progress on the node, and let the stop button end the core's loops."""
    from ..diffusioncleft_core.progress import watched

    bar = progress_bar(1)

    def watcher(description: str, done: int, total: int) -> None:
        stop_if_interrupted()
        bar.update_absolute(done, max(1, total))

    with watched(watcher):
        yield


def output(kind: Any, name: str, **options: Any) -> Any:
    """An output that is shown under its own name."""
    return kind.Output(name, display_name=name, **options)


def folder_input(default: str) -> Any:
    """The folder that a node writes to; `places.check_output_folder` refuses others."""
    tooltip = "Folder under ComfyUI's output folder. It can't lead out of it."
    return io.String.Input("folder", default=default, tooltip=tooltip)


def seed_input(tooltip: str) -> Any:
    """A seed of what is drawn here; a sampler's own are larger."""
    return io.Int.Input("seed", default=0, min=0, max=2**31 - 1, tooltip=tooltip)


def text_view(text: str) -> dict[str, Any]:
    """A text that the node shows."""
    return {"text": (text,)}


def blocked() -> Any:
    """A value that silently keeps the nodes behind it from running: there is nothing yet for them to do."""
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(None)


def one(values: Any, default: Any = None) -> Any:
    """The single value of an input of a node that takes lists; what is not evaluated yet comes as (None,)."""
    if isinstance(values, (list, tuple)):
        return values[0] if values and values[0] is not None else default
    return default if values is None else values
