"""`python -m benchmarks.measurement_scale`: what measuring costs at the size of a real evaluation.

FIR: our counts in blocks against the bare matrix product of the same blocks, and the memory that counting the
pairs of 10^5 and 10^5 faces takes (RssAnon, above the interpreter's own; the first 4,096 rows, since the
blocks are used again). LPIPS: how often the network sees an image for 2,000 random pairs of every set that
`measure` compares, and seconds for pairs of pictures against the lpips package's own loop. Vectors: seconds,
files and bytes of shards against a file an image, as it was before there were shards. A second evaluation:
seconds of `measure` on the same files, first and again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffusioncleft.diffusioncleft_core.environment import hardware, versions
from diffusioncleft.diffusioncleft_core.files import read_json, write_json
from diffusioncleft.diffusioncleft_core.imageset.cache import ContentCache, entry_key
from diffusioncleft.diffusioncleft_core.imageset.vectors import VectorStore
from diffusioncleft.diffusioncleft_core.metrics import pairs
from diffusioncleft.diffusioncleft_core.metrics.extractors import load_extractors, perceptual
from diffusioncleft.diffusioncleft_core.metrics.fir import SWEEP
from diffusioncleft.diffusioncleft_core.metrics.lpips import draw_pairs, perceptual_pass

from .measurements import RESULTS, compare, ratio

FEATURES_AT_768 = 6_050_000
"""Numbers that LPIPS keeps of an image of 768 px, about."""
MEASURED = """
import json, numpy as np
from diffusioncleft.diffusioncleft_core.metrics.pairs import count_pairs
def rss_anon():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024
before = rss_anon()
rng, n, most = np.random.default_rng(0), {n}, 0.0
import threading
done = threading.Event()
def watch():
    global most
    while not done.wait(0.02):
        most = max(most, rss_anon())
thread = threading.Thread(target=watch); thread.start()
first, second = (rng.standard_normal((n, 512), np.float32) for _ in range(2))
for side in (first, second):
    side /= np.sqrt(np.einsum("ij,ij->i", side, side))[:, None]
count_pairs(first, second, (0.3, 0.6), rows=np.arange(4096))
done.set(); thread.join()
print(json.dumps({{"peak_mb": round(most), "above_mb": round(most - before)}}))
"""


def fir(n: int, m: int, rounds: int) -> dict[str, object]:
    """Seconds of our counts, and of the product alone in the same blocks."""
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((size, 512), np.float32) for size in (n, m))
    first, second = (item / np.linalg.norm(item, axis=1, keepdims=True) for item in (first, second))
    space = np.empty((pairs.ROWS, pairs.COLUMNS), np.float32)

    def product() -> float:
        for start in range(0, n, pairs.ROWS):
            for left in range(0, m, pairs.COLUMNS):
                some, others = first[start : start + pairs.ROWS], second[left : left + pairs.COLUMNS]
                np.matmul(some, others.T, out=space[: len(some), : len(others)])
        return 1.0

    def ours() -> float:
        return float(pairs.count_pairs(first, second, SWEEP).size > 0)

    found = compare(ours, product, rounds)
    return {
        "n": n,
        "m": m,
        "rounds": rounds,
        "seconds": found["seconds"],
        "of_the_product's_rate": share(found),
    }


def share(found: dict[str, Any]) -> float | None:
    seconds = found["seconds"]
    ours, product = (min(seconds[name]) for name in ("diffusioncleft", "peer"))
    return ratio(product, ours)


def memory(n: int) -> dict[str, int]:
    """MB of RssAnon while 10^5 x 10^5 pairs are counted, both sides' faces included."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(n=n)], capture_output=True, text=True, check=True
    )
    return {"n": n, **json.loads(done.stdout)}


def passes(n: int) -> dict[str, int]:
    """How often an image is looked at for LPIPS of two sets of n, raw and filtered, and of both together."""
    first = np.arange(2 * n) < n
    kept = np.random.default_rng(1).random(2 * n) < 0.9
    groups = {"pre": first, "post": ~first, "all": np.ones(2 * n, bool)}
    members = {
        f"{name}.{v}": mask & (kept if v == "filtered" else True)
        for name, mask in groups.items()
        for v in ("raw", "filtered")
    }
    wanted = {tuple(pair) for found in draw_pairs(members, 2000, 0).values() for pair in found.tolist()}
    seen = 0

    def features(place: int) -> torch.Tensor:
        nonlocal seen
        seen += 1
        return torch.zeros(64)

    with tempfile.TemporaryDirectory() as folder:
        budget = (2 << 30) // (2 * FEATURES_AT_768) * 2 * 64
        perceptual_pass(features, members, sorted(wanted), budget=budget, spill=Path(folder))
    return {"images": 2 * n, "pairs": len(wanted), "network_passes": seen}


