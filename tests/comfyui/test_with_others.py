"""Our nodes among ComfyUI's own and other packs': what they take, what they give, what a set says of it."""

import json

import pytest
from comfy_server import ComfyServer, NodeFailed, server_environment
from foreign_pack import CODE
from graphs import KINDS, drawing, node, ours, plan_of, saving

from diffusioncleft.diffusioncleft_core.files import sha256_model
from diffusioncleft.diffusioncleft_core.flux.lora_file import read_lora

SIDE = 128
NO_MORE = {"lora_2": "none", "lora_3": "none", "lora_4": "none"}


@pytest.fixture(scope="module")
def server(comfyui, tmp_path_factory):
    """A server with somebody else's pack beside ours."""
    base = tmp_path_factory.mktemp("others")
    (base / "custom_nodes" / "foreign").mkdir(parents=True)
    (base / "custom_nodes" / "foreign" / "__init__.py").write_text(CODE)
    running = ComfyServer(comfyui, base, server_environment())
    running.start()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def lora(server):
    """Name and SHA-256 of a LoRA that our trainer made."""
    graph = {
        "data": ours("PhantomDataset", condition="pre_op", count=8, size=SIDE, seed=1, holdout=0.0),
        "train": ours(
            "LoraTrainer",
            dataset=["data", 0],
            name="other",
            base_model="phantom",
            preset="paper",
            mode="wait",
            steps=2,
            preview_every=0,
        ),
    }
    server.run(graph)
    (path,) = (server.base / "models" / "loras").glob("other*.safetensors")
    return path.name, sha256_model(path)


def saved(server, graph, folder, images, **inputs):
    """Save pictures of a graph; the sidecars of what lies in the set's folder."""
    outputs = server.run({**graph, "save": saving(images, folder, **inputs)})
    assert outputs["save"]["files"]
    found = sorted((server.base / "output" / folder).rglob("*.json"))
    return [json.loads(path.read_text()) for path in found if path.name[0].isdigit()]


def filled(server, kind, **given):
    """A node with the server's own defaults where nothing is given."""
    info = server.get(f"/object_info/{kind}")[kind]["input"]
    values = {}
    for name, spec in info["required"].items():
        options = spec[1].get("options") if len(spec) > 1 else None
        first = spec[0] if isinstance(spec[0], list) else options
        if len(spec) > 1 and "default" in spec[1]:
            values[name] = spec[1]["default"]
        elif first:
            values[name] = first[0]
    return node(kind, **{**values, **given})


def filtering(images, **inputs):
    """Our artifact filter on pictures, but for text, whose reader is slow."""
    return ours(
        "ArtifactFilter", images=images, enabled=True, faces="auto", **{**KINDS, "text": False, **inputs}
    )


def test_a_loader_that_names_its_loras_in_rows_is_recorded_by_hash_and_strength(server, lora):
    name, digest = lora
    rows = {"lora_1": {"on": False, "lora": name, "strength": 9.0}}
    rows["lora_2"] = {"on": True, "lora": name, "strength": 0.5}
    graph = drawing()
    graph["rows"] = node("ForeignRowsLoader", model=["load", 0], **rows)
    graph["sample"]["inputs"]["model"] = ["rows", 0]
    (sidecar,) = saved(server, graph, "others/rows", ["picture", 0])
    assert sidecar["lora"]["sha256"] == digest and sidecar["lora"]["strength"] == 0.5


def test_what_another_pack_does_to_the_model_unseen_is_unknown_and_not_none(server):
    graph = drawing()
    graph["hidden"] = node("ForeignHiddenLoader", model=["load", 0], style="soft")
    graph["sample"]["inputs"]["model"] = ["hidden", 0]
    (sidecar,) = saved(server, graph, "others/hidden", ["picture", 0])
    assert sidecar["lora"]["sha256"] == "unknown"
    (plain,) = saved(server, drawing(), "others/plain", ["picture", 0])
    assert plain["lora"] is None


