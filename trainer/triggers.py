"""The trigger: how a run knows it, and captions without it or under another class's."""

import re
from collections.abc import Sequence

from ..diffusioncleft_core.dataset.settings import dataset_trigger
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.recipe.recipe import Subset

_LEADING = re.compile(r"\[([\w-]+)\]|([A-Z]{2}[\w-]*)\b")


def trigger_of(captions: Sequence[str]) -> str | None:
    """Return the trigger if all captions begin with the same one, in brackets or bare, else None.

    A bare trigger is recognised by its two capital letters: `CLP`, `CLPrep`.
    """
    found = set()
    for caption in captions:
        match = _LEADING.match(caption)
        found.add(match and (match[1] or match[2]))
    return found.pop() if len(found) == 1 else None


def known_trigger(given: str | None, folders: Sequence[Subset], captions: Sequence[str]) -> str:
    """Return the run's trigger, empty if it is not known.

    It is the one that was `given`; else that of the built datasets among the training folders; else the one
    that all captions begin with.
    """
    if given is not None:
        return given.strip("[]")
    datasets = {dataset_trigger(folder.image_dir) for folder in folders if not folder.is_reg}
    recorded = datasets.pop() if len(datasets) == 1 else None
    return recorded or trigger_of(captions) or ""


def trigger_form(captions: Sequence[str], trigger: str) -> str:
    """Return `bracketed` or `bare` if all captions hold the trigger in that form, else an empty string."""
    if not trigger:
        return ""
    matches = [_places(trigger).search(caption) for caption in captions]
    forms = {match and ("bracketed" if match[0].startswith("[") else "bare") for match in matches}
    return (forms.pop() if len(forms) == 1 else None) or ""


def without_trigger(caption: str, trigger: str) -> str:
    """The caption as it would be without its trigger: `[CLP] A girl…` and `CLP A girl…` → `A girl…`."""
    return " ".join(_places(trigger).sub("", caption).split())


def with_other_trigger(caption: str, trigger: str, other: str) -> str:
    """The caption under another class's trigger, in the form of its own: `[CLPrep] A girl…`."""
    other = other.strip("[]")
    return _places(trigger).sub(lambda match: f"[{other}]" if match[0].startswith("[") else other, caption)


def counterparts(
    caption: str, trigger: str, other: str | None = None, healthy: str | None = None
) -> tuple[str, ...]:
    """The captions under which output preservation holds the base model, in the turn they are taken.

    That without the trigger, that under `other`, another class's trigger, and that of the same person without
    the anomaly, as far as these are known.
    """
    under_other = (with_other_trigger(caption, trigger, other),) if other else ()
    return (without_trigger(caption, trigger), *under_other, *((healthy,) if healthy else ()))


def check_preserved(
    captions: Sequence[str], trigger: str, other: str | None, healthy: Sequence[str] = ()
) -> None:
    """Raise UserError unless every caption differs from what output preservation makes of it.

    One that stayed the same would be trained to show the finding and not to, at once; so would a `healthy`
    caption that holds the trigger.
    """
    if not trigger:
        raise UserError(
            "output preservation needs to know the trigger, and the captions begin with none in common; "
            "give --trigger, or leave out --output_preservation_weight"
        )
    lacking = sum(_places(trigger).search(caption) is None for caption in captions)
    if lacking:
        raise UserError(
            f"{lacking} of {len(captions)} captions do not hold the trigger {trigger}, so output "
            "preservation would train them against themselves; write it into them, give the right --trigger, "
            "or leave out --output_preservation_weight"
        )
    if any(caption in counterparts(caption, trigger, other) for caption in captions):
        raise UserError(f"--other_trigger {trigger} is the run's own trigger; give the other class's")
    if holding := sum(_places(trigger).search(caption) is not None for caption in healthy):
        raise UserError(
            f"{holding} of {len(healthy)} healthy captions hold the trigger {trigger}, under which the base "
            "model's output would be preserved; give the right --trigger, or build the dataset again"
        )


def _places(trigger: str) -> re.Pattern[str]:
    word = re.escape(trigger)
    return re.compile(rf"\[{word}\]|(?<![\w-]){word}(?![\w-])")
