r"""Measure phantom-faces on people it never saw, through the unmodified insightface; keep the figures.

python -m diffusioncleft.tools.evaluate_faces \
    --out experiments/phantom_faces.json
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diffusioncleft_core.environment import hardware, versions
from ..diffusioncleft_core.faces.analyzer import Face, FaceAnalyzer, load_face_analyzer
from ..diffusioncleft_core.files import write_json
from ..diffusioncleft_core.phantom.face import HEALTHY, random_face, random_identity
from ..diffusioncleft_core.phantom.photographs import add_artifact
from ..diffusioncleft_core.phantom.render import Rendering, render
from ..diffusioncleft_core.progress import progress
from . import CONDITION_OF, FINDING_OF
from .faces_pictures import CHILDREN, CONDITIONS, Image, background, wear

CLOSE = 0.05
"""Landmark error aimed for, as a share of the inter-ocular distance."""
BINS = 4000
RESAMPLES = 500


def photograph_people(
    per_skin: int, views: int, size: int, seed: int, *, alike: bool = False
) -> list[tuple[int, Rendering]]:
    """`views` pictures (conditions in turn)
    of `per_skin` new people of every skin tone, each with the person's number.

    With `alike`, all people of a tone also share subject, eyes and hair: only their identity differs.
    """
    rng = np.random.default_rng(seed)
    pictures = []
    for tone, skin in enumerate(progress(HEALTHY["skin"], "rendering people", unit="tone")):
        shared = {
            key: str(rng.choice(CHILDREN if key == "subject" else values)) for key, values in HEALTHY.items()
        }
        for index in range(per_skin):
            identity = random_identity(rng)
            attributes = {key: str(rng.choice(values)) for key, values in HEALTHY.items()}
            attributes = {**(shared if alike else attributes), "skin": skin}
            for view in range(views):
                condition = CONDITIONS[(index + view) % 3]
                if condition == "pre_op" and attributes["subject"] not in CHILDREN:
                    condition = None
                face = random_face(
                    rng, finding=FINDING_OF[condition], attributes=attributes, identity=identity
                )
                pictures.append((tone * per_skin + index, render(face, size)))
    return pictures


def share(hits: int, n: int) -> dict[str, Any]:
    """A share with its Clopper-Pearson interval."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return {"value": hits / n, "ci95": [low, high], "n": n}


def mean(values: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """A mean with its percentile bootstrap interval."""
    array = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).integers(0, len(array), (RESAMPLES, len(array)))
    low, high = np.percentile(array[draws].mean(1), [2.5, 97.5])
    return {"value": float(array.mean()), "ci95": [float(low), float(high)], "n": len(array)}


def detection(truths: Sequence[Rendering], found: Sequence[list[Face]]) -> dict[str, Any]:
    """Share of pictures with exactly one box, and the landmark error of those: mean over the five points, in
    inter-ocular distances; share of faces whose mean error is below CLOSE."""
    single = [(truth, faces[0]) for truth, faces in zip(truths, found, strict=True) if len(faces) == 1]
    errors = []
    for truth, face in single:
        eyes = float(np.linalg.norm(truth.landmarks[1] - truth.landmarks[0]))
        errors.append(float(np.linalg.norm(face.landmarks - truth.landmarks, axis=1).mean()) / eyes)
    return {
        "one_box": share(len(single), len(truths)),
        "no_box": share(sum(not faces for faces in found), len(truths)),
        "landmark_error": mean(errors),
        "landmarks_within_5_percent": share(sum(error < CLOSE for error in errors), len(errors)),
        "first_rung": share(sum(bool(f) and f[0].rung == _first(found) for f in found), len(found)),
    }


def _first(found: Sequence[list[Face]]) -> str:
    rungs = [faces[0].rung for faces in found if faces]
    return max(set(rungs), key=rungs.count)


