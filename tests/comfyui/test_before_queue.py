"""What a graph would miss at its end is said before its first node runs."""

import json
import shutil
import time

import pytest
import torch
from comfy_server import ComfyServer, GraphRefused
from graphs import KINDS, Graph, builder, drawing, node, ours, training
from safetensors.torch import load_file, save_file
from tiny_flux import build_single_files, build_tiny_flux, save_single

TEXT_ALONE = dict.fromkeys(KINDS, False) | {"text": True}
SAVE = {"folder": "early", "lora_name": "", "lora_strength": 1.0, "show": False}
REAL = {
    "unet": node("UNETLoader", unet_name="real.safetensors", weight_dtype="default"),
    "picture": node("VAEDecode", samples=["latent", 0], vae=["load", 2]),
    "load": ours("PhantomLoader"),
    "latent": node(
        "KSampler",
        model=["unet", 0],
        positive=["text", 0],
        negative=["text", 0],
        latent_image=["size", 0],
        seed=0,
        steps=1,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
        denoise=1.0,
    ),
    "text": node("CLIPTextEncode", clip=["load", 1], text="a face"),
    "size": node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
}


@pytest.fixture(scope="module")
def real(server):
    """A file that stands for a real base model: nothing here comes so far as to open it."""
    folder = server.base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "real.safetensors").write_bytes(b"")
    yield
    (folder / "real.safetensors").unlink()


def refused(server: ComfyServer, graph: Graph) -> tuple[str, list[str]]:
    """Details and nodes of a refusal, after which nothing has run."""
    before = len(server.get("/history"))
    with pytest.raises(GraphRefused) as told:
        server.queue(graph)
    assert not any(server.get("/queue").values()) and len(server.get("/history")) == before
    answer = json.loads(str(told.value))
    return answer["error"]["details"], sorted(answer["node_errors"])


def long(dataset: str, **more: dict) -> Graph:
    """A training and what comes after it."""
    return {**training(dataset, name="early", steps=4), **more}


@pytest.mark.long
def test_missing_face_models_refuse_the_graph_before_its_training(server, dataset, real):
    graph = long(
        dataset,
        **REAL,
        filter=ours("ArtifactFilter", images=["picture", 0], enabled=True, faces="auto", **KINDS),
        see=node("PreviewAny", source=["filter", 4]),
        words=ours("ArtifactFilter", images=["picture", 0], enabled=True, faces="auto", **TEXT_ALONE),
        read=node("PreviewAny", source=["words", 4]),
    )
    details, nodes = refused(server, graph)
    assert nodes == ["filter"] and "face pack 'buffalo_l' is in none of" in details
    graph["filter"]["inputs"]["faces"] = "phantom"
    assert "know phantoms alone" in refused(server, graph)[0]
    graph["filter"]["inputs"] |= {"enabled": False, "faces": "auto"}
    prompt = server.queue(graph)
    server.wait(prompt)


def test_missing_weights_of_fid_and_lpips_refuse_the_graph(server, dataset, real):
    graph = long(
        dataset,
        **REAL,
        save=ours("SaveSyntheticSet", images=["picture", 0], **SAVE),
        fid=ours("FID", image_set=["save", 0], dataset=["data", 0], which="raw"),
        lpips=ours("LPIPS", image_set=["save", 0], which="raw", pairs=3, seed=0),
        report=ours("Report", image_set=["save", 0], dataset=["data", 0], folder="early", faces="auto"),
    )
    details, nodes = refused(server, graph)
    assert nodes == ["fid", "lpips", "report"]
    assert "weights fetch inception-fid" in details and "weights fetch lpips-alexnet" in details
    graph["report"]["inputs"]["image_set_2"] = ["save", 0]
    assert "connect both or neither" in refused(server, graph)[0]


def test_reference_faces_of_a_missing_pack_refuse_the_graph(server, dataset):
    graph = long(
        dataset,
        known=ours("ReferenceSet", dataset=["data", 0], faces="buffalo_l"),
        see=node("PreviewAny", source=["known", 1]),
    )
    details, nodes = refused(server, graph)
    assert nodes == ["known"] and "'buffalo_l'" in details


