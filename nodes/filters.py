"""Reference faces, the artifact filter and the identity leak filter."""

from typing import Any

from comfy_api.latest import io

from .common import AUTO, CATEGORY, Dataset, Node, Reference, Row, Verdicts, one, text_view
from .face_packs import known_pack, pack_names
from .queued import QueuedNode


class ReferenceSet(Node):
    """The training photographs' faces, embedded once and kept in the datasets' private folders."""

    @classmethod
    def define_schema(cls) -> io.Schema:

        return io.Schema(
            node_id="DiffusionCleft_ReferenceSet",
            display_name="Cleft Reference Set",
            category=CATEGORY,
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
                Reference.Output(
                    "reference", display_name="reference", tooltip="For Identity Leak Filter and FIR."
                ),
                io.Int.Output("n_faces", display_name="n_faces", tooltip="Photographs with a face."),
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
        from ..diffusioncleft_core.filters.artifacts import ARTIFACTS

        return io.Schema(
            node_id="DiffusionCleft_ArtifactFilter",
            display_name="Cleft Artifact Filter",
            category=CATEGORY,
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
        from ..diffusioncleft_core.filters.text import check_text_reader
        from .face_work import pack_for
        from .needs import check_faces

        if node.value("enabled") and node.value("faces"):
            check_faces(pack_for(node.value("faces"), node))
            if node.value("text"):
                check_text_reader()

    @classmethod
    def execute(cls, images: Any, **inputs: Any) -> io.NodeOutput:
        from .face_work import pack_for
        from .filter_work import artifact_kinds, check_artifacts, pass_through

        rows, earlier = inputs.get("rows"), one(inputs.get("earlier"))
        if not one(inputs["enabled"]):
            return _given(pass_through(images, rows, earlier))
        pack = pack_for(one(inputs["faces"]), cls.hidden)
        kinds = artifact_kinds({name: one(value) for name, value in inputs.items()})
        return _given(check_artifacts(images, rows, earlier, pack, kinds))


class IdentityLeakFilter(Node):
    """Sets aside pictures whose face is too similar to a training photograph's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffusionCleft_IdentityLeakFilter",
            display_name="Cleft Identity Leak Filter",
            category=CATEGORY,
            description=(
                "Sets aside pictures whose face resembles a training photograph, and near copies of one. A "
                "picture without a face can't be compared and is set aside too."
            ),
            inputs=[
                io.Image.Input("images", tooltip="Pictures: a batch, or a list of any sizes."),
                _enabled_input(),
                io.Float.Input(
                    "threshold",
                    default=0.6,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "Cosine similarity from which a face counts as the same person's; the paper's is 0.6."
                    ),
                ),
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
        return _given(
            check_identity(
                images,
                rows,
                earlier,
                one(inputs.get("reference")),
                float(one(inputs["threshold"])),
                near_copies=bool(one(inputs.get("near_copies"), True)),
            )
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
        io.Image.Output(
            "accepted",
            display_name="accepted",
            is_output_list=True,
            tooltip="Pictures that passed, one by one.",
        ),
        Row.Output(
            "accepted_rows",
            display_name="accepted_rows",
            is_output_list=True,
            tooltip="Their rows, with the verdicts.",
        ),
        io.Image.Output(
            "rejected", display_name="rejected", is_output_list=True, tooltip="Pictures that were set aside."
        ),
        Row.Output(
            "rejected_rows",
            display_name="rejected_rows",
            is_output_list=True,
            tooltip="Their rows, with the verdicts.",
        ),
        io.String.Output(
            "verdicts", display_name="verdicts", tooltip="One line a picture: its place, accepted or why not."
        ),
        io.Int.Output("n_accepted", display_name="n_accepted", tooltip="Pictures that passed."),
        io.Int.Output("n_rejected", display_name="n_rejected", tooltip="Pictures that were set aside."),
        Verdicts.Output(
            "record",
            display_name="record",
            tooltip="All verdicts, for Save Synthetic Set or a further filter.",
        ),
    ]


def _given(verdicts: Any) -> io.NodeOutput:
    from .common import blocked
    from .pictures import tensors_of

    accepted, rejected = verdicts.accepted, verdicts.rejected
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
        ui=text_view(verdicts.table),
    )