def lpips_of_pairs(n: int, count: int, side: int, rounds: int) -> dict[str, object]:
    """Random pairs of n pictures against the package's loop over the same pairs."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(n)]
    network = perceptual(None, torch.device("cpu"))
    scaled = [torch.from_numpy(p).permute(2, 0, 1)[None].float().div(127.5) - 1 for p in pictures]
    members = {"all": np.ones(n, bool)}
    chosen = draw_pairs(members, count, 0)["all"]

    def ours() -> float:
        found = perceptual_pass(lambda place: network(pictures[place]), members, chosen.tolist())
        return float(found.perceptual("all", chosen).pairs_mean or 0)

    def peers() -> float:
        with torch.inference_mode():
            return float(np.mean([float(network.network(scaled[i], scaled[j])) for i, j in chosen.tolist()]))

    return {"n": n, "pairs": len(chosen), "side": side, "rounds": rounds, **compare(ours, peers, rounds)}


def vectors(n: int, dimensions: int, rounds: int) -> dict[str, object]:
    """Seconds (wall clock, and the processor's) to write and read `n` vectors in both forms, files, bytes."""
    rows = np.random.default_rng(0).standard_normal((n, dimensions), np.float32)
    keys = [entry_key(place) for place in range(n)]

    def files(folder: Path) -> Iterator[None]:
        cache = ContentCache(folder, "vectors")
        for key, row in zip(keys, rows, strict=True):
            cache.keep_tensors(key, {"features": torch.tensor(row)})
        yield
        found = [(ContentCache(folder, "vectors").tensors(key) or {})["features"].numpy() for key in keys]
        assert (np.stack(found) == rows).all()
        yield

    def shards(folder: Path) -> Iterator[None]:
        store = VectorStore(folder, "vectors", "network", (dimensions,))
        for key, row in zip(keys, rows, strict=True):
            store.keep(key, row)
        store.close()
        yield
        found = np.empty_like(rows)
        assert VectorStore(folder, "vectors", "network", (dimensions,)).fill(found, range(n), keys).all()
        assert (found == rows).all()
        yield

    found: dict[str, dict[str, float]] = {}
    for name, form in {"file_an_image": files, "shards": shards}.items():
        taken: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as root:
                steps = form(Path(root) / "cache")
                for step in ("write", "read"):
                    before = time.perf_counter(), time.process_time()
                    next(steps)
                    now = time.perf_counter(), time.process_time()
                    taken[f"{step}_seconds"].append(now[0] - before[0])
                    taken[f"{step}_cpu_seconds"].append(now[1] - before[1])
                written = [path.stat() for path in Path(root).rglob("*") if path.is_file()]
        found[name] = {
            "files": len(written),
            "mb_on_disk": round(sum(file.st_blocks for file in written) * 512 / 1e6, 1),
            **{name: round(min(each), 3) for name, each in taken.items()},
        }
    one, other = found.values()
    faster = {
        step: ratio(one[f"{step}_cpu_seconds"], other[f"{step}_cpu_seconds"]) for step in ("write", "read")
    }
    return {"n": n, "dimensions": dimensions, "rounds": rounds, **found, "times_less_cpu": faster}


def second_evaluation(n: int, side: int) -> dict[str, object]:
    """Seconds of all figures of n phantoms against n others in a bare folder, first and again."""
    from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
    from diffusioncleft.diffusioncleft_core.metrics.measure import measure_sets
    from diffusioncleft.diffusioncleft_core.metrics.sets import References
    from diffusioncleft.diffusioncleft_core.phantom.face import random_face
    from diffusioncleft.diffusioncleft_core.phantom.render import render

    analyzer = load_face_analyzer("phantom")
    extractors = load_extractors(("fid", "lpips"), phantom=True, device=torch.device("cpu"))
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as root:
        folders = [Path(root) / name for name in ("set", "reference")]
        for folder in folders:
            folder.mkdir()
            for place in range(n):
                picture = Image.fromarray(render(random_face(rng), side).image)
                picture.save(folder / f"{place}.png")
        seconds, cpu = [], []
        for _ in range(2):
            started = time.perf_counter(), time.process_time()
            measure_sets({"all": folders[0]}, References((), {folders[1]: "all"}), analyzer, extractors)
            seconds.append(time.perf_counter() - started[0])
            cpu.append(time.process_time() - started[1])
    first, again = cpu
    return {
        "n": n,
        "side": side,
        "seconds": [round(t, 3) for t in seconds],
        "cpu_seconds": [round(t, 3) for t in cpu],
        "times_less_cpu": ratio(first, again),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measurement_scale", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--faces", type=int, default=8192, help="rows and columns of the timed matrix of pairs"
    )
    parser.add_argument("--pictures", type=int, default=24, help="for LPIPS, and half as many pairs again")
    parser.add_argument("--side", type=int, default=256, help="of the pictures for LPIPS, px")
    parser.add_argument("--evaluated", type=int, default=60, help="images of the evaluation that is repeated")
    parser.add_argument("--vectors", type=int, default=5000, help="that are written and read in both forms")
    parser.add_argument("--only", nargs="+", metavar="PART", help="these parts; the others stay as kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    path = args.out / "measurement_scale_cpu.json"
    kept = read_json(path) if args.only and path.is_file() else {}
    result: dict[str, object] = {**kept, "what": "seconds, MB and counts"}
    parts: dict[str, Callable[[], Mapping[str, object]]] = {
        "lpips_passes": lambda: passes(2000),
        "fir": lambda: fir(args.faces // 2, args.faces, args.rounds),
        "fir_memory": lambda: memory(100_000),
        "lpips_of_pairs": lambda: lpips_of_pairs(
            args.pictures, args.pictures * 3 // 2, args.side, args.rounds
        ),
        "vectors": lambda: vectors(args.vectors, 2048, args.rounds),
        "second_evaluation": lambda: second_evaluation(args.evaluated, 256),
    }
    if unknown := set(args.only or ()) - parts.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; choose from {', '.join(parts)}")
    for name in args.only or parts:
        result[name] = parts[name]()
        print(f"{name}: {result[name]}", flush=True)
        more = {"threads": torch.get_num_threads(), "versions": versions(), "hardware": hardware()}
        write_json(path, {**result, **more})
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
