"""Measure the filters: planted artifacts, clean generated images, drawn faces with and without clefts.

    diffusioncleft run --phantom --out demo
    python -m diffusioncleft.tools.evaluate_filters \\
        --run demo --n 600 --out experiments/phantom_filters.json

Images are drawn with the run's LoRAs from a plan seed of their own, so that no threshold was chosen on them;
the same call goes on after an interruption. Every share has a 95 % interval (Clopper-Pearson).
"""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..diffusioncleft_core.conditions.loader import load_vocabulary
from ..diffusioncleft_core.conditions.plan import sampling_plan
from ..diffusioncleft_core.dataset.folder import dataset_rows
from ..diffusioncleft_core.dataset.references import read_references
from ..diffusioncleft_core.faces.analyzer import load_face_analyzer
from ..diffusioncleft_core.faces.records import FaceRecord, face_records, record_of
from ..diffusioncleft_core.files import write_json
from ..diffusioncleft_core.filters.artifacts import ARTIFACTS, NO_FACE, ArtifactFilter
from ..diffusioncleft_core.filters.identity import IdentityFilter
from ..diffusioncleft_core.filters.stage import photograph_verdicts, photographs_summary
from ..diffusioncleft_core.flux.source import phantom_source
from ..diffusioncleft_core.generation.folder import recorded_sampling
from ..diffusioncleft_core.generation.generate import generate
from ..diffusioncleft_core.generation.settings import GenerationSettings
from ..diffusioncleft_core.imageset.decode import read_image
from ..diffusioncleft_core.imageset.synthetic import contact_sheet
from ..diffusioncleft_core.phantom.face import HEALTHY, random_face, random_identity
from ..diffusioncleft_core.phantom.render import render
from ..diffusioncleft_core.progress import progress
from ..diffusioncleft_core.statistics import clopper_pearson
from . import FINDING_OF
from .planted import PLANTED, PlantedKind, plant, worn_copy

CONDITIONS = ("pre_op", "post_op")
SEED = 4_812
"""Of the evaluation: no threshold was chosen on its images, nor on its drawn faces."""


@dataclass(frozen=True)
class Picture:
    """One generated image, what it was asked to show and what was found in it."""

    image: NDArray[np.uint8]
    record: FaceRecord
    condition: str
    attributes: Mapping[str, str]


def drawn(run: Path, work: Path, n: int, seed: int, analyzer: Any) -> list[Picture]:
    """`n` images of each condition, drawn with the run's LoRAs and settings from another plan."""
    pictures = []
    for name in CONDITIONS:
        condition = load_vocabulary().condition(name)
        lora = next((run / "loras" / name).glob(f"{condition.trigger.lower()}.safetensors"))
        plan = sampling_plan(condition, n, seed)
        sampling = recorded_sampling(run / "generated" / name, torch.device("cpu"), torch.float32, batch=16)
        generate(GenerationSettings(phantom_source(), sampling, lora), plan, work / name)
        files = [f"{row.index:06d}_{row.seed}.png" for row in plan]
        records = face_records(work / name, files, analyzer, work / name / ".faces")
        for row, file, record in zip(plan, files, records, strict=True):
            pictures.append(Picture(read_image(work / name / file), record, name, row.attributes))
    return pictures


def false_rejections(
    pictures: Sequence[Picture], artifacts: ArtifactFilter
) -> tuple[dict[str, Any], list[int]]:
    """Share of clean images rejected: overall, by condition, skin tone and age group; and which ones."""
    verdicts = [artifacts.check(item.image, item.record) for item in progress(pictures, "clean")]
    bad = [not verdict.accepted for verdict in verdicts]
    vocabulary = load_vocabulary()
    groups: dict[str, dict[str, list[bool]]] = {"condition": {}, "skin": {}, "age": {}}
    for item, rejected in zip(pictures, bad, strict=True):
        groups["condition"].setdefault(item.condition, []).append(rejected)
        known = vocabulary.groups_of(item.attributes)
        groups["skin"].setdefault(str(known["skin_tone"]), []).append(rejected)
        groups["age"].setdefault(str(known["age_group"]), []).append(rejected)
    reasons = Counter(reason for verdict in verdicts for reason in verdict.reasons)
    result = {
        "all": share(bad),
        **{
            name: {value: share(found) for value, found in sorted(values.items())}
            for name, values in groups.items()
        },
        "by_kind": {kind: share_of(reasons[kind], len(bad)) for kind in (NO_FACE, *ARTIFACTS)},
    }
    return result, [place for place, rejected in enumerate(bad) if rejected]


def recall(
    pictures: Sequence[Picture], kind: PlantedKind, artifacts: ArtifactFilter, analyzer: Any, seed: int
) -> tuple[dict[str, Any], list[NDArray[np.uint8]]]:
    """Share of planted images rejected, and rejected for that kind; and the images that passed.

    A cut or wiped face may rightly be called no face, so a rejection of whatever kind counts as caught.
    """
    whole = [item for item in pictures if item.record.box is not None]
    others = [item.image for item in whole]
    caught, named, missed = [], [], []
    by_condition: dict[str, list[bool]] = {}
    by_skin: dict[str, list[bool]] = {}
    for place, item in enumerate(progress(whole, kind)):
        if item.record.box is None or item.record.landmarks is None:
            continue
        rng = np.random.default_rng([seed, PLANTED.index(kind), place])
        rest = [image for image in others if image is not item.image]
        image = plant(item.image, item.record.landmarks, item.record.box, kind, rng, rest)
        verdict = artifacts.check(image, record_of(image, analyzer.analyze(image)))
        caught.append(not verdict.accepted)
        named.append(kind in verdict.reasons)
        by_condition.setdefault(item.condition, []).append(caught[-1])
        by_skin.setdefault(item.attributes["skin"], []).append(caught[-1])
        if verdict.accepted:
            missed.append(image)
    figure = {
        "caught": share(caught),
        "named": share(named),
        "condition": {name: share(found) for name, found in by_condition.items()},
        "skin": {name: share(found) for name, found in sorted(by_skin.items())},
    }
    return figure, missed


