"""The face pack: it opens, and it finds a face where there is one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ...diffusioncleft_core.errors import UserError
from .steps import Failed, Figures, Skipped
from .training import phantom_pictures

if TYPE_CHECKING:
    from pathlib import Path

    from .checkup import Checkup

PUBLIC_PACKS = (
    "buffalo_l",
    "buffalo_m",
    "buffalo_s",
    "buffalo_sc",
    "antelopev2",
    "auraface",
    "phantom-faces",
)


def opens(checkup: Checkup) -> Figures:
    """Open the pack for real."""
    begun = time.monotonic()
    analyzer = _analyzer(checkup)
    told = analyzer.describe()
    name = str(told["pack"])
    weights: dict[str, str] = dict(told["weights"])
    return {
        "pack": name if name.lower() in PUBLIC_PACKS else "one of your own",
        "load_seconds": round(time.monotonic() - begun, 1),
        "detector_size": int(told["det_size"]),
        "insightface": str(told["insightface"]),
        "models_sha256": ", ".join(sorted(digest[:16] for digest in weights.values())),
    }


def finds(checkup: Checkup) -> Figures:
    """A face in a picture: a phantom for the phantom pack, for any other the user's photograph."""
    settings = checkup.settings
    analyzer = _analyzer(checkup)
    phantom = phantom_pictures(1, settings.resolution, seed=2)[0]
    if not analyzer.phantom_only and settings.photo is None:
        begun = time.monotonic()
        analyzer.analyze(phantom)
        checkup.found.face_seconds = time.monotonic() - begun
        raise Skipped("no test photograph is shipped: name one of yours with --photo, nothing of it is told")
    picture = phantom if settings.photo is None or analyzer.phantom_only else _photograph(settings.photo)
    analyzer.analyze(picture)
    begun = time.monotonic()
    faces = analyzer.analyze(picture)
    checkup.found.face_seconds = time.monotonic() - begun
    figures: Figures = {
        "faces": len(faces),
        "seconds": round(checkup.found.face_seconds, 3),
        "picture": "a phantom" if picture is phantom else "a photograph of yours",
    }
    if not faces:
        raise Failed(
            "no face was found in the picture",
            "name a photograph with one clear face with --photo, or get the face pack again",
            figures,
        )
    return {**figures, "score": round(faces[0].score, 2), "found_at": faces[0].rung}


def filters(checkup: Checkup) -> Figures:
    """The artifact filter, with its reader of text, on a rendered face of the size of the images."""
    from ...diffusioncleft_core.filters.artifacts import ArtifactFilter

    analyzer = _analyzer(checkup)
    begun = time.monotonic()
    artifacts = ArtifactFilter(analyzer)
    loaded = time.monotonic() - begun
    picture = phantom_pictures(1, checkup.settings.resolution, seed=2)[0]
    artifacts.check(picture)
    begun = time.monotonic()
    verdict = artifacts.check(picture)
    checkup.found.filter_seconds = time.monotonic() - begun
    figures: Figures = {
        "load_seconds": round(loaded, 1),
        "image_seconds": round(checkup.found.filter_seconds, 3),
        "kinds": ", ".join(artifacts.kinds),
    }
    if analyzer.phantom_only and not verdict.accepted:
        raise Failed(f"a clean picture was rejected: {', '.join(verdict.reasons)}", "report it", figures)
    return figures


def _analyzer(checkup: Checkup) -> Any:
    from ...diffusioncleft_core.faces.analyzer import load_face_analyzer

    analyzer = load_face_analyzer(checkup.settings.faces, device=checkup.settings.device.type)
    if analyzer.phantom_only and not checkup.settings.phantom:
        raise UserError(
            "the embedded face pack knows phantoms and nothing else; give --faces a pack such as buffalo_l"
        )
    return analyzer


def _photograph(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[H, W, 3] uint8 RGB, upright."""
    from ...diffusioncleft_core.imageset.decode import Rejected, read_image

    try:
        return read_image(path)
    except Rejected as error:
        raise UserError("the photograph of --photo can't be opened; give a JPEG or PNG file") from error
