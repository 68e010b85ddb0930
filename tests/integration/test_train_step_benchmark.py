"""The benchmark of the training step on the embedded model: what it writes follows from what it measured."""

import json

import pytest
import torch

from benchmarks import train_step
from benchmarks.train_loops import Base, diffusers_step, loops
from diffusioncleft.diffusioncleft_core.recipe.presets import named_recipe
from diffusioncleft.tools.full_size_loop import ALPHA, LORA, attach_peft


def test_shares_and_ratios_follow_from_the_times(tmp_path):
    train_step.main(
        ["--device=cpu", "--sides", "64", "--presets", "robust", "--rounds=1", "--warm-up=1",
         "--out", str(tmp_path)]
    )  # fmt: skip
    found = json.loads((tmp_path / "train_step_cpu.json").read_text("utf-8"))
    assert set(found["steps"]) == {"robust_64"}
    ours, bare = found["steps"]["robust_64"]["trainer"], found["steps"]["robust_64"]["bare"]
    rate = ours["model_tflop_a_step"] / ours["seconds_a_step"] / found["gemm"]["tflops"]
    assert ours["share_of_gemm"] == pytest.approx(rate, rel=2e-3)
    per_flop = (ours["seconds_a_step"] / ours["model_tflop_a_step"]) / (
        bare["seconds_a_step"] / bare["model_tflop_a_step"]
    )
    assert ours["times_bare_per_flop_wall"] == pytest.approx(per_flop, rel=2e-3)
    images = named_recipe("robust", phantom=True).data.batch_size
    assert ours["images_a_second"] == pytest.approx(images / ours["seconds_a_step"], rel=2e-3)
    casts = found["casts_a_step_bf16_autocast"]
    assert casts["left_to_autocast"] < casts["with_peft"]
    switch = found["switch_off_and_on_microseconds_full_size"]
    assert switch["one_list"] < switch["walk_over_modules"] / 100
    assert str(tmp_path) not in json.dumps(found)


def test_full_size_without_a_gpu_is_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        train_step.main(["--full-size", "--device", "cpu"])
    assert refused.value.code == 2
    assert "needs a CUDA GPU" in capsys.readouterr().err


def test_all_loops_train_a_lora_of_their_own_around_the_same_weights(tmp_path):
    torch.manual_seed(0)  # the loop's latents and texts are noise, which now and then the model finds odd
    base, recipe = Base.embedded(torch.device("cpu")), named_recipe("paper", phantom=True)
    one, other = base.another(), base.another()
    pointers = {value.data_ptr() for value in base.transformer.parameters()}
    for transformer in (one, other):
        assert {value.data_ptr() for value in transformer.parameters()} == pointers
    parameters = attach_peft(one, recipe.network.rank, ALPHA, base.device)
    before = [parameter.detach().clone() for parameter in parameters]
    losses = [diffusers_step(one, parameters, recipe, base, 64)() for _ in range(2)]
    assert all(0 < loss < 100 for loss in losses)
    assert sum(not torch.equal(a, b) for a, b in zip(before, parameters, strict=True)) > len(before) / 3
    assert not hasattr(base.transformer, "peft_config")
    assert LORA in one.peft_config
    assert not hasattr(other, "peft_config")
    assert set(loops(recipe, base, 64, tmp_path, compiled=False)) == {"trainer", "bare", "diffusers"}
