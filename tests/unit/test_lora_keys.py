"""LoRA keys: kohya's, diffusers' and ComfyUI's forms mean the same ΔW."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace

import peft
import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux import lora_file, lora_keys
from diffusioncleft.diffusioncleft_core.flux.lora_keys import LoraModule
from diffusioncleft.diffusioncleft_core.flux.transformer_keys import (
    double_block,
    linear_modules,
    single_block,
)
from diffusioncleft.diffusioncleft_core.weight_file import SOURCE_KEY

FULL = 3072


def shapes(hidden: int, double: int = 1, single: int = 1) -> dict[str, tuple[int, int]]:
    """(out, in) of every linear layer of the blocks."""
    table = {}
    for pair in [p for i in range(double) for p in double_block(i)]:
        for part in pair.parts:
            out, inside = hidden, hidden
            if ".norm" in part:
                out = 6 * hidden
            elif "net.0" in part:
                out = 4 * hidden
            elif "net.2" in part:
                inside = 4 * hidden
            table[part] = (out, inside)
    for pair in [p for i in range(single) for p in single_block(i)]:
        for part in pair.parts:
            out, inside = hidden, hidden
            if part.endswith("norm.linear"):
                out = 3 * hidden
            elif part.endswith("proj_mlp"):
                out = 4 * hidden
            elif part.endswith("proj_out"):
                inside = 5 * hidden
            table[part] = (out, inside)
    return table


def random_lora(hidden: int, rank: int, alpha: float, seed: int = 0, **blocks: int) -> dict[str, LoraModule]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: LoraModule(
            torch.randn(rank, inside, generator=generator), torch.randn(out, rank, generator=generator), alpha
        )
        for name, (out, inside) in shapes(hidden, **blocks).items()
    }


def response(module: LoraModule, scale: float | None = None) -> torch.Tensor:
    """ΔW applied to three probe vectors: equal for all probes only if ΔW is."""
    probe = torch.randn(module.down.shape[1], 3, generator=torch.Generator().manual_seed(9)).double()
    factor = module.scale if scale is None else scale
    return factor * (module.up.double() @ (module.down.double() @ probe))


def assert_equal_delta(left: dict[str, LoraModule], right: dict[str, LoraModule], tolerance: float = 1e-6):
    assert set(left) == set(right)
    for name, module in left.items():
        expected, found = response(module), response(right[name])
        assert (expected - found).abs().max() <= tolerance * expected.abs().max(), name


def test_kohya_form_is_what_diffusers_own_converter_reads_at_full_width():
    modules = random_lora(FULL, rank=16, alpha=32.0)
    written = lora_keys.write(modules, "kohya")
    assert written["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"].shape == (48, FULL)
    assert written["lora_unet_double_blocks_0_img_attn_qkv.alpha"] == 96
    assert written["lora_unet_single_blocks_0_linear1.lora_down.weight"].shape == (64, FULL)
    assert written["lora_unet_single_blocks_0_linear1.alpha"] == 128
    theirs = _convert_kohya_flux_lora_to_diffusers(dict(written))
    assert {key.split(".lora_")[0] for key in theirs} == {f"transformer.{name}" for name in modules}
    for name, module in modules.items():
        down = theirs[f"transformer.{name}.lora_A.weight"]
        up = theirs[f"transformer.{name}.lora_B.weight"]
        assert down.shape[0] == 16
        assert torch.allclose(response(LoraModule(down, up, 16.0)), response(module), rtol=1e-5), name


def test_a_joint_qkv_lora_is_read_as_diffusers_own_converter_does_at_full_width():
    generator = torch.Generator().manual_seed(3)
    file = {}
    for name, out in (("double_blocks_0_img_attn_qkv", 3 * FULL), ("single_blocks_0_linear1", 7 * FULL)):
        file[f"lora_unet_{name}.lora_down.weight"] = torch.randn(8, FULL, generator=generator)
        file[f"lora_unet_{name}.lora_up.weight"] = torch.randn(out, 8, generator=generator)
        file[f"lora_unet_{name}.alpha"] = torch.tensor(4.0)
    ours = lora_keys.parse(file).modules
    theirs = _convert_kohya_flux_lora_to_diffusers(dict(file))
    assert len(ours) == 7
    for name, module in ours.items():
        down = theirs[f"transformer.{name}.lora_A.weight"]
        up = theirs[f"transformer.{name}.lora_B.weight"]
        assert torch.allclose(
            response(LoraModule(down, up, float(down.shape[0]))), response(module), rtol=1e-5
        )
    # Joined again it is the same file: the rank does not grow.
    again = lora_keys.write(ours, "kohya")
    assert all(torch.equal(again[key], value) for key, value in file.items())


@pytest.mark.parametrize("alpha", [32.0, 16.0, 7.0])
def test_all_forms_convert_into_each_other_with_equal_weights(tmp_path, alpha):
    modules = random_lora(128, rank=16, alpha=alpha, double=2, single=4)
    state, alphas = lora_keys.to_state(modules)
    lora_file.save_kohya(tmp_path / "start.safetensors", state, alphas, {"ss_network_dim": "16"})
    at = tmp_path / "start.safetensors"
    for step, form in enumerate(["diffusers", "comfyui", "diffusers", "kohya", "comfyui", "kohya"]):
        then = tmp_path / f"{step}-{form}.safetensors"
        lora_file.convert_lora(at, then, form)
        described = lora_file.inspect_lora(then)
        assert described["form"] == form
        assert described["ranks"] == [16]
        assert described["metadata"]["ss_network_dim"] == "16"
        at = then
        found = lora_file.read_lora(then)
        assert_equal_delta(modules, lora_keys.from_state(found.state, found.alphas))


def test_kohya_round_trip_returns_the_same_bits(tmp_path):
    modules = random_lora(128, rank=16, alpha=32.0)
    state, alphas = lora_keys.to_state(modules)
    lora_file.save_kohya(tmp_path / "a.safetensors", state, 32.0, {})
    read = lora_file.read_lora(tmp_path / "a.safetensors")
    assert read.alphas == alphas
    assert all(torch.equal(read.state[key], value) for key, value in state.items())


@pytest.mark.long
def test_the_files_bytes_follow_from_its_content_in_every_process(tmp_path, offline_env):
    script = (
        "import sys, torch; from pathlib import Path\n"
        "from diffusioncleft.diffusioncleft_core.flux.lora_file import save_kohya\n"
        "name = 'transformer_blocks.0.attn.to_q'\n"
        "state = {f'{name}.lora_A.weight': torch.ones(2, 64), f'{name}.lora_B.weight': torch.ones(64, 2)}\n"
        "save_kohya(Path(sys.argv[1]), state, 2.0, {f'ss_{i}': 'ä' * i for i in range(12)})\n"
    )
    files = [tmp_path / f"{index}.safetensors" for index in range(2)]
    for file in files:
        subprocess.run([sys.executable, "-c", script, file], check=True, env=offline_env)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert lora_file.read_lora(files[0]).metadata["ss_2"] == "ää"


def test_an_untrained_lora_keeps_its_rank_through_kohyas_form():
    modules = random_lora(128, rank=16, alpha=32.0)
    for module in modules.values():
        module.up.zero_()
    read = lora_keys.parse(lora_keys.write(modules, "kohya")).modules
    assert {module.rank for module in read.values()} == {16}
    assert all(torch.equal(read[name].down, module.down) for name, module in modules.items())


def test_a_lora_of_a_part_alone_and_one_of_mixed_ranks_survive():
    modules = random_lora(128, rank=16, alpha=32.0)
    query = {name: module for name, module in modules.items() if name.endswith("to_q")}
    assert_equal_delta(query, lora_keys.parse(lora_keys.write(query, "kohya")).modules)
    mixed = {
        **query,
        **{n: m for n, m in random_lora(128, 5, 1.5).items() if n.endswith(("to_k", "proj_mlp"))},
    }
    assert_equal_delta(mixed, lora_keys.parse(lora_keys.write(mixed, "kohya")).modules)


def test_the_outer_layers_survive_with_the_final_modulation_in_bfls_order():
    generator = torch.Generator().manual_seed(0)
    modules = {
        part: LoraModule(
            torch.randn(4, 64, generator=generator), torch.randn(128, 4, generator=generator), 8.0
        )
        for pair in linear_modules(0, 0)
        for part in pair.parts
    }
    written = lora_keys.write(modules, "kohya")
    final = written["lora_unet_final_layer_adaLN_modulation_1.lora_up.weight"]
    assert torch.equal(final[:64], modules["norm_out.linear"].up[64:])
    assert_equal_delta(modules, lora_keys.parse(written).modules)


@pytest.mark.parametrize(
    ("prefix", "form"),
    [
        ("transformer.", "diffusers"),
        ("base_model.model.", "raw PEFT"),
        ("base_model.model.transformer.", "raw PEFT"),
        ("base_model.model.diffusion_model.", "raw PEFT"),
        ("diffusion_model.", "comfyui"),
        ("model.diffusion_model.", "checkpoint"),
        ("", "bare"),
    ],
)
def test_every_prefix_of_peft_keys_is_read(tmp_path, prefix, form):
    modules = random_lora(64, rank=4, alpha=4.0)
    save_file(
        {
            f"{prefix}{name}.{matrix}.weight": value
            for name, module in modules.items()
            for matrix, value in (("lora_A", module.down), ("lora_B", module.up))
        },
        tmp_path / "x.safetensors",
    )
    read = lora_file.read_lora(tmp_path / "x.safetensors")
    assert_equal_delta(modules, lora_keys.from_state(read.state, read.alphas), 0.0)
    described = lora_file.inspect_lora(tmp_path / "x.safetensors")
    assert described["form"] == form
    assert any("silently" in line for line in described["warnings"]) == (
        form in ("raw PEFT", "checkpoint", "bare")
    )


def of_adapter(modules: dict[str, LoraModule], adapter: str, prefix: str = "") -> dict[str, torch.Tensor]:
    """The modules as PEFT's layers call them."""
    return {
        f"{prefix}{name}.{matrix}.{adapter}.weight": value
        for name, module in modules.items()
        for matrix, value in (("lora_A", module.down), ("lora_B", module.up))
    }


