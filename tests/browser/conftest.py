"""A real browser on a real ComfyUI server: the packaged frontend, opened as a user opens it."""

import json
import os
import shutil
import sys
import urllib.request
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
COMFYUI_TESTS = HERE.parent / "comfyui"
for folder in (HERE, COMFYUI_TESTS):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from canvas import Canvas  # noqa: E402
from comfy_server import PACK, ComfyServer, find_comfyui, server_environment  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
}


def _browser() -> str:
    found = [os.environ.get("CHROMIUM_PATH"), *map(shutil.which, BROWSERS)]
    path = next(filter(None, found), None)
    if path is None:
        pytest.skip("NO BROWSER: install chromium, or set CHROMIUM_PATH; the canvas was not tested")
    return str(path)


@pytest.fixture(scope="session")
def canvas_server(tmp_path_factory):
    """A server whose pack has its usual name: from a folder with spaces ComfyUI serves no templates."""
    _browser()
    pytest.importorskip("playwright.sync_api", reason="NO PLAYWRIGHT: the canvas was not tested")
    comfyui = find_comfyui()
    if comfyui is None:
        pytest.skip("NO COMFYUI: set COMFYUI_PATH to a checkout; the canvas was not tested")
    pytest.importorskip("comfyui_frontend_package", reason="NO FRONTEND: the canvas was not tested")
    base = tmp_path_factory.mktemp("canvas")
    environment = server_environment()
    server = ComfyServer(comfyui, base, environment)
    (base / "custom_nodes" / PACK).rename(base / "custom_nodes" / "diffusioncleft")
    server.start()
    for name, value in SETTINGS.items():
        request = urllib.request.Request(
            f"{server.url}/api/settings/{name}",
            json.dumps(value).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=300).close()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def chromium():
    """A real browser; one for all, because playwright allows no second one beside it."""
    path = _browser()
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="NO PLAYWRIGHT: nothing was tested in a browser"
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def canvas(canvas_server, chromium):
    """ComfyUI's page, ready for use."""
    page = chromium.new_page(viewport={"width": 2200, "height": 1200})
    yield Canvas.open(page, canvas_server.url)
    page.close()
