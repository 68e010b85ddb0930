"""Real files: a diffusers folder and ComfyUI's single files of the same weights are the same model.

The network is blocked. Every form of file that users have is loaded, or refused by its name.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file
from tiny_flux import build_single_files, build_tiny_flux, save_single, single_file_states

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux import components, sampling
from diffusioncleft.diffusioncleft_core.flux import sampling as encoding
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer

CPU = torch.device("cpu")
F8 = torch.float8_e4m3fn
PROMPT = "[CLP] A girl's whole face with an unrepaired unilateral cleft lip. Light skin."
COMFYUI = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
PREFIXES = {
    "transformer": "model.diffusion_model.",
    "vae": "vae.",
    "clip_l": "text_encoders.clip_l.transformer.",
    "t5xxl": "text_encoders.t5xxl.transformer.",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_flux(tmp_path_factory.mktemp("flux") / "a folder")


@pytest.fixture(scope="module")
def states(folder):
    return single_file_states(folder)


@pytest.fixture
def files(folder, tmp_path):
    return build_single_files(folder, tmp_path / "single files")


@pytest.fixture(autouse=True)
def no_comfyui_models(monkeypatch, tmp_path):
    """No test finds a model that happens to lie on this machine."""
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))


def outputs(source: FluxSource) -> dict[str, torch.Tensor]:
    """Everything a model computes: embeddings, sampled latents, the image, an image's latents."""
    text = components.load_text_encoders(source, CPU, torch.float32)
    embedding = encoding.encode_prompts(text, [PROMPT], CPU)[0]
    transformer = load_transformer(source, CPU, torch.float32)
    noise = sampling.initial_noise(3, 32, 48)[None]
    latents = sampling.sample(transformer, noise, embedding.prompt_embeds[None], embedding.pooled[None])
    vae = components.load_vae(source, CPU, torch.float32)
    image = encoding.decode_latents(vae, latents)
    return {
        "prompt_embeds": embedding.prompt_embeds,
        "pooled": embedding.pooled,
        "latents": latents,
        "image": image,
        "encoded": encoding.encode_images(vae, image),
    }


@pytest.fixture(scope="module")
def expected(folder):
    return outputs(FluxSource.from_arguments(folder))


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        assert value.std() > 0.01, name
        # Weights are equal bit for bit; sums may round otherwise where a file lies otherwise in memory.
        assert (found[name] - value).abs().max() < 1e-5, name


def test_the_folder_gives_what_diffusers_own_pipeline_gives(folder, expected):
    pipe = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    noise = sampling.initial_noise(3, 32, 48)[None]
    settings = {
        "prompt": PROMPT,
        "height": 32,
        "width": 48,
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "max_sequence_length": 32,
    }
    latents = pipe(**settings, latents=sampling.pack_latents(noise), output_type="latent").images
    assert (sampling.unpack_latents(latents, 4, 6) - expected["latents"]).abs().max() < 1e-5
    image = pipe(**settings, latents=sampling.pack_latents(noise), output_type="pt").images
    assert (image - (expected["image"] / 2 + 0.5)).abs().max() < 1e-5


def test_single_files_give_the_same_output_as_the_folder(files, expected):
    assert_same(outputs(FluxSource.from_arguments(files["transformer"])), expected)


def test_parts_are_taken_from_where_they_are_named(files, tmp_path, expected):
    moved = {}
    for part in ("vae", "clip_l", "t5xxl"):
        (tmp_path / part).mkdir()
        moved[part] = shutil.move(files[part], tmp_path / part / "other name.safetensors")
    for kind in ("clip", "t5"):
        moved[f"tokenizer_{kind}"] = shutil.move(
            files["transformer"].parent / f"tokenizer_{kind}", tmp_path / f"words of {kind}"
        )
    with pytest.raises(UserError, match="--ae"):
        FluxSource.from_arguments(files["transformer"])
    assert_same(outputs(FluxSource.from_arguments(files["transformer"], **moved)), expected)


