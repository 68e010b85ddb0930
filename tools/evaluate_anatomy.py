"""Measure the anatomical phantom with a face pack that has never seen it.

    DIFFUSIONCLEFT_REAL=DIR python -m diffusioncleft.tools.evaluate_anatomy \
        --out experiments/phantom_anatomy.json

DIR holds `pack/`, a face pack trained on photographs. Its detector looks at renders of 512 px as at a user's
photographs: where a face fills the picture, at a smaller size. Its recogniser compares people across pose,
light and expression.
"""

import argparse
import os
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from ..diffusioncleft_core.faces.analyzer import FaceAnalyzer, load_face_analyzer
from ..diffusioncleft_core.files import write_json
from ..diffusioncleft_core.phantom.face import CLEFT, CLOSE, SCAR, WHOLE_HEAD, random_face
from ..diffusioncleft_core.phantom.render import render
from ..diffusioncleft_core.progress import progress
from ..diffusioncleft_core.statistics import clopper_pearson

REAL = "DIFFUSIONCLEFT_REAL"
SEED = 20_261_127
KINDS: Mapping[str, str | None] = {"healthy": None, "pre_op": CLEFT, "post_op": SCAR}


def detection(
    faces: FaceAnalyzer,
    finding: str | None,
    n: int,
    frame: float = WHOLE_HEAD,
    size: int = 512,
    seed: int = SEED,
) -> dict[str, Any]:
    """Share of `n` renders with exactly one face, its median score, and the landmarks' errors.

    `frame` is that of the view: such a detector was made for a whole head and scores a close face lower.

    An error is the mean distance of the five landmarks from the truth, as a share of the distance of the
    eyes.
    """
    one, scores, errors, rungs = 0, [], [], Counter[str]()
    for index in range(n):
        face = random_face(np.random.default_rng([seed, index]), finding=finding)
        made = render(replace(face, view=replace(face.view, frame=frame)), size)
        found = faces.analyze(made.image)
        one += len(found) == 1
        if found:
            best = max(found, key=lambda face: face.score)
            eyes = float(np.linalg.norm(made.landmarks[1] - made.landmarks[0]))
            scores.append(best.score)
            rungs[best.rung] += 1
            errors.append(float(np.linalg.norm(best.landmarks - made.landmarks, axis=1).mean()) / eyes)
    interval = clopper_pearson(one, n).ci95
    return {
        "n": n,
        "one_face": {"value": one / n, "ci95": list(interval)},
        "found_at": dict(rungs),
        "score": {"median": float(np.median(scores)), "p05": float(np.quantile(scores, 0.05))},
        "landmark_error": {"mean": float(np.mean(errors)), "p95": float(np.quantile(errors, 0.95))},
    }


def recognition(
    faces: FaceAnalyzer, people: int, views: int, size: int = 512, seed: int = SEED
) -> dict[str, Any]:
    """AUC of the cosine similarity of two pictures for being of one person; healthy faces."""
    vectors, who = [], []
    for person in range(people):
        draw = np.random.default_rng([seed, 1, person])
        face = random_face(draw)
        for _ in range(views):
            found = faces.analyze(render(face.photographed_again(draw), size).image)
            if found:
                vectors.append(found[0].embedding)
                who.append(person)
    matrix, labels = np.array(vectors), np.array(who)
    upper = np.triu_indices(len(labels), 1)
    same = (labels[:, None] == labels[None])[upper]
    similarity = (matrix @ matrix.T)[upper]
    return {
        "people": people,
        "pictures": len(labels),
        "same_pairs": int(same.sum()),
        "other_pairs": int((~same).sum()),
        "auc": float(roc_auc_score(same, similarity)),
        "similarity": {
            "same_median": float(np.median(similarity[same])),
            "other_median": float(np.median(similarity[~same])),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--n", type=int, default=300, help="renders a kind (default 300)")
    parser.add_argument("--people", type=int, default=100, help="people of the recognition (default 100)")
    args = parser.parse_args()
    if REAL not in os.environ:
        parser.error(f"set {REAL} to a folder with pack/")
    faces = load_face_analyzer(Path(os.environ[REAL]) / "pack")
    kinds = {
        name: {
            "whole_head": detection(faces, finding, args.n),
            "close": detection(faces, finding, args.n, CLOSE),
        }
        for name, finding in progress(list(KINDS.items()), "kinds")
    }
    write_json(
        args.out,
        {
            "schema": 1,
            "what": "The anatomical phantom at 512 px as a detector and a recogniser of photographs see it.",
            "command": "python -m diffusioncleft.tools.evaluate_anatomy " + shlex.join(sys.argv[1:]),
            "date": date.today().isoformat(),
            "seed": SEED,
            "detection": kinds,
            "recognition": recognition(faces, args.people, 3),
        },
    )
    print(args.out)


if __name__ == "__main__":
    main()