@pytest.mark.parametrize("adapter", ["default", "clp", "my adapter-2", "weight"])
@pytest.mark.parametrize("prefix", ["", "transformer.", "base_model.model."])
def test_the_name_of_pefts_adapter_in_the_keys_changes_nothing(tmp_path, adapter, prefix):
    modules = random_lora(64, rank=4, alpha=4.0)
    save_file(of_adapter(modules, adapter, prefix), tmp_path / "x.safetensors")
    read = lora_file.read_lora(tmp_path / "x.safetensors")
    assert_equal_delta(modules, lora_keys.from_state(read.state, read.alphas), 0.0)
    warnings = lora_file.inspect_lora(tmp_path / "x.safetensors")["warnings"]
    read_by_comfyui = (prefix, adapter) == ("transformer.", "default")
    assert any("ComfyUI ignores these keys silently" in line for line in warnings) is not read_by_comfyui


def test_a_layer_of_peft_itself_with_a_named_adapter_is_read():
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"x_embedder": torch.nn.Linear(64, 128)})
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=2, target_modules=["x_embedder"], init_lora_weights=False),
        model,
        adapter_name="clp",
    )
    state = {key: value.detach() for key, value in model.state_dict().items() if "lora_" in key}
    (module,) = lora_keys.parse(state).modules.values()
    layer = model["x_embedder"]
    assert torch.equal(module.down, layer.lora_A["clp"].weight)
    assert torch.equal(module.up, layer.lora_B["clp"].weight)


