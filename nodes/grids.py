"""LoRAs and strengths side by side: what a grid draws, cell by cell, and the grid with its labels."""

from typing import Any

from comfy_api.latest import io

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import number
from ..diffusioncleft_core.text import counted
from . import places
from .common import CATEGORY, NONE, Node, node_schema, one, output
from .queued import QueuedNode

_STRENGTH = number(-4, 4)
_LORAS = ("lora_1", "lora_2", "lora_3", "lora_4")
_MOST_CELLS = 64


class LoraGrid(Node):
    """Each LoRA with each strength: what is connected runs once a cell."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_LoraGrid",
            display_name="LoRA Grid",
            category=CATEGORY,
            description=(
                "Checkpoints of a training, each at several strengths, as lists: a LoRA loader, a sampler "
                "and a decoder that are connected run once a cell. Picture Grid puts the pictures together."
            ),
            search_aliases=["XY plot", "compare LoRA", "checkpoint comparison", "strength grid"],
            inputs=[
                *(_lora_input(name) for name in _LORAS),
                io.String.Input(
                    "strengths",
                    default="0.6, 0.8, 1.0",
                    tooltip="Strengths of the LoRA, separated by commas, each from -4 to 4.",
                ),
                io.AnyType.Input(
                    "checkpoints",
                    optional=True,
                    tooltip="Checkpoints of a trainer; they take the place of the names chosen here.",
                ),
            ],
            outputs=[
                output(
                    io.AnyType,
                    "lora_name",
                    is_output_list=True,
                    tooltip="Plugs into lora_name of LoraLoaderModelOnly.",
                ),
                output(io.Float, "strength", is_output_list=True, tooltip="Plugs into strength_model."),
                output(
                    io.String, "labels", is_output_list=True, tooltip="What each cell is, for Picture Grid."
                ),
                output(io.Int, "columns", tooltip="Strengths, one a column, for Picture Grid."),
            ],
            is_input_list=True,
        )

    @classmethod
    def validate_inputs(cls, strengths: Any = None) -> bool | str:
        try:
            return strengths is None or bool(_strengths(one(strengths)))
        except UserError as error:
            return str(error)

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        names = [node.value(name) for name in _LORAS]
        if "checkpoints" not in node.inputs and not any(name not in (None, NONE) for name in names):
            raise UserError("there is no LoRA to draw with; choose one, or connect a trainer's checkpoints")
        for name in names:
            if name not in (None, NONE):
                places.model_file("loras", name)

    @classmethod
    def execute(cls, strengths: Any, checkpoints: Any = None, **inputs: Any) -> io.NodeOutput:
        values = _strengths(one(strengths))
        chosen = [one(inputs.get(name)) for name in _LORAS]
        names = [str(name) for name in checkpoints or [] if name] or [
            name for name in chosen if name not in (None, NONE)
        ]
        if not names:
            raise UserError("there is no LoRA to draw with; choose one, or connect a trainer's checkpoints")
        cells = [(name, value) for name in names for value in values]
        if len(cells) > _MOST_CELLS:
            raise UserError(f"the grid has {len(cells)} cells; leave it at {_MOST_CELLS} or fewer")
        labels = [f"{name.removesuffix('.safetensors')}, strength {value:g}" for name, value in cells]
        return io.NodeOutput([n for n, _ in cells], [v for _, v in cells], labels, len(values))


class PictureGrid(Node):
    """Pictures in rows, each with its label."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_PictureGrid",
            display_name="Picture Grid",
            category=CATEGORY,
            description="Puts generated pictures into rows, each with its label below, and shows the grid.",
            search_aliases=["image grid", "contact sheet", "XY plot", "montage", "collage"],
            inputs=[
                io.Image.Input("images", tooltip="Pictures: a batch, or a list of any sizes."),
                io.Int.Input("columns", default=3, min=1, max=_MOST_CELLS, tooltip="Pictures in a row."),
                io.String.Input(
                    "labels",
                    default="",
                    force_input=True,
                    optional=True,
                    tooltip="One label a picture, as LoRA Grid gives them. Without: their numbers.",
                ),
            ],
            outputs=[output(io.Image, "grid", tooltip="All pictures with their labels, one image.")],
            is_input_list=True,
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: Any, columns: Any, labels: Any = None) -> io.NodeOutput:
        from .annotated import labelled, tiled
        from .pictures import pixels_of, preview_synthetic, tensor_of

        pictures = pixels_of(images)
        told = [str(label) for label in labels or [] if label is not None]
        told = told or [str(place) for place in range(1, len(pictures) + 1)]
        if len(told) != len(pictures):
            raise UserError(
                f"there are {counted(len(pictures), 'picture')} and {counted(len(told), 'label')}; "
                "connect one label a picture"
            )
        if len(pictures) > _MOST_CELLS:
            raise UserError(f"there are {len(pictures)} pictures; a grid takes {_MOST_CELLS} at most")
        cells = [labelled(pixels, label) for pixels, label in zip(pictures, told, strict=True)]
        grid = tiled(cells, min(int(one(columns)), len(cells)))
        return io.NodeOutput(
            tensor_of(grid), ui=preview_synthetic([grid], "Generated pictures side by side.")
        )


def _lora_input(name: str) -> Any:
    return io.Combo.Input(
        name,
        options=[NONE, *places.model_files("loras")],
        default=NONE,
        tooltip="A LoRA in models/loras; a row of the grid. none: no row.",
    )


def _strengths(text: str) -> list[float]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        found = [float(part) for part in parts]
    except ValueError:
        raise UserError(
            f"strengths are numbers separated by commas, as 0.6, 0.8, 1.0; this is {text!r}"
        ) from None
    if not 1 <= len(found) <= 16:
        raise UserError("give 1 to 16 strengths, separated by commas")
    return [float(_STRENGTH.check(value, "a strength")) for value in found]
