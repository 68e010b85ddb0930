"""Pictures of the workflow templates, from one real run of each on phantoms.

    python scripts/template_pictures.py --work build/templates      # a quarter of an hour on two idle cores

Writes the cards that ComfyUI's template browser shows (workflows/*.jpg), the pictures of docs/templates.md,
the film of the quick start, and how long each run took (docs/images/templates/seconds.json). It starts a
ComfyUI of its own (`COMFYUI_PATH`) and needs chromium and playwright. Run it again when the phantom or a
template looks different; `--only cards` composes the cards from what an earlier run left.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
for folder in ("scripts", "tests", "tests/comfyui", "tests/browser"):
    sys.path.insert(0, str(ROOT / folder))

from template_cards import write_cards  # noqa: E402
from workflow_graphs import FILES  # noqa: E402

from diffusioncleft.diffusioncleft_core.files import read_json, write_json  # noqa: E402

PICTURES = ROOT / "docs" / "images" / "templates"
FILM = ROOT / "docs" / "images" / "quick-start.gif"
WINDOW = {"width": 1600, "height": 1000}
MODELS = (
    "diffusion_models/flux1-schnell.safetensors", "text_encoders/clip_l.safetensors",
    "text_encoders/t5xxl_fp16.safetensors", "vae/ae.safetensors",
    "loras/pre_op.safetensors", "loras/pre_op-step000500.safetensors", "loras/post_op.safetensors",
)  # fmt: skip
FRAME_SECONDS, FRAME_WIDTH = 2.0, 960
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the server and of what is made")
    parser.add_argument("--photographs", type=int, default=100, help="phantoms a dataset (default 100)")
    parser.add_argument("--steps", type=int, default=0, help="steps of a training (0: the preset's)")
    parser.add_argument(
        "--keep-film", action="store_true", help="the film stays; for a work folder that has its LoRA already"
    )
    parser.add_argument(
        "--only",
        choices=("cards", "views"),
        help="cards: compose them from an earlier run's files; views: docs/templates.md's graphs "
        "as they open, all but the quick start, which is shown when it has run",
    )
    args = parser.parse_args()
    if args.only != "cards":
        run_all(args)
    if args.only == "views":
        return
    write_cards(args.work / "made", ROOT / "workflows")


def run_all(args: argparse.Namespace) -> None:
    """Run every template on phantoms; pictures and durations are written as they come."""
    from comfy_server import PACK, ComfyServer, find_comfyui, server_environment
    from playwright.sync_api import sync_playwright
    from workflow_files import build_datasets

    comfyui = find_comfyui()
    if comfyui is None:
        raise SystemExit("no ComfyUI checkout: set COMFYUI_PATH")
    base = args.work / "server"
    if args.only is None:
        shutil.rmtree(args.work / "made", ignore_errors=True)
    server = ComfyServer(comfyui, base, server_environment() | {"OMP_NUM_THREADS": "2"})
    for place in (base / "custom_nodes").iterdir():
        place.unlink()
    (base / "custom_nodes" / "diffusioncleft").symlink_to(ROOT, target_is_directory=True)
    assert PACK != "diffusioncleft"
    for place in MODELS:  # names alone, so that the frontend doesn't miss them; phantoms are drawn with
        (base / "models" / place).parent.mkdir(parents=True, exist_ok=True)
        (base / "models" / place).touch()
    if not (base / "private datasets" / "post_op").exists():
        build_datasets(base / "private datasets", args.work / "photographs", args.photographs)
    server.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=os.environ.get("CHROMIUM_PATH", "/usr/bin/chromium"),
                args=["--headless", "--no-sandbox", "--disable-gpu"],
            )
            canvas = _opened(server, browser)
            seconds = {} if args.only == "views" else _run_each(server, canvas, args)
            for name in FILES:
                if name != "quick_start":
                    _view(canvas, name)
            browser.close()
    finally:
        server.kill()
    if args.keep_film and seconds:
        del seconds["quick_start"]  # its training was done before
    known = PICTURES / "seconds.json"
    write_json(known, {**(read_json(known) if known.is_file() else {}), **seconds})


def _opened(server: Any, browser: Any) -> Any:
    from canvas import Canvas

    for name, value in SETTINGS.items():
        server.raw(f"/api/settings/{name}", value)
    PICTURES.mkdir(parents=True, exist_ok=True)
    return Canvas.open(browser.new_page(viewport=WINDOW), server.url)


def _view(canvas: Any, name: str) -> None:
    """A template as it opens, in docs/templates.md."""
    from workflow_files import ui_file

    canvas.open_template(ui_file(name), FILES[name])
    canvas.page.keyboard.press("Escape")
    _picture(canvas, name)


def _run_each(server: Any, canvas: Any, args: argparse.Namespace) -> dict[str, int]:
    """Seconds of each run by the template's name."""
    from workflow_files import run_workflow, ui_file

    canvas.open_template(ui_file("quick_start"), FILES["quick_start"])
    made = args.work / "made"
    seconds = {"quick_start": _film(canvas, server, None if args.keep_film else FILM)}
    _picture(canvas, "quick_start")
    run_workflow(server, "quick_start", made / "quick_start", phantom=False)  # from what is kept
    loras: dict[str, str] = {}
    for name in FILES:
        if name == "quick_start":
            continue
        began = time.monotonic()
        condition = "post_op" if "post_op" in name else "pre_op"
        outputs = run_workflow(
            server, name, made / name, *_settings(name, args.steps), lora=loras.get(condition)
        )
        seconds[name] = round(time.monotonic() - began)
        if name.startswith("train_"):
            text = outputs["What was trained"].values["text"][0]
            loras[condition] = next(
                line.removeprefix("LoRA: ") for line in text.splitlines() if line.startswith("LoRA: ")
            )
        if name.startswith("generate_"):
            for seed in range(2, 10):
                run_workflow(server, name, made / name, f"PromptBuilder.seed={seed}", lora=loras[condition])
        print(name, seconds[name], "s", flush=True)
    return seconds


