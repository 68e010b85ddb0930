r"""Whether the audit tells LoRAs that learned their photographs by heart from LoRAs that did not.

    python -m diffusioncleft.tools.memorising_loras --out experiments/audit_memorising.json

For every seed two LoRAs of the embedded model are trained for as many steps: one on few phantoms, each of
which it sees many times, and one on many. Both are audited with what was kept apart from each. An AUC of 1
means that a figure of the audit puts every memorising LoRA above every healthy one. The same call goes on
where it was.
"""

import argparse
import datetime
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusioncleft_core.audit.document import AuditSettings, audit_lora
from ..diffusioncleft_core.faces.analyzer import FaceAnalyzer, load_face_analyzer
from ..diffusioncleft_core.files import read_json, write_json
from ..diffusioncleft_core.flux.source import phantom_source
from ..diffusioncleft_core.generation.settings import GenerationSettings
from .evaluate_faces import area
from .phantom_training import phantom_people, phantom_sampling, train_phantom


@dataclass(frozen=True)
class Kind:
    """So many people to learn from, and as many held out; `steps` is the same for both kinds."""

    name: str
    people: int
    steps: int


def kinds(steps: int) -> tuple[Kind, Kind]:
    return Kind("memorising", 10, steps), Kind("healthy", 60, steps)


def audited(
    kind: Kind, seed: int, work: Path, analyzer: FaceAnalyzer, settings: AuditSettings
) -> dict[str, Any]:
    """Train one LoRA and audit it."""
    place = work / f"{kind.name}-{seed}-{kind.steps}"
    dataset = phantom_people(place, kind.people, 1000 * seed + kind.people, analyzer)
    started = time.process_time()
    choices = {"optimizer.steps": kind.steps, "objective.seed": seed, "data.train_dir": dataset}
    lora = train_phantom(choices, place / "lora")
    trained = time.process_time() - started
    generation = GenerationSettings(phantom_source(), phantom_sampling(), lora)
    found = audit_lora(generation, dataset, analyzer, place / "private", settings)
    return {
        "kind": kind.name,
        "seed": seed,
        "seconds": {"training": round(trained), "audit": round(time.process_time() - started - trained)},
        **{name: found[name] for name in ("membership", "extraction")},
    }


SIGNALS: Mapping[str, Callable[[Mapping[str, Any]], float | None]] = {
    "membership, against the base": lambda row: row["membership"]["against_base"]["value"],
    "membership, LoRA alone": lambda row: row["membership"]["lora"]["value"],
    "membership, base alone (control)": lambda row: row["membership"]["base"]["value"],
    "cliques, residual": lambda row: row["extraction"]["cliques"]["residual"]["value"],
    "training face found, residual": lambda row: row["extraction"]["found"]["residual"]["value"],
    "training face found": lambda row: row["extraction"]["found"]["learned"]["value"],
    "near copies": lambda row: row["extraction"]["near_copies"]["learned"]["value"],
}
"""What of an audit might tell the two kinds apart."""


def told_apart(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """AUC of every signal over all LoRAs, and its values."""
    found = {}
    for name, signal in SIGNALS.items():
        values = {
            kind: np.array(
                [value for row in rows if row["kind"] == kind and (value := signal(row)) is not None]
            )
            for kind in ("memorising", "healthy")
        }
        if not all(map(len, values.values())):
            continue
        ordered, place = np.unique(np.concatenate(list(values.values())), return_inverse=True)
        counts = [
            np.bincount(part, minlength=len(ordered)).astype(float)
            for part in np.split(place, [len(values["memorising"])])
        ]
        found[name] = {
            "auc": round(area(*counts), 4),
            **{kind: [round(float(value), 4) for value in part] for kind, part in values.items()},
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loras", type=int, default=10, help="of each kind (default 10)")
    parser.add_argument("--steps", type=int, default=300, help="of each training (default 300)")
    parser.add_argument("--seeds", type=int, default=6, help="drawings a caption (default 6)")
    parser.add_argument("--captions", type=int, default=8, help="captions of each kind (default 8)")
    parser.add_argument("--work", type=Path, default=Path("build/memorising"), help="folder of the LoRAs")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    analyzer = load_face_analyzer("phantom", threads=1)
    settings = AuditSettings(seeds=args.seeds, captions=args.captions)
    rows: list[dict[str, Any]] = []
    options = [f"--{name}={getattr(args, name)}" for name in ("loras", "steps", "seeds", "captions")]
    for seed in range(args.loras):
        for kind in kinds(args.steps):
            kept = args.work / f"{kind.name}-{seed}-{kind.steps}" / "audit.json"
            if not kept.is_file():
                write_json(kept, audited(kind, seed, args.work, analyzer, settings))
            rows.append(read_json(kept))
            print(kind.name, seed, rows[-1]["seconds"], flush=True)
        document = {
            "schema": 1,
            "command": shlex.join(["python", "-m", "diffusioncleft.tools.memorising_loras", *options]),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "loras_a_kind": seed + 1,
            "told_apart": told_apart(rows),
            "rows": rows,
        }
        write_json(args.out, document)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