def test_several_adapters_in_one_file_are_named(tmp_path, command):
    modules = random_lora(64, rank=4, alpha=4.0)
    other = random_lora(64, rank=4, alpha=4.0)
    save_file(of_adapter(modules, "pre") | of_adapter(other, "post"), tmp_path / "x.safetensors")
    done = command("lora", "inspect", "x.safetensors")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "2 LoRAs, PEFT's adapters 'post' and 'pre'; save each into a file of its own" in done.stderr


def plain(modules: dict[str, LoraModule]) -> dict[str, torch.Tensor]:
    state, _ = lora_keys.to_state(modules)
    return {f"transformer.{key}": value for key, value in state.items()}


def test_alpha_comes_from_the_file_then_from_pefts_configuration_then_is_the_rank(tmp_path):
    modules = random_lora(64, rank=4, alpha=12.0)
    name = "transformer_blocks.0.attn.to_q"
    tensors = plain(modules)
    save_file(tensors, tmp_path / "none.safetensors")
    assert set(lora_file.read_lora(tmp_path / "none.safetensors").alphas.values()) == {4.0}
    assert any("no alpha" in w for w in lora_file.inspect_lora(tmp_path / "none.safetensors")["warnings"])

    config = {"transformer.r": 4, "transformer.lora_alpha": 12, "transformer.alpha_pattern": {"attn.to_q": 2}}
    save_file(tensors, tmp_path / "meta.safetensors", {"lora_adapter_metadata": json.dumps(config)})
    alphas = lora_file.read_lora(tmp_path / "meta.safetensors").alphas
    assert alphas[name] == 2.0
    assert alphas["transformer_blocks.0.attn.to_k"] == 12.0
    lora_file.convert_lora(tmp_path / "meta.safetensors", tmp_path / "out.safetensors", "diffusers")
    assert "lora_adapter_metadata" not in lora_file.read_lora(tmp_path / "out.safetensors").metadata

    save_file({**tensors, f"transformer.{name}.alpha": torch.tensor(6.0)}, tmp_path / "keys.safetensors")
    alphas = lora_file.read_lora(tmp_path / "keys.safetensors").alphas
    assert alphas[name] == 6.0
    assert alphas["transformer_blocks.0.attn.to_k"] == 4.0

    (tmp_path / "peft").mkdir()
    save_file(tensors, tmp_path / "peft" / "adapter_model.safetensors")
    (tmp_path / "peft" / "adapter_config.json").write_text('{"lora_alpha": 12, "use_rslora": true}')
    alphas = lora_file.read_lora(tmp_path / "peft" / "adapter_model.safetensors").alphas
    assert alphas[name] == 24.0


