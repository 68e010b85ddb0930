"""The conditions that a graph may name: the embedded vocabulary's, and those of the owner's own files."""

import logging
from collections.abc import Mapping

from ..diffusioncleft_core.conditions.loader import load_vocabulary
from ..diffusioncleft_core.conditions.vocabulary import Condition
from ..diffusioncleft_core.errors import UserError
from . import places


def conditions() -> dict[str, Condition]:
    """Every condition by name, the embedded ones first.

    What can't be read, and a name or trigger that is taken, is left out with a warning in the log: one bad
    file must not cost the node pack.
    """
    found = dict(load_vocabulary().conditions)
    for file in places.vocabulary_files():
        try:
            own = load_vocabulary(file).conditions
        except UserError as error:
            logging.warning("DiffusionCleft: %s", error)
            continue
        triggers = {condition.trigger for condition in found.values()}
        for name, condition in own.items():
            if name in found or condition.trigger in triggers:
                logging.warning(
                    "DiffusionCleft: %s, [conditions.%s]: name or trigger is taken", file.name, name
                )
            else:
                found[name] = condition
    return found


def condition_of(name: str) -> Condition:
    """The condition of that name; UserError names the existing ones."""
    known: Mapping[str, Condition] = conditions()
    if name not in known:
        raise UserError(f"there is no condition {name!r}; choose one of: {', '.join(known)}")
    return known[name]
