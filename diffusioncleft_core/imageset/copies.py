"""Near copies: whether one picture shows another's own pixels, whatever a face recogniser makes of them.

A recogniser compares people; a copy in grey, in other hues, turned, cut or half covered is another matter.
Such a copy keeps the fine texture of its original where it was. Each picture is reduced to a grey thumbnail.
A search over coarse gradients in many frames (mirrored, turned, cut) names the few thumbnails that could be
the original; each that is like enough there is aligned with the picture by OpenCV's ECC (Evangelidis and
Psarakis, PAMI 30(10), 2008), at half size and, where that gives a hint, at full, and their fine texture is
correlated block by block. The score is the correlation that four fifths of the blocks reach; a covered part
has no texture to compare and does not count against a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

COPIES_VERSION = 4
"""Raised whenever a thumbnail or a score changes: what was kept of an older one is made again."""
NEAR_COPY = 0.2
"""Score from which a picture is a near copy (docs/filters.md has the figures)."""
NEAR_COPY_VISIT = 0.7
"""The same within a dataset of phantoms: a person's skin and hair keep their fine texture at another visit.

Of 120 second visits the highest score was 0.61, which with the margin of `scripts/near_copies.py` sets this;
of 120 others 0.62. At NEAR_COPY 52 of all 240 would be taken for copies.
"""
SIDE = 128
"""Longer side of a thumbnail, px."""
GRID = 32
"""Side of the frame in which candidates are looked for, cells."""
TURNS = (-10.0, -5.0, 0.0, 5.0, 10.0)
CUTS = ((1.0, 1), (0.9, 3), (0.8, 5))
"""Share of the original that a copy shows, and how many places along each axis it may come from."""
CANDIDATES = 8
FRAMES = 2
"""How many frames of a candidate are tried: the likeliest, and the likeliest that differs from it."""
BLOCK = 16
LEAST_BLOCKS = 8
AGREEING = 0.8
"""Share of the blocks that must reach the score."""
HINT = 0.35
"""What a fifth of the blocks must reach at half size before two pictures are aligned at full; under a
threshold that is higher, that threshold.

Of 1,185 alignments of photographs of people that reach NEAR_COPY the least had 0.55, of 60 blends of another
draw 0.43; 89 % of alignments with other photographs had less than this. Of phantoms' 581 none had less, and
28 % of those with other phantoms. Of 1,311 that reach 0.7 the least had 0.92.
"""
LIKELY, LIKELY_VISIT = 0.4, 0.5
"""Likeness of coarse gradients in a thumbnail's best frame below which nothing is aligned with it; the second
from a threshold of NEAR_COPY_VISIT on.

Of 3,840 altered copies of photographs of people no one that reaches NEAR_COPY had less than 0.43 there, of
1,280 of phantoms 0.51; of those that reach 0.7 none had less than 0.55. Chosen on half of the people, 0.05
below the lowest, it would be 0.5 or 0.35, and lose 1 or 0 of the others' 475; at 0.4 none of the 950 is lost
(at most 0.4 %). Of other photographs' best frames 80 % have less than 0.4; of other phantoms' 22 %, and 52 %
less than 0.5.
"""
NO_HINT = -1.0
"""The score of two pictures that can't be aligned, or that give no hint of a copy before they are."""
TEXTURE_SIGMA = 1.5
"""What a Gaussian of this width takes away is fine texture."""
FAINTEST = 0.8
"""Standard deviation of fine texture, of 255, below which a block is flat and can't be compared."""

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Frame(NamedTuple):
    """Where a copy lies in its original: share of it, turn in degrees, offset in sides of the original."""

    cut: float
    turn: float
    x: float
    y: float

    def matrix(self, side: int) -> Floats:
        """[2, 3]: from the original's pixels to the copy's, in pictures of `side` px."""
        middle = (side - 1) / 2
        angle = np.deg2rad(self.turn)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / self.cut
        origin = np.array([middle + self.x * side, middle + self.y * side])
        return np.asarray(np.c_[turn, middle - turn @ origin], np.float32)

    def differs(self, other: Frame) -> bool:
        """Whether an alignment that starts from one would hardly end in the other."""
        moved = max(abs(self.x - other.x), abs(self.y - other.y), abs(self.cut - other.cut))
        return moved > 0.05 or abs(self.turn - other.turn) > 5


