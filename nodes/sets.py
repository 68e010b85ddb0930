"""Sets of synthetic images: saving them, marked as synthetic, and loading them."""

from typing import Any

from comfy_api.latest import io

from . import places
from .common import CATEGORY, ImageSet, Node, Row, Verdicts, folder_input, node_schema, one, output, text_view
from .queued import QueuedNode

NO_SET = "(none found)"


class LoadImageSet(Node):
    """A set of synthetic images from the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_LoadImageSet",
            display_name="Load Image Set",
            category=CATEGORY,
            search_aliases=["load images", "load folder", "synthetic dataset"],
            description=(
                "Synthetic images with their manifest, as saved by Save Synthetic Set or the command line."
            ),
            inputs=[
                io.Combo.Input(
                    "name",
                    options=places.image_set_names() or [NO_SET],
                    tooltip="A folder with a manifest.jsonl under ComfyUI's output folder.",
                ),
                io.Combo.Input(
                    "which",
                    options=["all", "accepted", "rejected"],
                    default="all",
                    tooltip="Images to give: by the verdicts that the filters left in the set.",
                ),
                io.Int.Input(
                    "start", default=0, min=0, max=1_000_000, tooltip="First image to give, from 0."
                ),
                io.Int.Input(
                    "limit",
                    default=16,
                    min=0,
                    max=1_000_000,
                    tooltip="Images to give at most; 0: all. The set itself is always whole.",
                ),
            ],
            outputs=[
                output(ImageSet, "image_set", tooltip="The whole set, for metrics and the report."),
                output(io.Image, "images", is_output_list=True, tooltip="Images one by one."),
                output(Row, "rows", is_output_list=True, tooltip="Their rows."),
                output(io.Int, "count", tooltip="Images in the set."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        if name is None or name in places.image_set_names():
            return True
        return f"there is no image set {name!r} under ComfyUI's output folder; save one first"

    @classmethod
    def fingerprint_inputs(cls, name: str = "", **kwargs: Any) -> str:
        from .opened import set_fingerprint

        return set_fingerprint(name)

    @classmethod
    def execute(cls, name: str, which: str, start: int, limit: int) -> io.NodeOutput:
        from .common import blocked
        from .opened import open_set
        from .pictures import tensors_of
        from .set_work import load_images

        found = open_set(name)
        pictures, rows, text = load_images(found, which, start, limit)
        return io.NodeOutput(
            found.handle,
            tensors_of(pictures) or [blocked()],
            rows or [blocked()],
            len(found.rows),
            ui=text_view(text),
        )


class SaveSyntheticSet(Node):
    """PNG with sidecar and manifest, marked as synthetic; nothing of the graph goes into them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_SaveSyntheticSet",
            display_name="Save Synthetic Set",
            category=CATEGORY,
            search_aliases=["save images", "synthetic dataset", "watermark", "provenance", "manifest"],
            description=(
                "Saves pictures into a folder of the output folder: PNG marked as synthetic, JSON sidecar, "
                "manifest. Unlike Save Image it writes nothing of the graph. A picture already there is kept."
            ),
            inputs=[
                io.Image.Input("images", tooltip="Pictures: a batch, or a list of any sizes."),
                folder_input("diffusioncleft/faces"),
                io.String.Input(
                    "lora_name",
                    default="",
                    tooltip=(
                        "LoRA the pictures were made with, recorded by its hash. Empty: as the graph says."
                    ),
                ),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=-4.0,
                    max=4.0,
                    step=0.05,
                    tooltip="Its strength, recorded. Used when lora_name is given.",
                ),
                io.Boolean.Input("show", default=True, tooltip="Show the saved pictures on the node."),
                Row.Input(
                    "rows", optional=True, tooltip="Rows of the prompt plan or builder, one a picture."
                ),
                Verdicts.Input(
                    "verdicts",
                    optional=True,
                    tooltip=(
                        "Record of the filters. With all pictures connected, those set aside are saved in "
                        "the set's folder rejected, so that figures before and after filtering can be told."
                    ),
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip=(
                        "The model that drew. Its LoRA is then known by what lies on it, whichever pack's "
                        "loader put it there."
                    ),
                ),
            ],
            outputs=[
                output(ImageSet, "image_set", tooltip="The set, for metrics and the report."),
                output(io.Int, "count", tooltip="Images in the set."),
            ],
            is_input_list=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(cls, folder: Any = None) -> bool | str:
        return places.check_output_folder(one(folder))

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        if name := node.value("lora_name"):
            places.model_file("loras", name)

    @classmethod
    def execute(cls, images: Any, **inputs: Any) -> io.NodeOutput:
        from .provenance import drawn_from, made_with
        from .set_work import save_images

        lora = (one(inputs.get("lora_name"), "") or "", float(one(inputs.get("lora_strength"), 1.0)))
        record = made_with(cls.hidden, *lora, models=inputs.get("model"))
        saved = save_images(
            places.own_output_folder(one(inputs["folder"])),
            images,
            inputs.get("rows"),
            record,
            one(inputs.get("verdicts")),
            drawn_from(cls.hidden),
        )
        shown = {"images": saved.shown} if one(inputs.get("show"), True) else {}
        told = {"files": saved.files, "text": (saved.text,)}
        return io.NodeOutput(saved.handle, saved.total, ui={**shown, **told})
