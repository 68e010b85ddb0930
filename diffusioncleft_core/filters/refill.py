"""Make images again in place of rejected ones, with the same prompts, so that the plan's strata stay."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..prompts import PlanRow
from ..prompts.plan import REFILL_STRIDE, attempt_of, made_again
from ..ranges import whole
from .apply import FilterResult
from .sets import read_set_rows

ATTEMPTS = 3
ATTEMPTS_RANGE = whole(1, 20)


@dataclass(frozen=True)
class RefillResult:
    """`made`: images made again; `missing`: rows of the plan that still have no accepted image."""

    made: int
    missing: int
    filtered: FilterResult | None


def refill_set(
    folder: Path,
    generate: Callable[[list[PlanRow]], None],
    check: Callable[[], FilterResult],
    *,
    attempts: int = ATTEMPTS,
) -> RefillResult:
    """Fill the gaps that the filters left, round by round, at most `attempts` times for a row.

    generate: draws rows into the set; it is given the set's whole plan with the new rows at its end, because
    a generation writes the manifest of what it was asked for. check: filters the set again. An interrupted
    refill goes on: rows that were asked for and are not there are asked for again.
    """
    ATTEMPTS_RANGE.check(attempts, "attempts")
    made, result = 0, None
    for _ in range(attempts):
        rows = read_set_rows(folder)
        wanted = rows_to_refill(rows, attempts)
        if not wanted:
            break
        generate([*plan_of(rows), *wanted])
        made += len(wanted)
        result = check()
    return RefillResult(made, len(unfilled(read_set_rows(folder))), result)


def rows_to_refill(rows: Sequence[Mapping[str, Any]], attempts: int) -> list[PlanRow]:
    """The next attempt of every row of the plan without an accepted image, up to `attempts` of each."""
    tried: dict[int, int] = {}
    for row in rows:
        place = int(row["index"])
        first = place % REFILL_STRIDE
        tried[first] = max(tried.get(first, 0), attempt_of(place))
    return [made_again(row, tried[row.index] + 1) for row in unfilled(rows) if tried[row.index] < attempts]


def unfilled(rows: Sequence[Mapping[str, Any]]) -> list[PlanRow]:
    """Rows of the plan of which no attempt was accepted. Rows that no filter has seen count as filled."""
    plan = {row.index: row for row in plan_of(rows)}
    filled = {
        int(row["index"]) % REFILL_STRIDE
        for row in rows
        if (row.get("verdicts") or {}).get("accepted") is not False
    }
    return [row for index, row in plan.items() if index < REFILL_STRIDE and index not in filled]


def plan_of(rows: Sequence[Mapping[str, Any]]) -> list[PlanRow]:
    """The plan that a generated set's manifest rows come from. UserError for a set that was not generated."""
    try:
        return [
            PlanRow(
                int(row["index"]),
                str(row["prompt"]),
                int(row["seed"]),
                dict(row.get("attributes") or {}),
                str(row["condition"]),
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError):
        raise UserError(
            "only a set that `diffusioncleft generate` made can be refilled: its manifest names index, "
            "prompt and seed of every image"
        ) from None
