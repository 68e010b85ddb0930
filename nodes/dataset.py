"""Private datasets by name, their captions, and a dataset of phantoms to try everything with."""

from typing import Any

from comfy_api.latest import io

from ..diffusioncleft_core.errors import UserError
from . import places
from .common import (
    CATEGORY,
    PHANTOM,
    Dataset,
    Node,
    core_progress,
    node_schema,
    output,
    progress_bar,
    seed_input,
    stop_if_interrupted,
    text_view,
)
from .conditions import condition_of, conditions
from .counts import photographs_told, reasons_told
from .opened import DatasetHandle, dataset_fingerprint, open_dataset
from .queued import QueuedNode
from .words import without_private_paths

NONE = "(none found)"
_given_before: dict[str, tuple[str, int]] = {}
"""Of each phantom dataset: the hash of its manifest, and how often that was found changed."""


class LoadDataset(Node):
    """A private dataset by its name."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = places.dataset_names()
        return node_schema(
            node_id="DiffusionCleft_Dataset",
            display_name="Cleft Dataset",
            category=CATEGORY,
            search_aliases=["training data", "photographs", "load dataset"],
            description=(
                "A dataset made by 'diffusioncleft dataset build'. Its photographs are never shown; it lies "
                "in the folder type diffusioncleft_datasets, which ComfyUI's server does not hand out."
            ),
            inputs=[
                io.Combo.Input(
                    "name",
                    options=names or [NONE],
                    tooltip=(
                        "A folder in diffusioncleft_datasets (extra_model_paths.yaml places it). Give "
                        "datasets opaque names: the name is seen by everyone who sees the graph."
                    ),
                ),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, name: str) -> bool | str:
        return _known(name)

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        if isinstance(name := node.value("name"), str):
            open_dataset(name)

    @classmethod
    def fingerprint_inputs(cls, name: str) -> str:
        return dataset_fingerprint(name)

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        return _given(open_dataset(name))


class PhantomDataset(Node):
    """Phantom photographs, built into a dataset as a clinic's would be."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        drawn = [name for name, condition in conditions().items() if condition.phantom is not None]
        return node_schema(
            node_id="DiffusionCleft_PhantomDataset",
            display_name="Phantom Dataset",
            category=CATEGORY,
            search_aliases=["synthetic dataset", "test data", "example dataset", "rendered faces"],
            description=(
                "A dataset of rendered faces with clefts, made from no photograph. For trying the whole "
                "pipeline, with the phantom's base model and face models. Made once, then found again."
            ),
            inputs=[
                io.Combo.Input(
                    "condition",
                    options=drawn,
                    default=drawn[0],
                    tooltip="What the phantoms show.",
                ),
                io.Int.Input("count", default=60, min=8, max=2000, tooltip="Photographs to render."),
                io.Int.Input("size", default=128, min=64, max=512, step=16, tooltip="Side in pixels."),
                seed_input("Other seed, other people."),
                io.Float.Input(
                    "holdout",
                    default=0.1,
                    min=0.0,
                    max=0.5,
                    step=0.05,
                    tooltip="Share of the people kept out of training.",
                ),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from .needs import check_faces

        places.check_private(places.DATASETS)
        check_faces(PHANTOM)

    @classmethod
    def fingerprint_inputs(cls, **settings: Any) -> int:
        if None in settings.values():  # a link brings it, and any of the datasets may be meant
            return sum(map(_changes, list(_given_before)))
        return _changes(_phantom_name(**settings))

    @classmethod
    def execute(cls, condition: str, count: int, size: int, seed: int, holdout: float) -> io.NodeOutput:
        found = phantom_dataset(condition, count, size, seed, holdout)
        _given_before[found.name] = (found.sha256, _given_before.get(found.name, ("", 0))[1])
        return _given(found)


class Captions(Node):
    """The captions that the LoRA is trained on: read them, correct them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_Captions",
            display_name="Cleft Captions",
            category=CATEGORY,
            search_aliases=["edit captions", "dataset captions", "tags"],
            description=(
                "Shows a dataset's captions by number, never by file name, and changes those that are "
                "written in `edits`, where the dataset's owner allows that on the command line. The original "
                "captions are kept and can be restored there."
            ),
            inputs=[
                Dataset.Input("dataset", tooltip="The dataset whose captions are shown."),
                io.String.Input(
                    "edits",
                    default="",
                    multiline=True,
                    tooltip=(
                        "Corrections, one a line: the number, a colon, the new caption. Empty: only show. "
                        "The owner allows them with 'diffusioncleft dataset allow-edits'."
                    ),
                ),
                io.Boolean.Input(
                    "show",
                    default=True,
                    tooltip="Show the captions on the node, and so to everyone who sees this server.",
                ),
            ],
            outputs=[
                Dataset.Output(
                    "edited", display_name="dataset", tooltip="The dataset with its captions as they now are."
                ),
                output(io.String, "captions", tooltip="Number and caption, one a line."),
            ],
            is_output_node=True,
        )

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from ..diffusioncleft_core.dataset.corrections import parse_edits

        if isinstance(edits := node.value("edits"), str):
            parse_edits(edits)

    @classmethod
    def execute(cls, dataset: DatasetHandle, edits: str, show: bool) -> io.NodeOutput:
        from ..diffusioncleft_core.dataset.corrections import (
            edit_captions,
            numbered_captions,
            parse_edits,
        )

        changed = edit_captions(dataset.folder, parse_edits(edits))
        captions = "\n".join(f"{number}: {text}" for number, text in numbered_captions(dataset.folder))
        head = f"{changed} captions changed\n" if edits.strip() else ""
        n = photographs_told(captions.count("\n") + 1, phantom=dataset.phantom)
        shown = head + (captions if show else f"{n} captions")
        return io.NodeOutput(open_dataset(dataset.name), captions, ui=text_view(shown))


def phantom_dataset(condition: str, count: int, size: int, seed: int, holdout: float) -> DatasetHandle:
    """Render and build the dataset of these settings, or find it."""
    from ..diffusioncleft_core.dataset.build import build_dataset
    from ..diffusioncleft_core.dataset.folder import SETTINGS
    from ..diffusioncleft_core.dataset.settings import BuildSettings, Photographs
    from ..diffusioncleft_core.faces.analyzer import load_face_analyzer
    from ..diffusioncleft_core.files import private_dir
    from ..diffusioncleft_core.phantom.photographs import write_photographs

    found = condition_of(condition)
    if found.phantom is None:
        raise UserError(f"the phantom draws no {condition}; choose a condition that is listed")
    finding = found.phantom.finding
    name = _phantom_name(condition, count, size, seed, holdout)
    folder = places.new_dataset_folder(name)
    photographs = private_dir(folder.parent / ".phantom_photographs") / name
    if folder.exists() and not photographs.is_dir():
        raise UserError(f"there is a dataset {name} that this node did not make; choose other settings")
    if (folder / SETTINGS).is_file():
        return open_dataset(name)
    bar = progress_bar(count)
    for done in range(0, count, 10):  # what is rendered is kept, so the pieces cost nothing
        stop_if_interrupted()
        write_photographs(photographs, min(count, done + 10), finding, seed, size=size, subjects=count)
        bar.update_absolute(min(count, done + 10), count)
    with core_progress():
        build_dataset(
            Photographs(photographs, photographs / "metadata.csv"),
            found,
            folder,
            load_face_analyzer("phantom"),
            settings=BuildSettings(holdout=holdout, seed=seed, phantom=True),
        )
    return open_dataset(name)


def _phantom_name(condition: str, count: int, size: int, seed: int, holdout: float) -> str:
    return f"phantom_{condition}_{count}_{size}px_{seed}_{round(100 * holdout)}"


def _changes(name: str) -> int:
    """How often a phantom dataset was found changed, or gone, since a node of this server gave it.

    A graph is queued before its dataset is made, so the manifest's hash alone would be another the next time,
    and the first one again after a purge.
    """
    now = dataset_fingerprint(name)
    before, count = _given_before.get(name, (now, 0))
    _given_before[name] = (now, count + (now != before))
    return _given_before[name][1]


def _outputs() -> list[Any]:
    return [
        output(Dataset, "dataset", tooltip="For the trainer, captions, reference set and metrics."),
        io.String.Output(
            "dataset_condition", display_name="condition", tooltip="Its name in the vocabulary."
        ),
        output(io.Int, "n_train", tooltip="Photographs to train on."),
        output(io.Int, "n_holdout", tooltip="Photographs held out of training."),
        output(io.Int, "n_set_aside", tooltip="Photographs that did not enter, for the reasons shown."),
    ]


def _given(found: DatasetHandle) -> io.NodeOutput:
    aside = sum(found.set_aside.values())
    train, holdout, others = (
        photographs_told(n, phantom=found.phantom) for n in (found.n_train, found.n_holdout, aside)
    )
    reasons = "".join(f"\n  {line}" for line in reasons_told(found.set_aside, phantom=found.phantom))
    text = (
        f"{found.name}: {found.condition or 'several conditions'}"
        f"{', phantoms' if found.phantom else ''}\n{train} to train on, {holdout} held out, "
        f"{others} set aside{reasons}"
    )
    return io.NodeOutput(found, found.condition, found.n_train, found.n_holdout, aside, ui=text_view(text))


def _known(name: str) -> bool | str:
    try:
        places.dataset_folder(name)
    except UserError as error:
        return without_private_paths(str(error))
    return True
