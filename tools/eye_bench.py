"""A bench for the checks of the eyes: clean photographs of people, changed, covered, and measured.

Photographs lie in a folder with `subjects.csv` (`file`, `subject_id`). What is kept of them are numbers.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..diffusioncleft_core.faces.analyzer import FaceAnalyzer
from ..diffusioncleft_core.faces.records import FaceRecord, record_of
from ..diffusioncleft_core.filters.eye_bar import EyeLine, eye_line
from ..diffusioncleft_core.filters.eye_region import levelled
from ..diffusioncleft_core.filters.hidden_eyes import EyeDetail, eye_detail
from ..diffusioncleft_core.imageset.decode import read_image
from . import covered_eyes as covering

SIDES = (256, 384, 512, 640)
"""Sizes of the pictures, px: eyes 40 to 100 px apart."""
CLEAN, WHOLE, BAR, MOSAIC, BLUR = "clean", "whole", "bar", "mosaic", "blur"


@dataclass(frozen=True)
class Sample:
    """One picture: whose, of which photograph, what was done to it, and what the checks measured.

    `line` and `eyes` are None where the detector found no face, and the picture is rejected for that.
    """

    person: str
    photograph: int
    kind: str
    lightness: float
    """CIE L* of the cheeks in the photograph, 0 to 100."""
    made: Mapping[str, Any] = field(default_factory=dict)
    line: EyeLine | None = None
    eyes: EyeDetail | None = None

    @property
    def evidence(self) -> float:
        """For a bar; infinite where there is no face."""
        return np.inf if self.line is None else self.line.evidence

    def is_bar(self, *limits: float) -> bool:
        """Whether it is rejected as a bar, or for want of a face."""
        return self.line is None or self.line.is_bar(*limits)

    def is_hidden(self, *limits: float) -> bool:
        """Whether it is rejected for hidden eyes, or for want of a face."""
        return self.eyes is None or self.eyes.is_hidden(*limits)


def people_of(folder: Path) -> dict[str, list[Path]]:
    """The photographs of each person, in the table's order."""
    found: dict[str, list[Path]] = {}
    with (folder / "subjects.csv").open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            found.setdefault(row["subject_id"], []).append(folder / row["file"])
    return found


def clean_crops(paths: Sequence[Path], analyzer: FaceAnalyzer) -> Iterator[NDArray[np.uint8]]:
    """Each photograph's square about its face, 512 px."""
    for path in paths:
        image = read_image(path)
        yield covering.crop(image, analyzer.analyze(image)[0].box)


def samples_of(
    person: str,
    paths: Sequence[Path],
    analyzer: FaceAnalyzer,
    *,
    variants: int,
    bars: int = 2,
    seed: int = 0,
) -> Iterator[Sample]:
    """The pictures made of a person's photographs: each as it is and `variants` times taken otherwise.

    Of each variant: `bars` bars, a mosaic, a blur, and one change of the whole picture.
    """
    for number, image in enumerate(clean_crops(paths, analyzer)):
        rng = np.random.default_rng([seed, number, *person.encode()])
        record = found_in(image, analyzer)
        lightness = covering.skin_lightness(image, landmarks_of(record))

        def measured(picture: NDArray[np.uint8], kind: str, **made: Any) -> Sample:
            return _measured(picture, analyzer, Sample(person, number, kind, lightness, made))  # noqa: B023

        yield measured(image, CLEAN)
        for variant in range(variants):
            side = int(rng.choice(SIDES))
            how = cv2.INTER_AREA if side < image.shape[0] else cv2.INTER_CUBIC
            picture = np.asarray(
                cv2.resize(covering.taken_otherwise(image, rng), (side, side), interpolation=how), np.uint8
            )
            yield measured(covering.encoded(picture, int(rng.integers(40, 96))), CLEAN)
            points = found_in(picture, analyzer).landmarks
            if points is None:
                continue
            for place in range(bars):
                colour = list(covering.COLOURS)[(variant * bars + place + number) % len(covering.COLOURS)]
                opacity, height = (float(rng.choice(of)) for of in (covering.OPACITIES, covering.HEIGHTS))
                bar = covering.barred(picture, points, colour, opacity, height, rng)
                made = {"colour": colour, "opacity": opacity, "height": height}
                yield measured(covering.encoded(bar, int(rng.integers(50, 96))), BAR, **made)
            blocks, sigma = int(rng.choice(covering.BLOCKS)), float(rng.choice(covering.SIGMAS))
            mosaic = covering.pixelated(picture, points, blocks, rng)
            yield measured(covering.encoded(mosaic, int(rng.integers(50, 96))), MOSAIC, blocks=blocks)
            blur = covering.blurred(picture, points, sigma, rng)
            yield measured(covering.encoded(blur, int(rng.integers(50, 96))), BLUR, sigma=sigma)
            how_whole = str(rng.choice(list(covering.WHOLE)))
            whole = covering.WHOLE[how_whole](picture, points, rng)
            yield measured(covering.encoded(whole, int(rng.integers(60, 96))), WHOLE, how=how_whole)


def found_in(image: NDArray[np.uint8], analyzer: FaceAnalyzer) -> FaceRecord:
    """The faces of a picture."""
    return record_of(image, analyzer.analyze(image))


def landmarks_of(record: FaceRecord) -> NDArray[np.float32]:
    """The landmarks of a record that has a face."""
    assert record.landmarks is not None
    return record.landmarks


def _measured(picture: NDArray[np.uint8], analyzer: FaceAnalyzer, sample: Sample) -> Sample:
    points = found_in(picture, analyzer).landmarks
    if points is None:
        return sample
    face = levelled(picture, points)
    return Sample(
        sample.person,
        sample.photograph,
        sample.kind,
        sample.lightness,
        sample.made,
        eye_line(face),
        eye_detail(picture, points, face),
    )


def chosen_limit(plain: Sequence[float], covered: Sequence[float]) -> float:
    """A limit between plain pictures' numbers and covered ones', which are larger.

    Half way from the 99.5th percentile of the plain ones to the 3rd of the covered ones; where these overlap,
    the plain ones'.
    """
    low, high = float(np.quantile(plain, 0.995)), float(np.quantile(covered, 0.03))
    return (low + high) / 2 if high > low else low
