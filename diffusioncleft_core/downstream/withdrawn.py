"""No classifier is used that learned from a photograph whose consent was withdrawn, or from its images."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ..dataset.withdrawn import SAID, Withdrawal, known_withdrawals, read_mark, withdrawal_of
from ..errors import UserError
from ..files import shown
from .document import training_names
from .model import SavedModel


def refuse_withdrawn_model(model: SavedModel, known: Sequence[Withdrawal] | None = None) -> None:
    """Raise UserError for a classifier that a withdrawn consent reaches, itself or its images' LoRAs.

    known: beside what the mark in the model's folder says (default: the user's list).
    """
    known = [*(known_withdrawals() if known is None else known), *read_mark(model.folder)]
    if withdrawal_of(training_names(model.document), known) is not None:
        folder = shown(model.folder)
        raise UserError(
            f"the classifier {folder}, or a LoRA that drew what it learned from, {SAID}, so it judges "
            "nothing; train it again without that photograph (diffusioncleft downstream train), and erase "
            f"this one with 'diffusioncleft dataset withdraw {shlex.quote(folder)}'"
        )