def test_models_and_tokenizers_are_found_in_comfyui(files, tmp_path, monkeypatch, expected):
    root = tmp_path / "ComfyUI"
    for name, part in (
        ("unet", "transformer"),
        ("vae", "vae"),
        ("clip", "clip_l"),
        ("text_encoders", "t5xxl"),
    ):
        (root / "models" / name).mkdir(parents=True)
        shutil.move(files[part], root / "models" / name)
    for kind, place in (("clip", "sd1_tokenizer"), ("t5", "text_encoders/t5_tokenizer")):
        shutil.copytree(files["transformer"].parent / f"tokenizer_{kind}", root / "comfy" / place)
    monkeypatch.setenv("COMFYUI_PATH", str(root))
    assert_same(outputs(FluxSource.from_arguments("flux1-schnell.safetensors")), expected)


def test_an_all_in_one_checkpoint_gives_the_same_output(states, files, tmp_path, expected):
    whole = {PREFIXES[part] + key: value for part, state in states.items() for key, value in state.items()}
    whole["text_encoders.t5xxl.logit_scale"] = torch.ones(())
    whole["text_encoders.clip_l.transformer.text_projection.weight"] = torch.eye(64)
    path = save_single(tmp_path / "all in one.safetensors", whole)
    tokenizers = {
        f"tokenizer_{kind}": files["transformer"].parent / f"tokenizer_{kind}" for kind in ("clip", "t5")
    }
    assert_same(outputs(FluxSource.from_arguments(path, **tokenizers)), expected)


def test_clip_is_read_with_and_without_its_prefix_and_extras(folder, states, files, expected):
    bare = {key.removeprefix("text_model."): value for key, value in states["clip_l"].items()}
    extras = {"logit_scale": torch.ones(()), "text_projection.weight": torch.eye(64)}
    positions = {"text_model.embeddings.position_ids": torch.arange(32)[None]}
    for state in (bare, {**states["clip_l"], **extras, **positions}):
        save_single(files["clip_l"], state)
        text = components.load_text_encoders(
            FluxSource.from_arguments(files["transformer"]), CPU, torch.float32
        )
        assert torch.equal(encoding.encode_prompts(text, [PROMPT], CPU)[0].pooled, expected["pooled"])


def test_a_single_file_in_diffusers_keys_is_read(folder, files, expected):
    shutil.copy(next((folder / "transformer").glob("*.safetensors")), files["transformer"])
    shutil.copy(next((folder / "vae").glob("*.safetensors")), files["vae"])
    assert_same(outputs(FluxSource.from_arguments(files["transformer"])), expected)


def test_a_sharded_folder_gives_the_same_transformer(folder, tmp_path):
    copy = tmp_path / "sharded"
    shutil.copytree(folder, copy)
    whole = FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer", local_files_only=True)
    shutil.rmtree(copy / "transformer")
    whole.save_pretrained(copy / "transformer", max_shard_size="300KB")
    assert len(list((copy / "transformer").glob("*.safetensors"))) > 1
    loaded = load_transformer(FluxSource.from_arguments(copy), CPU, torch.float32)
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in loaded.state_dict().items())


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    model = load_transformer(FluxSource(transformer=path), CPU, torch.float32)
    return dict(model.state_dict())


