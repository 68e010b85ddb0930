"""What makes a step faster leaves what is trained as it is: compiled blocks, casts, switches, kernels."""

from typing import Any

import pytest
import torch
from recipes import recipe_of
from reference_training import tiny_transformer
from torch.profiler import ProfilerActivity, profile

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux.lora import active_adapters, attach_lora, load_lora
from diffusioncleft.diffusioncleft_core.flux.lora_file import save_kohya
from diffusioncleft.diffusioncleft_core.flux.packed import PLAIN
from diffusioncleft.diffusioncleft_core.flux.sampling import predict_velocity
from diffusioncleft.diffusioncleft_core.flux.transformer import pack_blocks
from diffusioncleft.trainer.config import parse_recipe
from diffusioncleft.trainer.events import Events
from diffusioncleft.trainer.kernels import compile_blocks, kernels, uncompiled
from diffusioncleft.trainer.network import LORA, attach
from diffusioncleft.trainer.objective import autocast
from diffusioncleft.trainer.optimizer import build_optimizer

CPU = torch.device("cpu")
PHANTOM = ["--phantom", "--train_data_dir=photos"]
SMALL = {"network_dim": 2, "network_alpha": 4.0}


class Trained:
    """A small transformer with its LoRA, whose up matrices are not zero, and gradients at fixed noise."""

    def __init__(
        self, dtype: torch.dtype = torch.float32, *, form: str = "", streamed: int = 0, **values: Any
    ):
        self.recipe = recipe_of(**{**SMALL, **values})
        self.dtype = dtype
        self.transformer = tiny_transformer().to(dtype)
        if form:
            pack_blocks(self.transformer, form, dtype, streamed)
        self.parameters, self.activate = attach(self.transformer, self.recipe, CPU)
        random = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if ".lora_B." in name:
                    parameter.normal_(std=0.3, generator=random)
        self.transformer.train()
        if self.recipe.memory.gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()

    def velocity(self, side: int = 4) -> torch.Tensor:
        random = torch.Generator().manual_seed(2)
        latents, text, pooled = (
            torch.randn(shape, generator=random) for shape in ((1, 16, side, side), (1, 3, 12), (1, 10))
        )
        with autocast(CPU, self.dtype):
            return predict_velocity(self.transformer, latents, torch.tensor([0.5]), text, pooled)

    def gradients(self, side: int = 4) -> list[torch.Tensor]:
        self.velocity(side).square().mean().backward()
        found = [parameter.grad for parameter in self.parameters.values()]
        for parameter in self.parameters.values():
            parameter.grad = None
        return found

    def base_prediction(self) -> torch.Tensor:
        self.activate(False, True)
        with torch.no_grad():
            found = self.velocity()
        self.activate(True, True)
        return found


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.fixture
def few_blocks(monkeypatch):
    """One block of each kind: a compilation takes seconds."""
    import reference_training

    small = reference_training.small_transformer

    def fewer(*args, **kwargs):
        transformer = small(*args, **kwargs)
        for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks):
            del blocks[1:]
        transformer.register_to_config(num_layers=1, num_single_layers=1)
        return transformer

    monkeypatch.setattr(reference_training, "small_transformer", fewer)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.long