def test_settings_that_cant_be_trained_refuse_the_graph(server, dataset, real):
    phantoms = ours("PhantomDataset", condition="pre_op", count=8, size=64, seed=9, holdout=0.0)
    for settings, words in (
        ({"name": "a/b"}, "can't begin a file name"),
        ({"resolution": "big"}, "is not a whole number"),
        ({"resolution": "7"}, "is not a whole number from 64"),
        ({"base_model": "real.safetensors"}, "real.safetensors"),
    ):
        graph = training(dataset, **settings)
        for data in (graph["data"], phantoms):
            details, nodes = refused(server, {**graph, "data": data})
            assert nodes == ["train"] and words in details, details
    assert not list((server.base / "diffusioncleft_datasets").glob("*9_0"))


@pytest.mark.long
def test_attributes_that_cant_be_balanced_and_a_factor_of_no_lokr_refuse_the_graph(server, dataset):
    for settings, words in (
        ({"balance_by": "scar"}, "balance_by scar: no training image says its scar; they say "),
        ({"balance_by": "cleft_type,gender "}, ""),
        ({"balance_by": " , "}, "balance_by names no attribute"),
        ({"balance_by": "repair_status"}, "balance_by repair_status: "),
        ({"lokr_factor": 8}, "lokr_factor 8 would have no effect: it belongs to network_form lokr"),
    ):
        graph = training(dataset, name="balanced", steps=1, resolution="64", **settings)
        if words:
            details, nodes = refused(server, graph)
            assert nodes == ["train"] and words in details and "--" not in details, details
        else:
            server.wait(server.queue(graph))


def test_flux_dev_as_the_base_model_refuses_the_graph(server, dataset, tmp_path):
    models = server.base / "models"
    files = build_single_files(build_tiny_flux(tmp_path / "flux"), tmp_path / "files")
    state = load_file(files["transformer"]) | {"guidance_in.in_layer.weight": torch.zeros(64, 256)}
    save_single(models / "diffusion_models" / "dev.safetensors", state)
    named = {
        "vae": ("vae", "vae"),
        "clip_l": ("text_encoders", "clip_l"),
        "t5xxl": ("text_encoders", "t5xxl"),
    }
    for part, (kind, name) in named.items():
        (models / kind).mkdir(exist_ok=True)
        shutil.copy(files[part], models / kind / f"tiny_{name}.safetensors")
    parts = {part: f"tiny_{name}.safetensors" for part, (_, name) in named.items()}
    details, nodes = refused(server, training(dataset, base_model="dev.safetensors", **parts))
    assert nodes == ["train"] and "FLUX.1 dev" in details


def test_a_node_that_only_names_what_is_missing_refuses_the_graph(server, dataset):
    for more, words in (
        (
            {"x": ours("SaveSyntheticSet", images=["p", 0], **{**SAVE, "lora_name": "no.safetensors"})},
            "models/loras",
        ),
        (
            {
                "b": builder(condition="post_op", severity="complete"),
                "x": node("PreviewAny", source=["b", 0]),
            },
            "severity",
        ),
        ({"x": ours("Captions", dataset=["data", 0], edits="nonsense", show=False)}, "no correction"),
        ({"x": node("SaveImage", images=["p", 0], filename_prefix=["gone", 0])}, "gone"),
        (
            {
                "load": ours("PhantomLoader"),
                "lora": node(
                    "LoraLoaderModelOnly", model=["load", 0], lora_name="no.safetensors", strength_model=1.0
                ),
                "x": node("PreviewAny", source=["lora", 0]),
            },
            "no.safetensors",
        ),
    ):
        graph = long(dataset, p=node("EmptyImage", width=16, height=16, batch_size=1, color=0), **more)
        assert words in refused(server, graph)[0], words