def dequantised_by_hand(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    rounded = {}
    for key, value in state.items():
        if key.endswith(".weight") and value.ndim == 2:
            scale = value.abs().max() / 448
            rounded[key] = (value / scale).to(F8).float() * scale
        else:
            rounded[key] = value
    return rounded


def test_plain_fp8_is_the_model_rounded_to_fp8(states, tmp_path):
    small = {key: value.to(F8) for key, value in states["transformer"].items()}
    loaded = weights_of(save_single(tmp_path / "fp8.safetensors", small))
    upcast = {key: value.float() for key, value in small.items()}
    reference = weights_of(save_single(tmp_path / "upcast.safetensors", upcast))
    assert all(torch.equal(loaded[key], value) for key, value in reference.items())


@pytest.mark.parametrize("form", ["scale_weight", "comfy_quant"])
def test_scaled_fp8_is_dequantised(states, tmp_path, form):
    described = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    state = {} if form == "comfy_quant" else {"scaled_fp8": torch.zeros(2).to(F8)}
    for key, value in states["transformer"].items():
        if key.endswith(".weight") and value.ndim == 2:
            scale = value.abs().max() / 448
            state[key] = (value / scale).to(F8)
            module = key.removesuffix(".weight")
            if form == "scale_weight":
                state |= {f"{module}.scale_weight": scale, f"{module}.scale_input": torch.ones(())}
            else:
                state |= {f"{module}.weight_scale": scale, f"{module}.comfy_quant": described}
        else:
            state[key] = value
    loaded = weights_of(save_single(tmp_path / "scaled.safetensors", state))
    rounded = dequantised_by_hand(states["transformer"])
    reference = weights_of(save_single(tmp_path / "rounded.safetensors", rounded))
    assert all(torch.equal(loaded[key], value) for key, value in reference.items())
    original = weights_of(save_single(tmp_path / "original.safetensors", states["transformer"]))
    key = "single_transformer_blocks.1.attn.to_v.weight"
    assert 0 < (loaded[key] - original[key]).abs().max() < 0.07 * original[key].abs().max()


def test_a_scaled_fp8_t5_is_dequantised(states, files, expected):
    state = {"scaled_fp8": torch.zeros(0).to(F8)}
    for key, value in states["t5xxl"].items():
        if key.endswith((".q.weight", ".wo.weight", ".wi_0.weight")):
            scale = value.abs().max() / 448
            state |= {key: (value / scale).to(F8), f"{key.removesuffix('.weight')}.scale_weight": scale}
        else:
            state[key] = value
    save_single(files["t5xxl"], state)
    text = components.load_text_encoders(FluxSource.from_arguments(files["transformer"]), CPU, torch.float32)
    embeds = encoding.encode_prompts(text, [PROMPT], CPU)[0].prompt_embeds
    difference = (embeds - expected["prompt_embeds"]).abs().mean() / expected["prompt_embeds"].abs().mean()
    assert 0 < difference < 0.05


def test_half_precision_is_what_was_asked_for(files):
    source = FluxSource.from_arguments(files["transformer"])
    assert load_transformer(source, CPU, torch.bfloat16).dtype == torch.bfloat16
    text = components.load_text_encoders(source, CPU, torch.float16)
    feed_forward = text.text_encoder_2.encoder.block[0].layer[1].DenseReluDense
    assert feed_forward.wi_0.weight.dtype == torch.float16
    assert feed_forward.wo.weight.dtype == torch.float32
    assert torch.isfinite(encoding.encode_prompts(text, [PROMPT], CPU)[0].prompt_embeds).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("flux1-schnell-Q4_0.gguf", bytes(32), "no GGUF file"),
        ("flux.ckpt", b"\x80\x02}q\x00.", "pickle"),
        ("flux.pt", b"PK\x03\x04", "pickle"),
        ("flux.safetensors", b"", "empty"),
        ("flux.safetensors", bytes(64), "damaged"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        FluxSource.from_arguments(tmp_path / name)


def test_flux_dev_fill_and_other_models_are_refused_by_name(states, folder, tmp_path):
    state = states["transformer"]
    guidance = {f"guidance_in.{name}_layer.weight": torch.zeros(64, 64) for name in ("in", "out")}
    for extra, message in (
        (guidance, "FLUX.1 dev"),
        ({"img_in.weight": torch.zeros(64, 384)}, "Fill or control"),
        ({"double_blocks.0.strange.weight": torch.zeros(2, 2)}, "unknown tensors"),
    ):
        path = save_single(tmp_path / "m.safetensors", {**state, **extra})
        with pytest.raises(UserError, match=message):
            load_transformer(FluxSource(transformer=path), CPU, torch.float32)
    absent = {key: value for key, value in state.items() if key != "single_blocks.1.linear2.bias"}
    path = save_single(tmp_path / "m.safetensors", absent)
    with pytest.raises(UserError, match=r"lacks tensors \(single_transformer_blocks\.1\.proj_out\.bias\)"):
        load_transformer(FluxSource(transformer=path), CPU, torch.float32)
    copy = tmp_path / "dev"
    shutil.copytree(folder, copy)
    config = copy / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "guidance_embeds": True}))
    with pytest.raises(UserError, match=r"FLUX\.1 dev"):
        load_transformer(FluxSource.from_arguments(copy), CPU, torch.float32)


