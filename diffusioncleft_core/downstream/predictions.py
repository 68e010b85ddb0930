"""What a classifier said of a test set, image by image: all evidence is computed from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..files import iterate_jsonl, keep_from_git, private_dir, shown, write_jsonl

SCHEMA = 1
FILE_NAME = "predictions.jsonl"
MAKE_AGAIN = "evaluate the classifier again"


@dataclass(frozen=True, eq=False)
class Predictions:
    """A classifier's score for each image of a test set.

    Attributes:
        labels: [N] int64, 1 of the positive class, 0 of the negative.
        scores: [N] float64, probability of the positive class, 0 to 1.
        subjects: [N] opaque label of the person: what intervals resample.
        groups: by name, such as `skin_tone`, [N] the image's group, None where it is not known.
        n_not_found: test images whose lip was not found, which have no score.
        keys: [N] key of the image's content, by which two classifiers' predictions are paired; () where the
            images have none.

    Raises:
        ValueError: the lengths differ, a label is neither 0 nor 1, or a score is no probability.
    """

    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    subjects: tuple[str, ...]
    groups: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    n_not_found: int = 0
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parts: list[Sized] = [self.labels, self.scores, self.subjects, *self.groups.values()]
        lengths = {len(part) for part in (*parts, *([self.keys] if self.keys else []))}
        if len(lengths) > 1:
            raise ValueError(
                f"every image has a label, a score, a subject, its groups; not {sorted(lengths)}"
            )
        if not np.isin(self.labels, (0, 1)).all():
            raise ValueError("a label is 1 (positive) or 0 (negative)")
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise ValueError("a score is a probability, 0 to 1")
        if self.n_not_found < 0:
            raise ValueError("n_not_found is a count")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_subjects(self) -> int:
        return len(set(self.subjects))

    def where(self, chosen: npt.NDArray[np.bool_]) -> Predictions:
        """The predictions of some images, `chosen` [N]; those without a lip stay with the whole set."""
        (places,) = np.nonzero(chosen)
        return replace(self._at(places.tolist()), n_not_found=0)

    def ordered(self) -> Predictions:
        """The same in the order of the images' keys, so that two classifiers' predictions can be paired.

        Raises:
            ValueError: the images have no keys, or two have the same.
        """
        if len(set(self.keys)) != len(self):
            raise ValueError("each image needs a key of its own")
        return self._at(sorted(range(len(self)), key=self.keys.__getitem__))

    @classmethod
    def joined(cls, folds: Sequence[Predictions]) -> Predictions:
        """The predictions of all folds of a cross-validation as those of one test set.

        Raises:
            ValueError: there is no fold, they have other groups, or keys are missing in some.
        """
        if not folds or any(set(fold.groups) != set(folds[0].groups) for fold in folds):
            raise ValueError("folds of one test set have the same groups")
        return cls(
            np.concatenate([fold.labels for fold in folds]),
            np.concatenate([fold.scores for fold in folds]),
            tuple(subject for fold in folds for subject in fold.subjects),
            {name: tuple(group for fold in folds for group in fold.groups[name]) for name in folds[0].groups},
            sum(fold.n_not_found for fold in folds),
            tuple(key for fold in folds for key in fold.keys),
        )

    def _at(self, places: Sequence[int]) -> Predictions:
        return Predictions(
            self.labels[places],
            self.scores[places],
            tuple(self.subjects[i] for i in places),
            {name: tuple(values[i] for i in places) for name, values in self.groups.items()},
            self.n_not_found,
            tuple(self.keys[i] for i in places) if self.keys else (),
        )

    def to_json(self) -> list[dict[str, Any]]:
        """JSON objects, one a line of the file: what holds for the set, then each image."""
        head: dict[str, Any] = {"schema": SCHEMA, "n_not_found": self.n_not_found}
        keys: Sequence[str | None] = self.keys or [None] * len(self)
        images = zip(keys, self.labels.tolist(), self.scores.tolist(), self.subjects, strict=True)
        return [head] + [
            {
                **({} if key is None else {"key": key}),
                "label": label,
                "score": score,
                "subject": subject,
                "groups": {name: values[i] for name, values in self.groups.items()},
            }
            for i, (key, label, score, subject) in enumerate(images)
        ]

    @classmethod
    def from_json(cls, rows: Iterable[Mapping[str, Any]], where: str = FILE_NAME) -> Predictions:
        """Read what `to_json` gave. UserError, by the name `where`, for anything else."""
        head, *images = list(rows) or [{}]
        if head.get("schema") != SCHEMA:
            raise UserError(f"{where} holds no predictions of schema {SCHEMA}; {MAKE_AGAIN}")
        try:
            names = list(images[0]["groups"]) if images else []
            return cls(
                np.array([_whole(row["label"]) for row in images], np.int64),
                np.array([float(row["score"]) for row in images], np.float64),
                tuple(_text(row["subject"]) for row in images),
                {name: tuple(_text_or_none(row["groups"][name]) for row in images) for name in names},
                _whole(head["n_not_found"]),
                tuple(_text(row["key"]) for row in images) if images and "key" in images[0] else (),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where} is damaged ({shown(error)}); {MAKE_AGAIN}") from error

    def write(self, path: Path) -> None:
        """Write the file; its folder gets access for its owner alone, because it tells of single images."""
        keep_from_git(private_dir(Path(path).parent))
        write_jsonl(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Read a file of `write`. UserError where it is missing or damaged."""
        return cls.from_json(iterate_jsonl(path), shown(path))


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)
