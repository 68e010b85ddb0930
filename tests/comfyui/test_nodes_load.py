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


def test_loading_the_nodes_imports_neither_torch_nor_onnx_of_its_own():
    """With ComfyUI's API stood in for, nothing but the standard library and the light core comes in."""
    code = """
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
import pack.nodes.extension
heavy = {'torch', 'numpy', 'onnxruntime', 'insightface', 'diffusers', 'transformers', 'PIL', 'cv2'}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=False, cwd=Path("/")
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"
