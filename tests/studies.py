"""Small studies of phantoms for tests, and what a test needs around them."""

import io

import numpy as np
from PIL import Image

from diffusioncleft.diffusioncleft_core.files import private_dir, sha256_bytes, write_bytes, write_text
from diffusioncleft.diffusioncleft_core.phantom import random_face, render
from diffusioncleft.diffusioncleft_core.study.folder import IMAGES, KEY, open_study
from diffusioncleft.diffusioncleft_core.study.items import Item, write_items

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


def make_study(folder, *, n=6, practice=1, repeats=0, more=False, side=128):
    """A study of `n` phantoms, a third of them `real`, made by hand from the shared types."""
    private_dir(folder / "private")
    write_text(folder / "study.toml", HEAD.format(practice=practice) + TWO + (MORE if more else ""))
    rng = np.random.default_rng(7)
    items = []
    for number in range(n + practice):
        data = io.BytesIO()
        Image.fromarray(render(random_face(rng, finding="cleft"), side).image).save(data, "PNG")
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
