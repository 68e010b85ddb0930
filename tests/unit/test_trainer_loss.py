"""The loss and its gradient, term by term, against the plain computation in reference_training.py."""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from reference_training import (
    Example,
    generator,
    loss_terms,
    noise_levels,
    put_lora,
    tiny_transformer,
    total,
)
from trainer_settings import trainer_settings

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux.lora import attach_lora, lora_parameters, set_active
from diffusioncleft.diffusioncleft_core.flux.packed import PLAIN, FrozenLinear
from diffusioncleft.diffusioncleft_core.flux.transformer import pack_blocks
from diffusioncleft.trainer import memory
from diffusioncleft.trainer.data import Collected, TrainImage
from diffusioncleft.trainer.data_order import Draw
from diffusioncleft.trainer.objective import (
    NoiseLevels,
    Objective,
    region_weights,
    sample_sigmas,
    seeded,
)
from diffusioncleft.trainer.prepare import Prepared

CAPTIONS = ("[CLP] a girl", "CLP a boy", "a girl", "a boy", "[CLPrep] a girl", "CLPrep a boy", "a whole face")
ADAPTED = ["transformer_blocks.0.attn.to_q", "single_transformer_blocks.1.proj_out"]
CPU = torch.device("cpu")


@dataclass
class Case:
    """Latents, and the tiny transformer with its LoRA as the trainer has it and as the reference does."""

    examples: list[Example]
    text: dict[str, tuple[torch.Tensor, torch.Tensor]]
    ours: Any
    reference: Any
    base: Any
    adapter: bool
    switched: list[tuple[bool, bool]] = field(default_factory=list)

    def objective(self, dtype=torch.float32, **values) -> Objective:
        """The trainer's objective under settings of these values."""
        images = tuple(
            TrainImage(
                Path(f"{index}.png"), Path(), example.caption, index >= 5, 1, f"{index:064d}",
                (example.latents.shape[-1] * 8, example.latents.shape[-2] * 8), example.region,
                healthy_caption=example.healthy,
            )
            for index, example in enumerate(self.examples)
        )  # fmt: skip
        prepared = Prepared(
            Collected(images, ()),
            [example.latents for example in self.examples],
            {caption: {"text": text, "pooled": pooled} for caption, (text, pooled) in self.text.items()},
            [],
            {},
            "CLP",
        )
        if any(example.caption.startswith("a whole") for example in self.examples):
            values.setdefault("reg_data_dir", Path("reg"))

        def activate(lora: bool, adapter: bool) -> None:
            self.switched.append((lora, adapter))
            set_active(self.ours, ["default"] * lora + ["training_adapter"] * (adapter and self.adapter))

        return Objective(trainer_settings(**values), prepared, self.ours, activate, CPU, dtype)

    def parameters(self) -> list[torch.nn.Parameter]:
        return lora_parameters(self.ours, "default")

    def check(self, train, reg=(), number=0, **values) -> dict[str, float]:
        """Compare losses and gradients of one batch; give the reference's terms."""
        for parameter in self.parameters():
            parameter.grad = None
        found = self.objective(**values).backward(Draw(tuple(train), tuple(reg)), number)
        terms = loss_terms(self.reference, self.base, self.examples, self.text, train, reg, number, values)
        share = 1 / values.get("gradient_accumulation_steps", 1)
        wanted = {key: value for key, value in self.reference.named_parameters() if ".default." in key}
        gradients = torch.autograd.grad(total(terms, values) * share, list(wanted.values()))
        assert found[0].item() == pytest.approx(terms.train.item() * share, rel=1e-6)
        if reg or values.get("output_preservation_weight"):
            others = (terms.prior + terms.preserved).item() * share
            assert found[1].item() == pytest.approx(others, rel=1e-6)
        else:
            assert found[1].isnan()
        ours = dict(self.ours.named_parameters())
        for name, gradient in zip(wanted, gradients, strict=True):
            assert gradient.norm() > 0
            assert_near(ours[name].grad, gradient, name)
        return {name: value.item() for name, value in vars(terms).items()}


def assert_near(found, expected, name="", tolerance=5e-6):
    """Within the tolerance of the whole tensor's norm: sums of thousands of products in another order."""
    assert (found - expected).norm() <= tolerance * expected.norm(), name


