"""The phantom: a parametric face with known properties that proves the pipeline before a patient is in it."""

from .face import Cleft, PhantomFace, Repair, View, random_face
from .photographs import KINDS as ARTIFACT_KINDS
from .photographs import add_artifact, write_healthy, write_photographs
from .render import Rendering, render

__all__ = [
    "ARTIFACT_KINDS",
    "Cleft",
    "PhantomFace",
    "Rendering",
    "Repair",
    "View",
    "add_artifact",
    "random_face",
    "render",
    "write_healthy",
    "write_photographs",
]
