"""The shipped workflows in the packaged frontend: they open, export as our files do, and run."""

import os
import time
from itertools import combinations
from pathlib import Path

import pytest
from canvas import DRAWS_TEXT, ON_SCREEN
from workflow_files import FILES, NAMES, SMALL, api_file, saved_before, ui_file

from diffusioncleft.cli.comfyui.convert import BYPASSED, MUTED, to_api

PICTURES = os.environ.get("DIFFUSIONCLEFT_SCREENSHOTS", "")
OPENED = ("quick_start", "evaluate", "rater_study")
"""Of the templates; the others are opened by `make proofs`."""


@pytest.fixture
def look(canvas, tmp_path):
    """Takes a screenshot, into $DIFFUSIONCLEFT_SCREENSHOTS where it is set."""

    def take(name, *groups):
        folder = Path(PICTURES) if PICTURES else tmp_path
        folder.mkdir(parents=True, exist_ok=True)
        canvas.picture(folder / f"{name}.png", *groups)
        return folder / f"{name}.png"

    return take


def without_views(graph):
    """The graph without the widgets that the frontend adds to Preview Any; the server never reads them."""
    return {
        name: {**node, "inputs": {"source": node["inputs"]["source"]}}
        if node["class_type"] == "PreviewAny"
        else node
        for name, node in graph.items()
    }


def overlap(a, b):
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def holds(outer, inner):
    return all(
        outer[side] <= inner[side] and outer[side] + outer[side + 2] >= inner[side] + inner[side + 2]
        for side in (0, 1)
    )


def assert_clean(canvas):
    """As the frontend draws them, no two nodes overlap, and every node is whole and inside a group."""
    nodes, groups = canvas.nodes(), canvas.groups()
    for a, b in combinations(nodes, 2):
        assert not overlap(a["box"], b["box"]), (a["title"], b["title"])
    for node in nodes:
        assert node["known"], f"{node['type']} is missing"
        assert node["size"][0] >= node["least"][0] - 1 and node["size"][1] >= node["least"][1] - 1, node
        assert any(holds(group["box"], node["box"]) for group in groups), node["title"]


def assert_first_view(canvas, name):
    """As this release opens a template in 1600 x 1000: whole, with text, nothing under the toolbar."""
    size = canvas.page.viewport_size
    canvas.page.set_viewport_size({"width": 1600, "height": 1000})
    canvas.page.wait_for_timeout(500)
    canvas.open_template(ui_file(name), FILES[name])
    assert canvas.page.evaluate(DRAWS_TEXT), "too small for text"
    left, top, right, bottom = canvas.page.evaluate(ON_SCREEN)
    assert left > 70 and top > 92 and right < 1600 and bottom < 1000
    canvas.page.set_viewport_size(size)


def text_of(canvas, title):
    """The text of a Preview Any node, whatever a release calls its widget."""
    return next(iter(canvas.node(title)["values"].values()))


def test_the_template_browser_offers_the_workflows_and_opens_one(canvas):
    canvas.page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    dialog = canvas.page.locator("[role=dialog]")
    dialog.get_by_text("diffusioncleft", exact=True).first.click()
    for title in FILES.values():
        dialog.get_by_text(title, exact=True).first.wait_for()
    dialog.get_by_text(FILES["quick_start"], exact=True).first.click()
    canvas.page.wait_for_function(
        "count => app.graph.nodes.length === count", arg=len(ui_file("quick_start")["nodes"])
    )
    canvas.page.wait_for_timeout(500)
    assert canvas.dialogs() == ""
    assert_clean(canvas)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name not in OPENED)) for name in NAMES]
)
def test_a_template_opens_whole_and_the_frontend_exports_our_api_file(canvas, look, name):
    canvas.load(ui_file(name))
    assert canvas.dialogs() == ""
    assert_clean(canvas)
    assert without_views(canvas.export()) == api_file(name)
    assert_first_view(canvas, name)
    assert look(name).stat().st_size > 10_000


def test_a_workflow_saved_with_fewer_widgets_opens_with_every_value_in_its_place(canvas):
    workflows, (before,) = saved_before()[0], saved_before()[1].values()
    for workflow in workflows:
        canvas.load(workflow)
        assert canvas.dialogs() == ""
        (opened,) = canvas.export().values()
        added = {name: opened["inputs"].pop(name) for name in ("mirror", "balance_by", "lokr_factor")}
        assert opened["inputs"] == before["inputs"]
        assert added == {"mirror": False, "balance_by": "", "lokr_factor": 0}


def test_our_conversion_is_the_frontends_on_reroutes_bypasses_primitives_and_notes(canvas, canvas_server):
    """An awkward graph: the same API graph comes from the frontend and from our client."""
    workflow = awkward()
    canvas.load(workflow)
    assert canvas.dialogs() == ""
    info = canvas_server.get("/object_info")
    exported = canvas.export()
    assert to_api(workflow, info) == exported
    assert to_api(canvas.saved(), info) == exported
    assert exported["9"]["inputs"]["strength_model"] == 0.25
    assert exported["4"]["inputs"]["model"] == ["1", 0]
    assert "images" not in exported["8"]["inputs"]


