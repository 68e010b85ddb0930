"""`python -m benchmarks.study_load`: fifty raters at once on the study's page, on SQLite and on PostgreSQL.

Server and raters share this machine and speak over the loopback. Each rater opens a page and its picture,
waits and sends the answers; the waits are drawn around a second, about ten times as fast as people rate. What
is measured is seen from the raters: from the request to the last byte of the answer.
"""

import argparse
import http.client
import os
import random
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from datetime import date
from pathlib import Path

from diffusioncleft.diffusioncleft_core.environment import hardware
from diffusioncleft.diffusioncleft_core.files import write_json
from diffusioncleft.tools.postgres import on_each_database
from diffusioncleft.tools.study_client import Client, Page
from diffusioncleft.tools.study_server import StudyServer, make_study

RESULTS = Path(__file__).resolve().parent / "results"
PICTURES, SIDE = 60, 768


class Rater(threading.Thread):
    """Rates until the time is over, then begins to correct; keeps how long each answer took."""

    def __init__(self, client: Client, wait: float, until: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._client, self._wait, self._until = client, wait, until
        self._random = random.Random(seed)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.errors: list[str] = []

    def run(self) -> None:
        time.sleep(self._random.uniform(0, self._wait))
        item = self._client.next_item()
        while time.monotonic() < self._until:
            try:
                item = self._rate(item)
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(type(error).__name__)

    def _rate(self, item: str) -> str:
        page = self._timed("page", "GET", item)
        self._timed("picture", "GET", page.picture)
        time.sleep(self._random.uniform(0.5, 1.5) * self._wait)
        answers = {f"answer.{name}": str(self._random.randint(1, 5)) for name in ("realism", "plausibility")}
        sent = self._timed("answer", "POST", item, page.fields(item) | answers)
        following = sent.location
        return following if following.startswith("/item/") else self._client.next_item() or item

    def _timed(self, what: str, method: str, path: str, fields: dict[str, str] | None = None) -> Page:
        started = time.perf_counter()
        page = self._client.get(path) if method == "GET" else self._client.post(path, fields or {})
        self.seconds[what].append(time.perf_counter() - started)
        if page.status not in (200, 303):
            self.errors.append(f"{what}: {page.status}")
        return page


def measure(database: str | None, raters: int, seconds: float, wait: float) -> dict[str, object]:
    """One round on one database: a URL, or None for the study's own SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        study = make_study(Path(folder) / "study", n=PICTURES, practice=0, side=SIDE)
        server = StudyServer(study, os.environ, database=database).start()
        try:
            clients = [server.rater(f"rater {number}") for number in range(raters)]
            until = time.monotonic() + seconds
            threads = [Rater(client, wait, until, number) for number, client in enumerate(clients)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(seconds + 60)
            errors = [error for thread in threads for error in thread.errors]
            unfinished = sum(thread.is_alive() for thread in threads)
        finally:
            server.stop()
        size = statistics.median(study.image(item.id).stat().st_size for item in study.items)
    result: dict[str, object] = {
        what: _summary([one for thread in threads for one in thread.seconds[what]])
        for what in ("page", "picture", "answer")
    }
    requests = sum(len(times) for thread in threads for times in thread.seconds.values())
    return result | {
        "requests_per_second": round(requests / seconds, 1),
        "errors": sorted(errors) + ["unfinished"] * unfinished,
        "picture_bytes": int(size),
    }


def _summary(times: list[float]) -> dict[str, float]:
    hundredths = statistics.quantiles(times, n=100)
    return {
        "n": len(times),
        "median_ms": round(1000 * statistics.median(times), 1),
        "p95_ms": round(1000 * hundredths[94], 1),
        "worst_ms": round(1000 * max(times), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study_load", description=__doc__)
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=40, help="of each round")
    parser.add_argument("--wait", type=float, default=1.0, help="mean seconds between a page and its answer")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    found = on_each_database(lambda database: measure(database, args.raters, args.seconds, args.wait))
    result = {
        "what": "answers of the study's page as its raters see them, on the loopback",
        "date": date.today().isoformat(),
        "raters": args.raters,
        "seconds": args.seconds,
        "mean_wait": args.wait,
        "pictures": PICTURES,
        "side": SIDE,
        "load_before": round(load, 2),
        "databases": found,
        "hardware": hardware(),
    }
    path = args.out / "study_load_cpu.json"
    write_json(path, result)
    for name, one in found.items():
        print(f"{name}: {one}")
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
