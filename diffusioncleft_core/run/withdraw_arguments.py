"""What `dataset withdraw` is given: the paths that name no more than what was listed, and what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..conditions.loader import load_vocabulary
from ..dataset.folder import KEY, SETTINGS, is_dataset
from ..dataset.opened import sources_with_consent
from ..dataset.settings import Photographs, read_roles
from ..dataset.trained import to_withdraw, training_sources
from ..dataset.unopened import look_through
from ..errors import UserError
from ..files import read_json, shown
from ..imageset.places import SETTINGS as SET_SETTINGS
from ..imageset.places import looks_like_image
from ..report.folders import RunFolders
from ..study.folder import is_study
from .holdings import BESIDE_CHECKPOINTS, CHECKPOINTS, IMAGES, LORA, Held

_BUILD = "build it again with 'diffusioncleft dataset build', or 'run', and then ask again"


@dataclass(frozen=True)
class Given:
    """Paths by what they are: datasets, folders with all that is below them, and single files."""

    datasets: tuple[Path, ...]
    deep: tuple[Path, ...]
    single: tuple[Path, ...]


def read_given(paths: Sequence[Path]) -> Given:
    """Tell the paths apart. UserError for one that is not there, or is a part of a set or of a study."""
    datasets: list[Path] = []
    deep: list[Path] = []
    single: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(
                f"there is no {shown(path)}; give a run, a dataset, LoRAs, generated images, or a single file"
            )
        whole = next(
            (place for place in path.absolute().parents if _is_one(place) or is_dataset(place)), None
        )
        if path.is_file() and whole is not None:
            raise UserError(f"{shown(path)} is a part of {shown(whole)}; give the whole folder")
        if path.is_file() or path.name in BESIDE_CHECKPOINTS:
            single.append(path)
        if is_dataset(path):
            datasets.append(path)
            run = run_of(path)
            deep += [run.root] if run else []
        elif path.is_dir():
            deep.append(path)
            datasets += RunFolders(path).datasets()
    return Given(tuple(datasets), tuple(deep), tuple(single))


def paths_of(held: Sequence[Held], dataset: Path) -> list[Path]:
    """The paths that, given to `dataset withdraw`, name all of this and nothing else: the dataset's run,
    folders in which nothing else lies, and single files."""
    run = run_of(dataset)
    root = run.root.resolve() if run else None
    outside = [item for item in held if root is None or not item.place.is_relative_to(root)]
    listed = {path for item in outside for path in (*item.files, item.place)}
    paths = [run.root] if run else []
    for item in outside:
        folder = folder_of(item)
        if _is_one(folder) or all(path in listed or path.name.startswith(".") for path in folder.iterdir()):
            paths.append(folder)
        else:
            paths += _single(item)
    return list(dict.fromkeys(paths))


def not_built(datasets: Iterable[Path]) -> list[str]:
    """Sentences on consents that changed since these datasets were built, or that can't be looked up."""
    return [said for dataset in dict.fromkeys(datasets) if (said := _unnoticed(dataset))]


def folder_of(item: Held) -> Path:
    """The folder in which it lies, or which it is."""
    return item.place if item.place.is_dir() else item.place.parent


def run_of(dataset: Path) -> RunFolders | None:
    """The run to which a dataset belongs; None for one that stands alone."""
    private = Path(dataset).resolve().parent
    folders = RunFolders(private.parent)
    return folders if folders.private == private and folders.stages.is_dir() else None


def _is_one(folder: Path) -> bool:
    """Whether a folder is a set or a study, which is looked at and erased as a whole."""
    return (folder / SET_SETTINGS).is_file() or is_study(folder)


def _single(item: Held) -> list[Path]:
    if item.place.is_file():
        return [item.place]
    if item.kind == LORA:
        return [file for file in item.files if file.suffix == ".safetensors"]
    if item.kind == CHECKPOINTS:
        return [next(path for path in reversed(item.files) if path.name in BESIDE_CHECKPOINTS)]
    if item.kind == IMAGES:
        return [file for file in item.files if file.is_file() and looks_like_image(file)]
    return [item.place]


def _unnoticed(dataset: Path) -> str | None:
    """What the photographs' table says now that the last build of a dataset did not know."""
    described = read_json(dataset / SETTINGS) if (dataset / SETTINGS).is_file() else {}
    arguments = described.get("arguments") if isinstance(described, dict) else None
    if not (dataset / KEY).is_file() or not isinstance(arguments, dict) or not arguments.get("photos"):
        return None
    photos, name = Path(str(arguments["photos"])), shown(dataset)
    unread = f"so nobody knows here whether a consent was withdrawn since {name} was built"
    if not photos.is_dir():
        return f"the photographs in {shown(photos)} are not there, {unread}"
    table, vocabulary = (
        Path(str(arguments[key])) if arguments.get(key) else None for key in ("metadata", "vocabulary")
    )
    try:
        condition = load_vocabulary(vocabulary).condition(str(arguments.get("condition")))
        found = look_through(Photographs(photos, table), condition, dataset=dataset)
    except UserError as error:
        return f"{error}; {unread}"
    _, _, allowed = sources_with_consent(photos, found)
    coming, roles = to_withdraw(dataset, allowed), read_roles(dataset)
    gone = len((set(roles) if coming else training_sources(roles)) - allowed.keys())
    if not coming and not (gone and found.listing.photographs):
        return found.lost if gone else None  # where every photograph is gone, a build marks and stops
    return (
        f"photographs that {name} was built from and that no longer have consent: {gone}; what they had "
        f"a part in is not known as withdrawn yet: {_BUILD}"
    )