def _settings(name: str, steps: int) -> list[str]:
    if name.startswith("train_"):
        return [f"LoraTrainer.steps={steps}"]
    if name.startswith("generate_"):
        return ["PromptBuilder.seed=1"]
    return ["TrainClassifier.model=probe", "TrainClassifier.seeds=2"] if name == "classifier" else []


def _picture(canvas: Any, name: str) -> None:
    canvas.page.screenshot(path=str(PICTURES / f"{name}.jpg"), type="jpeg", quality=72)


def _film(canvas: Any, server: Any, film: Path | None) -> int:
    """Press Run on the open graph, and film it until it is done; its seconds."""
    import io

    from PIL import Image

    frames: list[Any] = []

    def shoot() -> None:
        with Image.open(io.BytesIO(canvas.page.screenshot())) as shot:
            height = round(shot.height * FRAME_WIDTH / shot.width)
            frames.append(shot.convert("RGB").resize((FRAME_WIDTH, height), Image.Resampling.LANCZOS))

    shoot()
    canvas.page.get_by_role("button", name="Run", exact=True).first.click()
    while not any((queue := server.get("/queue")).values()):
        canvas.page.wait_for_timeout(200)
    began = time.monotonic()
    (prompt,) = [entry[1] for entry in [*queue["queue_running"], *queue["queue_pending"]]]
    while prompt not in server.get(f"/history/{prompt}"):
        canvas.page.wait_for_timeout(int(1000 * FRAME_SECONDS))
        shoot()
    seconds = round(time.monotonic() - began)
    canvas.page.wait_for_timeout(2500)
    shoot()
    if film is None:
        return seconds
    most = 40  # what lasts long is shown faster
    kept = [frames[round(place * (len(frames) - 1) / most)] for place in range(most)] + [frames[-1]] * 12
    palette = frames[-1].quantize(96, dither=Image.Dither.NONE)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in kept]
    small[0].save(film, save_all=True, append_images=small[1:], duration=180, loop=0, optimize=True)
    return seconds


if __name__ == "__main__":
    main()
