"""What the report calls each metric, which family it belongs to, and how its values are written."""

from __future__ import annotations

from .blocks import percent, plain

METRICS = {
    "fir_pairs": ("FIR, share of generated–training pairs (lower is better)", "paper"),
    "fir_images": ("FIR, share of generated images (lower is better)", "paper"),
    "fid": ("FID to the training images (lower is better, but copies score best)", "paper"),
    "lpips": ("LPIPS, mean of random pairs (hold it against the training images’ own, below)", "paper"),
}
BESIDE = {
    "fir_images_any": ("FIR of images against every condition’s training photographs", "paper"),
    "leak_images": ("Images with a training face, at the audit’s threshold (see Leak audit)", "robust"),
    "fir_pairs": ("FIR of pairs at the audit’s threshold, interval over images and people", "robust"),
    "near_copies": ("Near copies of training photographs, share of generated images", "robust"),
    "lpips_all_pairs": ("LPIPS over all pairs, exact", "robust"),
    "kid": ("KID to the training images (0: alike)", "robust"),
    "kid_holdout": ("KID to hold-out photographs (0: alike; copying does not help)", "robust"),
    "fid_holdout": ("FID to hold-out photographs (copying does not help)", "robust"),
    "fid_matched": ("FID at the size of the training images’ own (see below)", "robust"),
    "precision": ("Precision: generated images that lie among the training images", "robust"),
    "recall": ("Recall: training images that lie among the generated ones", "robust"),
    "density": ("Density: neighbourhoods a generated image lies in, over those expected", "robust"),
    "coverage": ("Coverage: training images with a generated one in their neighbourhood", "robust"),
    "vendi": ("Vendi score: how many wholly different images the set amounts to", "robust"),
}
OVER_OTHERS = {
    "": ("Fréchet distance to the training images", "paper"),
    "_holdout": ("Fréchet distance to hold-out photographs", "robust"),
    "_kid": BESIDE["kid"],
    "_kid_holdout": BESIDE["kid_holdout"],
    "_precision": BESIDE["precision"],
    "_recall": BESIDE["recall"],
    "_vendi": BESIDE["vendi"],
}
"""Rows for each further extractor, by what follows its name."""
SHARES = (
    *("fir_", "near_copies", "leak_", "residual_", "authenticity"),
    *("precision", "recall", "coverage"),
)
"""How the names of metrics begin that are shares."""
ACRONYMS = ("fir", "fid", "kid", "lpips")
LEAKS = "Leak audit"
FAMILIES = {
    "near_copies": "Near copies",
    **dict.fromkeys(("leak_", "residual_", "distance_ratio", "authenticity"), LEAKS),
}
"""What metrics belong to, by how their names begin; others by their first word."""
OF_PHOTOGRAPHS = {
    "kid_floor": "KID of hold-out photographs to the training images",
    "vendi_reference": "Vendi score of the training images",
    "lpips_reference": "LPIPS of the training images themselves, all pairs",
    "fid_floor": "FID of one half of the training images to the other",
    "fir_control_pairs": "FIR of hold-out photographs, pairs: what other people score",
    "fir_control_images": "FIR of hold-out photographs, images",
    "near_copies_control": "Near copies among hold-out photographs",
}


def family_of(metric: str) -> str:
    """`FIR` of `fir_pairs`; `Near copies` of `near_copies_control`."""
    name = metric.partition("_")[0]
    own = name.upper() if name in ACRONYMS else name.capitalize()
    return next((family for start, family in FAMILIES.items() if metric.startswith(start)), own)


def label_of(metric: str) -> str:
    """`FIR control pairs` of `fir_control_pairs`; `Leak audit (residual risk)` of `residual_risk`."""
    family = family_of(metric)
    if family == LEAKS:
        return f"{family} ({metric.replace('_', ' ')})"
    return family + metric[len(family) :].replace("_", " ")


def shown_value(metric: str, value: float | None) -> str:
    """`4.2 %` of a share; a number with as many places as its metric has."""
    if value is None:
        return "not measured"
    if metric.startswith(SHARES) or metric.endswith(("_precision", "_recall", "_coverage")):
        return percent(value)
    if "kid" in metric:
        return plain(value, 4)
    return plain(value, 3 if metric.startswith("lpips") or abs(value) < 10 else 2)
