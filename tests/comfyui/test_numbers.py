"""No number that is not finite, or out of its range, reaches a node: refused when queued, and when linked."""

import json
import math
import subprocess
import sys

import object_info
import pytest
from comfy_server import ROOT, NodeFailed
from graphs import node, ours

REFUSALS = ("value_smaller_than_min", "value_bigger_than_max", "invalid_input_type")


def _numbers(info):
    """(class, input, kind, settings, required) of every numeric input of every node."""
    for name, described in object_info.interface(info).items():
        for group in ("required", "optional"):
            for key, (kind, settings) in described["input"].get(group, {}).items():
                if kind in ("INT", "FLOAT"):
                    yield name, key, kind, settings


def _defaults(described):
    inputs = {**described["input"].get("required", {}), **described["input"].get("optional", {})}
    found = {key: settings["default"] for key, (_, settings) in inputs.items() if "default" in settings}
    return found | ({"faces": "phantom"} if "faces" in found else {})


def test_the_server_refuses_every_such_number_by_its_inputs_name(server):
    info = server.get("/object_info")
    graph, expected = {}, {}
    for name, key, kind, settings in _numbers(info):
        beyond = 1 if kind == "INT" else 0.001
        values = [math.nan, math.inf, -math.inf, settings["min"] - beyond, settings["max"] + beyond]
        for number, value in enumerate(values):
            place = f"{name}.{key}.{number}"
            graph[place] = node(name, **{**_defaults(info[name]), key: value})
            graph[f"{place}.see"] = node("PreviewAny", source=[place, 0])
            expected[place] = key
    assert len(expected) > 150
    status, body = server.raw("/prompt", {"prompt": graph, "client_id": "tests"})
    errors = json.loads(body)["node_errors"]
    assert status == 400
    passed = [
        place
        for place, key in expected.items()
        if not any(
            error["type"] in REFUSALS and error["extra_info"]["input_name"] == key
            for error in errors.get(place, {"errors": []})["errors"]
        )
    ]
    assert passed == []


@pytest.mark.parametrize("value", [math.nan, 0.7])
def test_a_number_from_another_node_is_checked_too(server, value):
    graph = {
        "number": node("PrimitiveFloat", value=value),
        "data": ours("PhantomDataset", condition="pre_op", count=8, size=64, seed=0, holdout=["number", 0]),
        "see": node("PreviewAny", source=["data", 2]),
    }
    with pytest.raises(NodeFailed, match=rf"holdout is {value}; give a number from 0 to 0.5"):
        server.run(graph)


def test_every_node_checks_its_numbers_before_its_work(comfyui):
    """A link can carry anything: the class itself refuses what the server can't see."""
    code = """
import asyncio, importlib.util, json, math, sys
sys.path.insert(0, sys.argv[2]); root = sys.argv[1]; sys.argv = ['main.py', '--cpu']
import comfy.options
comfy.options.enable_args_parsing()
door = root + '/__init__.py'
spec = importlib.util.spec_from_file_location('pack', door, submodule_search_locations=[root])
sys.modules['pack'] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from pack.nodes.extension import NODES
from pack.diffusioncleft_core.errors import UserError
found = []
for kind in NODES:
    for item in kind.define_schema().inputs:
        if item.get_io_type() not in ('INT', 'FLOAT'):
            continue
        beyond = 1 if item.get_io_type() == 'INT' else 0.001
        for value in (math.nan, math.inf, -math.inf, item.min - beyond, item.max + beyond, True, '1'):
            for given in (value, [value]):
                try:
                    kind.execute(**{item.id: given})
                except UserError as error:
                    told = str(error)
                except Exception as error:
                    told = repr(error)
                found.append((kind.__name__, item.id, repr(given), told))
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT), str(comfyui)],
        capture_output=True, text=True, check=False, cwd=comfyui,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) > 400
    assert [row for row in found if not row[3].startswith(f"{row[1]} is ")] == []
