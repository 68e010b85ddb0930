"""A report document as the stages write it: real statistics over made-up numbers. No file is needed."""

from typing import Any

import numpy as np

from diffusioncleft.diffusioncleft_core.metrics.fir import (
    fir_images,
    fir_pairs,
    fir_sweep,
    share_as_json,
    similarity_histogram,
)
from diffusioncleft.diffusioncleft_core.statistics import clopper_pearson

CONDITIONS = ("pre_op", "post_op")
EXTRACTOR = {"name": "seeded-random", "sha256": "ab" * 32, "phantom": True, "licence": "Apache-2.0"}
SKINS = ("light", "pale", "medium", "fair", "dark", "olive")
PHOTOGRAPHS = {"pre_op": 100, "post_op": 201}


def document(*, phantom: bool = True, n: int = 200) -> dict[str, Any]:
    """Every part filled in."""
    cosines = {
        name: np.random.default_rng(seed).normal(0.18 - 0.08 * seed, 0.11, (n, PHOTOGRAPHS[name]))
        for seed, name in enumerate(CONDITIONS)
    }
    sets = {name: measured(cosines[name], phantom) for name in CONDITIONS}
    sets["all"] = measured(np.concatenate([cosines["pre_op"], cosines["post_op"][:, :100]]), phantom)
    return {
        "schema": 1,
        "created": "2026-11-24 10:00 UTC",
        "phantom": phantom,
        "preset": "paper",
        "notes": ["The learning rate is 0.005, not the paper's 0.0001: the phantom model is too small."],
        "oracle": {name: oracle(name) for name in CONDITIONS} if phantom else {},
        "training": {name: training(PHOTOGRAPHS[name]) for name in CONDITIONS},
        "generation": {name: {"images": n} for name in CONDITIONS},
        "filters": {name: filtered(n) for name in CONDITIONS},
        "sets": sets,
        "figures": {
            "similarity": {
                name: {"raw": {**similarity_histogram(cosines[name], 0.6), "extractor": extractor(phantom)}}
                for name in CONDITIONS
            },
            "pca": pca(n, phantom),
            "loss": {name: loss() for name in CONDITIONS},
        },
        "provenance": {
            "versions": {"diffusioncleft": "0.1.0", "python": "3.11.2", "torch": "2.14.1"},
            "hardware": {"system": "Linux x86_64", "cpu": "a processor", "cores": 2, "memory_gib": 24.0},
            "seed": 0,
            "base_model_sha256": {"transformer": "cd" * 32},
            "faces": {"pre_op": {"pack": "phantom", "det_size": [128, 128]}},
            "seconds": {"dataset-pre_op": 12.5, "training-pre_op": 139.3, "generation-pre_op": 60.0},
            "peak_memory_gib": {"process": 2.1},
        },
    }


def extractor(phantom: bool) -> dict[str, Any]:
    return {**EXTRACTOR, "phantom": phantom}


