"""What controls leave standing of the claim that a classifier learned the lip: rules, read off intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CHANCE, KEPT, LINE, BELOW = "chance", "kept", "line", "below"
EXPECTED = (CHANCE, KEPT, LINE, BELOW)
"""Of a control: no better than chance; still better than chance; nothing, it is the line to beat; worse than
the source that it is a control of."""
ABOVE, UNDER, AT = "above chance", "below chance", "not told from chance"
LOWER, NOT_LOWER = "below the source", "not shown to be below the source"
BEATEN, REACHED, UNREACHED = "the source is above it", "not told from the source", "the source is below it"
"""Of a line to beat."""
NOT_RUN = "not run"
FEW_TRAININGS, FEW_PEOPLE = "can’t be told, too few trainings", "can’t be told, too few people"
"""Of an interval about chance that ends at 0 or 1, or where a control must be at chance, that reaches as far
from it as the source."""
CHANCE_LEVEL = 0.5
"""Of balanced accuracy and AUC."""
FAMILY = 0.05
"""How often any control that must be at chance may seem not to be, though all are."""

SHUFFLED = "shuffled_labels"
SAYINGS: Mapping[str, str] = {
    "base_as_both": "the base model’s faces as both classes are not at chance, so it learns the generator",
    "generated_negatives": (
        "with generated faces in place of the real negatives it is not shown to beat chance, so it may tell "
        "generated from real"
    ),
    "lip_masked": "with the lip masked it is not at chance, so it does not need the lip",
    "background": "on the background alone it is not at chance, so it does not need the lip",
    "lip_alone": "the lip alone is not shown to be enough for it",
}
"""What a control that comes out otherwise says, in the order in which it is told."""
NEEDED = (SHUFFLED, "base_as_both", "lip_masked", "background")
"""Controls without which it is never said to have learned the lip."""


@dataclass(frozen=True)
class Finding:
    """How one control came out.

    Attributes:
        expected: of `EXPECTED`.
        verdict: in words.
        passed: None where nothing was expected, or nothing was found, or too little to tell.
        ends: of the interval that it was judged by: of its AUC, or for `below` and `line` of the source's AUC
            less its own.
    """

    name: str
    expected: str
    verdict: str
    passed: bool | None = None
    ends: tuple[float, float] | None = None

    @property
    def clause(self) -> str:
        """What it says where it did not pass."""
        if self.expected != BELOW and self.name in SAYINGS:
            return SAYINGS[self.name]
        return f"the control “{self.name.replace('_', ' ')}” is {self.verdict}"


def against_chance(ends: Sequence[float]) -> str:
    """What an interval says of chance: `ABOVE`, `UNDER`, or `AT` where it holds it."""
    low, high = ends
    return ABOVE if low > CHANCE_LEVEL else UNDER if high < CHANCE_LEVEL else AT


def _reaches(ends: Sequence[float], auc: float) -> bool:
    """Whether an interval lies as far from chance, on either side, as this AUC."""
    return max(ends[1] - CHANCE_LEVEL, CHANCE_LEVEL - ends[0]) >= auc - CHANCE_LEVEL


def chance_level(controls: int) -> float:
    """The level of each interval, so that of so many controls at chance all are taken for it in 95 %."""
    return 1 - FAMILY / max(1, controls)


def judged(
    name: str,
    expected: str,
    ends: Sequence[float] | None,
    difference: Sequence[float] | None = None,
    *,
    people: Sequence[float] | None = None,
    reached: float | None = None,
) -> Finding:
    """Judge a control.

    Args:
        expected: of `EXPECTED`.
        ends: of the AUC's interval, which covers trainings where there are several; None where there is none.
        difference: of the interval of the source's AUC less the control's; needed for `below` and `line`.
        people: as `ends`, but of an interval that covers people alone.
        reached: the source's AUC where it is above chance. An interval about chance that reaches as far from
            it does not show that the control is at chance; one that ends at 0 or 1 shows nothing.
    """
    used = difference if expected in (BELOW, LINE) else ends
    if ends is None or used is None:
        return Finding(name, expected, NOT_RUN)
    shown = (float(used[0]), float(used[1]))
    if expected == BELOW:
        is_lower = shown[0] > 0
        return Finding(name, expected, LOWER if is_lower else NOT_LOWER, is_lower, shown)
    if expected == LINE:
        verdict = BEATEN if shown[0] > 0 else UNREACHED if shown[1] < 0 else REACHED
        return Finding(name, expected, verdict, None, shown)
    verdict = against_chance(shown)
    far = reached if expected == CHANCE and reached is not None else 1.0
    if verdict == AT and _reaches(shown, far):
        few_people = people is None or _reaches(people, far)
        return Finding(name, expected, FEW_PEOPLE if few_people else FEW_TRAININGS, None, shown)
    return Finding(name, expected, verdict, verdict == (AT if expected == CHANCE else ABOVE), shown)


def reading(
    source: str,
    ends: Sequence[float] | None,
    findings: Sequence[Finding],
    *,
    sorts: bool = True,
    leak: str | None = None,
) -> str:
    """The one sentence on what a classifier learned; of the rules the first that holds.

    Args:
        source: what it was trained on.
        ends: its AUC's interval, which covers trainings where there are several.
        findings: its controls.
        sorts: whether its balanced accuracy is above chance too.
        leak: of `check_leak`.
    """
    by_name = {finding.name: finding for finding in findings if finding.expected != LINE}
    run = {name: finding for name, finding in by_name.items() if finding.passed is not None}
    failed = [name for name, finding in run.items() if finding.passed is False]
    if SHUFFLED in failed:
        return (
            "The evaluation leaks: trained on shuffled labels the classifier is not at chance, so no figure "
            "of this task counts."
        )
    if leak is not None:
        return f"What the classifier learned is not shown: {leak}."
    if ends is None:
        return f"Trained on {source}, the classifier was tested on too few people to say anything."
    if (verdict := against_chance(ends)) != ABOVE:
        return f"Trained on {source}, the classifier is {verdict}, so there is nothing to explain."
    if all(finding.verdict == NOT_RUN for finding in by_name.values()):
        return "What the classifier learned is not known: no control was run."
    if failed:
        order = [*(name for name in SAYINGS if name in failed), *(n for n in failed if n not in SAYINGS)]
        clauses = "; ".join(run[name].clause for name in order)
        return f"The reading that it learned the lip does not stand: {clauses}."
    needed = [name for name in (*NEEDED, *(n for n in by_name if n not in NEEDED)) if name not in run]
    if needed:
        why = {name: by_name[name].verdict if name in by_name else NOT_RUN for name in needed}
        listed = ", ".join(f"{name.replace('_', ' ')} ({verdict})" for name, verdict in why.items())
        return f"No control speaks against the lip, but it is not shown without: {listed}."
    room = max((item.ends[1] for item in run.values() if item.expected == CHANCE and item.ends), default=0.5)
    sorted_ = "" if sorts else ", though at its own threshold it does not sort them"
    return (
        f"The reading that it learned the lip stands{sorted_}; a shortcut worth an AUC of up to {room:.2f} "
        "is not ruled out."
    )
