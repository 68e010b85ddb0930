r"""Write the thresholds at stated false-match rates into the embedded pack's `pack.json`.

python -m diffusioncleft.tools.calibrate_faces --people 3000 --twice 900

They are of phantoms, whom the recogniser never saw in training (another seed), and so is all that rests on
them. Ten minutes on one core; --kept FILE keeps the faces for `tools.audit_coverage`.
"""

import argparse
import datetime
import shlex
import sys
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.faces.analyzer import PHANTOM_FOLDER, load_face_analyzer
from ..diffusioncleft_core.faces.calibration import RATES, calibrate
from ..diffusioncleft_core.files import read_json, write_json
from ..diffusioncleft_core.metrics.fir import embedder_info
from .face_pool import face_pool

SEED = 77
PEOPLE, TWICE = 3000, 900


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--twice", type=int, default=TWICE, help="people in two pictures each")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--kept", type=Path, metavar="FILE", help="where the faces are kept")
    parser.add_argument("--out", type=Path, default=PHANTOM_FOLDER / "pack.json")
    args = parser.parse_args()
    analyzer = load_face_analyzer("phantom")
    pool = face_pool(analyzer, args.people, args.twice, args.seed, args.kept)
    stated = calibrate(pool.embeddings, [str(person) for person in pool.person], RATES)
    options = ["--people", str(args.people), "--twice", str(args.twice), "--seed", str(args.seed)]
    calibration = {
        "recogniser_sha256": embedder_info(analyzer)["sha256"],
        "of": "phantoms that the recogniser was not trained on",
        "command": shlex.join(["python", "-m", "diffusioncleft.tools.calibrate_faces", *options]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "thresholds": [rounded(row.as_json()) for row in stated if row.threshold is not None],
    }
    write_json(args.out, {**read_json(args.out), "calibration": calibration})
    print(args.out)
    return 0


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """A threshold with as many digits as mean something."""
    return {
        **{key: row[key] for key in ("rate", "method", "n_pairs", "n_people")},
        "threshold": round(row["threshold"], 4),
        "ci95": [round(end, 4) for end in row["ci95"]],
        "rate_ci95": [float(f"{end:.3g}") for end in row["rate_ci95"]],
        "true_match": {
            **row["true_match"],
            "value": round(row["true_match"]["value"], 4),
            "ci95": [round(end, 4) for end in row["true_match"]["ci95"]],
        },
    }


if __name__ == "__main__":
    sys.exit(main())