def same_person(
    embeddings: NDArray[np.float32],
    people: NDArray[np.int64],
    allowed: Callable[[int, int], bool] | None = None,
    group: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """AUC of cosine similarity, same person against different people, all pairs.

    embeddings [N, 512] of norm 1, people [N]. `allowed(i, j)` restricts the same-person pairs,
    `group` [N] the different-person pairs to one group. The interval is a bootstrap over people.
    """
    cosine = embeddings @ embeddings.T
    upper = np.triu(np.ones(cosine.shape, bool), 1)
    same = people[:, None] == people[None]
    other = ~same & upper if group is None else ~same & upper & (group[:, None] == group[None])
    genuine = same & upper
    if allowed is not None:
        for i, j in zip(*np.nonzero(genuine), strict=True):
            genuine[i, j] = allowed(int(i), int(j))
    numbers, index = np.unique(people, return_inverse=True)
    bins = np.clip(((cosine + 1) / 2 * BINS).astype(np.int64), 0, BINS - 1)
    histograms = np.zeros((2, len(numbers), BINS))
    for kind, mask in enumerate((genuine, other)):
        rows, columns = np.nonzero(mask)
        np.add.at(histograms[kind], (index[rows], bins[rows, columns]), 0.5)
        np.add.at(histograms[kind], (index[columns], bins[rows, columns]), 0.5)
    draws = np.random.default_rng(seed).multinomial(
        len(numbers), np.full(len(numbers), 1 / len(numbers)), RESAMPLES
    )
    resampled = [area(weights @ histograms[0], weights @ histograms[1]) for weights in draws]
    impostors = cosine[other]
    threshold = float(np.quantile(impostors, 0.999))
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {
        "auc": {"value": area(histograms[0].sum(0), histograms[1].sum(0)), "ci95": [float(low), float(high)]},
        "people": len(numbers),
        "images": len(people),
        "same_pairs": int(genuine.sum()),
        "different_pairs": int(other.sum()),
        "same_mean": float(cosine[genuine].mean()),
        "different_mean": float(impostors.mean()),
        "different_sd": float(impostors.std()),
        "threshold_at_false_match_0.001": threshold,
        "true_match_at_false_match_0.001": float((cosine[genuine] > threshold).mean()),
        "different_above_0.6": float((impostors > 0.6).mean()),
    }


def area(genuine: NDArray[np.float64], impostor: NDArray[np.float64]) -> float:
    """AUC of two histograms over rising scores; ties within a bin count half."""
    below = np.concatenate([[0.0], np.cumsum(impostor)[:-1]])
    return float((genuine * (below + impostor / 2)).sum() / (genuine.sum() * impostor.sum()))


def measure_people(
    analyzer: FaceAnalyzer, pictures: list[tuple[int, Rendering]], worn: int | None = None
) -> dict[str, Any]:
    """Detection and identity figures, overall and by skin tone; `worn` seeds wear of the pictures first."""
    rng = np.random.default_rng(worn)
    truths = [truth for _, truth in pictures]
    images = [wear(truth.image, rng) if worn is not None else truth.image for truth in truths]
    found = [analyzer.analyze(image) for image in progress(images, "analysing faces")]
    skins = [truth.attributes["skin"] for truth in truths]
    report: dict[str, Any] = {"detection": {"overall": detection(truths, found), "by_skin": {}}}
    for skin in HEALTHY["skin"]:
        rows = [row for row, tone in enumerate(skins) if tone == skin]
        report["detection"]["by_skin"][skin] = detection([truths[r] for r in rows], [found[r] for r in rows])
    kept = [row for row, faces in enumerate(found) if faces]
    embeddings = np.stack([found[row][0].embedding for row in kept])
    people = np.array([pictures[row][0] for row in kept])
    conditions = [CONDITION_OF[truths[row].finding] for row in kept]
    tones = np.array([HEALTHY["skin"].index(skins[row]) for row in kept])
    report["identity"] = {
        "overall": same_person(embeddings, people),
        "across_conditions": same_person(embeddings, people, lambda i, j: conditions[i] != conditions[j]),
        "same_skin_impostors": same_person(embeddings, people, group=tones),
        "by_skin": {
            skin: same_person(embeddings[tones == tone], people[tones == tone])
            for tone, skin in enumerate(HEALTHY["skin"])
        },
    }
    return report


def count_shares(analyzer: FaceAnalyzer, images: Sequence[Image]) -> dict[str, Any]:
    """Shares of pictures with no, one and several boxes."""
    counts = np.array([analyzer.n_faces(image) for image in progress(images, "counting faces")])
    n = len(counts)
    return {
        "none": share(int((counts == 0).sum()), n),
        "one": share(int((counts == 1).sum()), n),
        "two": share(int((counts == 2).sum()), n),
        "several": share(int((counts > 1).sum()), n),
    }


def in_a_larger_frame(truth: Rendering, rng: np.random.Generator) -> Rendering:
    """The picture somewhere in a frame 2 to 3.5 times its size; of its truth landmarks and box go with it."""
    side = truth.image.shape[0]
    size = int(side * rng.uniform(2, 3.5))
    frame = background(size, rng)
    x, y = (int(v) for v in rng.integers(0, size - side, 2))
    frame[y : y + side, x : x + side] = truth.image
    shift = np.array([x, y], np.float32)
    return replace(truth, image=frame, landmarks=truth.landmarks + shift, box=truth.box + np.tile(shift, 2))


def evaluate(analyzer: FaceAnalyzer, per_skin: int, views: int, n: int, seed: int) -> dict[str, Any]:
    """Every figure of the model card; sets of `n` pictures for what is not measured by skin tone."""
    rng = np.random.default_rng(seed)
    pictures = photograph_people(per_skin, views, 128, seed)
    plain = [truth for _, truth in pictures]
    report = {
        "pictures_128": measure_people(analyzer, pictures),
        "worn_pictures_128": measure_people(analyzer, pictures, worn=seed),
    }
    few = max(2, -(-n // (len(HEALTHY["skin"]) * 2)))  # of one skin tone: two people to tell apart
    alike = photograph_people(few, 2, 128, seed + 1, alike=True)
    report["only_identity_differs"] = measure_people(analyzer, alike)
    for size in (64, 256):
        other = photograph_people(-(-n // 6), 1, size, seed + size)
        truths = [truth for _, truth in other]
        report[f"pictures_{size}"] = {
            "detection": detection(truths, [analyzer.analyze(t.image) for t in truths])
        }
    framed = [in_a_larger_frame(plain[int(i)], rng) for i in rng.choice(len(plain), n, replace=False)]
    report["larger_frame"] = {"detection": detection(framed, [analyzer.analyze(t.image) for t in framed])}
    report["no_face"] = count_shares(analyzer, [wear(background(128, rng), rng) for _ in range(2 * n)])
    for kind in ("eye_bar", "text", "second_face", "crop"):
        chosen = rng.choice(len(plain), n, replace=False)
        report[kind] = count_shares(analyzer, [add_artifact(plain[int(i)], kind, rng).image for i in chosen])
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pack", type=str, default="phantom")
    parser.add_argument("--people", type=int, default=126, help="of each skin tone")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--n", type=int, default=504)
    parser.add_argument("--seed", type=int, default=90_001)
    args = parser.parse_args()
    analyzer = load_face_analyzer(args.pack)
    started = time.monotonic()
    report = evaluate(analyzer, args.people, args.views, args.n, args.seed)
    write_json(
        args.out,
        {
            "what": "phantom-faces on phantoms of people unseen in training; says nothing about photographs",
            "model": analyzer.describe(),
            "seed": args.seed,
            "seconds": round(time.monotonic() - started, 1),
            "versions": versions(),
            "hardware": hardware(),
            "figures": report,
        },
    )


if __name__ == "__main__":
    main()
