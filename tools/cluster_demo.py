"""Two Ray nodes on this machine against one process: the same pictures, verdicts and figures.

    python -m diffusioncleft.tools.cluster_demo --n 400

Phantoms are drawn, filtered and measured twice: in one process, and by two workers on two local nodes, of
which one worker is killed while it draws. Ends with status 1 where anything differs beyond the last bits of a
figure.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..diffusioncleft_core import phantom
from ..diffusioncleft_core.cluster.ray_engine import RayEngine, ray_engine
from ..diffusioncleft_core.cluster.settings import RaySettings
from ..diffusioncleft_core.cluster.work import HERE, Engine
from ..diffusioncleft_core.conditions.loader import load_vocabulary
from ..diffusioncleft_core.conditions.plan import sampling_plan
from ..diffusioncleft_core.conditions.plan_rows import Plan
from ..diffusioncleft_core.dataset.build import build_dataset
from ..diffusioncleft_core.dataset.settings import BuildSettings, Photographs
from ..diffusioncleft_core.environment import hardware, versions
from ..diffusioncleft_core.faces.analyzer import load_face_analyzer
from ..diffusioncleft_core.files import sha256_file, write_json
from ..diffusioncleft_core.filters.apply import filter_set
from ..diffusioncleft_core.filters.settings import FilterSettings, load_filters
from ..diffusioncleft_core.flux.source import phantom_source
from ..diffusioncleft_core.generation.generate import draw_all
from ..diffusioncleft_core.generation.settings import GenerationSettings, Sampling
from ..diffusioncleft_core.imageset.manifest import listed_rows
from ..diffusioncleft_core.metrics.extractors import load_extractors
from ..diffusioncleft_core.metrics.measure import measure_sets
from .cluster_nodes import two_nodes

SIDE, BATCH, PHOTOGRAPHS = 64, 16, 24
CLOSE = 1e-4
"""Relative difference of two figures that are the same but for the last bits of their features."""


def everything(
    folder: Path, dataset: Path, plan: Plan, engine: Engine, *, kill: bool = False
) -> dict[str, Any]:
    """Draw, filter and measure; seconds of each, and what came of it."""
    sampling = Sampling(torch.device("cpu"), torch.float32, width=SIDE, height=SIDE, batch=BATCH)
    killed: list[int] = []

    def on_image(done: int, total: int) -> None:
        if kill and not killed and isinstance(engine, RayEngine) and done >= total // 4:
            killed.append(engine.processes()[0])
            os.kill(killed[0], signal.SIGKILL)

    seconds, began = {}, time.monotonic()

    def lap(name: str) -> None:
        nonlocal began
        seconds[name], began = round(time.monotonic() - began, 1), time.monotonic()

    draw_all(GenerationSettings(phantom_source(), sampling), plan, folder, on_image=on_image, engine=engine)
    lap("generate")
    pictures = {path.name: sha256_file(path) for path in folder.glob("*.png")}
    filters = load_filters(FilterSettings("phantom", references=(dataset,)))
    filter_set(folder, filters, engine=engine)
    lap("filter")
    measured = measure_sets(
        {"pre_op": folder},
        [dataset],
        load_face_analyzer("phantom"),
        load_extractors({"fid"}, phantom=True, device=torch.device("cpu")),
        engine=engine,
    )
    lap("measure")
    return {
        "seconds": seconds,
        "killed": len(killed),
        "pictures": pictures,
        "verdicts": {row.name: row.verdicts for row in listed_rows(folder)},
        "figures": dict(numbers(measured["sets"])),
    }


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a document by its path."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from numbers(part, f"{name}/{key}")
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from numbers(part, f"{name}/{place}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, float(value)


def differing(one: dict[str, Any], two: dict[str, Any]) -> dict[str, int]:
    """How many pictures, verdicts and figures differ."""
    found = {
        name: sum(one[name].get(key) != two[name].get(key) for key in one[name].keys() | two[name].keys())
        for name in ("pictures", "verdicts")
    }
    a, b = one["figures"], two["figures"]
    return found | {
        "figures": sum(
            key not in a or key not in b or abs(a[key] - b[key]) > CLOSE * max(1e-6, abs(a[key]))
            for key in a.keys() | b.keys()
        )
    }


def main() -> int:
    torch.set_num_threads(1)  # as workers do: on some processors sums in several threads have other last bits
    parser = argparse.ArgumentParser(description="two local Ray nodes against one process")
    parser.add_argument("--n", type=int, default=400, help="phantoms (default 400)")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp())
    try:
        phantom.write_photographs(root / "photographs", PHOTOGRAPHS, "cleft", 5)
        condition = load_vocabulary().condition("pre_op")
        photographs = Photographs(root / "photographs", root / "photographs" / "metadata.csv")
        faces, dataset = load_face_analyzer("phantom"), root / "dataset"
        build_dataset(photographs, condition, dataset, faces, settings=BuildSettings(phantom=True))
        plan = sampling_plan(condition, args.n, 7)
        with two_nodes() as nodes, ray_engine(RaySettings(nodes.address, 2), print) as engine:
            cluster = everything(root / "cluster", dataset, plan, engine, kill=True)
        alone = everything(root / "alone", dataset, plan, HERE)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    different = differing(alone, cluster)
    sizes = {name: len(alone[name]) for name in ("pictures", "verdicts", "figures")}
    print(f"seconds: one process {alone['seconds']}, two workers {cluster['seconds']}")
    print(f"workers killed: {cluster['killed']}")
    for name, count in different.items():
        print(f"{name}: {count} of {sizes[name]} differ")
    if args.out:
        result = {"n": args.n, "differ": different, "of": sizes, "killed": cluster["killed"]}
        seconds = {"one_process": alone["seconds"], "two_workers": cluster["seconds"]}
        write_json(args.out, {**result, "seconds": seconds, "hardware": hardware(), "versions": versions()})
    return 1 if any(different.values()) or not cluster["killed"] else 0


if __name__ == "__main__":
    sys.exit(main())
