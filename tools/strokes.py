"""Soft lines, wedges and spots: marks on skin, which no word of the findings names."""

import numpy as np
from numpy.typing import NDArray

Share = NDArray[np.float32]


def line(size: int, at: NDArray[np.float64], rng: np.random.Generator, *, upright: bool = False) -> Share:
    """How much of each pixel a bent line of 1 to 3 px (at 128 px) covers, [size, size]; `at`: row, column.

    upright: a plain one that stands, of middle length; else of any direction, length and strength.
    """
    k = size / 128
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    y, x = at
    angle = rng.normal(np.pi / 2, 0.3 if upright else 0.9)
    reach, bend = k * rng.uniform(*((4, 8) if upright else (3, 12))), rng.normal(0, 0.12)
    spread = k * rng.uniform(0.6 if upright else 0.45, 1.2)
    u = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    v = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle) - bend * u * u / reach
    return _soft(
        np.hypot(v, np.maximum(np.abs(u) - reach, 0)), spread, rng, *((0.6, 1.0) if upright else (0.35, 0.9))
    )


def spot(size: int, at: NDArray[np.float64], rng: np.random.Generator) -> Share:
    """The same of a round spot."""
    k = size / 128
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    spread = k * rng.uniform(1.2, 2.5)
    return _soft(np.hypot(columns - at[1], rows - at[0]), spread, rng, 0.6, 1.0)


def wedge(size: int, at: NDArray[np.float64], rng: np.random.Generator) -> Share:
    """The same of an upright wedge, 3 to 8 px wide at its foot and 6 to 14 px high (at 128 px)."""
    k = size / 128
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    angle = rng.normal(0, 0.3)
    x, y = columns - at[1], rows - at[0]
    across, down = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    height, foot, edge = k * rng.uniform(6, 14), k * rng.uniform(1.5, 4), k * rng.uniform(0.4, 0.8)
    inside = np.minimum(foot * (down / height + 0.5) - np.abs(across), 0.5 * height - np.abs(down))
    return np.asarray(rng.uniform(0.6, 1) / (1 + np.exp(-np.clip(inside / edge, -30, 30))), np.float32)


def _soft(
    away: NDArray[np.floating], spread: float, rng: np.random.Generator, weakest: float, strongest: float
) -> Share:
    return np.asarray(rng.uniform(weakest, strongest) * np.exp(-0.5 * np.square(away / spread)), np.float32)
