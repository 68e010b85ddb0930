"""One real ComfyUI server for all tests of a session."""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from comfy_server import ComfyServer, find_comfyui, server_environment  # noqa: E402
from graphs import SECRET  # noqa: E402


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The ComfyUI checkout; without one these tests are skipped, and the summary says so."""
    found = find_comfyui()
    if found is None:
        pytest.skip("NO COMFYUI: set COMFYUI_PATH to a checkout; nothing of the extension was tested")
    missing = [name for name in ("aiohttp", "torchsde", "einops", "av") if not importlib.util.find_spec(name)]
    if missing:
        pytest.skip(
            f"ComfyUI's requirements are not installed ({', '.join(missing)}); the extension was not tested"
        )
    return found


@pytest.fixture(scope="session")
def server(comfyui, tmp_path_factory):
    """A running server on an empty base directory."""
    running = ComfyServer(comfyui, tmp_path_factory.mktemp("comfyui"), server_environment())
    running.start()
    yield running
    running.kill()


@pytest.fixture(scope="session")
def dataset(server, tmp_path_factory) -> str:
    """The name of a small dataset of phantoms in the owner's place, from photographs with telling names."""
    from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
    from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
    from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs
    from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
    from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs

    photographs = tmp_path_factory.mktemp("clinic")
    table = write_photographs(photographs, 12, "cleft", seed=3, size=128, subjects=12)
    for path in photographs.glob("*.png"):
        path.rename(path.with_name(f"{SECRET} {path.name}"))
    table.write_text(table.read_text().replace("photo-", f"{SECRET} photo-"))
    place = server.base / "private datasets"
    place.mkdir(exist_ok=True)
    build_dataset(
        Photographs(photographs, table),
        load_vocabulary().condition("pre_op"),
        place / "d1",
        load_face_analyzer("phantom"),
        settings=BuildSettings(phantom=True),
    )
    return "d1"
