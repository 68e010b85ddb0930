"""Kill workers, a node and the command at random moments while a set is drawn, and look what became of it.

    python -m diffusioncleft.tools.cluster_kills --kills 50 --out experiments/cluster_kills.json

`generate --ray ADDRESS` draws phantoms on two local Ray nodes; at random moments a worker, the second node or
the command gets SIGKILL, again and again until the set is whole. A command that was killed is given again.
Then every file of the set is compared with what one process drew. The same call goes on where it was: rounds
that are in --out are kept.
"""

import argparse
import multiprocessing
import os
import random
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.conditions.loader import load_vocabulary
from ..diffusioncleft_core.conditions.plan import sampling_plan
from ..diffusioncleft_core.conditions.plan_rows import write_plan
from ..diffusioncleft_core.environment import hardware, versions
from ..diffusioncleft_core.files import LOCK, read_json, read_jsonl, write_json
from ..diffusioncleft_core.imageset.places import MANIFEST
from .cluster_nodes import LocalNodes, two_nodes

KINDS = ("worker", "node", "driver")
WRONG = ("lost", "too many", "twice in the manifest", "of other bytes")
"""What is counted of a set against the one of one process."""
EARLY = 1 / 3
"""Share of the kills that come within `LONGEST` seconds of the last one, whatever was done since; the others
come within `SOON` seconds of something more being drawn, or no set would become whole on a slow machine."""
LONGEST, SOON, TICK = 40.0, 4.0, 0.2
MOST_ERRORS = 20
"""So many times may the command end with an error in a round before the measurement does."""
WHOLE_SECONDS = 1800.0
"""The longest that a set may take when nothing is killed any more."""
PRELOADED = ["torch", "diffusers", "transformers", "diffusioncleft.cli.generate", "ray"]


@dataclass(frozen=True)
class Drawn:
    """What is drawn: a plan's file, and the options of `generate` beside it."""

    plan: Path
    options: Sequence[str] = (
        "--phantom",
        "--size",
        "64",
        "--batch",
        "4",
        "--dtype",
        "fp32",
        "--device",
        "cpu",
    )

    def words(self, out: Path, *more: str) -> list[str]:
        """The arguments of the command that draws into `out`."""
        return ["generate", "--plan", str(self.plan), *self.options, "--out", str(out), *more]


def written_plan(path: Path, n: int) -> Path:
    """A plan of `n` phantoms, at `path`."""
    write_plan(path, sampling_plan(load_vocabulary().condition("pre_op"), n, 7))
    return path


