"""The filter nodes' work: the core's verdicts on pictures in memory."""

from collections.abc import Callable, Mapping
from typing import Any

from ..diffusioncleft_core.errors import UserError
from .common import progress_bar, stop_if_interrupted
from .face_work import ReferenceHandle, analyzer_of
from .pictures import pixels_of
from .set_work import rows_for
from .verdicts import Judged, Record, Verdicts, of_both, picture_key

_SHOWN = 200
"""Lines of the verdict table that a node shows."""


def pass_through(images: Any, rows: Any, earlier: Record | None) -> Verdicts:
    """Everything passes, but for what an earlier filter set aside."""
    return _judge(images, rows, earlier, None)


def artifact_kinds(inputs: Mapping[str, Any]) -> list[str]:
    """The kinds of artifact that are switched on."""
    from ..diffusioncleft_core.filters.artifacts import ARTIFACTS

    return [kind for kind in ARTIFACTS if inputs.get(kind)]


def artifact_limits(inputs: Mapping[str, Any]) -> dict[str, float]:
    """The limits that the widgets give."""
    from ..diffusioncleft_core.filters.artifacts import all_limits

    return {name: float(inputs[name]) for name in all_limits() if inputs.get(name) is not None}


def check_artifacts(
    images: Any,
    rows: Any,
    earlier: Record | None,
    pack: str,
    kinds: list[str],
    limits: Mapping[str, float],
) -> Verdicts:
    """Verdicts of the artifact filter on every picture."""
    from ..diffusioncleft_core.filters.artifacts import ArtifactFilter, needs_faces

    checker = ArtifactFilter(analyzer_of(pack) if needs_faces(kinds) else None, kinds=kinds, limits=limits)

    def verdict(pixels: Any) -> dict[str, Any]:
        found = checker.check(pixels)
        return {"accepted": found.accepted, "reasons": found.reasons, "artifacts": found.to_json()}

    return _judge(images, rows, earlier, verdict)


def check_identity(
    images: Any,
    rows: Any,
    earlier: Record | None,
    known: ReferenceHandle | None,
    threshold: float,
    *,
    near_copies: bool = True,
) -> Verdicts:
    """Verdicts of the identity leak filter on every picture."""
    from ..diffusioncleft_core.faces.records import record_of
    from ..diffusioncleft_core.filters.identity import IdentityFilter

    if known is None:
        raise UserError("there is no reference set to compare with; connect one, or switch the filter off")
    checker = IdentityFilter(known.reference, threshold, near_copies=near_copies)

    def verdict(pixels: Any) -> dict[str, Any]:
        found = checker.check(record_of(pixels, known.analyzer.analyze(pixels)), pixels)
        return {"accepted": found.accepted, "reasons": found.reasons, "identity": found.to_json()}

    return _judge(images, rows, earlier, verdict)


def _judge(
    images: Any, rows: Any, earlier: Record | None, verdict: Callable[[Any], dict[str, Any]] | None
) -> Verdicts:
    pictures = pixels_of(images)
    given = rows_for(rows, len(pictures))
    record: Record = dict(earlier or {})
    accepted: list[Any] = []
    rejected: list[Any] = []
    lines: list[str] = []
    bar = progress_bar(len(pictures))
    for place, (pixels, row) in enumerate(zip(pictures, given, strict=True), start=1):
        stop_if_interrupted()
        key = picture_key(pixels)
        found = record.get(key) or dict(row.get("verdicts") or {})
        if verdict is not None:
            found = of_both(found, verdict(pixels))
            record[key] = found
        passed = bool(found.get("accepted", True))
        (accepted if passed else rejected).append(Judged(pixels, {**row, "verdicts": found}))
        lines.append(f"{place}  {_line(found, checked=verdict is not None)}")
        bar.update_absolute(place, len(pictures))
    head = f"{len(accepted)} of {len(pictures)} pictures accepted"
    more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return Verdicts(accepted, rejected, "\n".join([head, *lines[:_SHOWN], *more]), record)


def _line(found: Mapping[str, Any], *, checked: bool) -> str:
    """One picture's verdict in words."""
    if not found.get("accepted", True):
        words = f"set aside: {', '.join(found.get('reasons', []))}"
    else:
        words = "accepted" if checked else "not checked"
    identity = found.get("identity")
    if identity and identity["max_similarity"] is not None:
        words += f" (similarity {identity['max_similarity']:.2f})"
    return words
