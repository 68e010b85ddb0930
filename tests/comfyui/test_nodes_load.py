"""The pack loads in a real server, and its interface is the accepted one."""

import json
import re
import subprocess
import sys
from pathlib import Path

import object_info
from comfy_server import PACK, ROOT


def test_every_node_loads_within_two_seconds_under_a_frozen_name(server):
    seconds = re.search(rf"([\d.]+) seconds: .*{re.escape(PACK)}", server.log)
    assert seconds and float(seconds[1]) < 2, server.log[-2000:]
    info = server.get("/object_info")
    names = [name for name in info if name.startswith("DiffusionCleft_")]
    assert len(names) == 24
    assert all(info[name]["category"] == "DiffusionCleft" for name in names)


def test_the_interface_is_the_accepted_one(server):
    found = json.loads(json.dumps(object_info.interface(server.get("/object_info"))))
    accepted = json.loads(object_info.SNAPSHOT.read_text(encoding="utf-8"))
    assert found == accepted, (
        "the nodes' interface changed; accept it with: python tests/comfyui/object_info.py"
    )


def test_the_translations_name_what_there_is(server):
    accepted = json.loads(object_info.SNAPSHOT.read_text(encoding="utf-8"))
    assert json.loads(object_info.ENGLISH.read_text(encoding="utf-8")) == object_info.english(accepted)
    served = server.get("/i18n")
    for language in ("en", "de"):
        assert set(accepted) == {name for name in served[language]["nodeDefs"] if "DiffusionCleft" in name}


def test_every_input_has_a_tooltip_and_every_node_a_help_page(server):
    for name, info in object_info.interface(server.get("/object_info")).items():
        for kind in ("required", "optional"):
            for key, (_, settings) in info["input"].get(kind, {}).items():
                assert settings.get("tooltip"), f"{name}.{key}"
        assert all(info["output_tooltips"]), name
        assert info["description"], name
        assert (ROOT / "web" / "docs" / f"{name}.md").is_file(), name


STOOD_IN = """
import importlib.util, sys, types
from pathlib import Path

class Anything(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return Anything(name)
    def __call__(self, *args, **kwargs):
        return Anything('called')
    def __mro_entries__(self, bases):
        return (object,)
    def __getitem__(self, key):
        return Anything('item')

for name in ('comfy_api', 'comfy_api.latest'):
    sys.modules[name] = Anything(name)
paths = types.ModuleType('folder_paths')
paths.folder_names_and_paths = {}
sys.modules['folder_paths'] = paths
root = Path(sys.argv[1])
door = root / '__init__.py'
spec = importlib.util.spec_from_file_location('pack', door, submodule_search_locations=[str(root)])
sys.modules['pack'] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""
"""Loads the pack's nodes where ComfyUI's API is stood in for."""


def said(code: str) -> str:
    """What code that uses the nodes prints, without a server."""
    done = subprocess.run(
        [sys.executable, "-c", STOOD_IN + code, str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path("/"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_loading_the_nodes_imports_neither_torch_nor_onnx_of_its_own():
    """With ComfyUI's API stood in for, nothing but the standard library and the light core comes in."""
    code = """
import pack.nodes.extension
heavy = {'torch', 'numpy', 'onnxruntime', 'insightface', 'diffusers', 'transformers', 'PIL', 'cv2'}
print(sorted(heavy & set(sys.modules)))
"""
    assert said(code) == "[]"


def test_a_number_between_the_presets_and_the_fields_own_is_refused_by_its_name():
    """A widget that begins at -1, the preset's, steps through -0.9."""
    code = """
from pack.diffusioncleft_core.errors import UserError
from pack.nodes.training_options import chosen
from pack.nodes.training_settings import UNSET, _choices
left = {'steps': 0, 'preview_every': 0, **UNSET}
for check in (chosen, lambda given: _choices({**left, **given})):
    for value in (-1.0, 0.0, 0.5):
        check({'output_preservation_weight': value})
    for name, value in (('output_preservation_weight', -0.9), ('ema_decay', -0.5)):
        try:
            check({name: value})
        except UserError as error:
            print(error)
"""
    told = [
        "output_preservation_weight is -0.9; give a number from 0 to 1000000, or -1 for the preset's",
        "ema_decay is -0.5; give a number from 0 on and below 1",
    ]
    assert said(code).splitlines() == told * 2


def test_no_message_holds_the_name_of_a_training_image_or_what_lies_in_a_private_folder(tmp_path):
    """A dataset's name may hold spaces, and the core names an image by its place in the dataset."""
    (tmp_path / "diffusioncleft_datasets" / "Clinic A").mkdir(parents=True)
    (tmp_path / "diffusioncleft_datasets" / "Clinic").mkdir()
    code = f"""
paths.base_path = paths.models_dir = {str(tmp_path)!r}
paths.get_output_directory = paths.get_input_directory = paths.get_temp_directory = lambda: '/nowhere'
from pack.nodes import places
from pack.nodes.words import for_browser
root, image = places.roots(places.DATASETS)[0], 'images/0123456789abcdef.png'
for said in (
    f"{{image}} of {{root}}/clinicB: damaged; build it again",
    f"{{root}}/Clinic A/{{image}} can't be read",
    f"line 3 of {{root}}/Clinic A/manifest.jsonl is not valid",
    f"{{root}}/Clinic/{{image}} and {{root}}/Clinic are damaged",
    f"0123456789abcdef.png, fedcba9876543210.png: damaged",
):
    print(for_browser(said))
"""
    assert said(code).splitlines() == [
        "a photograph of clinicB: damaged; build it again",
        "Clinic A can't be read",
        "line 3 of Clinic A is not valid",
        "Clinic and Clinic are damaged",
        "a photograph, a photograph: damaged",
    ]
