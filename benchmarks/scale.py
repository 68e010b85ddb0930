"""`python -m benchmarks.scale`: book-keeping of a set of N images, at several N: CPU seconds and peak memory.

Pictures are 64 px and written straight to disk, so that what counts is plan, manifest, sidecars and
summaries. Each step runs in a process of its own; its CPU time counts, because it does not hang on what else
the machine does.
`seconds_per_1000` grows with N where a step is not linear, `growth` is the last one's by the first one's.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import sampling_plan
from diffusioncleft.diffusioncleft_core.conditions.plan_rows import Plan, read_plan, write_plan
from diffusioncleft.diffusioncleft_core.environment import hardware, versions
from diffusioncleft.diffusioncleft_core.files import read_json, sha256_bytes, write_json
from diffusioncleft.diffusioncleft_core.generation.folder import PlannedSet
from diffusioncleft.diffusioncleft_core.imageset.manifest import (
    Reread,
    image_set_rows,
    listed_rows,
    read_image_set,
    write_image_set,
)
from diffusioncleft.diffusioncleft_core.imageset.places import image_name
from diffusioncleft.diffusioncleft_core.imageset.synthetic import SIDECAR_SCHEMA, marked_png

RESULTS = Path(__file__).resolve().parent / "results" / "scale_cpu.json"
PLAN, SET, DATASET = "plan.jsonl", "set", "dataset"
WRITTEN = 200
"""Images that the step `write` adds to a set of N."""
RECORD = {
    "base": {"sha256": "b" * 64, "vae_sha256": "c" * 64},
    "lora": {"sha256": "d" * 64, "strength": 1.0},
    "sampler": {"steps": 4, "sigmas": [1.0, 0.75, 0.5, 0.25], "guidance": "none", "dtype": "float32"},
    "size": {"width": 64, "height": 64},
}


def plan(root: Path, n: int) -> None:
    """Make a plan of n rows and write it."""
    write_plan(root / PLAN, sampling_plan(load_vocabulary().condition("pre_op"), n, 0))


def make_set(root: Path, n: int) -> None:
    """Not a step: the pictures and sidecars of the plan but its last 200, as a generation leaves them."""
    folder = root / SET
    folder.mkdir()
    pixels = np.zeros((64, 64, 3), np.uint8)
    for row in read_plan(root / PLAN)[: n - WRITTEN]:
        data = marked_png(pixels, row.prompt)
        name = image_name(row.index, row.seed)
        sidecar = {"schema": SIDECAR_SCHEMA, "file": name, "index": row.index, "condition": row.condition}
        sidecar |= {"prompt": row.prompt, "seed": row.seed, "attributes": dict(row.attributes), **RECORD}
        sidecar |= {"width": 64, "height": 64, "png_sha256": sha256_bytes(data), "synthetic": True}
        (folder / name).write_bytes(data)
        (folder / name).with_suffix(".json").write_text(json.dumps(sidecar, indent=2))


def opened(root: Path, role: str = "generated") -> tuple[PlannedSet, Plan]:
    rows = read_plan(root / PLAN)
    planned = PlannedSet(root / SET, rows, role, RECORD)
    return planned, planned.write_manifest()


def resume(root: Path, n: int) -> None:
    """Open a set that is there but for 200 images, and find these."""
    assert len(opened(root)[1]) == WRITTEN


def write(root: Path, n: int) -> None:
    """Write 200 images into the set; the step `resume` is part of it."""
    planned, pending = opened(root)
    for row in pending:
        planned.write(row, marked_png(np.zeros((64, 64, 3), np.uint8), row.prompt))


class AcceptsAll:
    """An artifact filter that looks for nothing."""

    analyzer = None

    def describe(self) -> dict[str, str]:
        return {}

    def check(self, image: object, record: object) -> object:
        from diffusioncleft.diffusioncleft_core.filters.artifacts import ArtifactVerdict

        return ArtifactVerdict({})


def filters(root: Path, n: int) -> None:
    """Filter the set for nothing: pictures are decoded, verdicts written to sidecars and manifest."""
    from diffusioncleft.diffusioncleft_core.filters.apply import filter_set
    from diffusioncleft.diffusioncleft_core.filters.verdicts import Filters

    assert filter_set(root / SET, Filters(AcceptsAll())).checked == n  # type: ignore[arg-type]


def manifest_streamed(root: Path, n: int) -> None:
    """Read the manifest row by row and write it again."""
    write_image_set(root / SET, listed_rows(root / SET))


def manifest_listed(root: Path, n: int) -> None:
    """Read the whole manifest as most stages do."""
    assert len(read_image_set(root / SET)) == n


def report(root: Path, n: int) -> None:
    """Count what the filters decided, and draw the contact sheet."""
    from diffusioncleft.diffusioncleft_core.filters.stage import filter_summary
    from diffusioncleft.diffusioncleft_core.report.summary import write_contact_sheet

    assert filter_summary(Reread(partial(image_set_rows, root / SET)))["n"] == n
    write_contact_sheet(root / SET, root / "sheet.png", "sheet", phantom=True)


def export(root: Path, n: int) -> None:
    """Write the set as WebDataset shards."""
    from diffusioncleft.diffusioncleft_core.imageset.shards import write_shards
    from diffusioncleft.diffusioncleft_core.imageset.storage import Place

    assert write_shards(root / SET, Place("shards", root / "shards"), "webdataset").pictures == n


def purge(root: Path, n: int) -> None:
    """Purge a dataset whose images are the set's pictures and sidecars; it is the last step."""
    from diffusioncleft.diffusioncleft_core.dataset.folder import IMAGES, create_dataset_folder, purge_dataset

    create_dataset_folder(root / DATASET)
    (root / DATASET / IMAGES).rmdir()
    (root / SET).rename(root / DATASET / IMAGES)
    assert purge_dataset(root / DATASET).erased > 2 * (n - WRITTEN)


