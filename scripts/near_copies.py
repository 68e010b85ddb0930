"""How well near copies are found, and how rarely another photograph is taken for one.

    python scripts/near_copies.py                                        # phantoms
    python scripts/near_copies.py --real FOLDER --out experiments/near_copies.json

FOLDER holds `photographs/subjects.csv` (`file,subject_id`) and the photographs of at least four people, as
for tests/real; figures alone are written. People are split in halves: the threshold that one half would
choose is reported on the other, both ways. Shares have 95 % intervals (Clopper-Pearson).
"""

import argparse
import csv
import datetime
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusioncleft.diffusioncleft_core.files import write_json
from diffusioncleft.diffusioncleft_core.imageset.copies import (
    COPIES_VERSION,
    LIKELY,
    NEAR_COPY,
    NEAR_COPY_VISIT,
    CopyIndex,
    thumbnail,
)
from diffusioncleft.diffusioncleft_core.imageset.decode import read_image
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.diffusioncleft_core.progress import progress
from diffusioncleft.diffusioncleft_core.statistics import clopper_pearson
from diffusioncleft.tools.altered_copies import CHANGES

Image = NDArray[np.uint8]
PHANTOMS = 24
STRANGERS = 800
MARGIN = 0.05
"""A chosen threshold stays this far above every score of what is no copy."""


@dataclass
class Scores:
    """The highest score by change: with the original, the person's other photographs, and strangers."""

    own: dict[str, list[float]] = field(default_factory=dict)
    person: dict[str, list[float]] = field(default_factory=dict)
    stranger: dict[str, list[float]] = field(default_factory=dict)

    def add(self, other: "Scores") -> "Scores":
        for name, part in vars(other).items():
            for change, scores in part.items():
                getattr(self, name).setdefault(change, []).extend(scores)
        return self

    def chosen(self) -> float:
        """The lowest threshold, in steps of 0.05, that is MARGIN above all that is no copy."""
        scores = [
            score for part in (self.person, self.stranger) for found in part.values() for score in found
        ]
        return float(np.ceil(round((max(scores) + MARGIN) / 0.05, 6)) * 0.05)

    def figures(self, threshold: float) -> dict[str, Any]:
        def shares(part: Mapping[str, Sequence[float]]) -> dict[str, Any]:
            """As they are alone, and in all changes, which are of the same photographs."""
            plain, every = part["the same"], [score for scores in part.values() for score in scores]
            found = {"as they are": share(plain, threshold), "altered": share(every, threshold)}
            return found | {"highest": round(max(every), 3)} if every else {}

        return {
            "threshold": round(threshold, 2),
            "recall": {change: share(scores, threshold) for change, scores in self.own.items()},
            "strangers taken for copies": shares(self.stranger),
            **({"the person's other photographs": shares(self.person)} if any(self.person.values()) else {}),
        }


def share(scores: Iterable[float], threshold: float) -> dict[str, Any]:
    scores = list(scores)
    return proportion(sum(score >= threshold for score in scores), len(scores))


def proportion(k: int, n: int) -> dict[str, Any]:
    found = clopper_pearson(k, n)
    return {
        "value": None if found.value is None else round(found.value, 4),
        "ci95": [round(edge, 4) for edge in found.ci95],
        "k": found.k,
        "n": found.n,
    }


def compare(
    gallery: Mapping[str, Sequence[Image]], strangers: Mapping[str, Sequence[Image]], seed: int, what: str
) -> Scores:
    """Altered copies of the gallery's photographs, and strangers', compared with the gallery, by person.

    The scores of `person` are those of a copy with the other photographs of the person that it is a copy of.
    """
    images = [image for photographs in gallery.values() for image in photographs]
    people = [name for name, photographs in gallery.items() for _ in photographs]
    others = [image for photographs in strangers.values() for image in photographs]
    index = CopyIndex([thumbnail(image) for image in images])
    scores = Scores()
    for number, (change, alter) in enumerate(progress(list(CHANGES.items()), what)):
        own, person, stranger = [], [], []
        for place, image in enumerate(images):
            rng = np.random.default_rng([seed, number, place])
            matches = index.matches(thumbnail(alter(image, rng, others[int(rng.integers(len(others)))])))
            own.append(max([m.score for m in matches if m.place == place], default=-1.0))
            rest = [m for m in matches if m.place != place]
            stranger.append(max([m.score for m in rest if people[m.place] != people[place]], default=-1.0))
            if people.count(people[place]) > 1:
                person.append(max([m.score for m in rest if people[m.place] == people[place]], default=-1.0))
        for place, image in enumerate(others):
            rng = np.random.default_rng([seed, number, 10_000 + place])
            match = index.best(thumbnail(alter(image, rng, others[place - 1])))
            stranger.append(-1.0 if match is None else match.score)
        scores.own[change], scores.person[change], scores.stranger[change] = own, person, stranger
    return scores


def likeness_of_copies(gallery: Mapping[str, Sequence[Image]], seed: int) -> list[float]:
    """The coarse likeness of every altered copy that is found where nothing is too unlike to be aligned."""
    images = [image for photographs in gallery.values() for image in photographs]
    index, found = CopyIndex([thumbnail(image) for image in images], likely=-1.0), []
    for number, alter in enumerate(progress(list(CHANGES.values()), "likeness of copies")):
        for place, image in enumerate(images):
            rng = np.random.default_rng([seed, number, place])
            copy = thumbnail(alter(image, rng, images[int(rng.integers(len(images)))]))
            own = [match for match in index.matches(copy) if match.place == place]
            found += [match.likeness for match in own if match.score >= NEAR_COPY]
    return found


