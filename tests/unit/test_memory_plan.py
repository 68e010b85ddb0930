"""The memory plan: what is chosen for which card, what is kept of the user's, and what is said."""

import pytest
import torch
from recipes import recipe_of

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux.memory_estimate import (
    GIB,
    MARGIN,
    Layout,
    Work,
    estimate,
    picture_tokens,
)
from diffusioncleft.diffusioncleft_core.flux.memory_plan import Room, Wishes, choose
from diffusioncleft.diffusioncleft_core.flux.model_size import BlockSize, ModelSize
from diffusioncleft.diffusioncleft_core.flux.packed import PLAIN, STORED
from diffusioncleft.diffusioncleft_core.flux.training_memory import (
    Batch,
    plan_training,
    planned_recipe,
    room_on,
    work_of,
)
from diffusioncleft.tools.full_size_base import transformer_size

CPU = torch.device("cpu")
TRAINABLE = 85_917_696
"""Of a LoRA of rank 16 on every linear layer, counted by the trainer: experiments/full_size.json."""
HOST = 32 * GIB


@pytest.fixture(scope="module")
def schnell():
    return transformer_size()


@pytest.fixture(scope="module")
def stored_fp8(schnell):
    """FLUX.1 schnell as an fp8 file has it."""
    kept = [BlockSize(b.matrices, b.rows, b.rest, b.matrices, b.matrices) for b in schnell.blocks]
    return ModelSize(schnell.width, tuple(kept), schnell.outer, schnell.adapted_sides, "fp8")


def work(side=1024, samples=1):
    return Work(picture_tokens(side) + 256, samples, TRAINABLE, 2, preview_pixels=min(side, 768) ** 2)


def card(gb, host=HOST, **values):
    return Room(room_on(CPU, gb).device, host, **values)


@pytest.mark.parametrize(
    ("gb", "side", "expected"),
    [
        (80, 1024, (PLAIN, False)),
        (80, 512, (PLAIN, False)),
        (40, 1024, (PLAIN, True)),
        (40, 512, (PLAIN, False)),
        (24, 1024, ("int8", True)),
        (24, 512, ("int8", True)),
        (16, 512, ("int8", True)),
    ],
)
def test_a_card_gets_the_fastest_layout_that_fits(schnell, gb, side, expected):
    plan = choose(schnell, work(side), card(gb))
    assert (plan.layout.form, plan.layout.checkpointing, plan.layout.streamed) == (*expected, 0)


@pytest.mark.parametrize("gb", [8, 12])
@pytest.mark.parametrize("side", [512, 1024])
def test_a_small_card_streams_int8_where_main_memory_holds_it(schnell, gb, side):
    plan = choose(schnell, work(side), card(gb))
    assert (plan.layout.form, plan.layout.checkpointing) == ("int8", True)
    assert plan.layout.streamed > 0
    fewer = Layout("int8", True, plan.layout.streamed - 1)
    assert estimate(schnell, work(side), fewer).device * MARGIN > card(gb).device, "the fewest that do"


def test_a_small_card_beside_little_main_memory_takes_nf4(schnell):
    assert choose(schnell, work(512), card(12, host=GIB)).layout == Layout("nf4", True)
    plan = choose(schnell, work(1024), card(8, host=5 * GIB))
    assert plan.layout.form == "nf4" and plan.layout.streamed > 0
    assert plan.estimate.host <= 5 * GIB


@pytest.mark.parametrize("gb", [8, 12, 16, 24, 40, 80])
@pytest.mark.parametrize("side", [512, 768, 1024])
@pytest.mark.parametrize("samples", [1, 2])
def test_what_is_chosen_fits_and_previews_never_need_more(schnell, gb, side, samples):
    room = card(gb)
    if (gb, side, samples) == (8, 1024, 2):
        with pytest.raises(UserError, match="take --resolution 960"):
            choose(schnell, work(side, samples), room)
        return
    plan = choose(schnell, work(side, samples), room)
    assert plan.estimate.device * MARGIN <= room.device
    assert plan.estimate.host <= room.host
    assert plan.tiles_previews or plan.estimate.preview <= plan.estimate.spared


def test_what_the_user_chose_is_kept_and_only_the_rest_chosen(schnell):
    room = card(24)
    assert choose(schnell, work(512), room, Wishes("nf4")).layout == Layout("nf4", False)
    assert choose(schnell, work(1024), room, Wishes("nf4")).layout == Layout("nf4", True)
    plain = choose(schnell, work(1024), room, Wishes(PLAIN)).layout
    assert (plain.form, plain.checkpointing) == (PLAIN, True) and plain.streamed > 0
    assert choose(schnell, work(1024), card(80), Wishes(checkpointing=True)).layout == Layout(PLAIN, True)
    # kohya's: --gradient_checkpointing --blocks_to_swap 18
    assert choose(schnell, work(1024), room, Wishes("auto", True, 18)).layout == Layout(PLAIN, True, 18)
    assert choose(schnell, work(512), room, Wishes("auto", False, 0)).layout == Layout("nf4", False)


