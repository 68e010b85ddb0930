"""The ComfyUI client without a server: formats, settings by name, file names, the phantom swap."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusioncleft.cli.comfyui import convert
from diffusioncleft.cli.comfyui import inputs as overrides
from diffusioncleft.cli.comfyui import inputs as widgets
from diffusioncleft.cli.comfyui import run as phantom
from diffusioncleft.cli.comfyui.batch import graph_key
from diffusioncleft.cli.comfyui.outputs import SAVER, collect, fetch_sidecar, safe_name
from diffusioncleft.cli.comfyui.server import ComfyServer
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.filters.decisions import readmit, reject
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
from diffusioncleft.diffusioncleft_core.imageset.synthetic import write_image


def definition(required, optional=None, output=(), **rest):
    groups = {"required": required, "optional": optional or {}}
    return {
        "input": groups,
        "input_order": {name: list(group) for name, group in groups.items()},
        "output": list(output),
        "output_name": list(output),
        **rest,
    }


INFO = {
    "Loader": definition({"name": [["a.safetensors", "b.safetensors"]]}, output=["MODEL"]),
    "Patch": definition(
        {"model": ["MODEL"], "strength": ["FLOAT", {"min": 0.0, "max": 2.0}]}, output=["MODEL"]
    ),
    "Sampler": definition(
        {
            "model": ["MODEL", {}],
            "seed": ["INT", {"default": 0, "min": 0, "max": 99, "control_after_generate": True}],
            "mode": ["COMBO", {"options": ["fast", "slow"]}],
            "text": ["STRING", {"multiline": True}],
        },
        {"on": ["BOOLEAN", {"default": True}], "forced": ["INT", {"forceInput": True}]},
        output=["IMAGE"],
    ),
    "Save": definition({"images": ["IMAGE"]}),
    "LoadImage": definition({"image": [["x.png"], {"image_upload": True}]}, output=["IMAGE"]),
    "UNETLoader": definition({"unet_name": [["f"]]}, output=["MODEL"]),
    "VAELoader": definition({"vae_name": [["v"]]}, output=["VAE"]),
    "EmptySD3LatentImage": definition({"width": ["INT", {}], "height": ["INT", {}]}, output=["LATENT"]),
    "LoraLoaderModelOnly": definition({"model": ["MODEL"], "lora_name": [["l"]]}, output=["MODEL"]),
    phantom.PHANTOM_LOADER: definition({}, output=["MODEL", "CLIP", "VAE"]),
}


def node(number, kind, values=(), inputs=(), outputs=(), mode=0, **rest):
    return {
        "id": number,
        "type": kind,
        "mode": mode,
        "order": number,
        "widgets_values": list(values),
        "inputs": [{"name": name, "type": type_, "link": link} for name, type_, link in inputs],
        "outputs": [{"name": type_, "type": type_} for type_ in outputs],
        **rest,
    }


def workflow(*nodes, links=()):
    return {"nodes": list(nodes), "links": [list(link) for link in links], "version": 0.4}


SAMPLER_VALUES = (7, "randomize", "slow", "a face", False)


def simple(sampler_inputs=(("model", "MODEL", 1),), between=(), links=((1, 1, 0, 3, 0, "MODEL"),)):
    return workflow(
        node(1, "Loader", ["b.safetensors"], outputs=["MODEL"]),
        node(3, "Sampler", SAMPLER_VALUES, sampler_inputs, ["IMAGE"]),
        *between,
        links=links,
    )


def test_a_ui_workflow_becomes_the_api_graph_with_values_by_name():
    graph = convert.to_api(simple(), INFO)
    assert graph["1"]["inputs"] == {"name": "b.safetensors"}
    assert graph["3"] == {
        "inputs": {"model": ["1", 0], "seed": 7, "mode": "slow", "text": "a face", "on": False},
        "class_type": "Sampler",
        "_meta": {"title": "Sampler"},
    }


def test_an_api_graph_passes_as_it_is():
    graph = convert.to_api(simple(), INFO)
    assert convert.to_api(json.loads(json.dumps(graph)), INFO) == graph


def test_reroutes_and_bypassed_nodes_pass_a_link_on_and_muted_ones_cut_it():
    reroute = node(4, "Reroute", inputs=[("", "*", 1)], outputs=["MODEL"])
    patch = node(5, "Patch", [0.5], [("model", "MODEL", 2)], ["MODEL"], mode=convert.BYPASSED)
    links = ((1, 1, 0, 4, 0, "MODEL"), (2, 4, 0, 5, 0, "MODEL"), (3, 5, 0, 3, 0, "MODEL"))
    graph = convert.to_api(simple([("model", "MODEL", 3)], (reroute, patch), links), INFO)
    assert set(graph) == {"1", "3"}
    assert graph["3"]["inputs"]["model"] == ["1", 0]
    patch["mode"] = convert.MUTED
    graph = convert.to_api(simple([("model", "MODEL", 3)], (reroute, patch), links), INFO)
    assert "model" not in graph["3"]["inputs"]


def test_a_primitive_gives_its_value_and_a_note_nothing():
    primitive = node(4, "PrimitiveNode", ["from the primitive", "fixed"], outputs=["STRING"])
    note = node(5, "MarkdownNote", ["read me"])
    links = ((1, 1, 0, 3, 0, "MODEL"), (2, 4, 0, 3, 1, "STRING"))
    inputs = [("model", "MODEL", 1), ("text", "STRING", 2)]
    graph = convert.to_api(simple(inputs, (primitive, note), links), INFO)
    assert set(graph) == {"1", "3"}
    assert graph["3"]["inputs"]["text"] == "from the primitive"


def test_a_widget_turned_into_an_input_keeps_its_place_among_the_values():
    loader = node(4, "Loader", ["a.safetensors"], outputs=["STRING"])
    links = ((1, 1, 0, 3, 0, "MODEL"), (2, 4, 0, 3, 1, "STRING"))
    graph = convert.to_api(simple([("model", "MODEL", 1), ("mode", "COMBO", 2)], (loader,), links), INFO)
    assert graph["3"]["inputs"]["mode"] == ["4", 0]
    assert graph["3"]["inputs"]["text"] == "a face"


def test_old_and_new_files_give_missing_values_their_defaults_and_upload_buttons_are_skipped():
    old = workflow(node(1, "Sampler", [7, "slow", "a face"]), node(2, "LoadImage", ["x.png", "image"]))
    graph = convert.to_api(old, INFO)
    assert graph["1"]["inputs"] == {"seed": 7, "mode": "slow", "text": "a face", "on": True}
    assert graph["2"]["inputs"] == {"image": "x.png"}


def test_values_by_name_are_taken_and_too_many_values_are_refused():
    named = workflow({**node(1, "Loader"), "widgets_values": {"name": "a.safetensors"}})
    assert convert.to_api(named, INFO)["1"]["inputs"] == {"name": "a.safetensors"}
    with pytest.raises(UserError, match="another version"):
        convert.to_api(workflow(node(1, "Loader", ["a.safetensors", 3])), INFO)


def test_what_is_no_workflow_is_refused_in_one_sentence():
    circle = workflow(
        node(1, "Reroute", inputs=[("", "*", 1)]),
        node(2, "Save", inputs=[("images", "IMAGE", 1)]),
        links=[(1, 1, 0, 1, 0, "*")],
    )
    endless = node(1, "sub")
    for damaged in (
        [],
        {},
        {"nodes": [3]},
        {"nodes": [{"id": 1}]},
        {"1": {"class_type": "Loader", "inputs": []}},
        {"1": {"class_type": "Loader"}, "2": "a"},
        workflow(node(1, "Unknown")),
        workflow(node(1, "Loader"), links=[(1, 2)]),
        {**workflow(endless), "definitions": {"subgraphs": [{"id": "sub", "nodes": [endless]}]}},
        circle,
    ):
        with pytest.raises(UserError):
            convert.to_api(damaged, INFO, "it")


def test_settings_name_a_node_by_id_title_or_class():
    graph = convert.to_api(simple(), INFO)
    graph["3"]["_meta"]["title"] = "My. sampler"
    for name in ("3", "My. sampler", "Sampler"):
        changed = overrides.apply_settings(graph, [f"{name}.seed=5", f"{name}.text=a=b.c"], INFO)
        assert changed["3"]["inputs"]["seed"] == 5
        assert changed["3"]["inputs"]["text"] == "a=b.c"
    assert graph["3"]["inputs"]["seed"] == 7


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("Sampler", "no value"),
        ("Sampler=5", "names no input"),
        ("Smapler.seed=5", "did you mean 'Sampler'? the workflow has: 1 (Loader), 3 (Sampler)"),
        ("Sampler.sed=5", "it has: seed, mode, text, on"),
        ("Sampler.model=5", "is a connection; what can be set: seed, mode, text, on"),
        ("Sampler.forced=5", "is a connection"),
        ("Sampler.seed=five", "not a whole number"),
        ("Sampler.seed=1e9", "not a whole number"),
        ("Sampler.seed=100", "from 0 to 99"),
        ("Sampler.seed=-1", "from 0 to 99"),
        ("Sampler.mode=../../etc/passwd", "choose one of: fast, slow"),
        ("Sampler.on=maybe", "neither true nor false"),
        ("Sampler.__class__=x", "has no input '__class__'"),
        (".seed=5", "names no input"),
        ("=", "names no input"),
        ("", "no value"),
        ("Sampler..seed=5", "has no input '.seed'"),
        ("\x00.\x00=\x00", "there is no node"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_with_what_is_allowed(setting, told):
    with pytest.raises(UserError) as raised:
        overrides.apply_settings(convert.to_api(simple(), INFO), [setting], INFO)
    assert told in str(raised.value)


def test_a_name_that_two_nodes_have_is_refused_with_their_ids():
    graph = convert.to_api(workflow(node(1, "Loader", ["a.safetensors"]), node(2, "Loader")), INFO)
    with pytest.raises(UserError, match="nodes 1, 2"):
        overrides.apply_settings(graph, ["Loader.name=b.safetensors"], INFO)


def test_not_a_number_is_no_value_of_a_bounded_number():
    declared = widgets.Input("strength", "FLOAT", True, {"min": 0.0, "max": 2.0})
    with pytest.raises(UserError, match="from 0 to 2"):
        widgets.parse_value(declared, "nan", "Patch.strength")


@given(st.text(max_size=300))
def test_a_servers_file_name_never_leads_anywhere(name):
    safe = safe_name(name)
    assert safe not in ("", ".", "..")
    assert not set(safe) & set('/\\:*?"<>|\x00\n')
    assert len(safe) <= 160


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Windows\\evil.exe", "evil.exe"),
        ("a.png", "a.png"),
        ("..", "file_unnamed"),
        ("NUL.png", "file_NUL.png"),
        ("x\n/y.png", "y.png"),
    ],
)
def test_a_file_takes_its_own_name_only(name, safe):
    assert safe_name(name) == safe


def test_the_phantom_stands_in_for_the_loaders_and_nothing_else_changes():
    graph = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "f"}},
        "2": {"class_type": "VAELoader", "inputs": {"vae_name": "v"}},
        "3": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0], "lora_name": "l"}},
        "4": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 768, "height": 768}},
        "5": {"class_type": "Sampler", "inputs": {"model": ["3", 0], "seed": 3, "vae": ["2", 0]}},
    }
    before = json.loads(json.dumps(graph))
    swapped = phantom.swap_loaders(graph, INFO, lora="mine.safetensors")
    assert graph == before
    loader = next(name for name, found in swapped.items() if found["class_type"] == phantom.PHANTOM_LOADER)
    assert set(swapped) == {"3", "4", "5", loader}
    assert swapped["3"]["inputs"] == {"model": [loader, 0], "lora_name": "mine.safetensors"}
    assert swapped["4"]["inputs"] == {"width": 128, "height": 128}
    assert swapped["5"]["inputs"] == {"model": ["3", 0], "seed": 3, "vae": [loader, 2]}
    with pytest.raises(UserError, match="no Phantom Loader"):
        phantom.swap_loaders(graph, {})


@pytest.mark.parametrize(
    ("condition", "strength", "listed"),
    [("pre_op", 1.5, "0.9, 1.2, 1.5"), ("post_op", 2.25, "1.35, 1.8, 2.25"), ("mine", 1, "0.6, 0.8, 1")],
)
def test_on_the_phantom_loras_are_as_strong_as_the_vocabulary_says(condition, strength, listed):
    graph = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "f"}},
        "2": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0], "strength_model": 1}},
        "3": {"class_type": "DiffusionCleft_LoraGrid", "inputs": {"strengths": "0.6, 0.8, 1"}},
        "4": {"class_type": "LoraLoader", "inputs": {"model": ["1", 0], "strength_model": ["3", 1]}},
        "5": {"class_type": "DiffusionCleft_PromptBuilder", "inputs": {"condition": condition}},
    }
    swapped = phantom.swap_loaders(graph, INFO)
    assert swapped["2"]["inputs"]["strength_model"] == strength
    assert swapped["3"]["inputs"]["strengths"] == listed
    assert swapped["4"]["inputs"]["strength_model"] == ["3", 1]
    del graph["1"]  # a graph of the phantom's own has its strengths
    assert phantom.swap_loaders(graph, INFO)["2"]["inputs"]["strength_model"] == 1


def test_a_condition_that_is_set_says_how_strong_loras_are_on_the_phantom():
    info = INFO | {"DiffusionCleft_PromptBuilder": definition({"condition": [["pre_op", "post_op"]]})}
    graph = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "f"}},
        "2": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0], "strength_model": 1}},
        "5": {"class_type": "DiffusionCleft_PromptBuilder", "inputs": {"condition": "pre_op"}},
    }
    settings = ["PromptBuilder.condition=post_op", "LoraLoaderModelOnly.lora_name=x"]
    swapped = phantom.swap_loaders(graph, info, settings=settings)
    assert swapped["2"]["inputs"]["strength_model"] == 2.25


def test_a_title_does_not_change_what_a_graph_is():
    graph = convert.to_api(simple(), INFO)
    titled = {name: {**found, "_meta": {"title": "other"}} for name, found in graph.items()}
    other = json.loads(json.dumps(graph))
    other["3"]["inputs"]["seed"] = 8
    assert graph_key(titled) == graph_key(graph) != graph_key(other)


@pytest.mark.parametrize(
    "url", ["", "ftp://host", "http://", "http://host:0", "http://host:99999", "http://[x"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UserError, match="no address of a server"):
        ComfyServer(url)


def test_an_address_may_have_a_path_and_leave_out_the_scheme():
    assert ComfyServer("host:1/comfy/").url == "http://host:1/comfy"
    assert ComfyServer("https://host/comfy").websocket_url.startswith("wss://host/comfy/ws?clientId=")


def test_a_server_that_dies_between_a_picture_and_its_sidecar_is_asked_again():
    sidecar, asked = {"png_sha256": hashlib.sha256(b"picture").hexdigest()}, []

    class Restarted(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path.partition("?")[0])
            self.send_response(503 if asked == ["/view"] else 200)
            self.end_headers()
            self.wfile.write(json.dumps(sidecar).encode())

        def log_message(self, *arguments):
            """Nothing on the test's terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Restarted) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        server = ComfyServer(f"127.0.0.1:{http.server_address[1]}")
        listed = {"filename": "a.png", "subfolder": "set", "type": "output"}
        assert fetch_sidecar(server, listed, b"picture") == sidecar
        assert asked == ["/view", "/queue", "/view"]
        http.shutdown()


