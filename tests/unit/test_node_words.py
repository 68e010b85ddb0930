"""What a browser sees of a message that was written for a shell."""

import importlib
import sys
import types

import pytest


@pytest.fixture
def for_browser(tmp_path, monkeypatch):
    """nodes.words with ComfyUI's folders in `tmp_path`."""
    paths = types.ModuleType("folder_paths")
    paths.folder_names_and_paths = {}
    paths.base_path, paths.models_dir = str(tmp_path / "comfy"), str(tmp_path / "comfy" / "models")
    for name in ("output", "input", "temp"):
        setattr(paths, f"get_{name}_directory", lambda name=name: str(tmp_path / "comfy" / name))
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    for name in ("diffusioncleft.nodes.places", "diffusioncleft.nodes.words"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("diffusioncleft.nodes.words").for_browser
    for name in ("diffusioncleft.nodes.places", "diffusioncleft.nodes.words"):
        sys.modules.pop(name, None)


def test_options_are_called_by_the_names_of_widgets(for_browser):
    for told, wanted in (
        ("give the dataset of each condition (--reference)", "give the dataset of each condition"),
        ("name a face pack (--faces PACK), or go", "name a face pack, or go"),
        ("choose another --out", "choose another folder"),
        ("leave --training-adapter out", "leave training_adapter out"),
        ("images, or 3 -- of them", "images, or 3 -- of them"),
    ):
        assert for_browser(told) == wanted


def test_a_command_for_a_shell_stays_whole(for_browser):
    for told in (
        "run: diffusioncleft weights fetch lpips --dir FOLDER",
        "make one with `diffusioncleft plan --n 5`",
        "see 'diffusioncleft dataset build --out DIR'",
    ):
        assert for_browser(told) == told


def test_no_path_of_the_machine_is_told(for_browser, tmp_path):
    output = tmp_path / "comfy" / "output" / "faces" / "a.png"
    assert for_browser(f"{output} is damaged") == "output/faces/a.png is damaged"
    assert for_browser("/home/jane/.cache/hub/x.bin is missing") == "…/x.bin is missing"
    assert for_browser(r"C:\Users\jane\models\x.bin is missing") == "…/x.bin is missing"
    assert for_browser("see https://example.org/a/b/c and a/b/c") == "see https://example.org/a/b/c and a/b/c"
