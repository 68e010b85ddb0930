"""Balanced sampling: images drawn so that the values of named attributes are equally frequent."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np

from ..diffusioncleft_core.conditions.plan import Strata
from ..diffusioncleft_core.errors import UserError

Group = tuple[str, ...]
"""What an image says of each attribute that is balanced; empty where it says nothing."""


_OPTION = "--balance_by"


def attribute_names(text: str | None, spelled: str = _OPTION) -> tuple[str, ...]:
    """The attributes of `--balance_by cleft_type,side`, each once; UserError where it names none.

    spelled: what the setting is called where the user gave it.
    """
    names = tuple(dict.fromkeys(name for part in (text or "").split(",") if (name := part.strip())))
    if text is not None and not names:
        raise UserError(f"{spelled} names no attribute; give some, as cleft_type,side, or leave it out")
    return names


def group_of(attributes: Mapping[str, str], names: Sequence[str]) -> Group:
    """What an image's row says of the attributes `names`."""
    return tuple(attributes.get(name, "") for name in names)


def group_shares(sizes: Mapping[Group, int]) -> dict[Group, Fraction]:
    """The share of draws that each group of images gets; they sum to 1.

    The values of the first attribute get equal shares, within each of them those of the second, and so on.
    Images that do not say an attribute, as a bilateral cleft has no side, keep their share among those that
    agree in the attributes before it.

    Args:
        sizes: images by group, each as often as it is repeated; positive.
    """
    if not sizes:
        return {}
    if not next(iter(sizes)):
        return {(): Fraction(1)}
    total = sum(sizes.values())
    unsaid = sum(size for group, size in sizes.items() if not group[0])
    values = sorted({group[0] for group in sizes if group[0]})
    shares: dict[Group, Fraction] = {}
    for value in [*values, *([""] if unsaid else [])]:
        share = Fraction(total - unsaid, total) / len(values) if value else Fraction(unsaid, total)
        within = group_shares({group[1:]: size for group, size in sizes.items() if group[0] == value})
        shares |= {(value, *rest): share * part for rest, part in within.items()}
    return shares


def check_balanced(said: Sequence[Mapping[str, str]], names: Sequence[str], spelled: str = _OPTION) -> None:
    """Raise UserError for an attribute of `names` that no training image says, or all of them alike.

    Args:
        said: the attributes of each training image.
        spelled: what the setting is called where the user gave it.
    """
    known = sorted({name for attributes in said for name, value in attributes.items() if value})
    for name in names:
        values = {attributes.get(name, "") for attributes in said} - {""}
        if len(values) > 1:
            continue
        if values:
            raise UserError(
                f"{spelled} {name}: all training images that say their {name} say the same, so there is "
                "nothing to balance; leave it out"
            )
        instead = f"they say {', '.join(known)}" if known else "a dataset built by 'dataset build' does"
        raise UserError(f"{spelled} {name}: no training image says its {name}; {instead}")


class BalancedBatches:
    """Endless batches in which every group has its share, a pure function of the seed.

    In every beginning of the draws the count of each group is within one of its share (`Strata`), and a group
    is taken in rounds, each of its images once a round in an order of its own. An image that is drawn waits
    until its bucket has a batch full, so no batch is smaller than the others.

    Args:
        pools: indices of the training images by group, each as often as it is repeated.
        buckets: the bucket of each index.
    """

    def __init__(
        self,
        pools: Mapping[Group, Sequence[int]],
        buckets: Mapping[int, tuple[int, int]],
        batch_size: int,
        seed: int,
    ) -> None:
        self._pools = {group: list(pools[group]) for group in sorted(pools)}
        self._buckets, self._batch_size, self._seed = buckets, batch_size, seed
        self._batches = self._drawn()
        self._next = 0
        self._last: tuple[int, ...] = ()

    def batch(self, number: int) -> tuple[int, ...]:
        """Batch `number`, counted from 0; going back draws anew from the first one."""
        if number < self._next - 1:
            self._batches, self._next = self._drawn(), 0
        while self._next <= number:
            self._last = next(self._batches)
            self._next += 1
        return self._last

    def _drawn(self) -> Iterator[tuple[int, ...]]:
        waiting: dict[tuple[int, int], list[int]] = {}
        for index in self._images():
            batch = waiting.setdefault(self._buckets[index], [])
            batch.append(index)
            if len(batch) == self._batch_size:
                yield tuple(batch)
                batch.clear()

    def _images(self) -> Iterator[int]:
        groups = list(self._pools)
        shares = group_shares({group: len(pool) for group, pool in self._pools.items()})
        strata = Strata(
            {str(place): shares[group] for place, group in enumerate(groups)}, f"balance/{self._seed}"
        )
        rounds = [self._rounds(place, self._pools[group]) for place, group in enumerate(groups)]
        while True:
            yield next(rounds[int(strata.draw())])

    def _rounds(self, place: int, pool: list[int]) -> Iterator[int]:
        number = 0
        while True:
            yield from np.random.default_rng([self._seed, 3, place, number]).permutation(pool).tolist()
            number += 1
