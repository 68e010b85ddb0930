"""Reference faces, the artifact filter and the identity leak filter."""

from typing import Any

from comfy_api.latest import io

from ..diffusioncleft_core.ranges import PAPER_SIMILARITY
from .annotated import MOST
from .common import (
    AUTO,
    CATEGORY,
    Dataset,
    Node,
    Reference,
    Row,
    Verdicts,
    advanced,
    node_schema,
    one,
    output,
    text_view,
)
from .face_work import known_pack, pack_names
from .queued import QueuedNode


class ReferenceSet(Node):
    """The training photographs' faces, embedded once and kept in the datasets' private folders."""

    @classmethod
    def define_schema(cls) -> io.Schema:

        return node_schema(
            node_id="DiffusionCleft_ReferenceSet",
            display_name="Cleft Reference Set",
            category=CATEGORY,
            search_aliases=["face embeddings", "training faces", "identity reference"],
            description=(
                "Faces of the photographs a LoRA was trained on, for the identity leak filter and FIR. "
                "Embedded once; the embeddings stay in the dataset's private folder."
            ),
            inputs=[
                Dataset.Input("dataset", tooltip="Compare with the training photographs of this dataset …"),
                faces_input(),
                Dataset.Input(
                    "dataset_2", optional=True, tooltip="… and of this one, as of the other condition."
                ),
            ],
            outputs=[
                output(Reference, "reference", tooltip="For Identity Leak Filter and FIR."),
                output(io.Int, "n_faces", tooltip="Photographs with a face."),
            ],
        )

    @classmethod
    def validate_inputs(cls, faces: str | None = None) -> bool | str:
        return known_pack(faces)

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from .needs import check_faces_for

        check_faces_for(node, "dataset", "dataset_2")

    @classmethod
    def execute(cls, dataset: Any, faces: str, dataset_2: Any = None) -> io.NodeOutput:
        from .face_work import reference_of

        found, text = reference_of([item for item in (dataset, dataset_2) if item is not None], faces)
        return io.NodeOutput(found, len(found.reference), ui=text_view(text))


class ArtifactFilter(Node):
    """Sets aside pictures with what the paper found: eye bars, text, several faces, cropped faces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..diffusioncleft_core.filters.artifacts import ARTIFACTS, all_limits

        return node_schema(
            node_id="DiffusionCleft_ArtifactFilter",
            display_name="Cleft Artifact Filter",
            category=CATEGORY,
            search_aliases=["quality filter", "face detection", "text detection", "reject bad images"],
            description=(
                "Sets aside pictures with a known artifact. A picture without a face is set aside too."
            ),
            inputs=[
                io.Image.Input("images", tooltip="Pictures: a batch, or a list of any sizes."),
                _enabled_input(),
                faces_input(),
                *(
                    io.Boolean.Input(kind.name, default=True, tooltip=kind.help)
                    for kind in ARTIFACTS.values()
                ),
                _rows_input(),
                _earlier_input(),
                *(_limit_input(limit) for limit in all_limits().values()),
            ],
            outputs=_outputs(),
            is_input_list=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(cls, faces: Any = None) -> bool | str:
        return known_pack(one(faces))

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from ..diffusioncleft_core.filters.artifacts import ARTIFACTS, needs_faces
        from ..diffusioncleft_core.filters.text import check_text_reader
        from .face_work import pack_for
        from .needs import check_faces

        if node.value("enabled") and node.value("faces"):
            kinds = [kind for kind in ARTIFACTS if node.value(kind) is not False]
            if needs_faces(kinds):
                check_faces(pack_for(node.value("faces"), node))
            if node.value("text"):
                check_text_reader()

    @classmethod
    def execute(cls, images: Any, **inputs: Any) -> io.NodeOutput:
        from .face_work import pack_for
        from .filter_work import artifact_kinds, artifact_limits, check_artifacts, pass_through

        rows, earlier = inputs.get("rows"), one(inputs.get("earlier"))
        if not one(inputs["enabled"]):
            return _given(pass_through(images, rows, earlier))
        pack = pack_for(one(inputs["faces"]), cls.hidden)
        given = {name: one(value) for name, value in inputs.items()}
        kinds, limits = artifact_kinds(given), artifact_limits(given)
        return _given(check_artifacts(images, rows, earlier, pack, kinds, limits))


class IdentityLeakFilter(Node):
    """Sets aside pictures whose face is too similar to a training photograph's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_IdentityLeakFilter",
            display_name="Cleft Identity Leak Filter",
            category=CATEGORY,
            search_aliases=["face similarity", "identity", "privacy", "memorisation", "near duplicates"],
            description=(
                "Sets aside pictures whose face resembles a training photograph, and near copies of one. A "
                "picture without a face can't be compared and is set aside too."
            ),
            inputs=[
                io.Image.Input("images", tooltip="Pictures: a batch, or a list of any sizes."),
                _enabled_input(),
                threshold_input("a face counts as the same person's"),
                Reference.Input(
                    "reference",
                    lazy=True,
                    tooltip="Faces to compare with. Not looked at while the filter is off.",
                ),
                _rows_input(),
                _earlier_input(),
                io.Boolean.Input(
                    "near_copies",
                    default=True,
                    optional=True,
                    tooltip=(
                        "Set aside near copies of training photographs as well: grey, in other hues, "
                        "mirrored, turned, cut or half covered, which a face recogniser can miss."
                    ),
                ),
            ],
            outputs=_outputs(),
            is_input_list=True,
        )

    @classmethod
    def check_lazy_status(cls, enabled: Any = None, reference: Any = None, **inputs: Any) -> list[str]:
        """The reference set is made only when the filter is on."""
        return ["reference"] if one(enabled, True) and one(reference) is None else []

    @classmethod
    def execute(cls, images: Any, **inputs: Any) -> io.NodeOutput:
        from .filter_work import check_identity, pass_through

        rows, earlier = inputs.get("rows"), one(inputs.get("earlier"))
        if not one(inputs["enabled"]):
            return _given(pass_through(images, rows, earlier))
        found = check_identity(
            images,
            rows,
            earlier,
            one(inputs.get("reference")),
            float(one(inputs["threshold"])),
            near_copies=bool(one(inputs.get("near_copies"), True)),
        )
        return _given(found, show=True)


