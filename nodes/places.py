"""Where a graph may read and write, and nothing else.

A graph is a file that a stranger may have made, and whoever reaches the server may queue one. So it never
carries a path: it carries names, which are looked up in folders that the machine's owner chose. Every name
passes through here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import inside, private_dir
from ..diffusioncleft_core.imageset.places import MANIFEST
from ..diffusioncleft_core.outputs import WINDOWS_DEVICE, can_write

if TYPE_CHECKING:
    from ..diffusioncleft_core.dataset.withdrawn import Withdrawal

DATASETS = "diffusioncleft_datasets"
RUNS = "diffusioncleft_runs"
STUDIES = "diffusioncleft_studies"
PRIVATE = (DATASETS, RUNS, STUDIES)
"""Folder types that hold photographs, or what comes from them."""
VOCABULARIES = "diffusioncleft_vocabularies"
_LONGEST = 120
_NO_FILE = ".diffusioncleft-lists-no-file"
_kept: dict[str, list[Path]] = {}


def register() -> None:
    """Register the pack's folder types with ComfyUI; called once, when the pack is loaded."""
    for kind in (*PRIVATE, VOCABULARIES):
        roots(kind)


def roots(kind: str) -> list[Path]:
    """The folders of a type, as the owner placed them in extra_model_paths.yaml, else beside `models`.

    ComfyUI lists the files of every registered folder under `/models/<type>`, and serves any picture in it
    under `/experiment/models/preview/<type>/`. So the paths are taken out of ComfyUI's table, where the type
    stays registered without a folder, and kept here.
    """
    table = folder_paths.folder_names_and_paths
    listed = table[kind][0] if kind in table else []
    kept = _kept.setdefault(kind, [])
    kept += [path for path in map(Path, listed) if path not in kept]
    table[kind] = ([], {_NO_FILE})
    if kept:
        return kept
    if kind == VOCABULARIES:
        return [Path(folder_paths.models_dir) / "diffusioncleft" / "vocabularies"]
    return [Path(folder_paths.base_path) / kind]


def vocabulary_files() -> list[Path]:
    """The owner's own vocabularies, TOML files in models/diffusioncleft/vocabularies, by name."""
    found = [path for root in roots(VOCABULARIES) if root.is_dir() for path in root.glob("*.toml")]
    return sorted(found, key=lambda path: path.name)


def dataset_names() -> list[str]:
    """Names of the datasets that a graph may use."""
    return _names(DATASETS, _is_dataset)


def dataset_folder(name: str) -> Path:
    """The folder of a dataset; UserError for a name that is none, and for a place that ComfyUI serves."""
    return _find(DATASETS, name, _is_dataset, "dataset", "choose one that the Dataset node lists")


def dataset_folders() -> list[Path]:
    """The folders of all datasets of this machine."""
    return [path for root in roots(DATASETS) for path in folders_below(root) if _is_dataset(path)]


def check_private(kind: str) -> None:
    """Raise UserError when a private folder is served, or can't be written to."""
    root = roots(kind)[0]
    _refuse_served(root)
    if not can_write(root):
        raise UserError(
            f"the folder {root.name} can't be written to; give the server write access to it, or name "
            "another place in extra_model_paths.yaml"
        )


def new_dataset_folder(name: str) -> Path:
    """Where a dataset that this pack makes itself (phantoms) will lie."""
    check_private(DATASETS)
    return private_dir(roots(DATASETS)[0]) / _new_name(name, "dataset")


def run_path(name: str) -> Path:
    """Where the private folder of a training run lies, or will lie."""
    check_private(RUNS)
    return private_dir(roots(RUNS)[0]) / _plain(name, "run")


def run_folder(name: str) -> Path:
    """The private folder of a training run, made if it is not there."""
    return private_dir(run_path(name))


def run_names() -> list[str]:
    """Names of the training runs on this machine, newest first."""
    found = [path for root in roots(RUNS) for path in folders_below(root) if (path / "run.json").is_file()]
    return [path.name for path in sorted(found, key=lambda path: -(path / "run.json").stat().st_mtime)]


def find_run(name: str) -> Path:
    return _find(
        RUNS, name, lambda path: (path / "run.json").is_file(), "training run", "choose one that is listed"
    )


def study_names() -> list[str]:
    """Names of the studies on this machine."""
    return _names(STUDIES, _is_study)


def study_path(name: str) -> Path:
    """Where the private folder of a study lies, or will lie."""
    check_private(STUDIES)
    return private_dir(roots(STUDIES)[0]) / _plain(name, "study")


def check_study_name(name: str | None) -> bool | str:
    """What a node's validation says of the name that a study is to have; True where it is not known yet."""
    try:
        if name is not None:
            _new_name(name.strip(), "study")
    except UserError as error:
        return str(error)
    return True


