"""A second opinion on the difference: an ordinal regression with raters and images.

A cumulative probit (McCullagh, J R Stat Soc B 42, 1980; statsmodels' `OrderedModel`) of the answer on
generated or real, on the condition and on the rater. statsmodels fits no random effects here. What stands
for them: raters are fixed effects, so the result is about these raters; the answers on one image are one
cluster of a sandwich variance (Liang & Zeger, Biometrika 73, 1986), whose limits have the t of the
smaller number of images less one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr, stdtrit

from ..design import REAL
from .grid import Grid
from .intervals import FEWEST_IMAGES, LEVEL, Array

APPROXIMATED = (
    "Cumulative probit with raters as fixed effects and images as clusters of a sandwich variance; "
    "random effects of images and raters, as a mixed model has them, are approximated so."
)
_ENDLESS = 8.0
"""Standard deviations from which an effect is none that data can tell: a side has nearly one answer."""


def ordinal_effect(grid: Grid) -> dict[str, Any]:
    """The shift from real to generated images on the answers' hidden scale, in its standard deviations.

    Returns:
        `shift` with its interval, and `superiority`: the chance that a generated image is rated above a real
        one, ties split evenly, with its interval; or `missing`, which says why there is none.
    """
    place, column = np.nonzero(~np.isnan(grid.scores))
    answers = grid.scores[place, column]
    generated = (grid.role != REAL)[place]
    n = [int((grid.role == REAL).sum()), int((grid.role != REAL).sum())]
    if min(n) < FEWEST_IMAGES:
        return {"missing": f"It needs {FEWEST_IMAGES} images of each kind."}
    if any(len(set(answers[side])) < 2 for side in (generated, ~generated)):
        return {"missing": "All answers on one kind of image are the same: the model has no finite answer."}
    columns: list[Array] = [generated.astype(np.float64)]
    columns += _dummies([grid.condition[at] for at in place])
    columns += _dummies([grid.raters[at] for at in column])
    fitted = _fit(answers, np.stack(columns, -1), place)
    if fitted is None or abs(fitted[0]) > _ENDLESS:
        return {"missing": "The model could not be fitted to these answers."}
    shift, error = fitted
    reach = float(stdtrit(min(n) - 1, (1 + LEVEL) / 2)) * error
    limits = [shift - reach, shift + reach]
    superiority = [float(ndtr(value / math.sqrt(2))) for value in (shift, *limits)]
    return {
        "shift": {"value": shift, "ci95": limits},
        "superiority": {"value": superiority[0], "ci95": superiority[1:]},
        "approximated": APPROXIMATED,
    }


def _dummies(values: Sequence[Any]) -> list[Array]:
    """A column for each value but the first."""
    names = list(dict.fromkeys(values))
    return [np.array([value == name for value in values], np.float64) for name in names[1:]]


def _fit(answers: Array, columns: Array, images: Any) -> tuple[float, float] | None:
    """Coefficient of the first column and its standard error by clusters; None where the fit fails."""
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    kept = columns[:, np.ptp(columns, axis=0) > 0]
    codes = np.unique(answers, return_inverse=True)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fitted = OrderedModel(codes, kept, distr="probit").fit(
                method="bfgs", maxiter=500, disp=0, cov_type="cluster", cov_kwds={"groups": images}
            )
        except (ValueError, np.linalg.LinAlgError):
            return None
    value, error = float(fitted.params[0]), float(fitted.bse[0])
    usable = bool(fitted.mle_retvals["converged"]) and math.isfinite(value) and math.isfinite(error)
    return (value, error) if usable and error > 0 else None
