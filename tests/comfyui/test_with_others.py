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


def by_number(power=0.75, model=None):
    """A loader that names no file, on the phantom."""
    return node("ForeignNumberLoader", model=model or ["load", 0], number=0, power=power)


def test_a_lora_that_no_widget_names_is_known_by_what_lies_on_the_model(server, lora):
    graph = drawing()
    graph["quiet"] = by_number()
    graph["sample"]["inputs"]["model"] = ["quiet", 0]
    (told,) = saved(server, graph, "others/quiet", ["picture", 0], model=["quiet", 0])
    assert told["lora"]["sha256"] == lora[1] and told["lora"]["strength"] == 0.75
    assert told["lora"]["training"], "by it a withdrawn consent finds the picture"
    (untold,) = saved(server, graph, "others/unseen", ["picture", 0])
    assert untold["lora"]["sha256"] == "unknown"


@pytest.mark.parametrize("kind", ["LoraLoader", "LoraLoaderModelOnly"])
def test_comfyuis_own_loaders_leave_the_lora_on_the_model_too(server, lora, kind):
    name, digest = lora
    graph = drawing()
    both = {"clip": ["load", 1], "strength_clip": 1.0} if kind == "LoraLoader" else {}
    graph["core"] = node(kind, model=["load", 0], lora_name=name, strength_model=-0.5, **both)
    graph["sample"]["inputs"]["model"] = ["core", 0]
    (told,) = saved(server, graph, f"others/{kind}", ["picture", 0], model=["core", 0])
    assert told["lora"]["sha256"] == digest and told["lora"]["strength"] == -0.5


@pytest.fixture(scope="module")
def second_lora(server, lora):
    """Name and SHA-256 of a LoRA from elsewhere; by name it stands behind ours."""
    from safetensors.torch import load_file, save_file

    loras = server.base / "models" / "loras"
    state = load_file(loras / lora[0])
    path = loras / "style.safetensors"
    save_file({key: tensor if "alpha" in key else tensor + 0.01 for key, tensor in state.items()}, path)
    return path.name, sha256_model(path)


def test_of_two_loras_both_are_recorded_so_that_a_withdrawn_consent_reaches_the_picture(
    server, lora, second_lora
):
    from diffusioncleft.diffusioncleft_core.imageset.synthetic import drawn_by

    graph = drawing()
    graph["first"] = node(
        "LoraLoaderModelOnly", model=["load", 0], lora_name=second_lora[0], strength_model=0.5
    )
    graph["quiet"] = by_number(model=["first", 0])
    graph["sample"]["inputs"]["model"] = ["quiet", 0]
    (told,) = saved(server, graph, "others/two", ["picture", 0], model=["quiet", 0])
    assert {lora[1], second_lora[1]} <= drawn_by(told["lora"])
    named = drawing()
    named["first"] = graph["first"]
    named["near"] = node("LoraLoaderModelOnly", model=["first", 0], lora_name=lora[0], strength_model=1.0)
    named["sample"]["inputs"]["model"] = ["near", 0]
    (told,) = saved(server, named, "others/two named", ["picture", 0])
    assert told["lora"]["sha256"] == lora[1]
    assert [(each["sha256"], each["strength"]) for each in told["lora"]["others"]] == [(second_lora[1], 0.5)]


def test_a_merge_is_unknown_and_an_untouched_model_has_no_lora(server, lora):
    graph = drawing()
    graph["first"] = by_number()
    graph["merged"] = node("ModelMergeSimple", model1=["load", 0], model2=["first", 0], ratio=0.5)
    graph["sample"]["inputs"]["model"] = ["merged", 0]
    (told,) = saved(server, graph, "others/merged", ["picture", 0], model=["merged", 0])
    assert told["lora"]["sha256"] == "unknown"
    (plain,) = saved(server, drawing(), "others/bare", ["picture", 0], model=["load", 0])
    assert plain["lora"] is None