def likeness_figures(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """The limit that each half's copies would choose, MARGIN below the lowest, and what it loses of the other
    half's.
    """
    found: dict[str, Any] = {"limit in use": LIKELY}
    for name, own, others in (("first", first, second), ("second", second, first)):
        limit = float(np.floor(round((min(own) - MARGIN) / 0.05, 6)) * 0.05)
        lost = proportion(sum(like < limit for like in others), len(others))
        found[f"chosen on the {name} half"] = {
            "lowest": round(min(own), 3),
            "limit": round(limit, 2),
            "lost of the other half's": lost,
        }
    both = [*first, *second]
    return found | {"lost at the limit in use": proportion(sum(like < LIKELY for like in both), len(both))}


def real_figures(folder: Path) -> tuple[dict[str, Any], dict[str, Scores]]:
    """Two halves of the people, each the strangers of the other."""
    photographs: dict[str, list[Image]] = {}
    with (folder / "photographs" / "subjects.csv").open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            image = read_image(folder / "photographs" / row["file"])
            photographs.setdefault(row["subject_id"], []).append(image)
    names = sorted(photographs)
    halves = {
        "first half": {name: photographs[name] for name in names[::2]},
        "second half": {name: photographs[name] for name in names[1::2]},
    }
    first, second = halves.values()
    found = {
        "first half": compare(first, second, 11, "people, first half"),
        "second half": compare(second, first, 12, "people, second half"),
    }
    like = (likeness_of_copies(half, seed) for half, seed in zip((first, second), (21, 22), strict=True))
    counts = {"people": len(names), "photographs": sum(map(len, photographs.values()))}
    return counts | {"likeness of copies that are found": likeness_figures(*like)}, found


def phantoms(n: int, seed: int, visits: int = 1) -> dict[str, list[Image]]:
    """`n` people with a cleft, each photographed `visits` times."""
    people = {}
    for person in range(n):
        face = random_face(np.random.default_rng([seed, person]), finding="cleft")
        again = [np.random.default_rng([seed, person, 1 + visit]) for visit in range(visits)]
        people[str(person)] = [render(face.photographed_again(rng), 128).image for rng in again]
    return people


def strangers_alone(gallery: int, n: int, seed: int) -> dict[str, Any]:
    """How high `n` drawn people score against `gallery` others, and the time that one takes."""
    index = CopyIndex([thumbnail(image) for item in phantoms(gallery, seed).values() for image in item])
    greys = [thumbnail(image) for item in phantoms(n, seed + 1).values() for image in item]
    started = process_time()
    scores = [match.score for match in map(index.best, progress(greys, "strangers")) if match is not None]
    return {
        "photographs": gallery,
        "highest": round(max(scores), 3),
        "taken for copies": share(scores, NEAR_COPY),
        "milliseconds of a core an image": round(1000 * (process_time() - started) / n),
    }


def document(real: Path | None, n: int, strangers: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": COPIES_VERSION,
        "thresholds": {"pictures": NEAR_COPY, "phantoms, dataset": NEAR_COPY_VISIT},
    }
    if real is not None:
        counts, halves = real_figures(real)
        pooled = Scores()
        for part in halves.values():
            pooled.add(part)
        first, second = halves.values()
        found["real"] = {
            **counts,
            "chosen on the first half, reported on the second": second.figures(first.chosen()),
            "chosen on the second half, reported on the first": first.figures(second.chosen()),
            "at the threshold in use": pooled.figures(NEAR_COPY),
        }
    first, second = (
        compare(phantoms(n, seed), phantoms(n // 4, seed + 1), seed, "phantoms") for seed in (21, 31)
    )
    visits = compare(phantoms(n // 2, 41, visits=2), phantoms(2, 42), 41, "visits of phantoms")
    found["phantom"] = {
        "photographs": n,
        "chosen on one set, reported on another": second.figures(first.chosen()),
        "at the threshold in use": second.figures(NEAR_COPY),
        "two visits of each, at the dataset's threshold": visits.figures(NEAR_COPY_VISIT),
        "strangers": strangers_alone(300, strangers, 51),
    }
    return found


def measure(real: Path | None, out: Path, n: int = PHANTOMS, strangers: int = STRANGERS) -> int:
    """Write the figures, and the command that makes them again, to `out`. Returns the exit status."""
    options = [*(["--real", "FOLDER"] if real else []), "--n", str(n), "--strangers", str(strangers)]
    head = {
        "schema": 1,
        "command": shlex.join(["python", "scripts/near_copies.py", *options]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    write_json(out, {**head, **document(real, n, strangers)})
    print(out)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="photographs of people; left out without")
    parser.add_argument("--n", type=int, default=PHANTOMS, help=f"phantoms a set (default {PHANTOMS})")
    parser.add_argument(
        "--strangers", type=int, default=STRANGERS, help=f"drawn strangers (default {STRANGERS})"
    )
    parser.add_argument("--out", type=Path, default=Path("experiments/near_copies.json"))
    args = parser.parse_args()
    return measure(args.real, args.out, args.n, args.strangers)


if __name__ == "__main__":
    sys.exit(main())
