"""`python -m benchmarks.measurements`: our FID and LPIPS against the packages they come from.

FID: our nuclear norm against pytorch-fid's `calculate_frechet_distance`, from the same features; theirs takes
means and covariances, which are counted on its side. LPIPS: the mean over all pairs of a set, ours from one
pass and a closed form, theirs by the lpips package pair after pair, on the same seeded-random trunk. Rounds
alternate, so that a busy machine hurts both alike; the medians count. The values must agree.
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_fid.fid_score import calculate_frechet_distance

from diffusioncleft.diffusioncleft_core.environment import hardware, versions
from diffusioncleft.diffusioncleft_core.files import write_json
from diffusioncleft.diffusioncleft_core.metrics.extractors import perceptual
from diffusioncleft.diffusioncleft_core.metrics.fid import frechet_distance
from diffusioncleft.diffusioncleft_core.metrics.lpips import perceptual_pass

RESULTS = Path(__file__).resolve().parent / "results"
Side = Callable[[], float]


def compare(ours: Side, peers: Side, rounds: int) -> dict[str, Any]:
    """Seconds of both by the clock and of processor time, children's too, in alternation; their values, and
    how far apart these are, relative. Ratios are of medians."""
    seconds: dict[str, list[float]] = {"diffusioncleft": [], "peer": []}
    processor: dict[str, list[float]] = {"diffusioncleft": [], "peer": []}
    values = {}
    for _ in range(rounds):
        for name, side in (("diffusioncleft", ours), ("peer", peers)):
            started, used = time.perf_counter(), processor_seconds()
            values[name] = side()
            seconds[name].append(round(time.perf_counter() - started, 4))
            processor[name].append(round(processor_seconds() - used, 4))
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "times_faster": _ratio(seconds),
        "times_less_processor_time": _ratio(processor),
        "values": values,
        "relative_difference": abs(values["diffusioncleft"] / values["peer"] - 1),
    }


def processor_seconds() -> float:
    """Of this process and of the children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _ratio(times: dict[str, list[float]]) -> float | None:
    return ratio(statistics.median(times["peer"]), statistics.median(times["diffusioncleft"]))


def ratio(first: float, second: float) -> float | None:
    """One time by another; None where the work was too little for the clock."""
    return round(first / second, 2) if second else None


def fid(n: int, m: int, dimensions: int, rounds: int) -> dict[str, Any]:
    """Random features [n, D] and [m, D]."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(n, dimensions)), rng.normal(size=(m, dimensions)) * 1.1 + 0.1

    def peers() -> float:
        moments = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (a, b)]
        return float(calculate_frechet_distance(*moments[0], *moments[1]))

    result = compare(lambda: frechet_distance(a, b), peers, rounds)
    return {"n": n, "m": m, "dimensions": dimensions, "rounds": rounds, **result}


def lpips(n: int, side: int, rounds: int) -> dict[str, Any]:
    """n random pictures of side x side px."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(n)]
    network = perceptual(None, torch.device("cpu"))
    scaled = [torch.from_numpy(p).permute(2, 0, 1)[None].float().div(127.5) - 1 for p in pictures]

    def ours() -> float:
        members = {"all": np.ones(n, bool)}
        found = (
            perceptual_pass(lambda place: network(pictures[place]), members, [])
            .moments["all"]
            .all_pairs_mean()
        )
        assert found is not None
        return found

    def peers() -> float:
        with torch.inference_mode():
            pairs = itertools.combinations(scaled, 2)
            return float(np.mean([float(network.network(first, second)) for first, second in pairs]))

    return {"n": n, "pairs": n * (n - 1) // 2, "side": side, "rounds": rounds, **compare(ours, peers, rounds)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measurements", description=__doc__)
    parser.add_argument("--dimensions", type=int, default=512, help="of the features; Inception has 2048")
    parser.add_argument("--n", type=int, default=12, help="pictures for LPIPS")
    parser.add_argument("--side", type=int, default=128, help="of the pictures, px")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()

    result: dict[str, Any] = {
        "what": "seconds; FID from given features, LPIPS over all pairs of a set",
        "fid": fid(100, 2000, args.dimensions, args.rounds),
        "lpips": lpips(args.n, args.side, args.rounds),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "hardware": hardware(),
    }
    path = args.out / "measurements_cpu.json"
    write_json(path, result)
    for name in ("fid", "lpips"):
        found = result[name]
        difference = found["relative_difference"]
        print(f"{name}: {found['times_faster']} times faster, relative difference {difference:.1e}")
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
