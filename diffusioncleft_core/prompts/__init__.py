"""Prompts, captions and sampling plans."""

from .builder import build_caption, build_prompt, escape_emphasis, plain_text, with_trigger
from .plan import PlanRow, extend_plan, read_plan, row_seed, sampling_plan, write_plan

__all__ = [
    "PlanRow",
    "build_caption",
    "build_prompt",
    "escape_emphasis",
    "extend_plan",
    "plain_text",
    "read_plan",
    "row_seed",
    "sampling_plan",
    "with_trigger",
    "write_plan",
]
