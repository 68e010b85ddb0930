"""What is decided about an image: by the filters, by a person, and where it is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import FaceRecord
from ..files import read_json, sha256_bytes, sha256_file, write_json
from ..imageset.decode import INGEST_VERSION
from ..imageset.manifest import ImageRow
from ..imageset.places import current_place, sidecar_of
from .artifacts import NO_FACE, ArtifactFilter, ArtifactVerdict, unreadable_verdict
from .identity import IdentityFilter, IdentityVerdict

PERSON = "person"
"""The reason for which a person rejects an image."""
READMISSION, REJECTION, REVIEW = "readmitted", "rejected_by", "review"
DECISIONS = (READMISSION, REJECTION, REVIEW)
"""Fields of an image's verdicts that a person gave."""


@dataclass(frozen=True)
class Filters:
    """What the images of a set are judged by.

    Attributes:
        artifacts: what images are rejected for beside likeness.
        identity: None leaves identity leaks unlooked for, and the verdicts say so by lacking that part.
        phantom_base: fingerprint of another base model than the embedded one that draws phantoms too.
        again: builds them anew, in another process too; None where nothing can.
    """

    artifacts: ArtifactFilter
    identity: IdentityFilter | None = None
    phantom_base: str | None = None
    again: Callable[[], Filters] | None = field(default=None, compare=False, repr=False)

    @property
    def analyzer(self) -> FaceAnalyzer | None:
        """Finds the faces in the images; None where no filter looks for any."""
        return self.artifacts.analyzer

    @cached_property
    def key(self) -> str:
        """Short hash of everything a verdict depends on beside the image; names no photograph."""
        compared = None if self.identity is None else self.identity.describe()
        text = json.dumps([INGEST_VERSION, self.artifacts.describe(), compared], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def judge(self, image: NDArray[np.uint8], record: FaceRecord) -> dict[str, Any]:
        """The verdicts on `image` [H, W, 3] RGB, in which the faces of `record` were found."""
        identity = self.identity.check(record, image) if self.identity else None
        return verdicts_of(self.artifacts.check(image, record), identity, self.key)

    @property
    def unread(self) -> dict[str, Any]:
        """The verdicts on an image that can't be looked at: it is rejected."""
        return verdicts_of(unreadable_verdict(), None, self.key)


@dataclass(frozen=True, eq=False, repr=False)
class Judged:
    """What a worker found in an image: its faces, and the verdicts."""

    record: FaceRecord
    verdicts: dict[str, Any]


def verdicts_of(
    artifacts: ArtifactVerdict, identity: IdentityVerdict | None, settings: str
) -> dict[str, Any]:
    """The field `verdicts` of sidecar and manifest row. `settings`: what the verdict depends on, hashed."""
    reasons = artifacts.reasons
    if identity is not None:
        reasons = [*reasons, *(item for item in identity.reasons if item != NO_FACE or not reasons)]
    verdicts = {"accepted": not reasons, "reasons": reasons, "artifacts": artifacts.to_json()}
    return verdicts | ({"identity": identity.to_json()} if identity else {}) | {"settings": settings}


def with_decisions(verdicts: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The filters' verdicts with what a person decided, as `known` has it.

    A readmission holds for the reasons that it overruled; a rejection is a reason of its own; a review says
    what the person saw.
    """
    decided = {name: dict(known[name]) for name in DECISIONS if known.get(name)}
    reasons = [reason for reason in verdicts["reasons"] if reason != PERSON]
    reasons += [PERSON] if REJECTION in decided else []
    overruled = set(decided.get(READMISSION, {}).get("overruled", []))
    others = {name: value for name, value in verdicts.items() if name not in DECISIONS}
    return {**others, "accepted": set(reasons) <= overruled, "reasons": reasons, **decided}


def known_verdicts(folder: Path, row: ImageRow) -> dict[str, Any]:
    """The verdicts of an earlier call: the sidecar's; of an image without one, the manifest's."""
    sidecar = read_sidecar(folder, row)
    known = row.verdicts if sidecar is None else sidecar.get("verdicts")
    if not isinstance(known, Mapping) or not {"accepted", *DECISIONS} & known.keys():
        return {}
    return dict(known)


def keep_verdicts(folder: Path, row: ImageRow, verdicts: Mapping[str, Any]) -> None:
    """Write the verdicts on an image into its sidecar, if it has one."""
    sidecar = read_sidecar(folder, row)
    if sidecar is not None:
        write_json(_sidecar_path(folder, row), {**sidecar, "verdicts": dict(verdicts)})


def read_sidecar(folder: Path, row: ImageRow) -> dict[str, Any] | None:
    """The JSON file beside an image, if it is one of ours: a foreign folder's own JSON is left alone."""
    path = _sidecar_path(folder, row)
    if not path.is_file():
        return None
    try:
        sidecar = read_json(path)
    except UserError:
        return None
    return sidecar if isinstance(sidecar, dict) and sidecar.get("synthetic") is True else None


def _sidecar_path(folder: Path, row: ImageRow) -> Path:
    return folder / current_place(folder, sidecar_of(Path(row.name)).name)


def file_digest(path: Path) -> str | None:
    """SHA-256 of an image's file; None when it can't be read."""
    try:
        return sha256_file(path)
    except OSError:
        return None


def content_key(digest: str | None) -> str | None:
    """Tells an image from another one of the same name, by `file_digest`, which it does not give away."""
    return None if digest is None else sha256_bytes(digest.encode())[:16]