def test_a_float8_lora_is_read(tmp_path):
    modules = random_lora(64, rank=4, alpha=8.0)
    tensors = {
        key: value if key.endswith("alpha") else value.to(torch.float8_e4m3fn)
        for key, value in lora_keys.write(modules, "kohya").items()
    }
    save_file(tensors, tmp_path / "a.safetensors")
    read = lora_file.read_lora(tmp_path / "a.safetensors")
    name = "transformer_blocks.0.attn.to_k"
    expected = modules[name].down.to(torch.float8_e4m3fn).float()
    assert torch.equal(read.state[f"{name}.lora_A.weight"], expected)
    assert lora_file.inspect_lora(tmp_path / "a.safetensors")["dtypes"] == ["float8_e4m3fn"]


def test_a_damaged_peft_configuration_is_named(tmp_path):
    tensors = plain(random_lora(64, rank=4, alpha=4.0))
    save_file(tensors, tmp_path / "a.safetensors", {"lora_adapter_metadata": "{"})
    with pytest.raises(UserError, match="PEFT configuration"):
        lora_file.read_lora(tmp_path / "a.safetensors")


def test_a_bfloat16_lora_stays_bfloat16(tmp_path):
    modules = random_lora(64, rank=4, alpha=8.0)
    tensors = {key: value.bfloat16() for key, value in lora_keys.write(modules, "kohya").items()}
    save_file(tensors, tmp_path / "a.safetensors")
    lora_file.convert_lora(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "diffusers")
    assert {value.dtype for value in load_file(tmp_path / "b.safetensors").values()} == {torch.bfloat16}