def test_what_a_person_decided_on_a_saved_set_outlasts_the_same_workflow(tmp_path):
    """The server saved three pictures, of which a filter set the last one aside."""
    record = {"condition": "pre_op", "attributes": {}, "prompt": "a face", "lora": None}
    record |= {"base": {"sha256": "0" * 64}, "sampler": {}, "versions": {}}
    saved = {}
    for index in range(3):
        out = {"accepted": index < 2, "reasons": [] if index < 2 else ["blur"], "artifacts": {}}
        folder = tmp_path / "server" / ("" if out["accepted"] else "rejected")
        pixels = np.full((16, 16, 3), index, np.uint8)
        row = write_image(folder, pixels, {**record, "index": index, "seed": index, "verdicts": out})
        saved[row["file"]] = folder.relative_to(tmp_path / "server").as_posix().lstrip(".")
    images = [
        {"filename": name, "subfolder": f"faces/{aside}".rstrip("/"), "type": "output"}
        for name, aside in saved.items()
    ]

    class Saved(BaseHTTPRequestHandler):
        def do_GET(self):
            name = parse_qs(urlsplit(self.path).query)["filename"][0]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(next((tmp_path / "server").rglob(name)).read_bytes())

        def log_message(self, *arguments):
            """Nothing on the test's terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Saved) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        server = ComfyServer(f"127.0.0.1:{http.server_address[1]}")
        entry, graph = {"outputs": {"1": {"images": images}}}, {"1": {"class_type": SAVER}}

        def fetched():
            return collect(server, entry, graph, tmp_path / "out")["1"].files

        first, second, third = saved
        assert fetched() == [f"faces/{first}", f"faces/{second}", f"faces/rejected/{third}"]
        faces = tmp_path / "out" / "faces"
        reject(faces, [first])
        readmit(faces, [third])
        decided = read_image_set(faces)
        assert [row.file for row in decided] == [f"rejected/{first}", second, third]
        assert fetched() == [f"faces/rejected/{first}", f"faces/{second}", f"faces/{third}"]
        assert read_image_set(faces) == decided
        assert sorted(path.name for path in faces.rglob("*.png")) == sorted(saved)
        http.shutdown()
