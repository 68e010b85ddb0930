"""Small studies of phantoms and their server as a process: for tests and measurements."""

import contextlib
import io
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from ..diffusioncleft_core.files import private_dir, sha256_bytes, write_bytes, write_text
from ..diffusioncleft_core.phantom import random_face, render
from ..diffusioncleft_core.study.folder import IMAGES, KEY, Study, open_study
from ..diffusioncleft_core.study.items import Item, write_items
from ..diffusioncleft_core.study.web.store import Store
from .study_client import Client

HEAD = """
schema = 1
name = "small"
languages = ["en", "es"]
practice = {practice}
[title]
en = "How real are these faces?"
es = "¿Qué tan reales son estos rostros?"
[introduction]
en = "Judge each picture by itself."
es = "Juzgue cada imagen por sí misma."
[sets.generated]
n = 4
phantom = true
[sets.real]
n = 2
phantom = true
"""
TWO = """
[questions.realism]
kind = "scale"
text.en = "How realistic is the picture?"
text.es = "¿Qué tan realista es la imagen?"
anchors.1.en = "Clearly artificial: nobody would take it for a photograph"
anchors.1.es = "Claramente artificial: nadie la tomaría por una fotografía"
anchors.5.en = "Like a photograph: nothing in it looks artificial"
anchors.5.es = "Como una fotografía: nada en ella parece artificial"
[questions.plausibility]
kind = "scale"
text.en = "How plausible is the anatomy of the cleft or of its repair?"
text.es = "¿Qué tan plausible es la anatomía de la fisura o de su reparación?"
anchors.1.en = "Impossible: no patient could look like this"
anchors.1.es = "Imposible: ningún paciente podría verse así"
anchors.5.en = "Fully plausible: as I know it from patients"
anchors.5.es = "Totalmente plausible: como la conozco en pacientes"
"""
MORE = """
[questions.origin]
kind = "choice"
text.en = "Is this a photograph, or was it generated?"
text.es = "¿Es una fotografía o fue generada?"
choices.real.en = "Photograph"
choices.real.es = "Fotografía"
choices.generated.en = "Generated"
choices.generated.es = "Generada"
[questions.wrong]
kind = "point"
text.en = "What looks wrong? Click on it, or leave it out."
text.es = "¿Qué parece incorrecto? Haga clic sobre ello, o déjelo en blanco."
[questions.remark]
kind = "text"
text.en = "Anything else?"
text.es = "¿Algo más?"
"""


def make_study(
    folder: Path, *, n: int = 6, practice: int = 1, repeats: int = 0, more: bool = False, side: int = 128
) -> Study:
    """A study of `n` phantoms, a third of them `real`, made by hand from the shared types."""
    private_dir(folder / "private")
    write_text(folder / "study.toml", HEAD.format(practice=practice) + TWO + (MORE if more else ""))
    rng = np.random.default_rng(7)
    items = []
    for number in range(n + practice):
        data = io.BytesIO()
        Image.fromarray(render(random_face(rng, finding="cleft"), side).image).save(
            data, "PNG", compress_level=0
        )
        name = rng.bytes(16).hex()
        write_bytes(folder / IMAGES / f"{name}.png", data.getvalue())
        items.append(
            Item(
                name,
                "real" if number % 3 == 2 else "generated",
                "pre_op",
                practice=number >= n,
                width=side,
                height=side,
                sha256=sha256_bytes(data.getvalue()),
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