def threshold_input(means: str) -> Any:
    """The cosine similarity of one person; `means`: what counts from it on."""
    return io.Float.Input(
        "threshold",
        default=PAPER_SIMILARITY,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip=f"Cosine similarity from which {means}; the paper's is {PAPER_SIMILARITY:g}.",
    )


def faces_input() -> Any:
    return io.Combo.Input(
        "faces",
        options=[AUTO, *pack_names()],
        default=AUTO,
        tooltip=(
            "Face models: a folder in models/insightface/models. auto: buffalo_l; the embedded phantom pack "
            "where the pictures come from the phantom. The phantom pack knows no photographs."
        ),
    )


def _enabled_input() -> Any:
    return io.Boolean.Input(
        "enabled", default=True, tooltip="Off: everything passes, nothing is loaded and nothing is checked."
    )


def _limit_input(limit: Any) -> Any:
    """Optional: a graph in API format need not name it."""
    low = 0.01 if limit.range.above else limit.range.low
    return io.Float.Input(
        limit.name,
        optional=True,
        default=limit.default,
        min=low,
        max=limit.range.high,
        step=0.01,
        tooltip=limit.help,
        **advanced(),
    )


def _rows_input() -> Any:
    return Row.Input(
        "rows",
        optional=True,
        tooltip="Rows of the prompt plan, one a picture; verdicts are written into them.",
    )


def _earlier_input() -> Any:
    return Verdicts.Input(
        "earlier",
        optional=True,
        tooltip=(
            "Record of an earlier filter on the same pictures: what it set aside stays aside, and the record "
            "given on holds both."
        ),
    )


def _outputs() -> list[Any]:
    return [
        output(io.Image, "accepted", is_output_list=True, tooltip="Pictures that passed, one by one."),
        output(Row, "accepted_rows", is_output_list=True, tooltip="Their rows, with the verdicts."),
        output(io.Image, "rejected", is_output_list=True, tooltip="Pictures that were set aside."),
        output(Row, "rejected_rows", is_output_list=True, tooltip="Their rows, with the verdicts."),
        output(io.String, "verdicts", tooltip="One line a picture: its place, accepted or why not."),
        output(io.Int, "n_accepted", tooltip="Pictures that passed."),
        output(io.Int, "n_rejected", tooltip="Pictures that were set aside."),
        output(Verdicts, "record", tooltip="All verdicts, for Save Synthetic Set or a further filter."),
        output(
            io.Image,
            "shown",
            tooltip=f"The first {MOST} pictures with boxes, landmarks, scores and verdict drawn on them.",
        ),
        output(
            io.Image,
            "neighbours",
            tooltip=(
                "Each of them beside the generated picture whose face is most like its own, never a "
                "photograph; a white point where there are no two faces."
            ),
        ),
        output(io.Float, "share_accepted", tooltip="Share of the pictures that passed, 0 to 1."),
        output(io.String, "csv", tooltip="One line a picture: verdict, reasons, scores."),
    ]


def _given(verdicts: Any, *, show: bool = False) -> io.NodeOutput:
    """The outputs. show: the pictures on the node too, as the last filter does, which has all verdicts."""
    from .common import blocked
    from .pictures import batch_of, preview_synthetic, tensors_of

    accepted, rejected = verdicts.accepted, verdicts.rejected
    drawn = verdicts.drawn if show else []
    shown = preview_synthetic(drawn, "A generated picture and a filter's verdict on it.") if drawn else {}
    # An empty list would stop the nodes behind with an IndexError of ComfyUI's own.
    return io.NodeOutput(
        tensors_of([item.pixels for item in accepted]) or [blocked()],
        [item.row for item in accepted] or [blocked()],
        tensors_of([item.pixels for item in rejected]) or [blocked()],
        [item.row for item in rejected] or [blocked()],
        verdicts.table,
        len(accepted),
        len(rejected),
        verdicts.record,
        batch_of(verdicts.drawn),
        batch_of(verdicts.neighbours),
        len(accepted) / (len(accepted) + len(rejected)),
        verdicts.csv,
        ui={**shown, **text_view(verdicts.table)},
    )
