"""Measure the eyes' checks and the reader of text on photographs of people, split by person.

    DIFFUSIONCLEFT_REAL=DIR python -m diffusioncleft.tools.evaluate_eyes --out experiments/real_eyes.json

DIR holds `pack/`, a face pack, and `photographs/` with `subjects.csv`. Limits are chosen on one half of the
people and figures taken on the other, both ways round and over all such splits; the shipped limits' figures
are given beside them. Intervals are bootstraps over people and, within them, photographs. What is written
are figures alone: no person, file or path.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusioncleft_core.faces.analyzer import FaceAnalyzer, load_face_analyzer
from ..diffusioncleft_core.files import write_json
from ..diffusioncleft_core.filters.artifacts import FILTER_VERSION, check_limits
from ..diffusioncleft_core.filters.text import load_text_reader
from ..diffusioncleft_core.progress import progress
from ..diffusioncleft_core.statistics import clopper_pearson
from .eye_bench import (
    BAR,
    BLUR,
    CLEAN,
    MOSAIC,
    WHOLE,
    Sample,
    chosen_limit,
    clean_crops,
    people_of,
    samples_of,
)
from .planted import lettered

REAL = "DIFFUSIONCLEFT_REAL"
SEED = 20_261_126
RESAMPLES = 2000
OPACITIES = (0.15, 0.25, 0.35, 0.5, 0.65, 0.8, 1.0)
"""Of planted text."""
Judge = Callable[[Sample], bool]


def judges(limits: Mapping[str, float]) -> dict[str, Judge]:
    """The checks by name, at these limits; `either` is what a person whose picture it is feels."""

    def bar(sample: Sample) -> bool:
        return sample.is_bar(limits["bar_evidence"])

    def hidden(sample: Sample) -> bool:
        return sample.is_hidden(limits["eye_detail"], limits["eye_blocks"])

    return {"eye_bar": bar, "hidden_eyes": hidden, "either": lambda sample: bar(sample) or hidden(sample)}


def limits_from(samples: Sequence[Sample]) -> dict[str, float]:
    """The limits that these samples would set."""
    seen = [sample for sample in samples if sample.line is not None and sample.eyes is not None]

    def numbers(of: Callable[[Any], float], *kinds: str) -> list[float]:
        return [of(sample) for sample in seen if sample.kind in kinds]

    return {
        "bar_evidence": chosen_limit(
            numbers(lambda s: s.line.evidence, CLEAN), numbers(lambda s: s.line.evidence, BAR)
        ),
        "eye_detail": -chosen_limit(
            numbers(lambda s: -s.eyes.detail, CLEAN, WHOLE), numbers(lambda s: -s.eyes.detail, BLUR)
        ),
        "eye_blocks": chosen_limit(
            numbers(lambda s: s.eyes.blocks, CLEAN), numbers(lambda s: s.eyes.blocks, MOSAIC)
        ),
    }


def share(samples: Sequence[Sample], judge: Judge) -> dict[str, Any]:
    """Share of samples judged so, with its bootstrap interval; photographs with any such sample, exactly."""
    counts: dict[str, dict[int, list[int]]] = {}
    for sample in samples:
        cell = counts.setdefault(sample.person, {}).setdefault(sample.photograph, [0, 0])
        cell[0] += judge(sample)
        cell[1] += 1
    people = [np.array(list(photographs.values())) for photographs in counts.values()]
    total = sum(person.sum(0) for person in people)
    rng = np.random.default_rng(SEED)
    drawn = []
    for _ in range(RESAMPLES):
        again = [people[place] for place in rng.integers(0, len(people), len(people))]
        k, n = sum(person[rng.integers(0, len(person), len(person))].sum(0) for person in again)
        drawn.append(k / n)
    touched = clopper_pearson(sum(int((person[:, 0] > 0).sum()) for person in people), sum(map(len, people)))
    return {
        "value": float(total[0] / total[1]),
        "ci95": [float(bound) for bound in np.quantile(drawn, [0.025, 0.975])],
        "k": int(total[0]),
        "n": int(total[1]),
        "people": len(people),
        "photographs_with_one": touched.as_dict(),
    }


def of_kind(samples: Sequence[Sample], kind: str) -> list[Sample]:
    return [sample for sample in samples if sample.kind == kind]


def darkest_third(samples: Sequence[Sample]) -> list[Sample]:
    """Those of the third of the photographs with the darkest cheeks."""
    shades = sorted({(s.lightness, s.person, s.photograph) for s in samples})
    dark = {(person, number) for _, person, number in shades[: len(shades) // 3]}
    return [sample for sample in samples if (sample.person, sample.photograph) in dark]


def figures(samples: Sequence[Sample], limits: Mapping[str, float], *, by: bool = False) -> dict[str, Any]:
    """False rejections and recall at these limits; `by`: the recall of each colour, opacity, size."""
    found = judges(limits)
    clean = of_kind(samples, CLEAN)
    result: dict[str, Any] = {
        "false_rejections": {
            name: {"all": share(clean, judge), "darkest_third": share(darkest_third(clean), judge)}
            for name, judge in found.items()
        },
        "soft_or_coarse_as_a_whole": {
            name: share([s for s in of_kind(samples, WHOLE) if s.line is not None], found[name])
            for name in ("eye_bar", "hidden_eyes")
        },
        "recall": {},
    }
    for kind, name in ((BAR, "eye_bar"), (MOSAIC, "hidden_eyes"), (BLUR, "hidden_eyes")):
        part = of_kind(samples, kind)
        recall = {"caught": share(part, found["either"]), "named": share(part, found[name])}
        for setting in sorted({setting for sample in part for setting in sample.made}) if by else ():
            values = sorted({sample.made[setting] for sample in part})
            recall[setting] = {
                str(value): {
                    word: share([s for s in part if s.made[setting] == value], found[judge])
                    for word, judge in (("caught", "either"), ("named", name))
                }
                for value in values
            }
        result["recall"][kind] = recall
    return result


def all_splits(samples: Sequence[Sample], people: Sequence[str]) -> dict[str, Any]:
    """Over every choice of half the people: limits from them, shares of the others. Mean, worst."""
    found: dict[str, list[float]] = {}
    for chosen in combinations(people, len(people) // 2):
        limits = limits_from([s for s in samples if s.person in chosen])
        others = [s for s in samples if s.person not in chosen]
        judge = judges(limits)
        dark = darkest_third(of_kind(others, CLEAN))
        for word, part, name in (
            ("false rejections, eye_bar", of_kind(others, CLEAN), "eye_bar"),
            ("false rejections, hidden_eyes", of_kind(others, CLEAN), "hidden_eyes"),
            ("false rejections of the darkest third, either", dark, "either"),
            ("recall of bars", of_kind(others, BAR), "either"),
            ("recall of mosaics", of_kind(others, MOSAIC), "either"),
            ("recall of blurs", of_kind(others, BLUR), "either"),
        ):
            found.setdefault(word, []).append(float(np.mean([judge[name](sample) for sample in part])))
    splits = len(next(iter(found.values())))
    return {
        "splits": splits,
        **{
            word: {
                "mean": float(np.mean(values)),
                "worst": float(max(values) if word.startswith("false") else min(values)),
            }
            for word, values in found.items()
        },
    }


def text_recall(people: Mapping[str, Sequence[Path]], analyzer: FaceAnalyzer) -> dict[str, Any]:
    """Share of photographs in which planted letters are read, by opacity; and clean ones with any."""
    reader = load_text_reader(1)
    found: dict[str, list[bool]] = {str(opacity): [] for opacity in OPACITIES}
    clean = []
    for person, paths in progress(people.items(), "text"):
        for number, image in enumerate(clean_crops(paths, analyzer)):
            clean.append(any(region.is_text for region in reader.regions(image)))
            for place, opacity in enumerate(OPACITIES):
                rng = np.random.default_rng([SEED, number, place, *person.encode()])
                dark = bool((number + place) % 2)
                regions = reader.regions(lettered(image, opacity, dark, rng))
                found[str(opacity)].append(any(region.is_text for region in regions))
    return {
        "clean": clopper_pearson(sum(clean), len(clean)).as_dict(),
        "by_opacity": {name: clopper_pearson(sum(read), len(read)).as_dict() for name, read in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", type=int, default=8, help="variants of a photograph (default 8)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if not os.environ.get(REAL):
        parser.error(f"set {REAL} to a folder with pack/ and photographs/subjects.csv")
    real = Path(os.environ[REAL])
    analyzer = load_face_analyzer(real / "pack")
    people = people_of(real / "photographs")
    samples: list[Sample] = []
    for person, paths in progress(people.items(), "people"):
        samples += samples_of(person, paths, analyzer, variants=args.variants, seed=args.seed)
    result = evaluated(samples, list(people))
    result["text"] = text_recall(people, analyzer)
    write_json(
        args.out,
        {
            "schema": 1,
            "what": "The eyes' checks and the text reader on press photographs of adults; figures alone.",
            "command": shlex.join(["python", "-m", __spec__.name if __spec__ else "", *sys.argv[1:]]),
            "date": date.today().isoformat(),
            "seed": args.seed,
            "filter_version": FILTER_VERSION,
            **rounded(result),
        },
    )
    print(args.out)


def rounded(value: Any) -> Any:
    """The same with numbers of four decimals."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def evaluated(samples: Sequence[Sample], people: Sequence[str]) -> dict[str, Any]:
    """All figures of the eyes' checks."""
    halves = people[::2], people[1::2]
    shipped = check_limits({})
    parts = [[sample for sample in samples if sample.person in half] for half in halves]
    crossed = []
    for chosen_on, reported_on in (parts, parts[::-1]):
        limits = limits_from(chosen_on)
        crossed.append(
            {"limits": {name: round(value, 3) for name, value in limits.items()}}
            | figures(reported_on, limits)
        )
    return {
        "people": len(people),
        "photographs": len({(s.person, s.photograph) for s in samples}),
        "pictures": len(samples),
        "shipped_limits": shipped,
        "shipped": figures(samples, shipped, by=True),
        "shipped_on_each_half": [figures(part, shipped) for part in parts],
        "chosen_on_one_half_reported_on_the_other": crossed,
        "all_splits": all_splits(samples, people),
    }


if __name__ == "__main__":
    main()