def test_a_withdrawn_lora_is_refused_though_no_widget_names_it(server, lora):
    from diffusioncleft.diffusioncleft_core.dataset.withdrawn import (
        MARK,
        RUN_KEY,
        SAID,
        Withdrawal,
        add_marks,
    )

    loras = server.base / "models" / "loras"
    training = read_lora(loras / lora[0]).metadata[RUN_KEY]
    add_marks(loras, [Withdrawal(training, (), "2026-01-01", "a dataset")])
    graph = drawing()
    graph["quiet"] = by_number(0.25)
    graph["sample"]["inputs"]["model"] = ["quiet", 0]
    try:
        with pytest.raises(NodeFailed, match=SAID):
            saved(server, graph, "others/withdrawn", ["picture", 0], model=["quiet", 0])
    finally:
        (loras / MARK).unlink()
    assert not list((server.base / "output").glob("others/withdrawn/*.png"))


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


def second(graph, latent, name="again", denoise=0.5):
    """Another sampler behind the first one, as graphs with two passes have it."""
    again = json.loads(json.dumps(graph["sample"]))
    again["inputs"] |= {"latent_image": latent, "denoise": denoise}
    graph[name] = again
    graph["picture"]["inputs"]["samples"] = [name, 0]


def test_a_picture_drawn_over_another_one_is_saved_with_the_last_prompt_and_seed(server):
    graph = drawing()
    graph["first"] = graph["picture"] | {}
    graph["picture"] = json.loads(json.dumps(graph["picture"]))
    graph["back"] = node("VAEEncode", pixels=["first", 0], vae=["load", 2])
    second(graph, ["back", 0])
    graph["again"]["inputs"]["seed"] = 12
    (sidecar,) = saved(server, graph, "others/over", ["picture", 0])
    assert sidecar["seed"] == 12 and sidecar["sampler"]["denoise"] == 0.5


def test_a_masked_part_is_drawn_anew_and_filtered(server):
    graph = drawing()
    graph["first"] = graph["picture"] | {}
    graph["picture"] = json.loads(json.dumps(graph["picture"]))
    graph["mask"] = node("SolidMask", value=1.0, width=SIDE, height=SIDE)
    graph["back"] = node(
        "VAEEncodeForInpaint", pixels=["first", 0], vae=["load", 2], mask=["mask", 0], grow_mask_by=6
    )
    second(graph, ["back", 0], denoise=1.0)
    graph["check"] = filtering(["picture", 0])
    (sidecar,) = saved(server, graph, "others/inpainted", ["picture", 0], verdicts=["check", 7])
    assert "accepted" in sidecar["verdicts"]


def test_two_passes_with_a_larger_latent_give_a_larger_picture(server):
    graph = drawing()
    graph["larger"] = node(
        "LatentUpscaleBy", samples=["sample", 0], upscale_method="nearest-exact", scale_by=1.5
    )
    second(graph, ["larger", 0])
    graph["seen"] = node("ForeignSaver", pictures=["picture", 0])
    outputs = server.run({**graph, "save": saving(["picture", 0], "others/larger")})
    assert outputs["seen"]["text"] == ["1x192x192x3"] and outputs["save"]["files"]


def test_prompts_that_were_mixed_or_zeroed_draw_pictures_that_are_saved(server):
    graph = drawing()
    graph["other"] = node("CLIPTextEncode", clip=["load", 1], text="[CLP] A boy's whole face.")
    graph["mixed"] = node(
        "ConditioningAverage",
        conditioning_to=["text", 0],
        conditioning_from=["other", 0],
        conditioning_to_strength=0.7,
    )
    graph["nothing"] = node("ConditioningZeroOut", conditioning=["text", 0])
    graph["sample"]["inputs"] |= {"positive": ["mixed", 0], "negative": ["nothing", 0]}
    assert len(saved(server, graph, "others/prompts", ["picture", 0])) == 1


