"""Prompts: one by hand, or a whole plan that drives a batch."""

import json
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..diffusioncleft_core.conditions.loader import load_vocabulary
from ..diffusioncleft_core.conditions.plan import AttributeChoices, sampling_plan
from ..diffusioncleft_core.conditions.plan_rows import Plan, PlanRow
from ..diffusioncleft_core.conditions.vocabulary import Condition
from ..diffusioncleft_core.errors import UserError
from .common import CATEGORY, Node, Row, core_progress, node_schema, output, text_view
from .conditions import condition_of, conditions
from .queued import QueuedNode

RANDOM, LEFT_OUT = "random", "left out"
SEED_MAX = 2**48 - 1


class PromptBuilder(Node):
    """One prompt in the paper's form, each attribute fixed, drawn at random, or left out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        attributes, own = _attribute_inputs()
        return node_schema(
            node_id="DiffusionCleft_PromptBuilder",
            display_name="Cleft Prompt Builder",
            category=CATEGORY,
            search_aliases=["cleft prompt", "prompt builder", "prompt generator"],
            description=(
                "A prompt in the paper's form: trigger, whole face, cleft, appearance, closing phrase."
            ),
            inputs=[
                _condition_input(),
                *attributes,
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=SEED_MAX,
                    control_after_generate=True,
                    tooltip="Draws the attributes set to random, and gives the seed for the sampler.",
                ),
                _bracketed_input(),
                _extra_input(),
                *own,
            ],
            outputs=[
                output(io.String, "prompt", tooltip="For CLIP Text Encode."),
                io.Int.Output(
                    "sampler_seed", display_name="seed", tooltip="For the sampler: the row's own seed."
                ),
                output(io.String, "attributes", tooltip="The attributes as JSON."),
                output(
                    Row, "row", tooltip="Prompt, seed and attributes, for filters and Save Synthetic Set."
                ),
            ],
        )

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        values = node.values()
        if values.keys() == node.inputs.keys():
            cls._row(**values)

    @classmethod
    def _row(
        cls, condition: str, seed: int, bracketed: bool, extra: str, **attributes: str
    ) -> dict[str, Any]:
        return build_row(condition, attributes, seed, bracketed=bracketed, extra=extra)

    @classmethod
    def execute(
        cls, condition: str, seed: int, bracketed: bool, extra: str, **attributes: str
    ) -> io.NodeOutput:
        row = cls._row(condition, seed, bracketed, extra, **attributes)
        described = json.dumps(row["attributes"], ensure_ascii=False)
        return io.NodeOutput(row["prompt"], row["seed"], described, row, ui=text_view(row["prompt"]))


class PromptPlan(Node):
    """N prompts with seeds, stratified over the attributes: lists that drive a batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        modes = list(dict.fromkeys(mode for item in conditions().values() for mode in item.modes))
        return node_schema(
            node_id="DiffusionCleft_PromptPlan",
            display_name="Cleft Prompt Plan",
            category=CATEGORY,
            search_aliases=["cleft prompt", "batch prompts", "prompt list", "dataset of prompts"],
            description=(
                "Prompts and seeds as lists: what is connected runs once a row. The first rows of a plan "
                "stay the same when it gets longer, so a long plan can be queued in pieces."
            ),
            inputs=[
                _condition_input(),
                io.Int.Input(
                    "count", default=4, min=1, max=100_000, tooltip="Rows to give, from `start` on."
                ),
                io.Int.Input(
                    "start", default=0, min=0, max=1_000_000, tooltip="First row of the plan to give, from 0."
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=SEED_MAX, tooltip="Seed of the plan: same seed, same rows."
                ),
                io.Combo.Input(
                    "mode",
                    options=modes,
                    default=modes[0],
                    tooltip="paper: uniform over the paper's Table 1. clinical: as seen in a clinic.",
                ),
                _bracketed_input(),
                _extra_input(),
            ],
            outputs=[
                output(io.String, "prompts", is_output_list=True, tooltip="One prompt a row."),
                output(io.Int, "seeds", is_output_list=True, tooltip="One seed a row, for the sampler."),
                output(Row, "rows", is_output_list=True, tooltip="For filters and Save Synthetic Set."),
                io.Int.Output("rows_given", display_name="count", tooltip="Number of rows given."),
            ],
        )

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        values = node.values()
        if values.keys() == node.inputs.keys():
            cls._plan(1, **{name: value for name, value in values.items() if name not in ("count", "start")})

    @classmethod
    def _plan(cls, n: int, condition: str, seed: int, mode: str, bracketed: bool, extra: str) -> Plan:
        choices = AttributeChoices(mode=mode)
        return sampling_plan(condition_of(condition), n, seed, choices, bracketed=bracketed, extra=extra)

    @classmethod
    def execute(
        cls, condition: str, count: int, start: int, seed: int, mode: str, bracketed: bool, extra: str
    ) -> io.NodeOutput:
        with core_progress():
            plan = cls._plan(start + count, condition, seed, mode, bracketed, extra)
        rows = [row_of(item) for item in plan[start:]]
        lines = "\n".join(f"{row['index']}  {row['prompt']}" for row in rows[:20])
        more = f"\n… and {len(rows) - 20} more" if len(rows) > 20 else ""
        return io.NodeOutput(
            [row["prompt"] for row in rows],
            [row["seed"] for row in rows],
            rows,
            len(rows),
            ui=text_view(lines + more),
        )


