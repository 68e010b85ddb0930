"""What the oracle's readings say about a LoRA: is the finding shown, and of the right type?

Every share is corrected for the oracle's own errors (`statistics.corrected`), counted on held-out renders and
kept in models/oracle/errors.json.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..statistics import Proportion, TestError, corrected
from .oracle import WEIGHTS, Reading

ERRORS = WEIGHTS.with_name("errors.json")
FINDING = {"pre_op": "cleft", "post_op": "scar"}
"""What a LoRA of each condition is asked to show."""


@cache
def oracle_errors(path: Path = ERRORS) -> dict[str, Any]:
    """The oracle's counted errors, by what it reads and by skin tone."""
    errors: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return errors


def error_of(name: str, skin: str | None = None) -> TestError:
    """Counts for `cleft`, `scar`, `cleft_bilateral`, `skin`, `eyes` and so on, over all or in one tone."""
    counts = oracle_errors()[name]
    return TestError(**(counts["by_skin"][skin] if skin else counts["all"]))


def finding_rate(condition: str, reading: Reading, wanted: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Share of the N pictures that show the condition's finding: the cleft before repair, the scar after.

    reading: of the N pictures; wanted: their N attribute dicts (`skin` splits the figure). Returns `value`,
    `ci95`, `n` (corrected), `observed` (share as read) and `by_skin`.
    """
    finding = FINDING[condition]
    shown = reading.cleft if finding == "cleft" else reading.scar
    return _by_skin(shown, wanted, lambda k, n, skin: corrected(k, n, error_of(finding, skin)))


def type_accuracy(reading: Reading, wanted: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Of the pictures that show a cleft: the share whose type, unilateral or bilateral, is the one asked for.

    The share of bilateral readings within each type asked for is corrected; the two are weighted by their n.
    Sides have no goal; `side_as_asked` is the plain share among unilateral readings that had a side.
    """
    asked = np.array([row.get("cleft_type", "") for row in wanted])
    shown = reading.cleft & (asked != "")
    result = _pooled(reading, asked, shown)
    skins = np.array([row.get("skin", "") for row in wanted])
    parts = {skin: _pooled(reading, asked, shown & (skins == skin)) for skin in sorted(set(skins)) if skin}
    sides = np.array([row.get("side", "") for row in wanted])
    sided = shown & (sides != "") & (reading.cleft_type == "unilateral")
    agree = int((reading.cleft_side == sides)[sided].sum())
    return result | {"by_skin": parts, "side_as_asked": {"k": agree, "n": int(sided.sum())}}


def attribute_rate(name: str, reading: Reading, wanted: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Share of pictures whose `name` (skin, eyes, ...) is read as asked, corrected, also by skin tone."""
    kept = [i for i, row in enumerate(wanted) if row.get(name)]
    rows = [wanted[i] for i in kept]
    hit = np.array([reading.words[name][i] == wanted[i][name] for i in kept], dtype=bool)
    return _by_skin(hit, rows, lambda k, n, skin: corrected(k, n, error_of(name, skin)))


def _pooled(reading: Reading, asked: NDArray[np.str_], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    error = error_of("cleft_bilateral")
    value, observed, total = 0.0, 0, int(chosen.sum())
    if not total:
        return as_figure(Proportion(None, (0.0, 1.0), 0, 0))
    spread = 0.0
    for kind in ("unilateral", "bilateral"):
        here = chosen & (asked == kind)
        n = int(here.sum())
        if not n:
            continue
        k = int((reading.cleft_type == "bilateral")[here].sum())
        part = corrected(k, n, error)
        share = part.value if kind == "bilateral" else 1 - (part.value or 0.0)
        value += (share or 0.0) * n / total
        half = (part.ci95[1] - part.ci95[0]) / 2
        spread += (half * n / total) ** 2
        observed += k if kind == "bilateral" else n - k
    low, high = max(0.0, value - spread**0.5), min(1.0, value + spread**0.5)
    return as_figure(Proportion(value, (low, high), observed, total))


def _by_skin(
    hit: NDArray[np.bool_],
    wanted: Sequence[Mapping[str, str]],
    rate: Callable[[int, int, str | None], Proportion],
) -> dict[str, Any]:
    skins = np.array([row.get("skin", "") for row in wanted])
    parts = {}
    for skin in sorted(set(skins.tolist()) - {""}):
        here = skins == skin
        parts[skin] = as_figure(rate(int(hit[here].sum()), int(here.sum()), skin))
    return as_figure(rate(int(hit.sum()), len(hit), None)) | {"by_skin": parts}


def as_figure(share: Proportion) -> dict[str, Any]:
    """`value`, `ci95` and `n` as in report.json, with the share as read beside them."""
    observed = share.k / share.n if share.n else None
    return {"value": share.value, "ci95": list(share.ci95), "n": share.n, "observed": observed}