@pytest.mark.parametrize(
    ("form", "streamed", "checkpointing"), [("", 0, True), ("nf4", 0, False), (PLAIN, 1, False)]
)
def test_compiled_blocks_give_the_gradients_of_the_plain_ones(few_blocks, form, streamed, checkpointing):
    """aot_eager runs the plain path's own kernels in the compiled graph's order: nothing may differ."""
    trained = Trained(
        form=form,
        streamed=streamed,
        compile=True,
        dynamo_backend="aot_eager",
        gradient_checkpointing=checkpointing,
    )
    expected, base = trained.gradients(), trained.base_prediction()
    assert not torch.equal(trained.velocity(), base)
    compile_blocks(trained.transformer, trained.recipe, several_sizes=False)
    torch._dynamo.utils.counters.clear()
    assert same(trained.gradients(), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2 - streamed
    if checkpointing:
        assert torch.equal(trained.base_prediction(), base), "what is compiled heeds the switch"
        compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        with uncompiled(trained.recipe), torch.no_grad():
            trained.velocity(side=6)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled


def test_a_switch_changes_one_list_and_walks_no_module(tmp_path, monkeypatch):
    other = tiny_transformer(1)
    attach_lora(other, 2, 2.0, "training_adapter", seed=3)
    path = tmp_path / "adapter.safetensors"
    with torch.no_grad():
        state = {
            key.replace(".training_adapter", ""): torch.randn_like(value)
            for key, value in other.named_parameters()
            if ".training_adapter." in key
        }
    save_kohya(path, state, 2.0, {})
    plain = Trained()
    trained = Trained(training_adapter=path)
    both = trained.velocity()
    monkeypatch.setattr(torch.nn.Module, "named_modules", None)
    monkeypatch.setattr(torch.nn.Module, "modules", None)
    trained.activate(True, False)
    assert torch.equal(trained.velocity(), plain.velocity())
    trained.activate(False, True)
    alone = trained.velocity()
    trained.activate(True, True)
    monkeypatch.undo()
    assert torch.equal(trained.velocity(), both)
    assert active_adapters(trained.transformer) == [LORA, "training_adapter"]
    base = tiny_transformer()
    load_lora(base, path, name="training_adapter")
    trained.transformer = base
    assert torch.equal(alone, trained.velocity())
    needs = {name for name, value in plain.transformer.named_parameters() if value.requires_grad}
    assert needs == set(plain.parameters)


def test_no_lora_input_is_cast_and_cast_back_and_no_bit_changes():
    """Under bf16 autocast peft makes a float32 copy of each LoRA input that is bf16, and autocast a bf16 one
    of that; the gradient takes the same way back.
    """

    def casts(trained: Trained) -> tuple[list[torch.Tensor], int]:
        trained.gradients()
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            gradients = trained.gradients()
        return gradients, sum(
            entry.count for entry in recorded.key_averages() if entry.key == "aten::_to_copy"
        )

    trained = Trained(torch.bfloat16)
    gradients, few = casts(trained)
    layers = [layer for layer in trained.transformer.modules() if hasattr(layer, "cast_input_dtype_enabled")]
    narrow = []
    for layer in layers:
        layer.register_forward_pre_hook(
            lambda layer, inputs: narrow.append(inputs[0].dtype == torch.bfloat16)
        )
        layer.cast_input_dtype_enabled = True
    trained.velocity()
    for layer in layers:
        layer._forward_pre_hooks.clear()
    before, many = casts(trained)
    assert same(gradients, before)
    assert sum(narrow) > len(layers) / 2
    # Two on the way there, two on the way back; a modulation's input and the embedders' take no gradient.
    assert 2 * sum(narrow) <= many - few <= 4 * sum(narrow)


def test_adamw_steps_in_one_kernel():
    parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(4)]
    optimizer = build_optimizer(recipe_of(optimizer_type="AdamW"), parameters, Events(lambda event: None))
    for parameter in parameters:
        parameter.grad = torch.ones(3)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        optimizer.step()
    assert {entry.key: entry.count for entry in recorded.key_averages()}["aten::_fused_adamw_"] == 1


@pytest.mark.parametrize("wanted", [True, False])
def test_deterministic_kernels_of_a_gpu_are_a_choice_and_are_put_back(wanted, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with kernels(recipe_of(deterministic=wanted), torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled() is wanted
        assert torch.backends.cuda.cudnn_sdp_enabled() is False
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_kohyas_names_compile_too():
    assert parse_recipe([*PHANTOM, "--torch_compile"]).memory.compile
    assert not parse_recipe([*PHANTOM, "--torch_compile", "false"]).memory.compile
    assert not parse_recipe([*PHANTOM, "--dynamo_backend", "no"]).memory.compile
    assert not parse_recipe([*PHANTOM, "--no-deterministic"]).memory.deterministic
    recipe = parse_recipe([*PHANTOM, "--torch_compile", "--dynamo_backend=AOT_EAGER"])
    assert recipe.memory.dynamo_backend == "aot_eager"
    with pytest.raises(UserError, match="nothing is compiled; give --compile too"):
        parse_recipe([*PHANTOM, "--dynamo_backend", "aot_eager"])
    with pytest.raises(UserError, match="--compile True would have no effect"):
        parse_recipe([*PHANTOM, "--compile", "--dynamo_backend", "no"])


def test_a_missing_compiler_is_said_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    torch._inductor.cpp_builder.cpp_compiler_search.cache_clear()
    with (
        pytest.raises(UserError, match=r"needs a C\+\+ compiler.*aot_eager"),
        kernels(recipe_of(compile=True), CPU),
    ):
        pass
    with kernels(recipe_of(compile=True, dynamo_backend="aot_eager"), CPU):
        pass
    torch._inductor.cpp_builder.cpp_compiler_search.cache_clear()