def test_a_complete_choice_is_taken_though_it_seems_too_large_and_that_is_said(schnell):
    plan = choose(schnell, work(1024), card(24), Wishes(PLAIN, False, 0))
    assert plan.layout == Layout(PLAIN, False)
    assert not plan.fits and "may run out of memory" in plan.told


@pytest.mark.parametrize("gb", [8, 12, 16, 24, 80])
def test_a_packed_file_stays_as_it_is(stored_fp8, gb):
    plan = choose(stored_fp8, work(1024), card(gb))
    assert plan.layout.form == STORED
    assert plan.estimate.weights < 13 * GIB


def test_a_refusal_says_what_is_missing_and_what_to_change(schnell):
    with pytest.raises(UserError) as caught:
        choose(schnell, work(1024, samples=8), card(8, host=2 * GIB))
    told = str(caught.value)
    assert "GPU memory, of which 7.38 GiB are free" in told
    assert "fewer samples at once than 8" in told
    with pytest.raises(UserError, match=r"take --resolution (\d+)") as caught:
        choose(schnell, work(1024), card(6, host=5 * GIB))
    side = int(str(caught.value).split("--resolution ")[1].split(",")[0])
    assert choose(schnell, work(side), card(6, host=5 * GIB)).fits
    with pytest.raises(UserError, match="install bitsandbytes"):
        choose(schnell, work(1024), card(8, host=2 * GIB, nf4=False))
    with pytest.raises(UserError, match=r"of which 1\.00 GiB are free; .*free main memory"):
        choose(schnell, work(1024), card(8, host=GIB))
    with pytest.raises(UserError, match="leave out what was chosen"):
        choose(schnell, work(1024), card(24), Wishes(PLAIN, False))


def test_one_line_says_what_was_taken_and_why(schnell):
    told = choose(schnell, work(1024), card(24)).told
    assert "\n" not in told
    assert told.startswith("base in int8, gradient checkpointing: about ")
    assert "faster ways need more (unquantised" in told


def recipe(**values):
    values = {"resolution": (1024,), "output_preservation_weight": 0.0, **values}
    return recipe_of(pretrained_model_name_or_path="flux", train_data_dir="photos", **values)


def test_samples_at_once_are_those_of_the_objective(schnell, tmp_path):
    def samples(**values):
        return work_of(recipe(**values), schnell, torch.bfloat16).samples

    assert samples() == 1
    assert samples(train_batch_size=3) == 3
    assert samples(output_preservation_weight=1.0) == 2
    assert samples(output_preservation_weight=1.0, reg_data_dir=tmp_path, train_batch_size=2) == 6


def test_a_higher_rank_for_one_layer_counts(schnell):
    def parameters(**values):
        return work_of(recipe(**values), schnell, torch.bfloat16).lora_parameters

    assert parameters(network_dim=16) == TRAINABLE
    assert parameters(network_dim=16, network_args=("single_dim=32",)) == 2 * TRAINABLE
    assert parameters(network_dim=8, network_args=("train_double_block_indices=0,18",)) == TRAINABLE // 2


def test_a_processor_and_the_phantom_are_as_they_were(schnell):
    on_processor = plan_training(recipe(), schnell, torch.float32, None)
    phantom = plan_training(recipe_of(phantom=True), schnell, torch.bfloat16, card(8))
    for plan in (on_processor, phantom):
        assert plan.layout == Layout(PLAIN, False, 0)
        assert not plan.tiles_previews
    assert room_on(CPU) is None


def test_a_run_goes_on_as_it_began(schnell):
    began = Wishes("nf4", True, 0)
    plan = plan_training(recipe(), schnell, torch.bfloat16, card(80), recorded=began)
    assert plan.layout == Layout("nf4", True, 0)
    assert plan.told.endswith("as the run began")


def test_a_run_that_does_not_fit_any_more_keeps_its_form_alone(schnell):
    began = Wishes("int8", False, 0)
    plan = plan_training(recipe(), schnell, torch.bfloat16, card(16), recorded=began)
    assert plan.layout.form == "int8" and plan.layout.checkpointing and plan.fits
    assert "the run began otherwise" in plan.told


def test_what_is_said_now_comes_before_what_was_recorded(schnell):
    plan = plan_training(
        recipe(gradient_checkpointing=False),
        schnell,
        torch.bfloat16,
        card(80),
        Batch(1024, 0),
        recorded=Wishes("nf4", True, 0),
    )
    assert plan.layout == Layout("nf4", False, 0)


def test_the_recipe_holds_what_was_chosen(schnell):
    found = planned_recipe(recipe(), Layout("int8", True, 3)).memory
    assert (found.base_format, found.gradient_checkpointing, found.blocks_to_swap) == ("int8", True, 3)