FRAME_BANK = tuple(
    Frame(cut, turn, x, y)
    for cut, places in CUTS
    for turn in TURNS
    for x in np.linspace(-(1 - cut) / 2, (1 - cut) / 2, places)
    for y in np.linspace(-(1 - cut) / 2, (1 - cut) / 2, places)
)


class Pair(NamedTuple):
    """Two pictures, i < j, that show nearly the same; `mirrored`: one is nearly the other's mirror image."""

    i: int
    j: int
    mirrored: bool = False


@dataclass(frozen=True)
class CopyMatch:
    """How much of a picture's fine texture is that of the thumbnail at `place`: -1 (no hint of it) to 1.

    `mirrored`: it is compared with the thumbnail's mirror image; `likeness`: of coarse gradients in the
    thumbnail's best frame, a cosine.
    """

    score: float
    place: int
    mirrored: bool = False
    likeness: float = 1.0


def thumbnail(image: NDArray[np.uint8]) -> Grey:
    """What is kept and compared of an image [H, W, 3] RGB: grey [h, w], its longer side 128 px."""
    import cv2

    height, width = image.shape[:2]
    factor = SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=how), np.uint8)


class CopyIndex:
    """The thumbnails that pictures are compared with. Holds no name, path or hash of what they show.

    threshold: the score from which a picture is a near copy of one.
    likely: what is less like a picture than this is not aligned with it; by default LIKELY or LIKELY_VISIT.
    A match below the threshold may have a score of -1 in place of its own.
    Memory: about 30 KB a thumbnail, and 100 MB for the search. OpenCV comes with the face models.
    """

    def __init__(
        self, thumbnails: Sequence[Grey], threshold: float = NEAR_COPY, likely: float | None = None
    ) -> None:
        usual = LIKELY_VISIT if threshold >= NEAR_COPY_VISIT else LIKELY
        self.threshold, self._likely = threshold, usual if likely is None else likely
        self._thumbnails = tuple(thumbnails)
        self._picture = lru_cache(maxsize=256)(lambda place: _Picture.of(self._thumbnails[place]))
        coarse = [_Coarse.of(*_Picture.of(item).cells()) for item in self._thumbnails]
        none = np.zeros((0, 2 * GRID * GRID), np.float32)
        self._vectors = np.concatenate([none, *(item.vectors for item in coarse)])
        square = np.square(self._vectors)
        self._energy = square[:, : GRID * GRID] + square[:, GRID * GRID :]

    def __len__(self) -> int:
        return len(self._thumbnails)

    def matches(self, grey: Grey, *, leave_out: int | None = None) -> list[CopyMatch]:
        """The thumbnails that `grey` could be a copy of, by score, the best first; at most 8.

        leave_out: the place of the one that is not looked at, as the picture's own.
        """
        if not len(self):
            return []
        picture = _Picture.of(grey)
        views = (picture, picture.mirrored())
        likeness = self._likeness(views)
        best = likeness.max(axis=(0, 1))
        if leave_out is not None:
            best[leave_out] = -np.inf
        hint = max(HINT, self.threshold)
        found = []
        for place in np.argsort(-best, kind="stable")[:CANDIDATES]:
            if place == leave_out:
                continue
            number, like = int(place), float(best[place])
            tried = [CopyMatch(NO_HINT, number, likeness=like)]
            if like >= self._likely:
                original = self._picture(number)
                tried += [
                    CopyMatch(_score(views[view], original, frame, hint), number, bool(view), like)
                    for view, frame in _likeliest(likeness[:, :, place])
                ]
            found.append(max(tried, key=lambda match: match.score))
        return sorted(found, key=lambda match: -match.score)

    def best(self, grey: Grey) -> CopyMatch | None:
        """The likeliest original of `grey`; None where there is nothing to compare with."""
        return next(iter(self.matches(grey)), None)

    def _likeness(self, views: Sequence[_Picture]) -> Floats:
        """[2, F, N]: cosine of coarse gradients as they are and mirrored, by frame, where both have some."""
        found = []
        for view in views:
            coarse = _Coarse.of(*_framed(*view.cells()))
            own = np.square(coarse.vectors).sum(axis=1, keepdims=True)
            norms = np.sqrt(own * (coarse.usable @ self._energy.T))
            found.append(coarse.vectors @ self._vectors.T / (norms + 1e-3))
        return np.stack(found)