def measured(cosines: np.ndarray, phantom: bool) -> dict[str, Any]:
    """One set's figures in the shape of metrics/measure.py."""
    n, references = cosines.shape
    base = {"n_images": n, "n_reference": references, "n_unreadable": 0, "extractor": extractor(phantom)}
    faces = {**base, "n_no_face": 3, "n_several": 1, "threshold": 0.6}
    calm = np.minimum(cosines, 0.59)

    def both(make: Any) -> dict[str, Any]:
        return {"paper": {"raw": make(cosines), "filtered": make(calm)}}

    def distance(value: float, size: int) -> dict[str, Any]:
        return {**base, "value": value, "ci95": None, "n": size}

    return {
        "fir_pairs": both(lambda c: {**faces, **share_as_json(fir_pairs(c, 0.6))}),
        "fir_images": both(lambda c: {**faces, **share_as_json(fir_images(c, 0.6))}),
        "fir_images_any": both(lambda c: {**faces, **share_as_json(fir_images(c, 0.6))}),
        "fir_sweep": both(fir_sweep),
        "fid": both(lambda c: distance(31.2, n)),
        "lpips": both(lambda c: {**distance(0.41, 2000), "image_size": [128, 128], "n_resized": 0}),
        "lpips_all_pairs": {"robust": {"raw": distance(0.405, n * (n - 1) // 2)}},
        "lpips_reference": {"robust": {"real": distance(0.44, references * (references - 1) // 2)}},
        "fid_floor": {"robust": {"real": {**distance(22.0, references), "range": [20.5, 24.1]}}},
    }


def pca(n: int, phantom: bool) -> dict[str, Any]:
    draw = np.random.default_rng(3)
    edges = np.linspace(-1, 1, 13)
    real, generated = {}, {}
    for shift, name in ((-0.3, "pre_op"), (0.3, "post_op")):
        points = draw.normal(shift, 0.25, (PHOTOGRAPHS[name], 2)).clip(-0.99, 0.99)
        counts = np.histogram2d(points[:, 0], points[:, 1], (edges, edges))[0]
        real[name] = [[int(value) if value >= 5 else None for value in column] for column in counts]
        generated[name] = draw.normal(shift, 0.22, (n, 2)).clip(-0.99, 0.99).round(3).tolist()
    return {
        "explained": [0.21, 0.12],
        "edges_x": edges.tolist(),
        "edges_y": edges.tolist(),
        "real": real,
        "n_real": dict(PHOTOGRAPHS),
        "generated": generated,
        "control": draw.normal(0.1, 0.3, (n, 2)).clip(-0.99, 0.99).round(3).tolist(),
        "control_counts": None,
        "n_control": n,
        "spread": {
            "real": {"pre_op": 0.81, "post_op": 0.8},
            "generated": {"pre_op": 0.7, "post_op": 0.69},
            "control": {"control": 0.75},
        },
        "overlap": {"pre_op": 0.62, "post_op": 0.58},
        "extractor": extractor(phantom),
        "note": "The axes are those of all groups together.",
    }


def oracle(condition: str) -> dict[str, Any]:
    def share(k: int, n: int) -> dict[str, Any]:
        return clopper_pearson(k, n).as_dict()

    figures: dict[str, Any] = {
        "trigger_obedience": {**share(151, 200), "by_skin": {"dark": share(20, 33), "light": share(30, 33)}},
        "trigger_selectivity": {
            "cleft_prompt_without_trigger": share(80, 100),
            "healthy_prompt_without_trigger": share(2, 100),
        },
        "drift": {
            "healthy_prompt_without_trigger": {
                "mean_absolute_difference": {"value": 4.2, "ci95": [3.9, 4.5], "n": 100},
                "psnr": {"value": 28.1, "ci95": [27.2, 29.0], "n": 100},
            }
        },
    }
    if condition == "pre_op":
        figures["cleft_type_accuracy"] = share(62, 151)
    return figures


def training(photographs: int) -> dict[str, Any]:
    return {
        "lora_sha256": "ef" * 32,
        "training_images": photographs,
        "holdout_images": 11,
        "regularization_images": 0,
        "set_aside": {},
        "last_step": {"step": 10 * photographs, "loss": 0.31, "lr": 1e-6},
        "recipe": {
            "data": {"resolution": [128]},
            "network": {"rank": 16, "alpha": 32.0},
            "optimizer": {"steps": 10 * photographs, "learning_rate": 5e-3},
        },
    }


def filtered(n: int) -> dict[str, Any]:
    rejected = min(18, n // 2)
    kinds = {"no_face": 7, "cropped_face": 5, "text": 3, "eye_bar": 2, "identity_leak": 1}
    return {
        "n": n,
        "accepted": n - rejected,
        "rejected": rejected,
        "by_kind": {kind: min(count, rejected) for kind, count in kinds.items()},
        "by_skin": {skin: {"n": n // 6, "rejected": min(3, n // 6)} for skin in SKINS},
        "by_age": {group: {"n": n // 2, "rejected": rejected // 2} for group in ("baby", "child")},
        "unassessed": 0,
        "readmitted": 1,
        "refill": {"made": 18, "accepted": 16, "attempts": 1, "filtered": n - 2, "missing": 2},
        "training_photographs": {
            "n": 100,
            "by_kind": {"no_face": 0, "text": None, "cropped_face": 6},
            "smallest_cell": 5,
        },
    }


def loss() -> dict[str, Any]:
    steps = list(range(10, 1001, 10))
    mean = [round(0.3 + 0.4 / (1 + step / 100), 4) for step in steps]
    return {
        "steps": steps,
        "loss": {
            "mean": mean,
            "low": [value - 0.05 for value in mean],
            "high": [value + 0.08 for value in mean],
        },
    }
