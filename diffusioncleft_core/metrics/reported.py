"""Figures that others reported. Nothing here was measured by this software, and nothing is gated on it."""

from dataclasses import dataclass

PAPER = "Rosero et al., DiffusionCleft, ICMI 2025, doi:10.1145/3716553.3750794"


@dataclass(frozen=True)
class Reported:
    """One figure as printed. `value` in the unit of our own metric of that name (proportions from 0 to 1)."""

    method: str
    condition: str
    metric: str
    value: float
    source: str = PAPER
    caveat: str = ""


FIR_CAVEAT = "A share of pairs; at most 5 of 2,000 images, 0.25 % (95 % interval 0.08 to 0.58 %)."
FIR_POST_CAVEAT = "A share of pairs, one pair of 402,000; printed as 0.0002 %, 1/402,000 is 0.00025 %."
FID_CAVEAT = (
    "Against the 100 to 201 training images: a distance to so few rewards copying, and about 7 in 2048 "
    "dimensions is below what two samples of one Gaussian give at these sizes."
)
OTHER_REFERENCE = "Against the 514 training photographs of CleftGAN's own authors, another reference set."
FIXED_CROP = "That release saves a fixed sub-crop, so the figure may not be like for like."

REPORTED: tuple[Reported, ...] = (
    Reported("DiffusionCleft (paper)", "pre_op", "fir_pairs", 0.000025, caveat=FIR_CAVEAT),
    Reported("DiffusionCleft (paper)", "post_op", "fir_pairs", 0.000002, caveat=FIR_POST_CAVEAT),
    Reported("DiffusionCleft (paper)", "pre_op", "fid", 7.277, caveat=FID_CAVEAT),
    Reported("DiffusionCleft (paper)", "post_op", "fid", 7.774, caveat=FID_CAVEAT),
    Reported("DiffusionCleft (paper)", "all", "fid", 5.911, caveat=FID_CAVEAT),
    Reported("DiffusionCleft (paper)", "pre_op", "lpips", 0.542),
    Reported("DiffusionCleft (paper)", "post_op", "lpips", 0.559),
    Reported("DiffusionCleft (paper)", "all", "lpips", 0.556),
    Reported("CleftGAN", "all", "fid", 21.03, caveat=OTHER_REFERENCE),
    Reported("CleftGAN", "all", "lpips", 0.335, caveat=FIXED_CROP),
)
"""Table 2 of the paper; CleftGAN's row as the paper gives it."""


def reported(metric: str, condition: str) -> list[Reported]:
    """What others reported for one of our metrics and conditions."""
    return [row for row in REPORTED if (row.metric, row.condition) == (metric, condition)]
