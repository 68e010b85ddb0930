"""Small studies of phantoms and their server as a process: for tests and measurements."""

import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

from ..diffusioncleft_core.files import private_dir, sha256_bytes, write_bytes
from ..diffusioncleft_core.phantom import random_face, render
from ..diffusioncleft_core.study.blind import blind_png
from ..diffusioncleft_core.study.design import GENERATED, REAL, TEXT, Question, SetDesign
from ..diffusioncleft_core.study.design_file import load_design
from ..diffusioncleft_core.study.folder import IMAGES, KEY, PRIVATE, Study, open_study, write_design
from ..diffusioncleft_core.study.items import Item, write_items
from ..diffusioncleft_core.study.web.store import Store
from .study_client import Client

REMARK = Question("remark", {"en": "Anything else?", "es": "¿Algo más?"}, TEXT, required=False)


def make_study(
    folder: Path,
    *,
    n: int = 6,
    practice: int = 1,
    repeats: int = 0,
    more: bool = False,
    side: int = 128,
    ends: tuple[int, int] = (1, 5),
) -> Study:
    """A study of `n` phantoms, a third of them `real`, by hand: the paper's two questions.

    more: real or generated, what looks wrong, and a remark too.
    ends: of the scales.
    """
    private_dir(folder / PRIVATE)
    paper = load_design("paper_plus")
    sets = tuple(
        SetDesign(origin, count, origin, phantom=True) for origin, count in ((GENERATED, 4), (REAL, 2))
    )
    words = ({"en": "least", "es": "menos"}, {"en": "most", "es": "más"})
    scales = paper.questions[:2]
    if ends != (1, 5):
        anchors = dict(zip(ends, words, strict=True))
        scales = tuple(replace(one, low=ends[0], high=ends[1], anchors=anchors) for one in scales)
    questions = (*scales, *paper.questions[2:], REMARK) if more else scales
    design = replace(paper, name="small", sets=sets, questions=questions, conditions=(), practice=practice)
    write_design(folder, design)
    rng = np.random.default_rng(7)
    items = []
    for number in range(n + practice):
        data = blind_png(render(random_face(rng, finding="cleft"), side).image, side)
        name = rng.bytes(16).hex()
        write_bytes(folder / IMAGES / f"{name}.png", data)
        items.append(
            Item(
                name,
                REAL if number % 3 == 2 else GENERATED,
                "pre_op",
                practice=number >= n,
                width=side,
                height=side,
                sha256=sha256_bytes(data),
            )
        )
    for original in items[:repeats]:
        name = rng.bytes(16).hex()
        write_bytes(folder / IMAGES / f"{name}.png", (folder / IMAGES / f"{original.id}.png").read_bytes())
        items.append(Item(name, original.origin, "pre_op", repeat_of=original.id, width=side, height=side))
    write_items(folder / KEY, items)
    return open_study(folder)


class StudyServer:
    """`diffusioncleft study serve` as a process, on a free port of this machine."""

    def __init__(
        self, study: Study, environment: Mapping[str, str], *options: str, database: str | None = None
    ) -> None:
        self.study, self.database = study, database
        self._environment, self._options = dict(environment), options
        self._process: subprocess.Popen[str] | None = None
        self._log: Any = None
        self.base = ""

    def start(self, port: int = 0) -> Self:
        """Start it, and wait until it answers."""
        words = ["serve", str(self.study.root), "--port", str(port), *self._options]
        words += ["--database", self.database] if self.database else []
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "diffusioncleft", "study", *words],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=self._environment,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            found = re.match(r"serving .* at (http\S+);", line)
            if found:
                self.base = found[1]
                break
        else:
            raise RuntimeError("".join([*said, self.said()]))
        where = urlsplit(self.base)
        for _ in range(500):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", where.port or 80), 1).close()
                return self
            time.sleep(0.02)
        raise RuntimeError(f"{self.base} does not answer")

    @property
    def port(self) -> int:
        return urlsplit(self.base).port or 80

    def said(self) -> str:
        """What it wrote to standard error."""
        self._log.seek(0)
        return str(self._log.read())

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Ask it to end, and return its status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)

    def store(self) -> Store:
        """The study's database, opened in this process."""
        return Store(self.study, self.database)

    def invite(self, name: str) -> str:
        """A personal link."""
        store = self.store()
        token = store.invite(name)[1]
        store.close()
        return f"{self.base}/enter/{token}"

    def rater(self, name: str) -> Client:
        """Somebody who has opened their link."""
        client = Client(self.base)
        assert client.open_link(self.invite(name)).status == 200
        return client
