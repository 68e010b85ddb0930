"""What nodes ask of the graph behind them before it is queued, as far as the graph tells it.

None means that only the run will tell: then nothing is refused.
"""

from pathlib import Path
from typing import Any

from ..diffusioncleft_core.errors import UserError
from . import places
from .common import AUTO
from .face_work import known_pack, pack_of_datasets
from .opened import DatasetHandle, open_dataset
from .provenance import from_phantom
from .queued import QueuedNode
from .training_options import chosen

_PHANTOM_DATASET = "DiffusionCleft_PhantomDataset"
_DATASETS = ("DiffusionCleft_Dataset", "DiffusionCleft_Captions", _PHANTOM_DATASET)


def dataset_behind(node: QueuedNode | None) -> DatasetHandle | None:
    """The dataset that a link brings; one of phantoms is described as it will be made."""
    if node is None:
        return None
    if node.kind == "DiffusionCleft_Captions":
        return dataset_behind(node.source("dataset"))
    if node.kind == "DiffusionCleft_Dataset":
        name = node.value("name")
        return open_dataset(name) if isinstance(name, str) else None
    condition, count = node.value("condition"), node.value("count")
    if node.kind != _PHANTOM_DATASET or not isinstance(condition, str) or not isinstance(count, int):
        return None
    return DatasetHandle(
        name="phantoms",
        folder=Path("to be made"),
        condition=condition,
        phantom=True,
        n_train=count,
        n_holdout=0,
        set_aside={},
        sha256="",
    )


def options_behind(trainer: QueuedNode) -> dict[str, Any] | None:
    """What Cleft Training Options will send to a trainer; None where only the run will tell."""
    if "options" not in trainer.inputs:
        return {}
    node = trainer.source("options")
    if node is None or node.kind != "DiffusionCleft_TrainingOptions" or node.values() != node.inputs:
        return None
    return chosen(node.values())


def datasets_behind(node: QueuedNode, *names: str) -> list[DatasetHandle] | None:
    """The datasets that these inputs bring; None where one of them is not known."""
    found = [dataset_behind(source) for name in names if (source := node.source(name)) is not None]
    known = [item for item in found if item is not None]
    return known if len(known) == len(found) else None


def all_phantom(node: QueuedNode, sets: tuple[str, ...], datasets: tuple[str, ...] = ()) -> bool | None:
    """Whether everything that these inputs bring is of phantoms; unconnected ones don't count."""
    found: list[bool | None] = [from_phantom(node, name) for name in sets if node.source(name) is not None]
    known = datasets_behind(node, *datasets)
    found += [None] if known is None else [item.phantom for item in known]
    if False in found:
        return False
    return None if None in found else True


def phantom_behind(node: QueuedNode, name: str) -> bool | None:
    """Whether what an input brings, a set or a dataset, is of phantoms."""
    source = node.source(name)
    if source is None or source.kind not in _DATASETS:
        return from_phantom(node, name)
    known = dataset_behind(source)
    return None if known is None else known.phantom


def check_faces_for(node: QueuedNode, *datasets: str) -> None:
    """Raise UserError when the face pack for these photographs is not on this machine."""
    choice, known = node.value("faces"), datasets_behind(node, *datasets)
    if choice is None or (choice == AUTO and known is None):
        return
    check_faces(pack_of_datasets(choice, known or []))


def check_faces(pack: str) -> None:
    """Raise UserError when a face pack, or what opens it, is not on this machine."""
    from ..diffusioncleft_core.faces.analyzer import check_face_analysis

    known = known_pack(pack)
    if isinstance(known, str):
        raise UserError(known)
    check_face_analysis(pack, roots=places.face_pack_roots())


def check_networks(phantom: bool | None, *metrics: str) -> None:
    """Raise UserError when the networks of these metrics, or their weights, are not on this machine."""
    from ..diffusioncleft_core.metrics.extractors import check_extractors

    check_extractors(metrics, phantom=phantom is not False)