def test_a_lora_on_the_prompt_alone_is_never_said_to_be_none(server, lora):
    name, digest = lora
    graph = drawing()
    graph["hook"] = node("CreateHookLoraModelOnly", lora_name=name, strength_model=0.5)
    graph["hooked"] = node(
        "ConditioningSetProperties",
        cond_NEW=["text", 0],
        strength=1.0,
        set_cond_area="default",
        hooks=["hook", 0],
    )
    graph["sample"]["inputs"]["positive"] = ["hooked", 0]
    (told,) = saved(server, graph, "others/hook", ["picture", 0])
    assert told["lora"]["sha256"] == digest and told["lora"]["strength"] == 0.5
    (seen,) = saved(server, graph, "others/hook on", ["picture", 0], model=["load", 0])
    assert seen["lora"]["sha256"] == "unknown" and seen["lora"]["others"][0]["sha256"] == digest


def test_what_was_bypassed_or_muted_on_the_canvas_leaves_nothing_behind(server):
    """In UI format: a bypassed LoRA loader passes the model on, a muted saver isn't there."""
    from workflow_files import ui_file

    from diffusioncleft.cli.comfyui.convert import BYPASSED, MUTED, to_api

    info = server.get("/object_info")
    workflow = ui_file("quick_start")
    kinds = {node_["type"]: node_ for node_ in workflow["nodes"]}
    kinds["LoraLoaderModelOnly"]["mode"] = BYPASSED
    kinds["DiffusionCleft_LoraTrainer"]["mode"] = MUTED
    kinds["DiffusionCleft_Report"]["mode"] = MUTED
    next(item for item in workflow["nodes"] if item.get("title") == "Figures")["mode"] = MUTED
    graph = to_api(workflow, info)
    types = [item["class_type"] for item in graph.values()]
    assert "LoraLoaderModelOnly" not in types and "DiffusionCleft_LoraTrainer" not in types
    for item in graph.values():
        if item["class_type"] == "DiffusionCleft_PromptPlan":
            item["inputs"]["count"] = 2
        if item["class_type"] == "DiffusionCleft_PhantomDataset":
            item["inputs"]["count"] = 8
        if item["class_type"] == "DiffusionCleft_SaveSyntheticSet":
            item["inputs"]["folder"] = "others/bypassed"
    server.run(graph)
    found = sorted((server.base / "output" / "others" / "bypassed").rglob("[0-9]*.json"))
    assert len(found) == 2
    assert all(json.loads(path.read_text())["lora"] is None for path in found)


def test_pictures_go_on_to_what_makes_films_and_strips_of_them(server):
    graph = drawing(["plan", 0], ["plan", 1])
    graph["plan"] = plan_of(3)
    graph["check"] = filtering(["picture", 0], rows=["plan", 2])
    graph["set"] = saving(["picture", 0], "others/film", rows=["plan", 2], verdicts=["check", 7])
    graph["film"] = node(
        "SaveAnimatedWEBP",
        images=["check", 8],
        filename_prefix="others/film",
        fps=2.0,
        lossless=False,
        quality=80,
        method="default",
    )
    graph["second"] = node("ImageFromBatch", image=["check", 8], batch_index=1, length=1)
    graph["seen"] = node("ForeignSaver", pictures=["second", 0])
    outputs = server.run(graph)
    assert outputs["film"]["images"] and outputs["seen"]["text"][0].startswith("1x")


def test_a_picture_from_the_input_folder_is_filtered_and_saved_without_prompt_or_lora(server):
    from PIL import Image

    Image.new("RGB", (96, 64), "white").save(server.base / "input" / "blank.png")
    graph = {"given": node("LoadImage", image="blank.png"), "check": filtering(["given", 0])}
    graph["check"]["inputs"]["faces"] = "phantom"
    (sidecar,) = saved(server, graph, "others/given", ["given", 0], verdicts=["check", 7])
    assert sidecar["lora"] is None and sidecar["base"]["sha256"] == "unknown"
    assert not sidecar["verdicts"]["accepted"]
