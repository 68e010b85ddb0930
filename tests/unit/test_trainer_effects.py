"""Settings that would have no effect are refused, never ignored without a word."""

from pathlib import Path

import pytest
from trainer_settings import trainer_settings

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.recipe.recipe import Subset
from diffusioncleft.trainer.config import parse_arguments, recipe_from, unheard

REG, PROMPTS = {"reg_data_dir": Path("reg")}, {"sample_prompts": Path("prompts.txt")}
FOLDERS = {"train_data_dir": None, "subsets": (Subset(Path("photos")),)}
WITH_REG = {"train_data_dir": None, "subsets": (Subset(Path("a")), Subset(Path("b"), is_reg=True))}
REAL = {"pretrained_model_name_or_path": Path("flux")}

# A setting, what it needs beside it, and values beside which it does nothing.
CASES = [
    ({"lr_warmup_steps": 5}, {"lr_scheduler": "constant_with_warmup"}, {}),
    ({"lr_warmup_steps": 5}, {"lr_scheduler": "linear"}, {"lr_scheduler": "constant"}),
    ({"lr_warmup_steps": 5}, {"lr_scheduler": "cosine"}, {"lr_scheduler": "constant"}),
    ({"sigmoid_scale": 2.0}, {"timestep_sampling": "sigmoid"}, {"timestep_sampling": "schnell"}),
    ({"sigmoid_scale": 2.0}, {"timestep_sampling": "shift"}, {}),
    ({"discrete_flow_shift": 2.0}, {"timestep_sampling": "shift"}, {"timestep_sampling": "sigmoid"}),
    ({"prior_loss_weight": 0.5}, REG, {}),
    ({"prior_target": "base"}, WITH_REG, FOLDERS),
    ({"other_trigger": "CLPrep"}, {"output_preservation_weight": 0.5}, {}),
    ({"class_tokens": "a face"}, {}, FOLDERS),
    ({"caption_extension": ".caption"}, {}, FOLDERS),
    *(({name: Path("file")}, REAL, {"phantom": True}) for name in ("clip_l", "t5xxl", "ae")),
    *(({name: Path("folder")}, REAL, {"phantom": True}) for name in ("tokenizer_clip", "tokenizer_t5")),
    ({"save_last_n_steps": 10}, {"save_every_n_steps": 1}, {}),
    (PROMPTS, {"sample_every_n_steps": 1}, {}),
    (PROMPTS, {"sample_at_first": True}, {}),
    ({"sample_size": 128}, {**PROMPTS, "sample_at_first": True}, {}),
    ({"sample_steps": 2}, {**PROMPTS, "sample_every_n_steps": 1}, {}),
]


@pytest.mark.parametrize(("setting", "needed", "other"), CASES)
def test_a_setting_without_effect_is_refused_by_name(setting, needed, other):
    trainer_settings(**setting, **needed)
    name = next(iter(setting))
    with pytest.raises(UserError, match=f"^--{name} .* would have no effect: .*; ") as caught:
        trainer_settings(**setting, **other)
    assert str(caught.value).count("; ") == 1


def test_a_warm_up_under_constant_names_the_schedule_that_has_one():
    with pytest.raises(UserError, match="use --lr_scheduler constant_with_warmup"):
        trainer_settings(lr_warmup_steps=100)


@pytest.mark.parametrize(
    "values",
    [{"lr_warmup_steps": 0}, {"prior_loss_weight": 1.0}, {"sigmoid_scale": 1.0}, {"sample_steps": 4}],
)
def test_a_default_that_is_spelt_out_is_accepted(values):
    trainer_settings(**values)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--discrete_flow_shift", "3"], "--discrete_flow_shift 3.0 has no effect: it belongs to --timestep"),
        (["--sigmoid_scale=1", "--timestep_sampling=schnell"], "--sigmoid_scale 1.0 has no effect"),
        (["--prior_loss_weight", "1"], "--prior_loss_weight 1.0 has no effect: there are no regularisation"),
        (["--sample_steps", "4"], "--sample_steps 4 has no effect: there are no previews"),
        (["--lr_warmup_steps", "0", "--save_last_n_steps", "0"], None),
        (["--discrete_flow_shift", "3", "--timestep_sampling", "shift"], None),
        ([], None),
    ],
)
def test_a_default_that_is_spelt_out_and_has_no_effect_is_said(given, said):
    line = ["--phantom", "--train_data_dir", "photos", "--timestep_sampling", "sigmoid", *given]
    namespace = parse_arguments(line)
    told = unheard(namespace, recipe_from(namespace))
    assert len(told) == (said is not None)
    assert said is None or told[0].startswith(said)


def test_a_default_in_a_config_file_is_said_too(tmp_path):
    (tmp_path / "kohya.toml").write_text("discrete_flow_shift = 3.0\nlr_warmup_steps = 0\n")
    line = ["--phantom", "--train_data_dir", "photos", "--timestep_sampling", "sigmoid"]
    namespace = parse_arguments([*line, "--config_file", str(tmp_path / "kohya.toml")])
    (told,) = unheard(namespace, recipe_from(namespace))
    assert told.startswith("--discrete_flow_shift 3.0 has no effect")