def test_missing_text_encoder_weights_are_named_and_never_random(states, files):
    source = FluxSource.from_arguments(files["transformer"])
    for part, key in (
        ("clip_l", "text_model.final_layer_norm.weight"),
        ("t5xxl", "encoder.block.1.layer.1.DenseReluDense.wo.weight"),
    ):
        save_single(files[part], {name: value for name, value in states[part].items() if name != key})
        with pytest.raises(UserError, match="lacks tensors"):
            components.load_text_encoders(source, CPU, torch.float32)
        save_single(files[part], states[part])


def test_an_incomplete_folder_is_named(folder, tmp_path):
    copy = tmp_path / "incomplete"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "tokenizer_2")
    with pytest.raises(UserError, match="lacks tokenizer_2"):
        FluxSource.from_arguments(copy)
    with pytest.raises(UserError, match="no base model"):
        FluxSource.from_arguments(tmp_path / "nowhere")


def test_fingerprints_follow_the_content(states, files):
    source = FluxSource.from_arguments(files["transformer"])
    before = {part: source.fingerprint(part) for part in ("transformer", "vae", "clip_l", "t5xxl")}
    assert len(set(before.values())) == 4
    changed = {**states["transformer"], "img_in.bias": states["transformer"]["img_in.bias"] + 1}
    save_single(files["transformer"], changed)
    assert source.fingerprint() != before["transformer"]
    assert source.fingerprint("vae") == before["vae"]
    settings = files["transformer"].parent / "tokenizer_t5" / "tokenizer_config.json"
    settings.write_text(settings.read_text() + "\n")
    assert source.fingerprint("t5xxl") != before["t5xxl"]


@pytest.mark.skipif(not (COMFYUI / "comfy" / "sd1_tokenizer").is_dir(), reason="no ComfyUI checkout here")
def test_comfyuis_own_tokenizers_open_offline_with_flux_lengths(files, states, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(COMFYUI))
    for kind in ("clip", "t5"):
        shutil.rmtree(files["transformer"].parent / f"tokenizer_{kind}")
    clip = dict(states["clip_l"])
    clip["text_model.embeddings.token_embedding.weight"] = torch.randn(49408, 64)
    clip["text_model.embeddings.position_embedding.weight"] = torch.randn(77, 64)
    t5 = {**states["t5xxl"], "shared.weight": torch.randn(32128, 64)}
    t5.pop("encoder.embed_tokens.weight", None)
    save_single(files["clip_l"], clip)
    save_single(files["t5xxl"], t5)
    text = components.load_text_encoders(FluxSource.from_arguments(files["transformer"]), CPU, torch.float32)
    assert (text.tokenizer.model_max_length, text.clip_length, text.t5_length) == (77, 77, 256)
    assert text.tokenizer("a face").input_ids == [49406, 320, 1710, 49407]
    assert text.tokenizer_2("a face").input_ids[-1] == 1
    embedding = encoding.encode_prompts(text, [PROMPT], CPU)[0]
    assert embedding.prompt_embeds.shape == (256, 64)
    assert embedding.pooled.shape == (64,)


def test_the_shipped_configurations_are_the_real_models(folder):
    transformer = components.shipped_config("transformer")
    assert (transformer["num_layers"], transformer["num_single_layers"]) == (19, 38)
    with torch.device("meta"):
        model = FluxTransformer2DModel.from_config(transformer)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_891_178_560
    assert load_file(next((folder / "vae").glob("*.safetensors"))).keys()