def rated_path(name: str) -> Path:
    """The folder of a study, or a CSV of ratings: in ComfyUI's input folder, or beside the studies."""
    if not is_table(name):
        return _find(STUDIES, name, _is_study, "study", "make one with Cleft Rater Study")
    _plain(name, "CSV of ratings")
    for root in (*roots(STUDIES), Path(folder_paths.get_input_directory())):
        if (root / name).is_file():
            return inside(root, name)
    raise UserError(f"there is no {name!r} in ComfyUI's input folder or in {STUDIES}; put it there")


def is_table(name: str) -> bool:
    """Whether a name is that of a CSV file."""
    return name.lower().endswith(".csv")


def check_rated(name: str | None) -> bool | str:
    """What a node's validation says of a name for `rated_path`; True where it is not known yet."""
    try:
        return name is None or bool(rated_path(name))
    except UserError as error:
        return str(error)


def loras_folder() -> Path:
    """ComfyUI's folder for LoRAs, the first one."""
    return Path(folder_paths.get_folder_paths("loras")[0])


def withdrawals() -> list[Withdrawal]:
    """The LoRAs that learned from a photograph whose consent was withdrawn, as this machine's datasets and
    its user's list know them.
    """
    from ..diffusioncleft_core.dataset.withdrawn import known_withdrawals

    return known_withdrawals(*dataset_folders())


def output_folder(name: str) -> Path:
    """A folder under ComfyUI's output folder; UserError for a name that leads out of it, or into the private
    part of a run that somebody put there.
    """
    root = Path(folder_paths.get_output_directory())
    if not name.strip() or Path(name).is_absolute():
        raise UserError(
            f"{name!r} is no name of a folder in ComfyUI's output folder; give one like faces/first"
        )
    try:
        folder = inside(root, name.strip())
    except UserError:
        raise UserError(f"{name!r} leads out of ComfyUI's output folder; give a name inside it") from None
    if folder == root.resolve():
        raise UserError("images need a folder of their own in ComfyUI's output folder; give its name")
    for above in _up_to_output(folder):
        if _is_dataset(above) or (above.name == "private" and _is_run(above.parent)):
            raise UserError(f"{name!r} lies among photographs' private files; give another name")
    return folder


def own_output_folder(name: str) -> Path:
    """The same for writing: UserError for a folder of a run of the command line as well."""
    folder = output_folder(name)
    for part in name.strip().replace("\\", "/").split("/"):
        _portable(part, name)
    if any(_is_run(above) for above in _up_to_output(folder)):
        raise UserError(f"{name!r} belongs to a run of the command line; give a folder of its own")
    return folder


def report_folder(name: str, *measured: Path) -> Path:
    """The same for a report: UserError for the folder of a set that is not among the measured ones."""
    folder = own_output_folder(name)
    own = {path.resolve() for path in measured}
    for above in _up_to_output(folder):
        if (above / MANIFEST).is_file() and above.resolve() not in own:
            raise UserError(f"{name!r} is the folder of another set; give the report one of its own")
    return folder


def check_output_folder(name: str | None) -> bool | str:
    """What a node's validation says of a folder to write to; True where the name is not known yet."""
    try:
        if name is not None:
            own_output_folder(name)
    except UserError as error:
        return str(error)
    return True


def shown_name(folder: Path) -> str:
    """The name of a folder under the output folder, with forward slashes."""
    return folder.resolve().relative_to(Path(folder_paths.get_output_directory()).resolve()).as_posix()


def shown_file(path: Path) -> dict[str, str]:
    """How ComfyUI's `/view` names a file in the output folder."""
    return {"filename": path.name, "subfolder": shown_name(path.parent), "type": "output"}


def image_set_names() -> list[str]:
    """Folders with a manifest under the output folder, two levels deep."""
    root = Path(folder_paths.get_output_directory())
    found = [path.parent for pattern in ("*", "*/*", "*/*/*") for path in root.glob(f"{pattern}/{MANIFEST}")]
    return sorted(shown_name(path) for path in found if _may_be_named(path))


def _may_be_named(path: Path) -> bool:
    try:
        return inside_output(path) and bool(output_folder(shown_name(path)))
    except UserError:
        return False


def inside_output(path: Path) -> bool:
    return path.resolve().is_relative_to(Path(folder_paths.get_output_directory()).resolve())


def model_file(kind: str, name: str) -> Path:
    """A file of ComfyUI's model folders by the name its own loaders use."""
    if name not in folder_paths.get_filename_list(kind):
        raise UserError(f"there is no {name!r} in ComfyUI's models/{kind}; choose a file that is listed")
    return Path(folder_paths.get_full_path_or_raise(kind, name))