DOWN, UP = torch.zeros(4, 64), torch.zeros(64, 4)
GOOD = "transformer.transformer_blocks.0.attn.to_q"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{GOOD}.lora_A.weight": DOWN}, "incomplete"),
        ({f"{GOOD}.lora_A.weight": DOWN, f"{GOOD}.lora_B.weight": torch.zeros(64, 3)}, "do not fit together"),
        ({f"{GOOD}.dora_scale": UP}, "DoRA"),
        ({"lora_unet_double_blocks_0_img_attn_proj.lokr_w1": UP}, "LoKr"),
        ({"lora_unet_double_blocks_0_img_attn_proj.hada_w1_a": UP}, "LoHa"),
        ({"diffusion_model.double_blocks.0.img_attn.proj.diff": UP}, "a weight difference"),
        ({"diffusion_model.double_blocks.0.img_attn.proj.diff_b": UP}, "a weight difference"),
        ({"double_blocks.0.processor.qkv_lora1.up.weight": UP}, "XLabs"),
        ({"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": DOWN}, "--transformer-only"),
        (
            {
                "lora_unet_input_blocks_1_1_proj_in.lora_down.weight": DOWN,
                "lora_unet_input_blocks_1_1_proj_in.lora_up.weight": UP,
            },
            "another model",
        ),
        ({"something": UP}, "no LoRA form"),
    ],
)
def test_what_is_no_flux_lora_is_refused_by_name(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=message):
        lora_file.read_lora(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "prefix", ["lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_te3_encoder_block_0_k", "text_encoder.q"]
)
def test_the_transformers_part_of_a_lora_with_text_encoders_is_taken_when_asked_for(
    tmp_path, command, prefix
):
    modules = random_lora(64, rank=4, alpha=8.0)
    tensors = lora_keys.write(modules, "kohya")
    both = tensors | {f"{prefix}.lora_down.weight": DOWN, f"{prefix}.lora_up.weight": UP}
    save_file(both, tmp_path / "both.safetensors")
    told = lora_file.inspect_lora(tmp_path / "both.safetensors")["warnings"]
    assert any("2 of its tensors are of text encoders" in line for line in told)
    refused = command("lora", "convert", "both.safetensors", "a.safetensors")
    assert refused.returncode == 2 and "--transformer-only" in refused.stderr
    taken = command("lora", "convert", "both.safetensors", "a.safetensors", "--transformer-only")
    assert taken.returncode == 0 and "2 tensors of text encoders were left out" in taken.stderr
    assert_equal_delta(modules, lora_keys.parse(load_file(tmp_path / "a.safetensors")).modules)


@pytest.mark.parametrize(
    ("ending", "value", "named"),
    [
        (".lora_up.weight", float("nan"), "not-a-number values (transformer_blocks.0."),
        (".lora_down.weight", float("-inf"), "infinite values (transformer_blocks.0."),
        (".alpha", float("nan"), "not-a-number values (transformer_blocks.0."),
        (".alpha", float("inf"), "infinite values (transformer_blocks.0."),
    ],
)
def test_values_that_are_no_numbers_are_named_and_never_used(tmp_path, command, ending, value, named):
    tensors = lora_keys.write(random_lora(64, rank=4, alpha=8.0), "kohya")
    key = next(key for key in tensors if "double_blocks_0_img" in key and key.endswith(ending))
    tensors[key].view(-1)[0] = value
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    described = json.loads(command("lora", "inspect", path, "--json").stdout, parse_constant=pytest.fail)
    assert any(named in line for line in described["warnings"])
    for use in (
        lora_file.read_lora,
        lambda source: lora_file.convert_lora(source, tmp_path / "out.safetensors"),
    ):
        with pytest.raises(UserError, match=re.escape(named)):
            use(path)
    assert not (tmp_path / "out.safetensors").exists()


def test_an_alpha_of_zero_is_named_with_what_others_make_of_it(tmp_path):
    save_file(lora_keys.write(random_lora(64, rank=4, alpha=0.0), "kohya"), tmp_path / "x.safetensors")
    (line,) = [
        line for line in lora_file.inspect_lora(tmp_path / "x.safetensors")["warnings"] if "alpha" in line
    ]
    assert "alpha is 0 in " in line and "alpha = rank" in line