def test_what_comfyuis_own_trainer_gave_draws_and_is_unknown(server):
    known = server.get("/object_info")
    if "LoraModelLoader" not in known:
        pytest.skip("this ComfyUI has no LoraModelLoader")
    graph = drawing()
    graph["teach"] = filled(
        server,
        "TrainLoraNode",
        model=["load", 0],
        latents=["sample0", 0],
        positive=["text", 0],
        steps=1,
        rank=2,
        training_dtype="fp32",
        lora_dtype="fp32",
    )
    graph["sample0"] = json.loads(json.dumps(graph["sample"]))
    loader = known["LoraModelLoader"]["input"]["required"]
    given = known["TrainLoraNode"]["output"].index("LORA_MODEL")
    graph["taught"] = filled(
        server,
        "LoraModelLoader",
        model=["load", 0],
        strength_model=1.0,
        **{name: ["teach", given] for name, spec in loader.items() if spec[0] == "LORA_MODEL"},
    )
    graph["sample"]["inputs"]["model"] = ["taught", 0]
    try:
        (sidecar,) = saved(server, graph, "others/taught", ["picture", 0])
    except NodeFailed as error:
        if "comfy_kitchen" not in str(error):
            raise
        pytest.skip("this ComfyUI can't train FLUX on a processor itself: its rotary kernel has no gradient")
    assert sidecar["lora"]["sha256"] == "unknown"


def test_a_lora_saved_from_comfyuis_loader_keeps_its_keys_for_our_reader(server, lora):
    name, _ = lora
    assert read_lora(server.base / "models" / "loras" / name).metadata["trigger"]


def test_a_batch_is_filtered_picture_by_picture_and_goes_on_as_a_list(server):
    graph = drawing()
    graph["size"]["inputs"]["batch_size"] = 3
    graph["check"] = filtering(["picture", 0])
    graph["accepted"] = node("ForeignSaver", pictures=["check", 0])
    graph["rejected"] = node("ForeignSaver", pictures=["check", 2])
    graph["counts"] = node("PreviewAny", source=["check", 5])
    graph["csv"] = node("PreviewAny", source=["check", 11])
    outputs = server.run(graph)
    told = [text for name in ("accepted", "rejected") for text in outputs.get(name, {}).get("text", [])]
    assert told == [f"1x{SIDE}x{SIDE}x3"] * 3
    assert outputs["csv"]["text"][0].splitlines()[0].startswith("picture,accepted,reasons")
    assert len(outputs["csv"]["text"][0].splitlines()) == 4


def test_pictures_with_their_verdicts_go_to_another_packs_saver_as_one_batch(server):
    graph = drawing(["plan", 0], ["plan", 1])
    graph["plan"] = plan_of(3)
    graph["check"] = filtering(["picture", 0], rows=["plan", 2])
    graph["shown"] = node("ForeignSaver", pictures=["check", 8])
    graph["beside"] = node("ForeignSaver", pictures=["check", 9])
    outputs = server.run(graph)
    count, height, width, _ = map(int, outputs["shown"]["text"][0].split("x"))
    assert count == 3 and width == 384 and height > 384
    pairs, _, wide, _ = map(int, outputs["beside"]["text"][0].split("x"))
    assert (pairs, wide) in ((3, 774), (1, 1), (2, 774))


def test_a_transparent_picture_is_saved_on_white(server):
    graph = drawing()
    graph["mask"] = node("SolidMask", value=1.0, width=SIDE, height=SIDE)
    graph["clear"] = node("JoinImageWithAlpha", image=["picture", 0], alpha=["mask", 0])
    saved(server, graph, "others/clear", ["clear", 0])
    import numpy as np
    from PIL import Image

    (path,) = (server.base / "output" / "others" / "clear").glob("*.png")
    with Image.open(path) as picture:
        assert picture.mode == "RGB" and np.asarray(picture).min() == 255