def build_row(
    condition: str, attributes: dict[str, str], seed: int, *, bracketed: bool = True, extra: str = ""
) -> dict[str, Any]:
    """The row of one prompt: the first of the plan in which the given attributes are fixed.

    It has no place in a plan: whoever saves its picture gives it the next free one.
    """
    found = condition_of(condition)
    fixed: dict[str, str] = {}
    draw: list[str] = []
    omit: list[str] = []
    for name, value in attributes.items():
        own = name in found.details
        if value == RANDOM:
            draw += [name] if own else []
        elif value == LEFT_OUT:
            omit += [name] if own else []
        elif own:
            fixed[name] = value
        else:
            raise UserError(f"{found.title} has no {name}; set it to '{RANDOM}' or '{LEFT_OUT}'")
    choices = AttributeChoices(fixed=fixed, draw=draw, omit=omit)
    plan = sampling_plan(found, 1, seed, choices, bracketed=bracketed, extra=extra)
    return {**row_of(plan[0]), "index": None}


def row_of(item: PlanRow) -> dict[str, Any]:
    """A plan's row as it travels on a socket."""
    return {
        "index": item.index,
        "prompt": item.prompt,
        "seed": item.seed,
        "attributes": dict(item.attributes),
        "condition": item.condition,
    }


def _condition_input() -> Any:
    known = conditions()
    names = list(known)
    return io.Combo.Input(
        "condition",
        options=names,
        default=names[0],
        tooltip=" ".join(f"{name}: {item.title}, trigger {item.trigger}." for name, item in known.items()),
    )


def _attribute_inputs() -> tuple[list[Any], list[Any]]:
    """One dropdown an attribute of any condition; random where the paper's mode draws it.

    Attributes that only the owner's own vocabularies have come apart, as optional inputs behind all others: a
    workflow that was saved without them stays as it is.
    """
    known = conditions()
    details: dict[str, tuple[Any, list[str]]] = {}
    for condition in known.values():
        for name, detail in condition.details.items():
            values = details.setdefault(name, (detail, []))[1]
            values.extend(value for value in detail.values if value not in values)
    drawn = {name for condition in known.values() for name in condition.mode("paper").draw}
    embedded = {name for item in load_vocabulary().conditions.values() for name in item.details}
    inputs = {
        name: io.Combo.Input(
            name,
            options=[RANDOM, LEFT_OUT, *values],
            default=RANDOM if name in drawn else LEFT_OUT,
            optional=name not in embedded,
            tooltip=_attribute_tooltip(known, name, detail),
        )
        for name, (detail, values) in details.items()
    }
    return (
        [item for name, item in inputs.items() if name in embedded],
        [item for name, item in inputs.items() if name not in embedded],
    )


def _attribute_tooltip(known: Mapping[str, Condition], name: str, detail: Any) -> str:
    title = detail.title[0].upper() + detail.title[1:]
    owners = [key for key, condition in known.items() if name in condition.details]
    only = f" {owners[0]} only." if len(owners) == 1 else ""
    needs = [f"{key} {' or '.join(values)}" for key, values in (detail.requires or {}).items()]
    return f"{title}.{only}" + (f" Only with {', '.join(needs)}." if needs else "")


def _bracketed_input() -> Any:
    return io.Boolean.Input(
        "bracketed",
        default=True,
        tooltip="Write the trigger as [CLP], as the paper prints it; off: CLP. As the LoRA was trained.",
    )


def _extra_input() -> Any:
    return io.String.Input(
        "extra", default="", tooltip="A phrase of your own before the closing phrase; may stay empty."
    )