def near_copy_pairs(thumbnails: Sequence[Grey], threshold: float = NEAR_COPY) -> list[Pair]:
    """All pairs of which one is a near copy of the other: each is looked for among all others."""
    index = CopyIndex(thumbnails, threshold)
    pairs: dict[tuple[int, int], CopyMatch] = {}
    for place, grey in enumerate(thumbnails):
        for match in index.matches(grey, leave_out=place):
            key = min(place, match.place), max(place, match.place)
            if match.score >= threshold and (key not in pairs or pairs[key].score < match.score):
                pairs[key] = match
    return [Pair(i, j, pairs[i, j].mirrored) for i, j in sorted(pairs)]


@dataclass(frozen=True, eq=False, repr=False)
class _Picture:
    """A thumbnail in the middle of a square, [128, 128] each."""

    grey: Floats
    inside: Floats
    """1 where the picture is, 0 around it."""
    flat: Floats
    """Brightness with the local mean taken away and the local contrast evened out."""

    @classmethod
    def of(cls, grey: Grey) -> _Picture:
        import cv2

        height, width = grey.shape
        y, x = (SIDE - height) // 2, (SIDE - width) // 2
        square, inside = (np.zeros((SIDE, SIDE), np.float32) for _ in range(2))
        square[y : y + height, x : x + width] = grey
        inside[y : y + height, x : x + width] = 1

        def local_mean(values: Any) -> Any:
            return cv2.GaussianBlur(values * inside, (0, 0), 10) / weight

        weight = cv2.GaussianBlur(inside, (0, 0), 10) + 1e-6
        centred = (square - local_mean(square)) * inside
        return cls(square, inside, centred / np.sqrt(local_mean(np.square(centred)) + 4))

    def mirrored(self) -> _Picture:
        return _Picture(
            *(np.ascontiguousarray(part[:, ::-1]) for part in (self.grey, self.inside, self.flat))
        )

    def halved(self) -> _Picture:
        """[64, 64] each."""
        import cv2

        size = (SIDE // 2, SIDE // 2)
        return _Picture(
            *(
                cv2.resize(part, size, interpolation=cv2.INTER_AREA)
                for part in (self.grey, self.inside, self.flat)
            )
        )

    def cells(self) -> tuple[Floats, Floats]:
        """`flat` and `inside` of GRID cells a side."""
        import cv2

        size = (GRID, GRID)
        smooth = cv2.GaussianBlur(self.flat, (0, 0), 1.5)
        return (
            cv2.resize(smooth, size, interpolation=cv2.INTER_AREA),
            cv2.resize(self.inside, size, interpolation=cv2.INTER_AREA),
        )


@dataclass(frozen=True, eq=False, repr=False)
class _Coarse:
    """Gradients of n coarse pictures: `vectors` [n, 2 G²], and where there are any, `usable` [n, G²]."""

    vectors: Floats
    usable: Floats

    @classmethod
    def of(cls, cells: Floats, inside: Floats) -> _Coarse:
        """cells, inside: [n, G, G], or [G, G] of one picture."""
        cells, within = cells.reshape(-1, GRID, GRID), inside.reshape(-1, GRID, GRID) > 0.99
        along, down = np.zeros_like(cells), np.zeros_like(cells)
        usable = np.zeros(cells.shape, np.float32)
        along[:, :, 1:-1] = cells[:, :, 2:] - cells[:, :, :-2]
        down[:, 1:-1] = cells[:, 2:] - cells[:, :-2]
        usable[:, 1:-1, 1:-1] = (
            within[:, 1:-1, 2:] & within[:, 1:-1, :-2] & within[:, 2:, 1:-1] & within[:, :-2, 1:-1]
        )
        parts = [(part * usable).reshape(len(cells), -1) for part in (along, down)]
        return cls(np.concatenate(parts, axis=1), usable.reshape(len(cells), -1))


@lru_cache(maxsize=1)
def _frame_maps() -> tuple[Floats, Floats]:
    """[F G, G] each: where in a copy's cells x and y of every original's cell lie, frame under frame."""
    y, x = np.mgrid[0:GRID, 0:GRID].astype(np.float32)
    places = [frame.matrix(GRID) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)]) for frame in FRAME_BANK]
    stacked = np.stack(places).astype(np.float32).reshape(len(FRAME_BANK), 2, GRID, GRID)
    return stacked[:, 0].reshape(-1, GRID), stacked[:, 1].reshape(-1, GRID)


