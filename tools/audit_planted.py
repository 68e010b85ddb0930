r"""What the audit finds of planted leaks, by kind of copy, and how its intervals hold the planted rate.

    python -m diffusioncleft.tools.audit_planted --out experiments/audit_planted.json
    python -m diffusioncleft.tools.audit_planted --real FOLDER --out experiments/audit_planted.json

Phantoms: copies of training pictures of every kind, and strangers, are compared with the training pictures by
the face pack and in their pixels. Then sets are put together from these scores, 1,000 for every kind and
rate: "before" is the paper's FIR of images at 0.6, "after" the audit's residual risk of faces and of copies.
FOLDER (photographs/subjects.csv, pack/, as for tests/real): the threshold is chosen on one half of the people
and reported on the other, both ways. Figures alone are written.
"""

import argparse
import csv
import datetime
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diffusioncleft_core.faces.analyzer import FaceAnalyzer, load_face_analyzer
from ..diffusioncleft_core.faces.calibration import calibrate
from ..diffusioncleft_core.files import write_json
from ..diffusioncleft_core.imageset.copies import NEAR_COPY, CopyIndex, thumbnail
from ..diffusioncleft_core.imageset.decode import read_image
from ..diffusioncleft_core.metrics.fir import embedder_info
from ..diffusioncleft_core.metrics.threshold import AuditThreshold, audit_threshold
from ..diffusioncleft_core.progress import progress
from ..diffusioncleft_core.ranges import PAPER_SIMILARITY
from ..diffusioncleft_core.statistics import Proportion, clopper_pearson, residual
from .altered_copies import CHANGES
from .audit_coverage import PROMISED, RATES, REPETITIONS
from .calibrate_faces import SEED
from .face_pool import picture_of

Image = NDArray[np.uint8]
KINDS = {
    "the same picture": "the same",
    "mirrored": "mirrored",
    "cropped": "cropped to 80 %",
    "grey": "grey",
    "hue shifted": "hue shifted",
    "blended": "blended with another",
}
"""Kinds of copy, by their name among `altered_copies.CHANGES`."""
AGAIN = "same person again"
TRAINED, STRANGERS, COPIES, IMAGES = 100, 200, 40, 1000
FIRST_STRANGER = 20_000
"""People of these numbers are in no calibration."""


class Scores:
    """The highest cosine and the highest copy score of each image; -1 where no face was found."""

    def __init__(self, analyzer: FaceAnalyzer, trained: Sequence[Image], near_copy: float) -> None:
        self.analyzer, self.near_copy = analyzer, near_copy
        self.gallery = np.stack([face for image in trained if (face := self.face(image)) is not None])
        self.copies = CopyIndex([thumbnail(image) for image in trained], near_copy)

    def face(self, image: Image) -> NDArray[np.float32] | None:
        found = self.analyzer.analyze(image)
        return found[0].embedding if found else None

    def of(self, images: Sequence[Image], about: str) -> NDArray[np.float64]:
        """[n, 2]"""
        rows = []
        for image in progress(images, about):
            face, copy = self.face(image), self.copies.best(thumbnail(image))
            cosine = -1.0 if face is None else float((self.gallery @ face).max())
            rows.append((cosine, -1.0 if copy is None else copy.score))
        return np.array(rows)


def share(hits: NDArray[np.bool_]) -> dict[str, Any]:
    found = clopper_pearson(int(hits.sum()), len(hits))
    return {"value": found.value, "ci95": [round(end, 4) for end in found.ci95], "k": found.k, "n": found.n}


def found_by(scores: NDArray[np.float64], threshold: float, near_copy: float) -> dict[str, Any]:
    face, pixels = scores[:, 0] >= threshold, scores[:, 1] >= near_copy
    return {
        "faces, 0.6 (the paper's)": share(scores[:, 0] >= PAPER_SIMILARITY),
        "faces, the audit's threshold": share(face),
        "pixels": share(pixels),
        "either": share(face | pixels),
        "no face": int((scores[:, 0] < 0).sum()),
    }