def clefts_alone(n: int, artifacts: ArtifactFilter, seed: int) -> dict[str, Any]:
    """The same drawn photographs without and with a finding: how often only the latter is rejected."""
    rng = np.random.default_rng([seed, 77])
    outcome = {name: {"n": 0, "healthy_rejected": 0, "rejected": 0, "only_with": 0} for name in CONDITIONS}
    for _ in progress(range(n), "drawn faces", unit="person"):
        child = {"subject": str(rng.choice(HEALTHY["subject"][:4]))}
        healthy = random_face(rng, identity=random_identity(rng), attributes=child)
        kept = {key: healthy.attributes[key] for key in HEALTHY}
        without = not artifacts.check(render(healthy).image).accepted
        for name, counts in outcome.items():
            face = random_face(rng, finding=FINDING_OF[name], attributes=kept, identity=healthy.identity)
            face = replace(face, view=healthy.view, glasses=healthy.glasses, seed=healthy.seed)
            with_cleft = not artifacts.check(render(face).image).accepted
            counts["n"] += 1
            counts["healthy_rejected"] += without
            counts["rejected"] += with_cleft
            counts["only_with"] += with_cleft and not without
    return {name: counts | {"share": share_of(counts["only_with"], n)} for name, counts in outcome.items()}


def identity_figures(
    run: Path, pictures: Sequence[Picture], analyzer: Any, strangers: int, seed: int
) -> dict[str, Any]:
    """Worn copies of training photographs, unrelated drawn people, and generated images, at the threshold."""
    folders = [run / "private" / name for name in CONDITIONS]
    identity = IdentityFilter(read_references(folders, analyzer))
    rng = np.random.default_rng([seed, 99])
    copies = []
    for folder in folders:
        trained_on = [row.file for row in dataset_rows(folder, "train")]
        for file in progress(trained_on, "copies"):
            image = worn_copy(read_image(folder / file), rng)
            copies.append(identity.check(record_of(image, analyzer.analyze(image))).rejected)
    unrelated = []
    for _ in range(strangers):
        image = render(random_face(rng, finding=FINDING_OF[str(rng.choice(CONDITIONS))])).image
        unrelated.append(identity.check(record_of(image, analyzer.analyze(image))).rejected)
    return {
        "threshold": identity.threshold,
        "references": len(identity.reference),
        "worn_copies_caught": share(copies),
        "unrelated_people_rejected": share(unrelated),
        "generated_rejected": {
            name: share([identity.check(p.record).rejected for p in pictures if p.condition == name])
            for name in CONDITIONS
        },
    }


def share(found: Sequence[bool]) -> dict[str, object]:
    return share_of(sum(found), len(found))


def share_of(k: int, n: int) -> dict[str, object]:
    return clopper_pearson(k, n).as_dict()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished phantom run")
    parser.add_argument("--n", type=int, default=300, help="images a condition (default 300)")
    parser.add_argument("--people", type=int, default=300, help="drawn people with and without clefts")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--work", type=Path, default=Path("build/filters/images"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, help="where a picture of the wrongly judged ones goes")
    args = parser.parse_args()
    analyzer = load_face_analyzer("phantom")
    artifacts = ArtifactFilter(analyzer)
    pictures = drawn(args.run, args.work, args.n, args.seed, analyzer)
    begun = process_time()
    clean, rejected = false_rejections(pictures, artifacts)
    seconds = (process_time() - begun) / len(pictures)
    wrong = [(pictures[place].image, "clean, rejected") for place in rejected]
    planted = {}
    for kind in PLANTED:
        planted[kind], missed = recall(pictures, kind, artifacts, analyzer, args.seed)
        wrong += [(image, f"{kind}, missed") for image in missed]
    photographs = {
        name: photographs_summary(photograph_verdicts(args.run / "private" / name, artifacts))
        for name in CONDITIONS
    }
    result = {
        "schema": 1,
        "what": "The filters on phantoms: embedded models alone, no photograph of a person.",
        "command": shlex.join(["python", "-m", __spec__.name if __spec__ else "", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "seed": args.seed,
        "base_model": phantom_source().fingerprint(),
        "filters": artifacts.describe(),
        "processor_seconds_an_image": round(seconds, 4),
        "clean": clean,
        "planted": planted,
        "clefts": clefts_alone(args.people, artifacts, args.seed),
        "training_photographs": photographs,
        "identity": identity_figures(args.run, pictures, analyzer, args.people, args.seed),
    }
    write_json(args.out, result)
    if args.sheet and wrong:
        contact_sheet(wrong[:80], args.sheet, title=f"{len(wrong)} judged wrongly")
    for kind, figure in planted.items():
        print(f"{kind}: {figure['caught']}")
    print(f"clean: {clean['all']}")
    for skin, figure in clean["skin"].items():
        print(f"  {skin}: {figure}")
    print(args.out)


if __name__ == "__main__":
    main()