def test_pictures_that_were_scaled_turned_over_or_put_together_are_filtered_and_saved(server):
    graph = drawing()
    graph["small"] = node(
        "ImageScale", image=["picture", 0], upscale_method="bilinear", width=96, height=64, crop="disabled"
    )
    graph["dark"] = node("ImageInvert", image=["small", 0])
    graph["both"] = node("ImageBatch", image1=["small", 0], image2=["dark", 0])
    graph["mask"] = node("SolidMask", value=0.5, width=96, height=64)
    graph["mixed"] = node(
        "ImageCompositeMasked",
        destination=["both", 0],
        source=["dark", 0],
        x=0,
        y=0,
        resize_source=False,
        mask=["mask", 0],
    )
    graph["check"] = filtering(["mixed", 0])
    found = saved(server, graph, "others/mixed", ["mixed", 0], verdicts=["check", 7])
    assert len(found) == 2 and all("accepted" in item["verdicts"] for item in found)


def test_the_custom_sampler_tells_prompt_and_seed_too(server):
    graph = drawing()
    graph["noise"] = node("RandomNoise", noise_seed=77)
    graph["guide"] = node("BasicGuider", model=["load", 0], conditioning=["text", 0])
    graph["steps"] = node("BasicScheduler", model=["load", 0], scheduler="simple", steps=4, denoise=1.0)
    graph["kind"] = node("KSamplerSelect", sampler_name="euler")
    graph["sample"] = node(
        "SamplerCustomAdvanced",
        noise=["noise", 0],
        guider=["guide", 0],
        sampler=["kind", 0],
        sigmas=["steps", 0],
        latent_image=["size", 0],
    )
    (sidecar,) = saved(server, graph, "others/custom", ["picture", 0])
    assert sidecar["seed"] == 77 and sidecar["prompt"].startswith("[CLP]")


def test_a_latent_repeated_and_masked_draws_a_batch_that_is_saved_whole(server):
    graph = drawing()
    graph["many"] = node("RepeatLatentBatch", samples=["size", 0], amount=2)
    graph["mask"] = node("SolidMask", value=1.0, width=SIDE, height=SIDE)
    graph["part"] = node("SetLatentNoiseMask", samples=["many", 0], mask=["mask", 0])
    graph["sample"]["inputs"]["latent_image"] = ["part", 0]
    assert len(saved(server, graph, "others/many", ["picture", 0])) == 2


def test_comfyuis_own_savers_and_lists_take_what_ours_give(server):
    graph = drawing()
    graph["save"] = saving(["picture", 0], "others/again", show=False)
    server.run(graph)
    again = {
        "set": ours("LoadImageSet", name="others/again", which="all", start=0, limit=0),
        "batch": node("RebatchImages", images=["set", 1], batch_size=2),
        "core": node("SaveImage", images=["batch", 0], filename_prefix="others/core"),
        "other": node("ForeignSaver", pictures=["batch", 0]),
    }
    outputs = server.run(again)
    assert outputs["other"]["text"] == [f"1x{SIDE}x{SIDE}x3"] and outputs["core"]["images"]


def test_a_grid_of_loras_runs_comfyuis_loader_once_a_cell(server, lora):
    name, _ = lora
    graph = {
        **drawing(),
        "cells": ours(
            "LoraGrid", lora_1=name, lora_2="none", lora_3="none", lora_4="none", strengths="0, 1.5"
        ),
        "lora": node(
            "LoraLoaderModelOnly", model=["load", 0], lora_name=["cells", 0], strength_model=["cells", 1]
        ),
        "grid": ours("PictureGrid", images=["picture", 0], labels=["cells", 2], columns=["cells", 3]),
        "size_of": node("ForeignSaver", pictures=["grid", 0]),
    }
    graph["sample"]["inputs"]["model"] = ["lora", 0]
    outputs = server.run(graph)
    _, height, width, _ = map(int, outputs["size_of"]["text"][0].split("x"))
    assert width == 2 * 384 + 4 and 384 < height < 480