def copies_of(images: Sequence[Image], change: str, seed: int) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [CHANGES[change](image, rng, images[place - 1]) for place, image in enumerate(images)]


def sets_of(
    strangers: NDArray[np.float64],
    kind: NDArray[np.float64],
    threshold: AuditThreshold,
    near_copy: float,
    repetitions: int,
    seed: int,
) -> dict[str, Any]:
    """Sets of 1,000 images with leaks of one kind at every rate, put together from scores [n, 2]."""
    rng = np.random.default_rng(seed)
    chance = threshold.by_chance(TRAINED)
    assert chance is not None
    # What is found in the pixels of other photographs: the strangers stand in for a hold-out of a tenth.
    rows = {}
    for rate in RATES:
        held: dict[str, list[bool]] = {"faces": [], "copies": [], "either of the two": []}
        before, after, copied, wide, known = [], [], [], [], []
        for _ in range(repetitions):
            leaks = int(rng.binomial(IMAGES, rate))
            scores = np.concatenate(
                [
                    kind[rng.integers(len(kind), size=leaks)],
                    strangers[rng.integers(len(strangers), size=IMAGES - leaks)],
                ]
            )
            control = strangers[rng.choice(len(strangers), TRAINED, replace=False)]
            faces = scores[scores[:, 0] >= 0]
            attack = clopper_pearson(int((faces[:, 0] >= threshold.value).sum()), len(faces))
            risk = residual(attack, chance)
            finds = threshold.true_match
            upper = min(1.0, risk.ci95[1] / (finds[0] if finds else 1.0))
            by_pixels = residual(counted(scores[:, 1] >= near_copy), counted(control[:, 1] >= near_copy))
            inside = risk.ci95[0] <= rate <= upper
            copies_inside = by_pixels.ci95[0] <= rate <= by_pixels.ci95[1]
            held["faces"].append(inside)
            held["copies"].append(copies_inside)
            held["either of the two"].append(inside or copies_inside)
            before.append(float((scores[:, 0] >= PAPER_SIMILARITY).mean()))
            after.append(risk.value or 0.0)
            copied.append(by_pixels.value or 0.0)
            wide.append(upper - risk.ci95[0])
            ends = clopper_pearson(leaks, IMAGES).ci95
            known.append(ends[1] - ends[0])
        rows[f"{rate:g}"] = {
            "before: FIR at 0.6": round(float(np.mean(before)), 5),
            "after: residual risk": round(float(np.mean(after)), 5),
            "after: residual copies": round(float(np.mean(copied)), 5),
            "coverage": {name: round(float(np.mean(part)), 4) for name, part in held.items()},
            "times_as_wide_as_known": round(float(np.mean(wide) / np.mean(known)), 3),
        }
    return rows


def counted(hits: NDArray[np.bool_]) -> Proportion:
    return clopper_pearson(int(hits.sum()), len(hits))


def phantoms(repetitions: int) -> dict[str, Any]:
    analyzer = load_face_analyzer("phantom")
    trained = [picture_of(person, SEED + 1) for person in range(TRAINED)]
    scores = Scores(analyzer, trained, NEAR_COPY)
    none = (np.zeros((0, 512), np.float32), ())
    threshold = audit_threshold(analyzer.pack, embedder_info(analyzer)["sha256"], none, None)
    strangers = scores.of(
        [picture_of(FIRST_STRANGER + person, SEED + 1) for person in range(STRANGERS)], "strangers"
    )
    kinds = {AGAIN: scores.of([picture_of(person, SEED + 1, 1) for person in range(COPIES)], AGAIN)}
    for number, (name, change) in enumerate(KINDS.items()):
        kinds[name] = scores.of(copies_of(trained[:COPIES], change, number), name)
    return {
        "trained": TRAINED,
        "images": IMAGES,
        "threshold": threshold.as_json(),
        "near_copy": NEAR_COPY,
        "strangers": found_by(strangers, threshold.value, NEAR_COPY),
        "found": {name: found_by(part, threshold.value, NEAR_COPY) for name, part in kinds.items()},
        "sets": {
            name: sets_of(strangers, part, threshold, NEAR_COPY, repetitions, number)
            for number, (name, part) in enumerate(kinds.items())
        },
    }


