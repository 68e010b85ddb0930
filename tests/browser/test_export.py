"""`comfy run` reads what the packaged frontend writes: to the graphs of the frontend's own export."""

import pytest
from built_graphs import RECIPES, TOOLS

from diffusioncleft.cli.comfyui.convert import to_api

NEWEST = (1, 44)
"""Release of the frontend whose page the recipes are written for; an older one knows less."""


@pytest.fixture(scope="module")
def info(canvas_server):
    return canvas_server.get("/object_info")


@pytest.fixture(scope="module", autouse=True)
def _new_frontend():
    import comfyui_frontend_package

    version = getattr(comfyui_frontend_package, "__version__", "0")
    if tuple(map(int, version.split(".")[:2])) < NEWEST:
        pytest.skip(f"OLD FRONTEND {version}: it can't build these graphs")


def test_there_are_thirty_graphs_or_more():
    assert len(RECIPES) >= 30


@pytest.mark.parametrize("name", RECIPES)
def test_a_graph_that_was_built_in_the_page_is_read_as_the_page_exports_it(canvas, info, name):
    canvas.page.evaluate("async () => {" + TOOLS + RECIPES[name] + "}")
    canvas.page.wait_for_timeout(200)
    assert_read(canvas, info)
    canvas.load(canvas.saved())
    assert_read(canvas, info)


def assert_read(canvas, info):
    exported = canvas.export()
    assert exported
    assert to_api(canvas.saved(), info) == exported