def test_a_lora_that_its_alpha_switches_off_is_not_used_and_not_erased(tmp_path, command):
    modules = random_lora(64, rank=4, alpha=0.0)
    off, part = tmp_path / "off.safetensors", tmp_path / "part.safetensors"
    save_file(lora_keys.write(modules, "kohya"), off)
    with pytest.raises(UserError, match="would change nothing, because alpha is 0 in"):
        lora_file.read_lora(off)
    name = next(iter(modules))
    modules[name] = replace(modules[name], alpha=4.0)
    lora_file.save_tensors(part, lora_keys.write(modules, "kohya"), {})
    assert "alpha is 0" in lora_file.read_lora(part).warnings[0]
    plan = ["--n", 1, "--condition", "pre_op", "--phantom", "--device", "cpu", "--out", tmp_path / "set"]
    done = command("generate", *plan, "--lora", off)
    assert done.returncode == 2 and "would change nothing" in done.stderr
    assert not (tmp_path / "set").exists()
    for form, status in (("comfyui", 0), ("diffusers", 2)):
        out = tmp_path / f"{form}.safetensors"
        done = command("lora", "convert", part, out, "--format", form)
        assert (done.returncode, out.exists()) == (status, not status)
        assert "alpha is 0 in" in done.stderr


def test_a_plain_lora_of_lycoris_is_read_and_its_other_kinds_are_named(tmp_path):
    name = "transformer_blocks.0.attn.to_q"
    module = random_lora(64, rank=4, alpha=2.0)[name]
    key = f"lycoris_{name.replace('.', '_')}"
    tensors = {f"{key}.lora_down.weight": module.down, f"{key}.lora_up.weight": module.up}
    save_file({**tensors, f"{key}.alpha": torch.tensor(2.0)}, tmp_path / "plain.safetensors")
    read = lora_file.read_lora(tmp_path / "plain.safetensors")
    assert torch.equal(read.state[f"{name}.lora_A.weight"], module.down) and read.alphas == {name: 2.0}
    save_file({f"{key}.lokr_w1": UP}, tmp_path / "lokr.safetensors")
    with pytest.raises(UserError, match=r"LyCORIS' LoKr .* convert it to one first"):
        lora_file.read_lora(tmp_path / "lokr.safetensors")


def test_the_scale_is_told_only_where_it_still_applies(tmp_path):
    told = {"effective_scale": "0.5", "ss_network_alpha": "2.0", "trigger": "[CLP]"}
    source = tmp_path / "kohya.safetensors"
    save_file(lora_keys.write(random_lora(64, rank=4, alpha=2.0), "kohya"), source, told)
    for form, kept in (("comfyui", told), ("diffusers", {"trigger": "[CLP]"})):
        lora_file.convert_lora(source, tmp_path / f"{form}.safetensors", form)
        found = lora_file.read_lora(tmp_path / f"{form}.safetensors").metadata
        assert {name: value for name, value in found.items() if name not in ("format", SOURCE_KEY)} == kept


def test_a_file_of_the_model_spec_tells_the_hash_of_its_tensors_alone(tmp_path):
    tensors = lora_keys.write(random_lora(64, rank=4, alpha=4.0), "kohya")
    told = []
    for name, title in (("a", "one"), ("b", "another title")):
        spec = {"modelspec.sai_model_spec": "1.0.0", "modelspec.title": title}
        lora_file.save_tensors(path := tmp_path / name, tensors, spec)
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        assert metadata["sshs_model_hash"] == hashlib.sha256(data[8 + length :]).hexdigest()
        told.append(metadata["modelspec.hash_sha256"])
    assert told == ["0x" + metadata["sshs_model_hash"]] * 2
    lora_file.save_tensors(path, tensors, {})
    with safe_open(path, framework="pt") as file:
        assert not [key for key in file.metadata() if "hash" in key]