def command(words: Sequence[str], log: Path) -> ForkServerProcess:
    """`diffusioncleft WORDS` as a process that begins with the libraries loaded; its streams go to `log`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_command, args=(list(words), log))
    process.start()
    return process


def _command(words: list[str], log: Path) -> None:
    import torch

    from ..cli.main import main

    torch.set_num_threads(1)  # as workers do: on some processors sums in several threads have other last bits
    with log.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.environ["DIFFUSIONCLEFT_PROGRESS"] = "0"
    sys.exit(main(words))


def kill_round(
    nodes: LocalNodes, kind: str, drawn: Drawn, out: Path, most: int, chance: random.Random
) -> Counter[str]:
    """Draw a set while `kind` is killed, `most` times at most; what happened, counted.

    Raises:
        RuntimeError: the command ends with errors, or never.
    """
    counted: Counter[str] = Counter(kills=0)
    log = out.with_suffix(".log")
    words = drawn.words(out, "--ray", nodes.address, "--ray-workers", "2")
    driver = command(words, log)
    try:
        while True:
            if counted["kills"] < most:
                wait_for_moment(driver, out, chance)
            else:
                driver.join(WHOLE_SECONDS)
            if not driver.is_alive():
                if driver.exitcode == 0:
                    return counted
                counted["commands that ended with an error"] += 1
                if counted["commands that ended with an error"] > MOST_ERRORS:
                    raise RuntimeError(f"the command ends with errors: {log.read_text()[-2000:]}")
                driver = command(words, log)
            elif counted["kills"] >= most:
                raise RuntimeError(
                    f"the set is not whole after {WHOLE_SECONDS:g} s: {log.read_text()[-2000:]}"
                )
            elif kind == "driver":
                driver.kill()
                driver.join()
                counted["kills"] += 1
                driver = command(words, log)
            elif kind == "node":
                counted["with a worker on the node"] += nodes.second_has_workers()
                nodes.kill_second()
                counted["kills"] += 1
            elif workers := nodes.workers():
                chance.choice(sorted(workers, key=lambda process: process.pid)).kill()
                counted["kills"] += 1
    finally:
        driver.kill()
        driver.join()


def wait_for_moment(driver: ForkServerProcess, out: Path, chance: random.Random) -> None:
    """Wait for the next kill, or until the command ends."""
    if chance.random() < EARLY:
        driver.join(chance.uniform(0, LONGEST))
        return
    before = len(list(out.glob("*.png")))
    while driver.is_alive() and len(list(out.glob("*.png"))) == before:
        driver.join(TICK)
    driver.join(chance.uniform(0, SOON))


def compared(alone: Path, out: Path) -> dict[str, int]:
    """What of the set that one process drew is lost, differs, is there beside it, or is listed twice."""
    one, other = content(alone), content(out)
    indices = Counter(row["file"] for row in read_jsonl(out / MANIFEST))
    counts = (
        len(one.keys() - other.keys()),
        len(other.keys() - one.keys()),
        sum(times - 1 for times in indices.values()),
        sum(one[name] != other[name] for name in one.keys() & other.keys()),
    )
    return dict(zip(WRONG, counts, strict=True))


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a set by its path, but for the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


def killed(document: Mapping[str, Any], kind: str) -> int:
    """How many kills of a kind are on record."""
    return sum(row["kills"] for row in document["rounds"] if row["kind"] == kind)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m diffusioncleft.tools.cluster_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of each kind (default 50)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--n", type=int, default=64, help="images of a set (default 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="JSON")
    args = parser.parse_args()
    document: dict[str, Any] = read_json(args.out) if args.out.is_file() else {"rounds": []}
    root = Path(tempfile.mkdtemp(prefix="cluster-kills-"))
    try:
        drawn = Drawn(written_plan(root / "plan.jsonl", args.n))
        alone = command(drawn.words(root / "alone"), root / "alone.log")
        alone.join()
        if alone.exitcode:
            raise RuntimeError((root / "alone.log").read_text()[-2000:])
        with two_nodes() as nodes:
            while kinds := [kind for kind in args.kinds if killed(document, kind) < args.kills]:
                kind = min(kinds, key=lambda kind: killed(document, kind))
                number, began = len(document["rounds"]), time.monotonic()
                out, left = root / f"round{number}", args.kills - killed(document, kind)
                counted = kill_round(nodes, kind, drawn, out, left, random.Random(args.seed + number))
                row = {"kind": kind, "images": args.n, **counted, **compared(root / "alone", out)}
                document["rounds"].append({**row, "seconds": round(time.monotonic() - began)})
                write_json(args.out, told(document))
                print(row, flush=True)
                shutil.rmtree(out)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    totals = told(document)["totals"]
    print(f"{totals}; kept in {args.out}")
    return int(any(one[name] for one in totals.values() for name in WRONG))


def told(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its sums by kind, and how and when it was made."""
    totals: dict[str, Counter[str]] = {}
    for row in document["rounds"]:
        figures = {name: value for name, value in row.items() if name not in ("kind", "seconds")}
        sums = totals.setdefault(row["kind"], Counter())
        sums.update({"sets": 1, **figures})
    return {
        "what": "sets drawn by generate --ray on two local nodes under random SIGKILLs, against one process",
        "command": shlex.join(["python", "-m", "diffusioncleft.tools.cluster_kills", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "totals": {kind: dict(sums) for kind, sums in totals.items()},
        "rounds": document["rounds"],
        "hardware": hardware(),
        "versions": versions(),
    }


if __name__ == "__main__":
    sys.exit(main())
