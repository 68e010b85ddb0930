"""Kill a study's server at random moments, and look whether every acknowledged rating is there.

    python -m diffusioncleft.tools.study_kills --kills 100 --out experiments/study_kills.json

Raters rate and correct as fast as they can; after a random time the server gets SIGKILL, the database is
read, and the next server starts on it. A rating is acknowledged once the server's answer to its form was
received.
"""

import argparse
import http.client
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from datetime import date
from pathlib import Path

from ..diffusioncleft_core.environment import hardware
from ..diffusioncleft_core.files import write_json
from ..diffusioncleft_core.progress import progress
from ..diffusioncleft_core.study.web.order import Queue
from ..diffusioncleft_core.study.web.signin import Signatures, read_secret
from .postgres import on_each_database
from .study_client import Client
from .study_server import StudyServer, make_study

Answers = dict[str, int]
LONGEST = 1.5
"""Seconds from the first rating to the kill, at most."""


class _Rater(threading.Thread):
    """Rates the items in turn until the server is gone; keeps what was acknowledged, in order."""

    def __init__(self, client: Client, items: list[str], seed: int) -> None:
        super().__init__(daemon=True)
        self._client, self._items, self._random = client, items, random.Random(seed)
        self.acknowledged: dict[str, list[Answers]] = defaultdict(list)
        self.refused: list[int] = []

    def run(self) -> None:
        last: dict[str, Answers] = {}
        while True:
            for item in self._items:
                answers = {name: self._random.randint(1, 5) for name in ("realism", "plausibility")}
                if answers == last.get(item):  # it would change nothing
                    answers["realism"] = answers["realism"] % 5 + 1
                try:
                    status = self._client.rate(item, dict(answers)).status
                except (OSError, http.client.HTTPException):
                    return
                if status == 303:
                    self.acknowledged[item].append(answers)
                    last[item] = answers
                else:
                    self.refused.append(status)


def kill_once(server: StudyServer, raters: int, after: float, seed: int) -> Counter[str]:
    """Start the server, let raters work, kill it, and count what was acknowledged and what of it is lost."""
    server.start()
    threads = []
    store = server.store()
    for number in range(raters):
        rater, token = store.invite(f"rater {seed}-{number}")
        client = Client(server.base)
        client.open_link(f"{server.base}/enter/{token}")
        threads.append((_Rater(client, list(_items(server, rater.id)), seed * 1000 + number), rater.id))
    store.close()
    for thread, _ in threads:
        thread.start()
    time.sleep(after)
    server.kill()
    for thread, _ in threads:
        thread.join(60)
    counted: Counter[str] = Counter(kills=1)
    store = server.store()
    for thread, rater_id in threads:
        items = _items(server, rater_id)
        counted["refused"] += len(thread.refused)
        for name, answers in thread.acknowledged.items():
            kept = [dict(one.answers) for one in store.history(rater_id, items[name])]
            counted["acknowledged"] += len(answers)
            counted["lost"] += sum(given != have for given, have in zip(answers, kept, strict=False))
            counted["lost"] += max(len(answers) - len(kept), 0)
            counted["kept beyond the last acknowledgement"] += max(len(kept) - len(answers), 0)
    store.close()
    return counted


def _items(server: StudyServer, rater: int) -> dict[str, str]:
    """The rater's items in their order, by the address of each item's page."""
    queue = Queue(Signatures(read_secret(server.study.private)), rater, server.study.items)
    return {f"/item/{queue.name(item)}": item.id for item in queue.items}


def measure(database: str | None, kills: int, raters: int, seed: int) -> dict[str, int]:
    """`kills` kills on one database: a URL, or None for the study's own SQLite file."""
    chance = random.Random(seed)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        study = make_study(Path(folder) / "study", n=6, practice=0, side=64)
        server = StudyServer(study, os.environ, database=database)
        for number in progress(range(kills), "kills", unit="kill"):
            total += kill_once(server, raters, chance.uniform(0.02, LONGEST), seed + number)
    return {"lost": 0, "refused": 0, **total}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m diffusioncleft.tools.study_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="on SQLite; half as many on PostgreSQL")
    parser.add_argument("--raters", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="JSON")
    args = parser.parse_args()
    found = on_each_database(
        lambda database: measure(
            database, args.kills // 2 if database else args.kills, args.raters, args.seed
        )
    )
    document = {
        "what": "ratings acknowledged before the server's SIGKILL at a random moment, and those lost",
        "date": date.today().isoformat(),
        "raters": args.raters,
        "seed": args.seed,
        "databases": found,
        "hardware": hardware(),
    }
    write_json(args.out, document)
    print(f"{found}; kept in {args.out}")
    return int(any(one["lost"] for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
