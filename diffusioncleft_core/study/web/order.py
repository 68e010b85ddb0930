"""Each rater's own order of the pictures, and the names by which they alone can ask for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from ..items import Item
from .signin import Signatures


class Queue:
    """The items as one rater sees them: practice first, then the others in an order of the rater's own.

    The order hangs on the study's secret, the rater and the items alone, so that every device and every
    restart has the same one. The showings of one picture are spread out: of a picture shown twice, one comes
    in the first half and the other about half a study later.
    """

    def __init__(self, signatures: Signatures, rater: int, items: Sequence[Item]) -> None:
        self._signatures, self._rater = signatures, rater
        place = self._places([item for item in items if not item.practice])
        practice = sorted((item for item in items if item.practice), key=lambda item: self._draw(item.id))
        counted = sorted((item for item in items if not item.practice), key=lambda item: place[item.id])
        self.items: tuple[Item, ...] = (*practice, *counted)

    def _draw(self, *parts: str) -> float:
        """A number in [0, 1) that is the rater's own."""
        return int.from_bytes(self._signatures.derived("order", self._rater, *parts)[:8], "big") / 2**64

    def _places(self, items: Sequence[Item]) -> dict[str, float]:
        showings: dict[str, list[str]] = defaultdict(list)
        for item in items:
            showings[item.picture].append(item.id)
        places = {}
        for picture, ids in showings.items():
            start = self._draw("picture", picture)
            for number, item_id in enumerate(sorted(ids, key=self._draw)):
                places[item_id] = (start + number) / len(ids)
        return places

    def name(self, item: Item) -> str:
        """By which this rater, and no other, asks for an item and its picture."""
        return self._signatures.derived("name", self._rater, item.id).hex()[:32]

    @cached_property
    def by_name(self) -> dict[str, int]:
        """Places in the queue by name."""
        return {self.name(item): place for place, item in enumerate(self.items)}
