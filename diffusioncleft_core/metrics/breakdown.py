"""Figures of parts of a set: by skin tone, age group and subject, as far as manifests say what images show.

A part of a set is compared with the photographs that show the same by distances and neighbourhoods, and with
all photographs of its condition by FIR: a face may leak into any picture. Parts of fewer than 20 images, or
with fewer such photographs, have no figure: they are too few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..conditions.loader import load_vocabulary
from ..conditions.vocabulary import Vocabulary
from ..small_counts import told_parts
from .distributions import (
    ESTIMATE,
    TO_TRAINING,
    UNBIASED,
    Sides,
    frechet_to,
    kernel_to,
    manifold_figures,
    vendi_of,
)
from .features import PopulationFeatures
from .fir import Faces, compared_counts, fir_images, fir_pairs, share_as_json
from .sets import Group, Mask, MeasuredImage

FEWEST = 20
"""Images of a part, and photographs that it is compared with."""
BY = ("skin_tone", "age_group", "subject")
UNSAID = "not said"


def part_of(image: MeasuredImage, by: str, vocabulary: Vocabulary) -> str:
    """What an image shows of skin tone, age group or subject."""
    said = dict(image.attributes)
    found = said.get(by) if by == "subject" else vocabulary.groups_of(said).get(by)
    return found or UNSAID


def parts_of(images: Sequence[MeasuredImage], mask: Mask, by: str) -> dict[str, Mask]:
    """Masks [N] of the images of `mask` by what they show, in alphabetical order."""
    vocabulary = load_vocabulary()
    shown = np.array(
        [
            part_of(image, by, vocabulary) if inside else ""
            for image, inside in zip(images, mask, strict=True)
        ],
        object,
    )
    return {name: shown == name for name in sorted(set(shown[mask].tolist()))}


def parts_with_figures(
    group: Group,
    images: Sequence[MeasuredImage],
    photographs: Sequence[MeasuredImage],
    shown: Mask,
) -> dict[str, dict[str, dict[str, Any]]]:
    """{by: {what: {"n", "n_reference", "figures"}}} of a raw set, still without figures.

    n_reference: photographs that show the same, None where so few that they are not told, and left out where
    no photograph says what it shows. Where nothing is said of any image, there are no parts.

    Args:
        group: of the set.
        images: of the population.
        photographs: that may be compared.
        shown: [P] those of the group's condition.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    # Beside a union's counts those of one condition would tell the others', however small.
    alone = len({image.condition for image, inside in zip(photographs, shown, strict=True) if inside}) == 1
    for by in BY:
        own = parts_of(images, group.raw, by)
        if set(own) <= {UNSAID}:
            continue
        theirs = told_parts(
            {name: int(mask.sum()) for name, mask in parts_of(photographs, shown, by).items()}
        )
        found[by] = {name: {"n": int(mask.sum()), "figures": {}} for name, mask in own.items()}
        for name, part in found[by].items():
            if name == UNSAID or set(theirs) != {UNSAID}:
                part["n_reference"] = theirs.get(name, 0) if alone else None
    return found


def add_distributions(
    parts: dict[str, dict[str, dict[str, Any]]],
    group: Group,
    drawn: PopulationFeatures,
    real: PopulationFeatures,
    sides: Sides,
) -> None:
    """Put distances and neighbourhoods over one extractor's vectors into the parts that are large enough."""
    images, photographs = drawn.population.images, real.population.images
    shown = real.population.mask(group.shows)
    for by, values in parts.items():
        own, theirs = parts_of(images, group.raw, by), parts_of(photographs, shown, by)
        for name, part in values.items():
            if name == UNSAID or part["n"] < FEWEST or (part.get("n_reference") or 0) < FEWEST:
                continue
            vectors = drawn.decoded(sides.metric, own[name])
            training = real.decoded(sides.metric, theirs[name])
            those = replace(sides, training=training, holdout=None)
            figures = {
                "fid": frechet_to(vectors, training, those, TO_TRAINING),
                "kid": kernel_to(vectors, training, those, UNBIASED),
                **manifold_figures(vectors, those),
                "vendi": vendi_of(vectors, those),
            }
            part["figures"] |= {
                sides.name(metric): {key: value for key, value in figure.items() if key != ESTIMATE}
                | {"n": len(vectors), "n_images": len(vectors), "extractor": sides.extractor}
                for metric, figure in figures.items()
            }


def add_identity(
    parts: dict[str, dict[str, dict[str, Any]]],
    group: Group,
    images: Sequence[MeasuredImage],
    faces: Faces,
    references: Any,
    extractor: Mapping[str, Any],
    threshold: float,
) -> None:
    """Put FIR against all photographs of the condition into the parts that are large enough."""
    for by, values in parts.items():
        own = parts_of(images, group.raw, by)
        for name, part in values.items():
            entered = own[name] & faces.found
            if references is None or entered.sum() < FEWEST:
                continue
            counted, _ = compared_counts(faces.embeddings, entered, references, group.shows, threshold)
            assert counted is not None
            shared = {"n_images": int(entered.sum()), "threshold": threshold, "extractor": dict(extractor)}
            for metric, share in (("fir_images", fir_images), ("fir_pairs", fir_pairs)):
                part["figures"][metric] = share_as_json(share(counted, threshold)) | shared


def told_breakdown(parts: Mapping[str, Any], *, hidden: bool) -> dict[str, Any]:
    """The parts as they may be told; hidden: whether the condition's own counts are too small to be told.

    What pairs' counts would tell of photographs without a face goes with them.
    """

    def told(part: Mapping[str, Any]) -> dict[str, Any]:
        if not hidden:
            return dict(part)
        figures = {name: figure for name, figure in part["figures"].items() if name == "fir_images"}
        return {**part, **({"n_reference": None} if "n_reference" in part else {}), "figures": figures}

    return {by: {name: told(part) for name, part in values.items()} for by, values in parts.items()}