STEPS: dict[str, Callable[[Path, int], None]] = {
    step.__name__: step
    for step in (
        plan,
        resume,
        write,
        filters,
        manifest_streamed,
        manifest_listed,
        report,
        export,
        purge,
    )
}


def run_step(name: str, root: Path, n: int) -> dict[str, float]:
    """One step in a process of its own: CPU and wall seconds, and peak memory above an idle process."""
    command = [sys.executable, "-m", "benchmarks.scale", "--step", name, "--root", str(root), "--n", str(n)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_step(name: str, root: Path, n: int) -> None:
    """What `run_step` starts: imports are done once before the clock runs, on nothing."""
    import diffusioncleft.diffusioncleft_core.filters.stage
    import diffusioncleft.diffusioncleft_core.report.summary  # noqa: F401

    load_vocabulary()
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    (make_set if name == "make_set" else STEPS[name])(root, n)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "cpu_seconds": round(time.process_time() - cpu, 3),
                "wall_seconds": round(time.perf_counter() - wall, 3),
                "memory_mib": round((peak - idle) / 1024, 1),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--folder", type=Path, help="where the sets lie meanwhile: /dev/shm leaves the disk out"
    )
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP")
    parser.add_argument(
        "--add", action="store_true", help="keep what the result file has of other sizes and steps"
    )
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        measure_step(args.step, args.root, args.n)
        return
    steps: dict[str, dict[str, dict[str, float]]] = {name: {} for name in STEPS}
    if args.add and args.out.is_file():
        steps |= read_json(args.out)["steps"]
    for n in args.sizes:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            for name in [step for step in STEPS if step in {*args.steps, "plan"}]:
                found = run_step(name, Path(folder), n)
                steps[name][str(n)] = found | {
                    "seconds_per_1000": round(1000 * found["cpu_seconds"] / n, 4),
                    "bytes_a_row": round(found["memory_mib"] * 2**20 / n),
                }
                print(n, name, steps[name][str(n)], flush=True)
                write_json(args.out, document(steps))
                if name == "plan":
                    run_step("make_set", Path(folder), n)


def document(steps: dict[str, dict[str, dict[str, float]]]) -> dict[str, object]:
    """The result as JSON values; growth: seconds a row at the largest size by those at the smallest."""
    growth = {}
    for name, found in steps.items():
        if len(found) > 1:
            few, many = (
                found[size]["seconds_per_1000"] for size in (min(found, key=int), max(found, key=int))
            )
            growth[name] = round(many / max(few, 1e-9), 2)
    return {
        "what": "book-keeping of a set of 64 px; one process a step; memory above an idle process",
        "steps": steps,
        "growth": growth,
        "hardware": hardware(),
        "versions": versions(),
    }


if __name__ == "__main__":
    main()