def make_case(*, adapter: bool = False) -> Case:
    """Five training images of two sizes, with regions of every kind, and three for regularisation."""
    random = torch.Generator().manual_seed(3)

    def latents(height: int, width: int) -> torch.Tensor:
        return torch.randn(16, height, width, generator=random)

    girl, boy = ("a girl", "[CLPrep] a girl"), ("a boy", "CLPrep a boy")
    examples = [
        Example(latents(4, 6), "[CLP] a girl", (0.0, 0.0, 12.5, 12.5), girl),  # at a corner
        Example(latents(4, 6), "CLP a boy", (20.0, 4.0, 48.0, 32.0), boy),  # over two edges, on a centre
        Example(latents(4, 6), "[CLP] a girl", None, girl),
        Example(latents(6, 4), "CLP a boy", (13.0, 13.0, 18.0, 18.0), boy),  # no cell's centre is inside
        Example(latents(6, 4), "[CLP] a girl", (0.0, 0.0, 32.0, 48.0), girl),  # everything
        Example(latents(4, 6), "a whole face", None),
        Example(latents(6, 4), "a whole face", (8.0, 8.0, 20.0, 28.0)),  # ends on centres
        Example(latents(4, 4), "a whole face", (0.0, 16.0, 32.0, 32.0)),
    ]
    text = {
        caption: (torch.randn(5, 12, generator=random), torch.randn(10, generator=random))
        for caption in CAPTIONS
    }
    base = tiny_transformer()
    if adapter:
        put_lora(base, "training_adapter", 2, 2.0, 5, ADAPTED)
    with torch.no_grad():
        for name, value in base.named_parameters():
            if ".lora_B." in name:
                value.normal_(std=0.5, generator=random)
    base.requires_grad_(False)
    ours, reference = copy.deepcopy(base), copy.deepcopy(base)
    attach_lora(ours, 4, 6.0, "default", seed=1)
    layers = None if not adapter else _layers_below(base)
    wanted = put_lora(reference, "default", 4, 6.0, 1, layers or ())
    names = dict(ours.named_parameters())
    with torch.no_grad():
        for name, value in wanted.items():
            if ".lora_B." in name:
                value.normal_(std=0.2, generator=random)
            names[name].copy_(value)
    ours.train()
    reference.train()
    for key, value in reference.named_parameters():
        value.requires_grad_(".default." in key)
    if adapter:
        ours.peft_config["training_adapter"].inference_mode = True
    set_active(ours, ["training_adapter", "default"] if adapter else ["default"])
    return Case(examples, text, ours, reference, base, adapter)


def _layers_below(transformer) -> list[str]:
    """The blocks' linear layers, those under another LoRA by their own names."""
    return [
        name.removesuffix(".base_layer")
        for name, module in transformer.named_modules()
        if type(module) is torch.nn.Linear and "transformer_blocks." in name and ".lora_" not in name
    ]


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case()


@pytest.fixture(scope="module")
def adapted() -> Case:
    return make_case(adapter=True)


