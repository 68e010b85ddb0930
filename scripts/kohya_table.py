"""The fate of each option of kohya's FLUX trainer, as the tables in docs/training.md: writes them anew."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from diffusioncleft.diffusioncleft_core.recipe.recipe import recipe_fields
from diffusioncleft.trainer.kohya import FIELDS
from diffusioncleft.trainer.kohya_options import ALWAYS, REFUSED, TRANSLATED, WITHOUT_EFFECT

PAGE = Path(__file__).resolve().parents[1] / "docs" / "training.md"
BEGIN, END = "<!-- kohya's options: scripts/kohya_table.py -->\n", "<!-- end of kohya's options -->\n"
OURS = (
    "phantom", "multi_resolution", "ema_decay", "validation_data_dir", "early_stop", "wandb_online",
    "tokenizer_clip", "tokenizer_t5", "cache_dir", "checkpoint_every_n_steps",
    "network_form", "lokr_factor", "network_targets", "network_qkv", "training_adapter",
    "adam_beta1", "adam_beta2", "adam_eps",
    "weight_decay", "prior_target", "output_preservation_weight", "other_trigger", "region_weight",
    "balance_by",
    "memory", "compile", "deterministic", "device", "num_cpu_threads", "sample_size", "sample_steps",
    "report_every_step", "trigger", "prompt_form", "stop_file",
)  # fmt: skip
"""Fields whose option kohya's trainer has not."""


def tables() -> str:
    """All tables as Markdown."""
    fields = recipe_fields()
    honoured = [
        (f"`--{name}`", f"`{path}`: {fields[path].setting.help}")
        for name, path in FIELDS.items()
        if name not in OURS
    ]
    honoured += [(f"`--{name}`", f"as {meaning}") for name, meaning in TRANSLATED.items()]
    honoured.append(
        (
            "`--config_file`",
            "a TOML of these settings; the command line takes precedence, as in kohya's scripts",
        )
    )
    always = [
        (f"`--{name}`", ", ".join(f"`{value}`" if value else "on" for value in values))
        for name, values in ALWAYS.items()
    ]
    return "\n".join(
        [
            _table("Honoured", "is", honoured),
            _table("Always so here: accepted, and refused with another value", "value", always),
            _table(
                "Accepted and without effect, which a warning tells", "because", _by_reason(WITHOUT_EFFECT)
            ),
            _table(
                "Refused by name",
                "because",
                _by_reason({k: v for k, v in REFUSED.items() if k not in ALWAYS}),
            ),
        ]
    )


def page(text: str) -> str:
    """The page with its tables anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + tables() + END + after


def _by_reason(options: Mapping[str, str]) -> list[tuple[str, str]]:
    names: dict[str, list[str]] = defaultdict(list)
    for name, reason in options.items():
        names[reason].append(f"`--{name}`")
    return [(", ".join(group), reason) for reason, group in names.items()]


def _table(title: str, head: str, rows: list[tuple[str, str]]) -> str:
    lines = [
        f"**{title}** ({sum(names.count('`--') for names, _ in rows)} options)",
        "",
        f"| option | {head} |",
        "| --- | --- |",
    ]
    lines += [f"| {names} | {told.replace('|', chr(92) + '|')} |" for names, told in rows]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
