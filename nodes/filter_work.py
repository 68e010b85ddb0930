"""The filter nodes' work: the core's verdicts on pictures in memory."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..diffusioncleft_core.errors import UserError
from .annotated import MOST, neighbours, with_verdict
from .common import progress_bar, stop_if_interrupted
from .face_work import ReferenceHandle, analyzer_of
from .pictures import pixels_of
from .set_work import rows_for
from .verdicts import Judged, Record, Seen, Verdicts, of_both, picture_key, verdict_words

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
    from ..diffusioncleft_core.faces.records import record_of
    from ..diffusioncleft_core.filters.artifacts import ArtifactFilter, needs_faces

    analyzer = analyzer_of(pack) if needs_faces(kinds) else None
    checker = ArtifactFilter(analyzer, kinds=kinds, limits=limits)

    def verdict(pixels: Any) -> Seen:
        faces = analyzer.analyze(pixels) if analyzer is not None else []
        found = checker.check(pixels, record_of(pixels, faces))
        told = {"accepted": found.accepted, "reasons": found.reasons, "artifacts": found.to_json()}
        return Seen(told, faces)

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

    def verdict(pixels: Any) -> Seen:
        faces = known.analyzer.analyze(pixels)
        found = checker.check(record_of(pixels, faces), pixels)
        told = {"accepted": found.accepted, "reasons": found.reasons, "identity": found.to_json()}
        return Seen(told, faces)

    return _judge(images, rows, earlier, verdict)


def _judge(images: Any, rows: Any, earlier: Record | None, verdict: Callable[[Any], Seen] | None) -> Verdicts:
    pictures = pixels_of(images)
    given = rows_for(rows, len(pictures))
    record: Record = dict(earlier or {})
    accepted: list[Any] = []
    rejected: list[Any] = []
    lines: list[str] = []
    judged: list[dict[str, Any]] = []
    faces: list[Sequence[Any]] = []
    bar = progress_bar(len(pictures))
    for place, (pixels, row) in enumerate(zip(pictures, given, strict=True), start=1):
        stop_if_interrupted()
        key = picture_key(pixels)
        found = record.get(key) or dict(row.get("verdicts") or {})
        faces.append([])
        if verdict is not None:
            seen = verdict(pixels)
            found, faces[-1] = of_both(found, seen.told), seen.faces
            record[key] = found
        passed = bool(found.get("accepted", True))
        (accepted if passed else rejected).append(Judged(pixels, {**row, "verdicts": found}))
        judged.append(found)
        lines.append(f"{place}  {_line(found, checked=verdict is not None)}")
        bar.update_absolute(place, len(pictures))
    head = f"{len(accepted)} of {len(pictures)} pictures accepted"
    more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return Verdicts(
        accepted,
        rejected,
        "\n".join([head, *lines[:_SHOWN], *more]),
        record,
        csv=_csv(judged, faces),
        drawn=[
            with_verdict(pixels, found, seen, checked=verdict is not None)
            for pixels, found, seen in zip(pictures[:MOST], judged, faces, strict=False)
        ],
        neighbours=neighbours(pictures, faces),
    )


def _csv(judged: Sequence[Mapping[str, Any]], faces: Sequence[Sequence[Any]]) -> str:
    """One line a picture, as a spreadsheet takes it."""
    from ..diffusioncleft_core.spreadsheet import csv_text

    rows = []
    for place, (found, seen) in enumerate(zip(judged, faces, strict=True), start=1):
        identity = found.get("identity") or {}
        copy = identity.get("near_copy") or {}
        score = f"{seen[0].score:.4f}" if seen else ""
        rows.append(
            [
                place,
                int(bool(found.get("accepted", True))),
                " ".join(found.get("reasons", [])),
                len(seen),
                score,
                "" if identity.get("max_similarity") is None else identity["max_similarity"],
                copy.get("score", ""),
            ]
        )
    names = ("picture", "accepted", "reasons", "faces", "face_score", "similarity", "copy_score")
    return csv_text(names, rows)


def _line(found: Mapping[str, Any], *, checked: bool) -> str:
    """One picture's verdict in words."""
    words = verdict_words(found, checked=checked)
    identity = found.get("identity")
    if identity and identity["max_similarity"] is not None:
        words += f" (similarity {identity['max_similarity']:.2f})"
    return words
