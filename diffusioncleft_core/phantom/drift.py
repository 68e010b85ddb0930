"""Drift: how far a LoRA moves the base model's pictures when its trigger is not in the prompt."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def drift(
    base: npt.NDArray[np.uint8], adapted: npt.NDArray[np.uint8], *, resamples: int = 2000, seed: int = 0
) -> dict[str, dict[str, object]]:
    """Compare pictures of equal prompts and seeds without and with the LoRA.

    base, adapted: [N, H, W, 3]. Returns `mean_absolute_difference` (0 to 255) and `psnr` (dB; of the mean
    squared error over all pictures, peak 255), each with `value`, `ci95` (percentile bootstrap over pictures)
    and `n`. Equal pictures give psnr None.
    """
    if base.shape != adapted.shape or not len(base):
        raise ValueError(f"drift compares pictures of equal shape, not {base.shape} with {adapted.shape}")
    difference = base.astype(np.float64) - adapted.astype(np.float64)
    axes = tuple(range(1, difference.ndim))
    absolute = np.abs(difference).mean(axis=axes)
    squared = np.square(difference).mean(axis=axes)
    draws = np.random.default_rng(seed).integers(len(base), size=(resamples, len(base)))
    return {
        "mean_absolute_difference": {
            "value": float(absolute.mean()),
            "ci95": [float(x) for x in np.percentile(absolute[draws].mean(axis=1), (2.5, 97.5))],
            "n": len(base),
        },
        "psnr": {
            "value": psnr(float(squared.mean())),
            "ci95": [psnr(float(x)) for x in np.percentile(squared[draws].mean(axis=1), (97.5, 2.5))],
            "n": len(base),
        },
    }


def psnr(mean_squared_error: float) -> float | None:
    """10 log10(255² / MSE) in dB; None where the pictures are equal."""
    if mean_squared_error <= 0:
        return None
    return float(10 * np.log10(255.0**2 / mean_squared_error))