def people_of(folder: Path) -> dict[str, list[Image]]:
    photographs: dict[str, list[Image]] = {}
    with (folder / "photographs" / "subjects.csv").open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            image = read_image(folder / "photographs" / row["file"])
            photographs.setdefault(row["subject_id"], []).append(image)
    return photographs


def real(folder: Path) -> dict[str, Any]:
    """Half of the people choose the threshold, the other half is reported; and the other way round."""
    analyzer = load_face_analyzer(folder / "pack")
    photographs = people_of(folder)
    names = sorted(photographs)
    faces = {name: embedded(analyzer, photographs[name]) for name in progress(names, "people")}
    stated = calibrate(
        np.concatenate([faces[name] for name in names]),
        [name for name in names for _ in faces[name]],
        (1e-3,),
    )
    halves = (names[::2], names[1::2])
    return {
        "people": len(names),
        "photographs": sum(map(len, photographs.values())),
        "stated": stated[0].as_json(),
        "chosen on the first half, reported on the second": half(*halves, photographs, faces, analyzer),
        "chosen on the second half, reported on the first": half(*halves[::-1], photographs, faces, analyzer),
    }


def embedded(analyzer: FaceAnalyzer, images: Sequence[Image]) -> NDArray[np.float32]:
    return np.stack([found[0].embedding for image in images if (found := analyzer.analyze(image))])


def half(
    chosen: Sequence[str],
    reported: Sequence[str],
    photographs: Mapping[str, Sequence[Image]],
    faces: Mapping[str, NDArray[np.float32]],
    analyzer: FaceAnalyzer,
) -> dict[str, Any]:
    """The threshold that lies 0.05 above every pair of different people of one half, on the other half: each
    person's first five photographs are trained on, the others show the person again.
    """
    threshold = float(np.ceil((highest(chosen, faces) + 0.05) / 0.05) * 0.05)
    trained = [image for name in reported for image in photographs[name][:5]]
    scores = Scores(analyzer, trained, NEAR_COPY)
    again = [image for name in reported for image in photographs[name][5:]]
    strangers = [image for name in chosen for image in photographs[name]]
    return {
        "threshold": round(threshold, 2),
        "highest_stranger": round(highest(reported, faces), 3),
        "strangers": found_by(scores.of(strangers, "strangers"), threshold, NEAR_COPY),
        "found": {
            AGAIN: found_by(scores.of(again, AGAIN), threshold, NEAR_COPY),
            **{
                name: found_by(scores.of(copies_of(trained, change, number), name), threshold, NEAR_COPY)
                for number, (name, change) in enumerate(KINDS.items())
            },
        },
    }


def highest(names: Sequence[str], faces: Mapping[str, NDArray[np.float32]]) -> float:
    """The highest cosine between photographs of different people."""
    return max(float((faces[one] @ faces[other].T).max()) for one in names for other in names if one < other)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="photographs of people; left out without")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    options = [*(["--real", "FOLDER"] if args.real else []), "--repetitions", str(args.repetitions)]
    document: dict[str, Any] = {
        "schema": 1,
        "command": shlex.join(["python", "-m", "diffusioncleft.tools.audit_planted", *options]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "repetitions": args.repetitions,
        "promised": PROMISED,
    }
    if args.real:
        document["real"] = real(args.real)
        write_json(args.out, document)
    write_json(args.out, {**document, "phantom": phantoms(args.repetitions)})
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
