"""Prompts, captions and sampling plans."""

from .builder import build_caption, build_prompt, escape_emphasis, plain_text, with_trigger
from .length import CLIP_LIMIT, PromptLength, prompt_length
from .plan import PlanRow, extend_plan, read_plan, row_seed, sampling_plan, write_plan

__all__ = [
    "CLIP_LIMIT",
    "PlanRow",
    "PromptLength",
    "build_caption",
    "build_prompt",
    "escape_emphasis",
    "extend_plan",
    "plain_text",
    "prompt_length",
    "read_plan",
    "row_seed",
    "sampling_plan",
    "with_trigger",
    "write_plan",
]
