"""Sampling plans: stratified prompts with seeds."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from ..errors import UserError
from ..progress import progress
from .plan_rows import Plan, PlanRow
from .prompts import build_prompt
from .vocabulary import PAPER_MODE, Condition

SMALLEST_SHARE = Fraction(1, 1000)


class Strata:
    """Endless sequence of values, deterministic by `key`. weights: any scale; with weight 0 never drawn."""

    def __init__(self, weights: Mapping[str, Fraction], key: str) -> None:
        positive = {value: weight for value, weight in weights.items() if weight > 0}
        scale = math.lcm(*(weight.denominator for weight in positive.values()))
        self._values = list(positive)
        self._weights = [int(weight * scale) for weight in positive.values()]
        self._total = sum(self._weights)
        self._counts = [0] * len(self._values)
        self._place = 0
        # random() from a text seed gives the same numbers in every Python version; choices() need not.
        self._random = random.Random(key)

    def draw(self) -> str:
        """The next value."""
        self._place += 1
        opened = [i for i in range(len(self._values)) if self._counts[i] < self._ceiling(i, self._place)]
        while True:
            choice = self._pick(opened)
            self._counts[choice] += 1
            if len(opened) == 1 or self._can_go_on():
                return self._values[choice]
            self._counts[choice] -= 1
            opened.remove(choice)

    def _ceiling(self, i: int, place: int) -> int:
        return -(-self._weights[i] * place // self._total)

    def _pick(self, opened: list[int]) -> int:
        point = self._random.random() * sum(self._weights[i] for i in opened)
        for i in opened:
            point -= self._weights[i]
            if point < 0:
                return i
        return opened[-1]

    def _can_go_on(self) -> bool:
        """Hall's condition: up to no later place are more occurrences due than there are places left.

        From the place where every count is due again it holds by itself, so the search ends there.
        """
        end = max(
            -(-count * self._total // weight)
            for count, weight in zip(self._counts, self._weights, strict=True)
        )
        for place in range(self._place, end + 1):
            due = sum(
                max(0, weight * place // self._total - count)
                for count, weight in zip(self._counts, self._weights, strict=True)
            )
            if due > place - self._place:
                return False
        return True


_SEED_BITS = 48
REFILL_STRIDE = 1_000_000
"""Row i of the plan, made again for the k-th time, has the index k * REFILL_STRIDE + i."""
_TOLD = 100
"""Rows between two updates of the progress: a twentieth of a second."""


@dataclass(frozen=True)
class AttributeChoices:
    """What becomes of the attributes in a plan's rows. Attributes named nowhere are left out.

    Attributes:
        mode: which attributes are drawn and with which weights; `paper` is uniform over the paper's Table 1.
        fixed: attributes with one value.
        weights: attributes drawn with these weights, on any scale; values that are not named are never drawn.
        omit: attributes left out.
        draw: attributes drawn in addition to the mode's.
    """

    mode: str = PAPER_MODE
    fixed: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, float | Fraction]] = field(default_factory=dict)
    omit: Sequence[str] = ()
    draw: Sequence[str] = ()


AS_THE_PAPER = AttributeChoices()


def sampling_plan(
    condition: Condition,
    n: int,
    seed: int,
    choices: AttributeChoices = AS_THE_PAPER,
    *,
    bracketed: bool = True,
    extra: str = "",
) -> Plan:
    """N prompts with seeds, deterministic by `seed` and the choices.

    An attribute that means nothing beside the others (a side without one-sidedness) is left out of that row.

    Among the rows that draw an attribute under the same weights, in every beginning of the plan the count of
    each value is within one of its share. Weights change where a rule of the mode applies, and a dependent
    attribute is drawn only where it means something: each is stratified within those rows.

    Args:
        condition: whose attributes and phrases the prompts are made of.
        n: rows, at least 1; a longer plan begins with the rows of a shorter one.
        seed: of the plan; each row gets a seed of its own from it.
        choices: which attributes are fixed, drawn or left out.
        bracketed: `[CLP]` or `CLP`.
        extra: a phrase before the closing one.

    Raises:
        UserError: a name or value is unknown, choices contradict each other, n < 1, or n > 1,000,000.
    """
    if n < 1:
        raise UserError(f"a plan needs at least one row, not {n}; give a larger count")
    if n > REFILL_STRIDE:
        raise UserError(
            f"a plan holds at most {REFILL_STRIDE:,} rows, not {n:,}: make several, each with another seed"
        )
    chooser = _Chooser(condition, choices, seed)
    rows = Plan()
    with progress(n, "planning", unit="row", leave=False) as bar:
        for index in range(n):
            attributes = chooser.next_row()
            prompt = build_prompt(condition, attributes, bracketed=bracketed, extra=extra)
            own_seed = row_seed(condition.name, seed, index)
            rows.append(PlanRow(index, prompt, own_seed, attributes, condition.name))
            if len(rows) % _TOLD == 0:
                bar.update(_TOLD)
    return rows


def row_seed(condition: str, seed: int, index: int) -> int:
    """Seed of one image, 0 <= seed < 2**48: exact in JSON readers that keep numbers as float64."""
    digest = hashlib.sha256(f"{condition}/{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[: _SEED_BITS // 8], "big")


def attempt_of(index: int) -> int:
    """0 for a row of the plan, k for a row that was made again for the k-th time."""
    return index // REFILL_STRIDE


def made_again(row: PlanRow, attempt: int) -> PlanRow:
    """The same prompt and attributes with another seed: the plan's strata stay as they are.

    Args:
        row: of the plan, attempt 0.
        attempt: 1 for the first time. The new seed depends on the row's seed and the attempt alone.
    """
    digest = hashlib.sha256(f"{row.condition}/{row.seed}/again/{attempt}".encode()).digest()
    seed = int.from_bytes(digest[: _SEED_BITS // 8], "big")
    return replace(row, index=attempt * REFILL_STRIDE + row.index % REFILL_STRIDE, seed=seed)


class _Chooser:
    """Chooses the attributes of one row after the other."""

    def __init__(self, condition: Condition, choices: AttributeChoices, seed: int) -> None:
        self._condition, self._mode, self._seed = condition, condition.mode(choices.mode), seed
        for name in (*choices.fixed, *choices.weights, *choices.omit, *choices.draw):
            condition.attribute(name)
        self._fixed = {
            name: condition.attribute(name).check(value, condition.name)
            for name, value in choices.fixed.items()
        }
        self._own_weights = {
            name: _weights(condition, name, given) for name, given in choices.weights.items()
        }
        self._omit = set(choices.omit)
        self._drawn = {*self._mode.draw, *choices.draw, *self._own_weights}
        self._strata: dict[tuple[str, str], Strata] = {}
        self._check_contradictions()

    def next_row(self) -> dict[str, str]:
        """The attributes of the next row, in the condition's order."""
        row: dict[str, str] = {}
        for name, attribute in self._condition.details.items():
            if name in self._omit or not attribute.applies(row):
                continue
            if name in self._fixed:
                row[name] = self._fixed[name]
            elif name in self._drawn:
                row[name] = self._draw(name, row)
        return row

    def _draw(self, name: str, row: Mapping[str, str]) -> str:
        context, weights = self._weights_of(name, row)
        if (name, context) not in self._strata:
            key = f"{self._seed}/{self._condition.name}/{self._mode.name}/{name}/{context}"
            self._strata[name, context] = Strata(weights, key)
        return self._strata[name, context].draw()

    def _weights_of(self, name: str, row: Mapping[str, str]) -> tuple[str, Mapping[str, Fraction]]:
        """The weights in force for an attribute, and a name for the circumstances they are in force in."""
        values = self._condition.attributes[name]
        if name in self._own_weights:
            return "own", self._own_weights[name]
        for number, rule in enumerate(self._mode.rules):
            if name in rule.weights and rule.holds(row):
                return f"rule {number}", rule.weights[name]
        return "", self._mode.weights.get(name) or dict.fromkeys(values, Fraction(1))

    def _check_contradictions(self) -> None:
        groups: tuple[tuple[str, Iterable[str]], ...] = (
            ("fixed", self._fixed), ("weighted", self._own_weights), ("left out", self._omit),
        )  # fmt: skip
        seen: dict[str, str] = {}
        for what, names in groups:
            for name in names:
                if name in seen:
                    raise UserError(f"{name} is both {seen[name]} and {what}; choose one")
                seen[name] = what
        for name in self._fixed:
            for key, allowed in (self._condition.details[name].requires or {}).items():
                possible = {self._fixed[key]} if key in self._fixed else set(self._condition.attributes[key])
                if key in self._omit or (key not in self._fixed and key not in self._drawn):
                    possible = set()
                if not possible & set(allowed):
                    raise UserError(f"{name} can be set only with {key} {' or '.join(allowed)}; set it too")


def _weights(condition: Condition, name: str, given: Mapping[str, float | Fraction]) -> dict[str, Fraction]:
    attribute = condition.attribute(name)
    weights: dict[str, Fraction] = {}
    for value, weight in given.items():
        if not 0 <= weight < float("inf"):
            raise UserError(f"the weight of {name} {value} must be 0 or more, not {weight}")
        exact = weight if isinstance(weight, Fraction) else Fraction(str(weight))
        weights[attribute.check(value, condition.name)] = exact
    total = sum(weights.values())
    if not total:
        raise UserError(
            f"{name} needs at least one weight above 0; allowed values: {', '.join(attribute.values)}"
        )
    if any(0 < weight < total * SMALLEST_SHARE for weight in weights.values()):
        raise UserError(f"a weight of {name} is below a thousandth of their sum; give 0 or a larger weight")
    return weights
