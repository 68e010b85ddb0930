"""The paper's metrics on image sets, and the report."""

from typing import Any

from comfy_api.latest import io

from . import places
from .common import (
    CATEGORY,
    Dataset,
    Figures,
    ImageSet,
    Node,
    Reference,
    folder_input,
    node_schema,
    output,
    seed_input,
)
from .face_work import known_pack
from .filters import faces_input, threshold_input
from .queued import QueuedNode


class FaceIdentityRecognition(Node):
    """FIR: how often a generated face is taken for a training photograph's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_FIR",
            display_name="Cleft FIR",
            category=CATEGORY,
            search_aliases=["face identity recognition", "face similarity", "identity", "privacy metric"],
            description=(
                "Face identity recognition, by pairs (as the paper) and by images, with 95 % intervals."
            ),
            inputs=[
                ImageSet.Input("image_set", tooltip="Generated images."),
                Reference.Input("reference", tooltip="Faces of the training photographs."),
                threshold_input("two faces count as one person's"),
                which_input(),
            ],
            outputs=[
                output(io.Float, "fir_pairs", tooltip="Share of pairs at or above the threshold, 0 to 1."),
                output(io.Float, "fir_images", tooltip="Share of images with such a pair, 0 to 1."),
                output(io.Float, "fir_images_high", tooltip="Upper end of its 95 % interval."),
                output(io.Image, "histogram", tooltip="Similarities of all pairs (the paper's Fig. 2)."),
                output(io.String, "text", tooltip="The figures in words."),
                output(Figures, "figures", tooltip="The figures as in report.json."),
                _csv_output(),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image_set: Any, reference: Any, threshold: float, which: str) -> io.NodeOutput:
        from .metric_work import fir

        return given(fir(image_set, reference, threshold, which))


class FrechetDistance(Node):
    """FID between a generated set and the training photographs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_FID",
            display_name="Cleft FID",
            category=CATEGORY,
            search_aliases=["FID", "Frechet Inception distance", "image quality metric"],
            description="Fréchet Inception distance to the training photographs, as the paper measures it.",
            inputs=[
                ImageSet.Input("image_set", tooltip="Generated images, two at least."),
                Dataset.Input("dataset", tooltip="Photographs to compare with (role train)."),
                which_input(),
            ],
            outputs=[
                output(io.Float, "fid", tooltip="The distance; smaller is nearer."),
                output(io.String, "text", tooltip="The figure in words."),
                output(Figures, "figures", tooltip="The figure as in report.json."),
                _csv_output(),
            ],
            is_output_node=True,
        )

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from .needs import all_phantom, check_networks

        check_networks(all_phantom(node, ("image_set",), ("dataset",)), "fid")

    @classmethod
    def execute(cls, image_set: Any, dataset: Any, which: str) -> io.NodeOutput:
        from .metric_work import fid

        return given(fid(image_set, dataset, which))


class PerceptualDiversity(Node):
    """LPIPS between the images of one set: how different they are."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_LPIPS",
            display_name="Cleft LPIPS",
            category=CATEGORY,
            search_aliases=["LPIPS", "perceptual diversity", "diversity metric"],
            description=(
                "Mean perceptual distance between random pairs of a set, as the paper measures diversity."
            ),
            inputs=[
                ImageSet.Input("image_set", tooltip="Generated images, two at least."),
                which_input(),
                io.Int.Input(
                    "pairs", default=2000, min=1, max=1_000_000, tooltip="Random pairs; the paper's 2,000."
                ),
                seed_input("Draws the pairs."),
            ],
            outputs=[
                output(io.Float, "lpips", tooltip="Mean over the random pairs; larger is more diverse."),
                output(io.Float, "lpips_all_pairs", tooltip="Mean over all pairs, exact."),
                output(io.String, "text", tooltip="The figures in words."),
                output(Figures, "figures", tooltip="The figures as in report.json."),
                _csv_output(),
            ],
            is_output_node=True,
        )

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from .needs import all_phantom, check_networks

        check_networks(all_phantom(node, ("image_set",)), "lpips")

    @classmethod
    def execute(cls, image_set: Any, which: str, pairs: int, seed: int) -> io.NodeOutput:
        from .metric_work import lpips

        return given(lpips(image_set, which, pairs, seed))


class Report(Node):
    """All figures of one or two sets as report.json and report.html."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_Report",
            display_name="Cleft Report",
            category=CATEGORY,
            search_aliases=["report", "evaluation", "FID", "LPIPS", "face similarity"],
            description=(
                "Measures FIR, FID, LPIPS and the face map of one or two sets and saves report.json and "
                "report.html in the output folder. They hold no photograph and nothing that names one."
            ),
            inputs=[
                ImageSet.Input("image_set", tooltip="Generated images of one condition."),
                Dataset.Input("dataset", tooltip="Photographs the LoRA of that condition was trained on."),
                folder_input("diffusioncleft/report"),
                faces_input(),
                ImageSet.Input(
                    "image_set_2", optional=True, tooltip="Generated images of the other condition."
                ),
                Dataset.Input("dataset_2", optional=True, tooltip="Photographs of the other condition."),
            ],
            outputs=[
                output(io.String, "report", tooltip="The report's place under the output folder."),
                output(
                    io.Image, "histogram", tooltip="Similarities of generated and training faces (Fig. 2)."
                ),
                output(io.Image, "pca", tooltip="Face embeddings in two dimensions (Fig. 7)."),
                output(io.String, "text", tooltip="The figures in words."),
                output(Figures, "figures", tooltip="The document of report.json."),
                _csv_output(),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = None, faces: str | None = None) -> bool | str:
        allowed = places.check_output_folder(folder)
        return known_pack(faces) if allowed is True else allowed

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from .metric_work import check_paired
        from .needs import all_phantom, check_faces_for, check_networks

        check_paired(node.source("image_set_2"), node.source("dataset_2"))
        check_networks(
            all_phantom(node, ("image_set", "image_set_2"), ("dataset", "dataset_2")), "fid", "lpips"
        )
        check_faces_for(node, "dataset", "dataset_2")

    @classmethod
    def execute(
        cls,
        image_set: Any,
        dataset: Any,
        folder: str,
        faces: str,
        image_set_2: Any = None,
        dataset_2: Any = None,
    ) -> io.NodeOutput:
        from .metric_work import report

        return given(report([(image_set, dataset), (image_set_2, dataset_2)], folder, faces))


def _csv_output() -> Any:
    return output(
        io.String, "csv", tooltip="One line a figure: set, metric, profile, variant, value, interval, n."
    )


def which_input() -> Any:
    return io.Combo.Input(
        "which",
        options=["raw", "filtered"],
        default="raw",
        tooltip="raw: every image as first generated. filtered: what the filters accepted.",
    )


def given(result: Any) -> io.NodeOutput:
    """Values, and on the node the words and the plots."""
    from .pictures import preview_each

    shown = preview_each(result.plots) if result.plots else {}
    files = {"files": result.files} if result.files else {}
    return io.NodeOutput(*result.outputs, ui={**shown, **files, "text": (result.text,)})