def model_files(kind: str) -> list[str]:
    """Names of the safetensors files of a model folder; ComfyUI lists and loads `.SAFETENSORS` as well."""
    listed = folder_paths.get_filename_list(kind)
    return [name for name in listed if name.lower().endswith((".safetensors", ".sft"))]


def diffusers_folders() -> list[str]:
    """Names of the diffusers folders (FLUX.1 as downloaded whole) in models/diffusers."""
    found = [
        path.name
        for root in folder_paths.get_folder_paths("diffusers")
        for path in folders_below(Path(root))
        if (path / "model_index.json").is_file()
    ]
    return sorted(found)


def diffusers_folder(name: str) -> Path:
    for root in folder_paths.get_folder_paths("diffusers"):
        if name in (path.name for path in folders_below(Path(root))):
            return Path(root) / name
    raise UserError(f"there is no {name!r} in ComfyUI's models/diffusers; choose a folder that is listed")


def face_pack_roots() -> list[Path]:
    """Where face packs are looked for: ComfyUI's models/insightface, as other packs use it."""
    return [Path(folder_paths.models_dir) / "insightface"]


def is_private(path: Path) -> bool:
    """Whether a path lies in a private folder, as it is written or where it leads."""
    private = [folder for kind in PRIVATE for folder in roots(kind)]
    return any(
        path.is_relative_to(folder) or path.resolve().is_relative_to(folder.resolve()) for folder in private
    )


def _names(kind: str, accept: Callable[[Path], bool]) -> list[str]:
    return sorted({path.name for root in roots(kind) for path in folders_below(root) if accept(path)})


def _find(kind: str, name: str, accept: Callable[[Path], bool], what: str, advice: str) -> Path:
    _plain(name, what)
    for root in roots(kind):
        if name in (path.name for path in folders_below(root)) and accept(root / name):
            _refuse_served(root)
            return inside(root, name)
    raise UserError(f"there is no {what} {name!r} in {kind}; {advice}")


def _plain(name: str, what: str) -> str:
    """A name without a folder in it: `..`, separators, drives and device names never reach the disk."""
    if not name or not all(letter.isalnum() or letter in "._- " for letter in name) or name.startswith("."):
        raise UserError(f"{name!r} is no name of a {what}; names hold letters, digits, '-', '_' and '.'")
    return name


def _new_name(name: str, what: str) -> str:
    """The same for a folder that is made: every system must be able to hold it."""
    _portable(_plain(name, what), name)
    return name


def _portable(part: str, name: str) -> None:
    """Raise UserError for a part of a folder's name that some system can't hold: sets are copied."""
    if part in ("", ".", ".."):
        return  # said by whoever looks where it leads
    if WINDOWS_DEVICE.match(part) or part[-1] in ". " or part[0] == " ":
        why = f"{part!r} is no folder's name on Windows"
    elif any(letter in '<>:"|?*' or ord(letter) < 32 for letter in part):
        why = "names can't hold < > : \" | ? * on Windows"
    elif len(part) > _LONGEST or len(name) > 2 * _LONGEST:
        why = f"a part of it may have {_LONGEST} letters, the whole {2 * _LONGEST}"
    else:
        return
    raise UserError(f"{name!r} can't be a folder: {why}; give another name")


def folders_below(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        return []


def _is_dataset(path: Path) -> bool:
    from ..diffusioncleft_core.dataset.folder import is_dataset

    return is_dataset(path)


def _is_study(path: Path) -> bool:
    from ..diffusioncleft_core.study.folder import is_study

    return is_study(path)


def _is_run(path: Path) -> bool:
    """Whether the folder is that of a run of the command line."""
    from ..diffusioncleft_core.report.folders import RunFolders

    return RunFolders(path).stages.is_dir()


def _up_to_output(folder: Path) -> list[Path]:
    """The folder and those above it, as far as the output folder."""
    root = Path(folder_paths.get_output_directory()).resolve()
    return [path for path in (folder, *folder.parents) if path.is_relative_to(root)]


def _refuse_served(root: Path) -> None:
    """Photographs under a folder that ComfyUI's server hands out are everybody's."""
    served = {
        "input": folder_paths.get_input_directory(),
        "output": folder_paths.get_output_directory(),
        "temp": folder_paths.get_temp_directory(),
        "user": folder_paths.get_user_directory(),
    }
    for name, folder in served.items():
        if root.resolve().is_relative_to(Path(folder).resolve()):
            raise UserError(
                f"{root.name} lies under ComfyUI's {name} folder, which its server shows to everyone; "
                f"move it and name the new place in extra_model_paths.yaml"
            )
