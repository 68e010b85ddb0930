"""What ComfyUI draws with the Phantom Loader is what the core draws, and is saved as synthetic."""

import io
import json

import numpy as np
import pytest
from comfy_server import NodeFailed
from graphs import PROMPT, builder, drawing, node, ours, plan_of, saving, training
from PIL import Image


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def core_picture(prompt: str, seed: int, lora=None, strength: float = 1.0, side: int = 128) -> np.ndarray:
    import torch

    from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
    from diffusioncleft.diffusioncleft_core.generation.sampler import ImageSampler, embed_prompts
    from diffusioncleft.diffusioncleft_core.generation.settings import ImageSize

    source, cpu = phantom_source(), torch.device("cpu")
    sampler = ImageSampler(source, cpu, torch.float32)
    sampler.use_lora(lora, strength)
    embedded = embed_prompts(source, [prompt], cpu, torch.float32)
    return sampler.draw([embedded.get(prompt)], [seed], ImageSize(side, side))[0]


def saved(server, graph, folder: str, **inputs) -> tuple[np.ndarray, dict]:
    """The picture that Save Synthetic Set wrote, and its sidecar."""
    graph = {**graph, "save": saving(["picture", 0], folder, **inputs)}
    shown = server.run(graph)["save"]["images"][0]
    path = server.base / "output" / shown["subfolder"] / shown["filename"]
    sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert server.view(shown) == path.read_bytes()
    return np.array(Image.open(path)), sidecar


def test_the_base_model_draws_the_cores_picture(server):
    picture, sidecar = saved(server, drawing(seed=41), "set/base")
    assert psnr(picture, core_picture(PROMPT, 41)) >= 40
    assert sidecar["lora"] is None
    assert sidecar["synthetic"] is True
    assert sidecar["sampler"]["steps"] == 4


def test_other_sizes_and_long_prompts_draw_the_cores_picture_too(server):
    prompt = f"{PROMPT} {'Short curly brown hair. ' * 20}"
    picture, _ = saved(server, drawing(prompt, seed=3, side=64), "set/long")
    assert psnr(picture, core_picture(prompt, 3, side=64)) >= 40


@pytest.mark.long
def test_a_lora_trained_in_the_graph_changes_the_picture_as_in_the_core(server, dataset):
    graph = {**training(dataset, name="drawn"), **drawing(seed=41, lora=["train", 0], strength=1.5)}
    picture, sidecar = saved(server, graph, "set/lora", lora_name=["train", 0], lora_strength=1.5)
    (lora,) = (server.base / "models" / "loras").glob("drawn_*.safetensors")
    assert psnr(picture, core_picture(PROMPT, 41, lora, 1.5)) >= 40
    assert psnr(picture, core_picture(PROMPT, 41)) < 35, "the LoRA had no effect"

    from diffusioncleft.diffusioncleft_core.dataset.withdrawn import metadata_of
    from diffusioncleft.diffusioncleft_core.files import sha256_file

    run = metadata_of(lora)["run_fingerprint"]
    assert sidecar["lora"] == {"sha256": sha256_file(lora), "strength": 1.5, "training": run}
    assert lora.stem.endswith(sha256_file(lora)[:12])
    assert lora.name in server.get("/models/loras")


def test_a_saved_set_is_what_the_core_reads_and_holds_nothing_of_the_graph(server):
    from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
    from diffusioncleft.diffusioncleft_core.imageset.synthetic import read_done

    graph = {
        **drawing(["plan", 0], ["plan", 1]),
        "plan": plan_of(2, start=3, seed=1),
        "save": saving(["picture", 0], "set/plan", rows=["plan", 2]),
    }
    assert server.run(graph)["save"]["text"] == ["set/plan: 2 saved, 2 in all"]
    graph["save"]["inputs"]["show"] = False
    assert server.run(graph)["save"]["text"] == ["set/plan: 0 saved, 2 were there, 2 in all"]
    folder = server.base / "output" / "set" / "plan"
    rows = read_image_set(folder)
    assert [row.condition for row in rows] == ["pre_op", "pre_op"]
    for index, row in zip((3, 4), rows, strict=True):
        assert read_done(folder, index, row.seed)["prompt"] == row.prompt
        chunks = Image.open(folder / row.file).text
        assert chunks["synthetic"] == "true"
        assert not {"workflow"} & set(chunks)
        assert "class_type" not in json.dumps(chunks)


def test_a_builders_pictures_take_the_next_free_places(server):
    for seed in (1, 2):
        graph = {**drawing(["words", 0], ["words", 1]), "words": builder(cleft_type="bilateral", seed=seed)}
        _, sidecar = saved(server, graph, "set/builder", rows=["words", 3])
        assert sidecar["index"] == seed - 1
        assert sidecar["attributes"] == {"cleft_type": "bilateral"}


@pytest.mark.long
def test_a_set_with_another_lora_is_refused_on_the_node(server, dataset):
    saved(server, drawing(seed=1), "set/mixed")
    with pytest.raises(NodeFailed, match="another lora"):
        saved(server, {**training(dataset, name="drawn"), **drawing(seed=1, lora=["train", 0])}, "set/mixed")


def test_pictures_of_any_kind_are_taken_and_none_is_a_message(server):
    """Transparent, grey and differently sized pictures in one set; a list that holds none."""
    folder = server.base / "input"
    Image.new("RGBA", (40, 30), (255, 0, 0, 0)).save(folder / "clear.png")
    Image.new("L", (20, 50), 100).save(folder / "grey.png")
    graph = {
        "a": node("LoadImage", image="clear.png"),
        "b": node("LoadImage", image="grey.png"),
        "ab": node("ImageBatch", image1=["a", 0], image2=["b", 0]),
        "save": saving(["ab", 0], "set/kinds"),
    }
    assert server.run(graph)["save"]["text"] == ["set/kinds: 2 saved, 2 in all"]
    graph["save"]["inputs"]["images"] = ["b", 0]
    assert server.run(graph)["save"]["text"] == ["set/kinds: 1 saved, 3 in all"]
    picture = Image.open(io.BytesIO((server.base / "output/set/kinds/000002_0.png").read_bytes()))
    assert picture.size == (20, 50)
    load = ours("LoadImageSet", name="set/kinds", which="rejected", start=0, limit=0)
    outputs = server.run({"load": load, "see": node("PreviewImage", images=["load", 1])})
    assert outputs["load"]["text"] == ["set/kinds: 3 images, 0 given (rejected)"]
    assert "see" not in outputs