def test_a_right_graph_is_queued_and_one_without_our_nodes_is_none_of_our_business(server, dataset):
    graph = {**drawing(seed=2), "see": node("PreviewImage", images=["picture", 0])}
    begun = time.monotonic()
    prompt = server.queue(graph)
    assert time.monotonic() - begun < 60
    assert server.wait(prompt)["status"]["status_str"] == "success"
    half = {
        "p": node("EmptyImage", width=16, height=16, batch_size=1, color=0),
        "a": node("PreviewImage", images=["p", 0]),
        "b": node("PreviewImage"),
    }
    assert set(server.run(half)) == {"a"}


@pytest.mark.long
def test_a_release_that_builds_flux_otherwise_refuses_at_once(comfyui, server, dataset, tmp_path):
    """A model with one parameter more than the phantom's: said before the dataset is rendered."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        """
import importlib.abc, importlib.util, sys

class Later(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != 'comfy.ldm.flux.model':
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            import torch
            plain = module.Flux.__init__
            def init(self, *args, **kwargs):
                plain(self, *args, **kwargs)
                self.register_parameter('novelty', torch.nn.Parameter(torch.zeros(1)))
            module.Flux.__init__ = init
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Later())
""",
        encoding="utf-8",
    )
    other = ComfyServer(comfyui, tmp_path / "base", server.environment | {"PYTHONPATH": str(hook)})
    other.start()
    try:
        graph = {
            "data": ours("PhantomDataset", condition="pre_op", count=8, size=64, seed=1, holdout=0.0),
            "count": node("PreviewAny", source=["data", 2]),
            **drawing(),
            "see": node("PreviewImage", images=["picture", 0]),
        }
        details, nodes = refused(other, graph)
        assert nodes == ["load"] and "novelty" in details and "docs/comfyui.md" in details
    finally:
        other.kill()


def test_a_lora_whose_consent_was_withdrawn_refuses_every_graph_that_loads_it(server, dataset):
    """Also a graph without a node of ours, and whatever the file is called: its training is known."""
    from diffusioncleft.diffusioncleft_core.dataset.trained import (
        remember_lora,
        remember_training,
        withdrawing,
    )
    from diffusioncleft.diffusioncleft_core.dataset.withdrawn import RUN_KEY

    loras = server.base / "models" / "loras"
    loras.mkdir(parents=True, exist_ok=True)
    for name, run in (("known.safetensors", "1" * 64), ("other.safetensors", "2" * 64)):
        save_file({"a": torch.zeros(1)}, loras / name, metadata={RUN_KEY: run})
    owned = server.base / "private datasets" / "withdrawn from"  # not the dataset that other tests train on
    shutil.copytree(server.base / "private datasets" / dataset, owned)
    (owned / "trained.jsonl").unlink(missing_ok=True)
    remember_training(owned, "1" * 64, owned.parent / "training")
    remember_lora(owned, "1" * 64, loras / "known.safetensors")
    (loras / "known.safetensors").rename(loras / "renamed.safetensors")

    def graph(name: object) -> Graph:
        return {**drawing(lora=name), "see": node("PreviewImage", images=["picture", 0])}

    try:
        with withdrawing(owned):
            pass
        details, nodes = refused(server, graph("renamed.safetensors"))
        assert nodes == ["lora"], details
        assert "whose consent was withdrawn" in details
        assert str(server.base) not in details
        server.wait(server.queue(graph("other.safetensors")))
        wrapped = {"__value__": "renamed.safetensors"}  # ComfyUI takes it out of there before it runs
        assert refused(server, graph(wrapped))[1] == ["lora"]
        rows = graph("other.safetensors")
        rows["lora"]["inputs"]["row"] = {"on": True, "lora": "renamed.safetensors", "strength": 1}
        assert refused(server, rows)[1] == ["lora"]
        (loras / "renamed.safetensors").rename(loras / "Loud.SAFETENSORS")
        assert refused(server, graph("Loud.SAFETENSORS"))[1] == ["lora"]
    finally:
        shutil.rmtree(owned)
        made = ("known.safetensors", "renamed.safetensors", "Loud.SAFETENSORS", "other.safetensors")
        for name in (*made, "withdrawn.json"):
            (loras / name).unlink(missing_ok=True)
