"""Settings that would change nothing beside the others: refused, never ignored without a word."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ..diffusioncleft_core.errors import UserError


@dataclass(frozen=True)
class _Rule:
    """The settings `names` take effect when `holds`; else `hint` says what to do."""

    names: tuple[str, ...]
    holds: Callable[[Any], bool]
    hint: str


def _regularised(settings: Any) -> bool:
    return settings.reg_data_dir is not None or any(subset.is_reg for subset in settings.subsets)


_FROM_TOML = "the folders are those of --dataset_config; write it into that file"
_RULES = (
    _Rule(
        ("lr_warmup_steps",),
        lambda s: s.lr_scheduler != "constant",
        "the schedule constant has no warm-up; use --lr_scheduler constant_with_warmup",
    ),
    _Rule(
        ("sigmoid_scale",),
        lambda s: s.timestep_sampling in ("sigmoid", "shift"),
        "it belongs to --timestep_sampling sigmoid and shift; choose one of them or leave it out",
    ),
    _Rule(
        ("discrete_flow_shift",),
        lambda s: s.timestep_sampling == "shift",
        "it belongs to --timestep_sampling shift; choose that or leave it out",
    ),
    _Rule(
        ("prior_loss_weight", "prior_target"),
        _regularised,
        "there are no regularisation images; give --reg_data_dir or leave it out",
    ),
    _Rule(
        ("other_trigger",),
        lambda s: s.output_preservation_weight > 0,
        "it is for output preservation; give --output_preservation_weight too",
    ),
    _Rule(("class_tokens", "caption_extension"), lambda s: not s.subsets, _FROM_TOML),
    _Rule(
        ("clip_l", "t5xxl", "ae", "tokenizer_clip", "tokenizer_t5"),
        lambda s: not s.phantom,
        "--phantom trains the embedded model, which is whole; leave it out",
    ),
    _Rule(
        ("save_last_n_steps",),
        lambda s: s.save_every_n_steps > 0,
        "no LoRA is saved on the way; give --save_every_n_steps too",
    ),
    _Rule(
        ("sample_prompts",),
        lambda s: s.sample_every_n_steps > 0 or s.sample_at_first,
        "no preview is asked for; give --sample_every_n_steps or --sample_at_first",
    ),
    _Rule(
        ("sample_steps", "sample_size"),
        lambda s: s.sample_prompts is not None,
        "there are no previews; give --sample_prompts and --sample_every_n_steps, or leave it out",
    ),
)


def refuse_without_effect(settings: Any) -> None:
    """Raise UserError for the first setting that was changed from its default and has no effect."""
    defaults = {entry.name: entry.default for entry in fields(settings)}
    for rule in _RULES:
        for name in rule.names:
            value = getattr(settings, name)
            if value != defaults[name] and not rule.holds(settings):
                raise UserError(f"--{name} {value} would have no effect: {rule.hint}")