def test_the_lora_starts_as_peft_draws_it(case):
    fresh = copy.deepcopy(case.base)
    attach_lora(fresh, 4, 6.0, "default", seed=1)
    wanted = put_lora(copy.deepcopy(case.base), "default", 4, 6.0, 1)
    ours = {key: value for key, value in fresh.named_parameters() if ".default." in key}
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(ours[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("number", [0, 7])
def test_the_loss_is_the_mean_squared_error_of_the_velocity(case, number):
    case.check([0], number=number)


def test_a_batch_is_the_mean_over_its_images(case):
    both = case.check([0, 2], seed=4)
    case.check([2, 1, 0], seed=4)
    assert both["train"] > 0


def test_images_of_other_sizes_share_the_batch(case):
    case.check([3, 0, 4], [6, 7, 5])
    case.check([0, 1], [7, 6])


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_regularisation_counts_by_its_weight(case, weight):
    terms = case.check([0, 1], [5, 5], prior_loss_weight=weight)
    assert terms["prior"] > 0


def test_regularisation_aims_at_the_base_without_the_lora(case):
    image = case.check([0, 1], [5, 5], prior_loss_weight=0.7)
    base = case.check([0, 1], [5, 5], prior_loss_weight=0.7, prior_target="base")
    assert base["prior"] < image["prior"] / 2
    assert base["train"] == image["train"]


def test_base_targets_without_regularisation_change_nothing(case):
    case.objective(prior_target="base").backward(Draw((0,), ()), 0)
    assert case.check([0]) == case.check([0], number=0)


@pytest.mark.parametrize("values", [{"prior_target": "base"}, {"output_preservation_weight": 0.4}])
def test_the_training_adapter_stays_on_while_the_lora_is_off(adapted, values):
    adapted.switched.clear()
    adapted.check([0, 1], [5, 5], **values)
    assert adapted.switched == [(False, True), (True, True)]


def test_the_training_adapter_is_part_of_every_forward(adapted, case):
    assert adapted.check([0])["train"] != pytest.approx(case.check([0])["train"], rel=1e-3)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("weight", [0.25, 3.0])
def test_the_output_without_the_trigger_is_preserved(case, weight, number):
    girl = [Example(e.latents, e.caption, e.region, e.preserved[:1]) for e in case.examples]
    alone = Case(girl, case.text, case.ours, case.reference, case.base, adapter=False)
    terms = alone.check([0, 1, 3], number=number, output_preservation_weight=weight)
    assert terms["preserved"] > 0


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_the_output_under_the_other_trigger_is_preserved_in_turn(case, number):
    case.check(
        [0, 1, 4], [5, 6, 7], number, output_preservation_weight=0.6, other_trigger="CLPrep",
        prior_target="base", prior_loss_weight=0.5,
    )  # fmt: skip


@pytest.mark.parametrize("number", [0, 1, 2, 3])
@pytest.mark.parametrize("other", [None, "CLPrep"])
def test_the_output_under_the_healthy_caption_is_preserved_in_turn(case, other, number):
    """The first and the last image have one; the others have a turn less."""
    healthy = "a whole face"
    examples = [
        replace(example, preserved=example.preserved[: 2 if other else 1]) for example in case.examples
    ]
    for index in (0, 4):
        kept = (*examples[index].preserved, healthy)
        examples[index] = replace(examples[index], preserved=kept, healthy=healthy)
    replaced = replace(case, examples=examples)
    replaced.check([0, 1, 4], [5, 6, 7], number, output_preservation_weight=0.6, other_trigger=other)


@pytest.mark.parametrize("image", range(5))
@pytest.mark.parametrize("weight", [0.5, 2.0, 8.0])
def test_errors_inside_the_finding_count_more(case, image, weight):
    plain = case.check([image])
    weighted = case.check([image], region_weight=weight)
    region = case.examples[image].region
    assert (weighted["train"] == pytest.approx(plain["train"], rel=1e-6)) == (image in (2, 3, 4)), region


def test_regions_weigh_all_three_terms(case):
    case.check(
        [0, 1, 3], [6, 7, 5], region_weight=8.0, output_preservation_weight=1.0, other_trigger="CLPrep"
    )


@pytest.mark.parametrize("image", range(8))
def test_region_weights_are_one_on_average(case, image):
    example = case.examples[image]
    weights = region_weights(example.region, *example.latents.shape[-2:], 8.0)
    assert weights.shape == (1, *example.latents.shape[-2:])
    assert weights.mean().item() == pytest.approx(1, rel=1e-6)


def test_accumulated_batches_are_one_step_with_their_mean(case):
    batches, values = [((0, 1), (5, 6)), ((3,), (7,))], {"gradient_accumulation_steps": 2}
    objective = case.objective(**values)
    for parameter in case.parameters():
        parameter.grad = None
    losses = sum(objective.backward(Draw(*batch), number) for number, batch in enumerate(batches))
    found = dict(case.ours.named_parameters())
    terms = [
        loss_terms(case.reference, case.base, case.examples, case.text, *batch, number, {})
        for number, batch in enumerate(batches)
    ]
    mean = (total(terms[0], {}) + total(terms[1], {})) / 2
    wanted = {key: value for key, value in case.reference.named_parameters() if ".default." in key}
    for name, gradient in zip(wanted, torch.autograd.grad(mean, list(wanted.values())), strict=True):
        assert_near(found[name].grad, gradient, name)
    expected = [(terms[0].train + terms[1].train) / 2, (terms[0].prior + terms[1].prior) / 2]
    torch.testing.assert_close(losses, torch.stack(expected).detach(), rtol=1e-6, atol=0)


def test_everything_at_once(adapted):
    adapted.check(
        [4, 0, 2], [6, 7, 5], 3, seed=9, prior_loss_weight=0.4, prior_target="base",
        output_preservation_weight=0.7, other_trigger="CLPrep", region_weight=5.0,
        timestep_sampling="shift", discrete_flow_shift=2.0, sigmoid_scale=1.5, gradient_accumulation_steps=4,
    )  # fmt: skip


def test_gradients_reach_the_lora_alone(adapted):
    adapted.check([0, 3], [5, 6], output_preservation_weight=1.0)
    with_gradient = {name for name, value in adapted.ours.named_parameters() if value.grad is not None}
    assert with_gradient == {name for name, _ in adapted.ours.named_parameters() if ".default." in name}


SAMPLINGS = [
    {},
    {"timestep_sampling": "schnell"},
    {"timestep_sampling": "sigmoid"},
    {"timestep_sampling": "sigmoid", "sigmoid_scale": 0.5},
    {"timestep_sampling": "shift"},
    {"timestep_sampling": "shift", "discrete_flow_shift": 1.7, "sigmoid_scale": 2.0},
]


@pytest.mark.parametrize("values", SAMPLINGS)
def test_noise_levels_are_drawn_as_documented(case, values):
    sampling = NoiseLevels(
        values.get("timestep_sampling", "uniform"),
        values.get("sigmoid_scale", 1.0),
        values.get("discrete_flow_shift", 3.0),
    )
    found = sample_sigmas(sampling, 999, seeded(2, "noise", 5, 0))
    torch.testing.assert_close(found, noise_levels(999, generator(2, "noise", 5, 0), values))
    case.check([0, 1], [5, 5], 5, seed=2, **values)


@pytest.mark.parametrize(
    ("values", "quantiles"),
    [
        # Quantiles 0.1, 0.5 and 0.9 of the distribution that the table in docs/training.md names.
        (SAMPLINGS[0], (0.1, 0.5, 0.9)),
        (SAMPLINGS[2], (0.2173, 0.5, 0.7827)),
        (SAMPLINGS[3], (0.3451, 0.5, 0.6549)),
        (SAMPLINGS[4], (0.4545, 0.75, 0.9153)),
    ],
)
def test_noise_levels_have_the_quantiles_of_their_distribution(values, quantiles):
    sampling = NoiseLevels(values.get("timestep_sampling", "uniform"), values.get("sigmoid_scale", 1.0))
    sigmas = sample_sigmas(sampling, 40000, seeded(0))
    found = torch.quantile(sigmas, torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(found, torch.tensor(quantiles), atol=0.01, rtol=0)


def test_the_levels_of_schnell_come_equally_often():
    levels, counts = sample_sigmas(NoiseLevels("schnell"), 40000, seeded(0)).unique(return_counts=True)
    assert levels.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert all(abs(count / 40000 - 0.25) < 0.01 for count in counts.tolist())


FULL = {
    "output_preservation_weight": 0.5,
    "region_weight": 3.0,
    "prior_target": "base",
    "timestep_sampling": "schnell",  # its levels are exact in bfloat16
}


def gradients_of(transformer, case, dtype=torch.float32):
    """Losses and the LoRA's gradients of one batch on another transformer with the same weights."""
    other = Case(case.examples, case.text, transformer, case.reference, case.base, case.adapter)
    found = other.objective(dtype, **FULL).backward(Draw((0, 1, 3), (5, 6, 7)), 2)
    names = [name for name, _ in transformer.named_parameters() if ".default." in name]
    return found, {name: transformer.get_parameter(name).grad for name in names}


@pytest.fixture(scope="module")
def plain(adapted):
    return gradients_of(copy.deepcopy(adapted.ours), adapted)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_saving_memory_gives_the_same_gradients(adapted, plain, count, checkpointing):
    transformer = copy.deepcopy(adapted.ours)
    if count:
        pack_blocks(transformer, PLAIN, torch.float32, count)
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    losses, gradients = gradients_of(transformer, adapted)
    assert torch.equal(losses, plain[0])
    assert gradients.keys() == plain[1].keys()
    for name, gradient in gradients.items():
        # The product with a streamed weight is one call where autograd's own may be another: last bits.
        assert_near(gradient, plain[1][name], name, tolerance=1e-6)


def test_streamed_weights_are_those_of_the_last_blocks_and_no_parameters(adapted):
    transformer = copy.deepcopy(adapted.ours)
    pack_blocks(transformer, PLAIN, torch.float32, 3)
    streamed = {name for name, module in transformer.named_modules() if isinstance(module, FrozenLinear)}
    blocks = {".".join(name.split(".")[:2]) for name in streamed}
    assert blocks == {"transformer_blocks.1", "single_transformer_blocks.0", "single_transformer_blocks.1"}
    kept = {name for name, _ in transformer.named_parameters()}
    assert not {name for name in kept if name.removesuffix(".weight") in streamed}
    assert {name for name in kept if ".lora_" in name} == {
        name for name, _ in adapted.ours.named_parameters() if ".lora_" in name
    }
    linear = {
        name
        for name, module in adapted.ours.named_modules()
        if type(module) is torch.nn.Linear and ".lora_" not in name
    }
    assert {name for name in linear if ".".join(name.split(".")[:2]) in blocks} == streamed


def test_the_start_of_a_run_says_what_is_streamed():
    transformer = tiny_transformer()
    before = sum(value.nbytes for value in transformer.parameters())
    assert memory.describe(transformer, CPU) == "1 MiB of weights on cpu"
    pack_blocks(transformer, PLAIN, torch.float32, 3)
    assert memory.describe(transformer, CPU) == "1 MiB of weights on cpu, 1 MiB streamed from main memory"
    streamed = [m for m in transformer.modules() if isinstance(m, FrozenLinear)]
    kept = sum(value.nbytes for value in transformer.parameters())
    assert kept + sum(module.weight.nbytes for module in streamed) == before
    with pytest.raises(UserError, match="this model has 4 blocks, so at most 3"):
        pack_blocks(tiny_transformer(), PLAIN, torch.float32, 4)


def test_large_weights_are_told_in_gib_and_small_ones_in_mib():
    for width, told in ((8192, "0.2 GiB"), (512, "1 MiB"), (1024, "4 MiB")):
        linear = torch.nn.Linear(width, width, bias=False, device="meta")
        assert memory.describe(linear, CPU) == f"{told} of weights on cpu"


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("of the GPU"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_errors_of_memory_are_told_as_such(error, is_memory):
    assert memory.is_out_of_memory(error) is is_memory


def test_the_peak_is_in_bytes_and_no_less_than_what_is_used_now():
    used = psutil.Process().memory_info().rss
    peaks = memory.peaks(CPU)
    assert peaks.keys() == {"host_peak"}
    assert used * 0.9 <= peaks["host_peak"] <= psutil.virtual_memory().total


def in_bfloat16(case) -> Any:
    """The transformer with a bf16 base; the LoRA that is trained stays in float32."""
    transformer = copy.deepcopy(case.ours)
    for name, parameter in transformer.named_parameters():
        if ".default." not in name:
            parameter.data = parameter.data.bfloat16()
    return transformer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_lora_computes_in_the_format_of_its_base(adapted, dtype):
    transformer = copy.deepcopy(adapted.ours) if dtype == torch.float32 else in_bfloat16(adapted)
    formats = set()
    for name, module in transformer.named_modules():
        if name.endswith(("lora_A.default", "lora_B.default", "base_layer")):
            module.register_forward_hook(lambda module, inputs, output: formats.add(output.dtype))
    gradients_of(transformer, adapted, dtype)
    assert formats == {dtype}


def test_bfloat16_changes_no_more_than_its_eight_bits(adapted, plain):
    """bf16 has 8 bits, 0.4 % a rounding; some hundred of them on the way through four blocks and back leave a
    gradient 2 to 8 % off.

    The LoRA itself stays in float32, and so do its gradients and the loss.
    """
    losses, gradients = gradients_of(in_bfloat16(adapted), adapted, torch.bfloat16)
    torch.testing.assert_close(losses, plain[0], rtol=0.02, atol=0)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        assert_near(gradient, plain[1][name], name, tolerance=0.15)