def _framed(cells: Floats, inside: Floats) -> tuple[Floats, Floats]:
    """The cells of a copy laid where they would lie in its original, for every frame: [F, G, G] twice."""
    import cv2

    along, down = _frame_maps()
    laid = (cv2.remap(item, along, down, cv2.INTER_LINEAR) for item in (cells, inside))
    first, second = (np.asarray(item, np.float32).reshape(-1, GRID, GRID) for item in laid)
    return first, second


def _likeliest(likeness: Floats) -> list[tuple[int, Frame]]:
    """The view and frame of highest `likeness` [2, F], and the next that differs from it."""
    order = np.argsort(-likeness.ravel(), kind="stable")
    ranked = [(int(at) // len(FRAME_BANK), FRAME_BANK[int(at) % len(FRAME_BANK)]) for at in order]
    view, first = ranked[0]
    others = (item for item in ranked if item[0] != view or item[1].differs(first))
    return [ranked[0], *(item for item, _ in zip(others, range(FRAMES - 1), strict=False))]


def _score(copy: _Picture, original: _Picture, frame: Frame, hint: float) -> float:
    """The correlation that four fifths of the comparable blocks reach; -1 where they can't be aligned, or
    where a fifth of the blocks of the alignment at half size doesn't reach `hint`."""
    small = copy.halved(), original.halved()
    matrix = _aligned(*small, frame.matrix(SIDE // 2), sigma=5, steps=30)
    if matrix is None or _agreement(*small, matrix, share=1 - AGREEING) < hint:
        return NO_HINT
    matrix = _aligned(copy, original, _doubled(matrix), sigma=3, steps=15)
    return NO_HINT if matrix is None else _agreement(copy, original, matrix, share=AGREEING)


def _aligned(copy: _Picture, original: _Picture, start: Floats, *, sigma: int, steps: int) -> Floats | None:
    """[2, 3]: from the original's pixels to the copy's; None where the search does not converge."""
    import cv2

    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, 1e-4)
    mask = ((copy.inside > 0.9) * 255).astype(np.uint8)
    try:
        _, matrix = cv2.findTransformECC(
            original.flat, copy.flat, start, cv2.MOTION_AFFINE, until, mask, sigma
        )
    except cv2.error:
        return None
    return np.asarray(matrix, np.float32)


def _agreement(copy: _Picture, original: _Picture, matrix: Floats, *, share: float) -> float:
    """The correlation that `share` of the comparable blocks reach; -1 where those are too few."""
    import cv2

    side = original.grey.shape[0]
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(copy.grey, matrix, (side, side), flags=how)
    inside = (cv2.warpAffine(copy.inside, matrix, (side, side), flags=how) > 0.99) & (original.inside > 0)
    correlations = _block_correlations(laid, original.grey, inside)
    if len(correlations) < LEAST_BLOCKS:
        return NO_HINT
    return float(np.quantile(correlations, 1 - share))


def _doubled(matrix: Floats) -> Floats:
    """The same map between pictures of twice the size; pixel centres lie at .5."""
    turn, half = matrix[:, :2], np.array([0.5, 0.5], np.float32)
    move = 2 * (matrix[:, 2] + half - turn @ half) - half + turn @ half
    return np.asarray(np.c_[turn, move], np.float32)


def _block_correlations(one: Floats, other: Floats, inside: NDArray[np.bool_]) -> Floats:
    """Correlation of fine texture in each half-overlapping block that is inside and flat in neither."""
    import cv2

    def mean(values: Any) -> Any:
        step = BLOCK // 2
        return cv2.boxFilter(values, cv2.CV_32F, (BLOCK, BLOCK))[step::step, step::step]

    def texture(grey: Floats) -> tuple[Any, Any]:
        """Fine texture, evened out, and its block's variance."""
        fine = grey - cv2.GaussianBlur(grey, (0, 0), TEXTURE_SIGMA)
        local = cv2.GaussianBlur(fine * fine, (0, 0), 2.0)
        return fine / np.sqrt(local + 0.09), mean(fine * fine)

    (first, energy), (second, other_energy) = texture(one), texture(other)
    usable = (mean(inside.astype(np.float32)) > 0.95) & (np.minimum(energy, other_energy) > FAINTEST**2)
    covariance = mean(first * second) - mean(first) * mean(second)
    variances = (mean(first * first) - mean(first) ** 2) * (mean(second * second) - mean(second) ** 2)
    correlations = covariance / np.sqrt(np.maximum(variances, 1e-9))
    return np.asarray(correlations[usable], np.float32)