def awkward():
    """Reroute, primitive, notes, a bypassed LoRA loader, a muted decoder, a widget turned into an input."""
    sampler = {"model": ("MODEL", 3), "positive": ("CONDITIONING", 4), "negative": ("CONDITIONING", 5)}
    lora = ("LoraLoaderModelOnly", {"model": ("MODEL", 2)}, {"MODEL": [3]}, ["any", 1.0])
    nodes = [
        _node(1, "DiffusionCleft_PhantomLoader", {}, {"MODEL": [1], "CLIP": [7], "VAE": [8]}),
        _node(2, "Reroute", {"": ("*", 1)}, {"MODEL": [2, 9]}),
        _node(3, *lora, mode=BYPASSED),
        _node(
            4,
            "KSampler",
            {**sampler, "latent_image": ("LATENT", 6)},
            {"LATENT": [10]},
            [5, "randomize", 4, 1.0, "euler", "simple", 1.0],
        ),
        _node(5, "CLIPTextEncode", {"clip": ("CLIP", 7)}, {"CONDITIONING": [4, 5]}, ["a face"]),
        _node(6, "EmptySD3LatentImage", {}, {"LATENT": [6]}, [64, 64, 1]),
        _node(7, "VAEDecode", {"samples": ("LATENT", 10), "vae": ("VAE", 8)}, {"IMAGE": [11]}, mode=MUTED),
        _node(8, "SaveImage", {"images": ("IMAGE", 11)}, {}, ["a/b"]),
        _node(
            9,
            "LoraLoaderModelOnly",
            {"model": ("MODEL", 9), "strength_model": ("FLOAT", 12)},
            {"MODEL": []},
            ["any", 1.0],
        ),
        _node(10, "PrimitiveNode", {}, {"FLOAT": [12]}, [0.25, "fixed"]),
        _node(11, "Note", {}, {}, ["read me"]),
        _node(12, "MarkdownNote", {}, {}, ["read **me**"]),
    ]
    nodes[8]["inputs"][1]["widget"] = {"name": "strength_model"}
    nodes[9]["outputs"][0]["widget"] = {"name": "strength_model"}
    starts = {
        n: (a["id"], i, o["type"]) for a in nodes for i, o in enumerate(a["outputs"]) for n in o["links"]
    }
    ends = {slot["link"]: (b["id"], j) for b in nodes for j, slot in enumerate(b["inputs"])}
    return {
        "last_node_id": 12,
        "last_link_id": 12,
        "nodes": nodes,
        "links": [[n, *starts[n][:2], *ends[n], starts[n][2]] for n in sorted(ends)],
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _node(number, kind, inputs, outputs, values=(), mode=0):
    return {
        "id": number,
        "type": kind,
        "pos": [number * 300, 0],
        "size": [250, 200],
        "flags": {},
        "order": number,
        "mode": mode,
        "properties": {},
        "widgets_values": list(values),
        "inputs": [{"name": name, "type": type_, "link": link} for name, (type_, link) in inputs.items()],
        "outputs": [{"name": type_, "type": type_, "links": links} for type_, links in outputs.items()],
    }


def test_a_graph_that_lacks_a_model_says_so_on_the_canvas_and_nothing_runs(canvas, canvas_server):
    canvas.load(ui_file("quick_start"))
    canvas.set("Cleft Artifact Filter", "faces", "buffalo_l")
    canvas.page.get_by_role("button", name="Run", exact=True).first.click()
    canvas.page.get_by_text("the face pack 'buffalo_l' is in none of").first.wait_for()
    assert not any(canvas_server.get("/queue").values())
    canvas.page.keyboard.press("Escape")


@pytest.mark.long
def test_the_quick_start_runs_from_the_canvas_and_its_pictures_and_figures_appear(
    canvas, canvas_server, look
):
    canvas.load(ui_file("quick_start"))
    if not PICTURES:
        for setting in SMALL:
            target, _, value = setting.partition("=")
            title, _, name = target.partition(".")
            shown = {"PhantomDataset": "Phantom Dataset", "LoraTrainer": "Cleft LoRA Trainer"}.get(
                title, title
            )
            canvas.set(shown, name, int(value))
    canvas.page.get_by_role("button", name="Run", exact=True).first.click()
    deadline = time.monotonic() + 120
    while not any((queue := canvas_server.get("/queue")).values()):  # the graph is checked first
        assert time.monotonic() < deadline, canvas.dialogs()
        canvas.page.wait_for_timeout(200)
    (prompt_id,) = [entry[1] for entry in [*queue["queue_running"], *queue["queue_pending"]]]
    history = canvas_server.wait(prompt_id, timeout=500)
    assert history["status"]["status_str"] == "success", history["status"]
    canvas.page.wait_for_function(
        "() => app.graph.nodes.filter(node => node.type === 'PreviewAny').every(n => n.widgets?.[0]?.value)"
    )
    canvas.page.wait_for_timeout(1500)
    assert canvas.node("Save Synthetic Set")["images"] == (16 if PICTURES else 4)
    assert canvas.node("Cleft LoRA Trainer")["images"] >= 1
    assert canvas.node("Cleft Report")["images"] == 2
    assert "pictures accepted" in text_of(canvas, "All verdicts")
    for name in ("fir_images", "fid", "lpips"):
        assert name in text_of(canvas, "Figures")
    assert canvas.dialogs() == ""
    assert_clean(canvas)
    look("quick_start_done")
    look("quick_start_results", "3  Filter", "4  Save and measure")
