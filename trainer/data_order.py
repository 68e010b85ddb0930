"""The order in which steps take the images of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..diffusioncleft_core.recipe.recipe import Recipe
from .balance import BalancedBatches, Group, attribute_names, group_of
from .data import TrainImage


@dataclass(frozen=True)
class Draw:
    """What one forward is made of: indices into the images, all of one bucket; `reg` is empty without
    regularisation. epoch: counted from 1.
    """

    train: tuple[int, ...]
    reg: tuple[int, ...]
    epoch: int = field(default=1, compare=False)


def data_order(images: Sequence[TrainImage], recipe: Recipe) -> "DataOrder":
    """The order of a recipe's batches."""
    names = attribute_names(recipe.data.balance_by)
    return DataOrder(images, recipe.data.batch_size, recipe.objective.seed, names)


class DataOrder:
    """Which images a batch takes, as a pure function of (seed, number of the batch).

    An epoch takes every training image `repeats` times: shuffled within its bucket, cut into batches, the
    batches shuffled. Every training image is paired with a regularisation image, of its own bucket if there
    is one (the two then share a forward), which are taken in their own shuffled order.

    With `balance_by` the training images are drawn so that these attributes' values are equally frequent (see
    `BalancedBatches`), and an epoch is as many full batches as hold as many images.
    """

    def __init__(
        self, images: Sequence[TrainImage], batch_size: int, seed: int, balance_by: Sequence[str] = ()
    ) -> None:
        self._batch_size, self._seed = batch_size, seed
        self._buckets: dict[tuple[int, int], list[int]] = {}
        pools: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            groups = pools if image.is_reg else self._buckets
            groups.setdefault(image.bucket, []).extend([index] * image.repeats)
        everything = [index for pool in pools.values() for index in pool]
        self._pools = {bucket: pools.get(bucket, everything) for bucket in self._buckets}
        self._bucket_of = {index: image.bucket for index, image in enumerate(images)}
        self.batches_an_epoch = sum(-(-len(group) // batch_size) for group in self._buckets.values())
        self._balanced = self._balance(images, balance_by) if balance_by else None
        if self._balanced:
            drawn = sum(len(group) for group in self._buckets.values())
            self.batches_an_epoch = -(-drawn // batch_size)
        self._epoch: tuple[int, list[tuple[int, ...]]] = (-1, [])
        self._shuffled: dict[tuple[tuple[int, int], int], list[int]] = {}

    def draw(self, number: int) -> Draw:
        """Return the images of batch `number`, counted from 0 over the whole run."""
        train = self._balanced.batch(number) if self._balanced else self._shuffled_batch(number)
        epoch = number // self.batches_an_epoch + 1
        bucket = self._bucket_of[train[0]]
        pool = self._pools[bucket]
        if not pool:
            return Draw(train, (), epoch)
        first = number * self._batch_size
        reg = tuple(self._reg(bucket, pool, first + offset) for offset in range(len(train)))
        return Draw(train, reg, epoch)

    def _balance(self, images: Sequence[TrainImage], names: Sequence[str]) -> BalancedBatches:
        pools: dict[Group, list[int]] = {}
        for index, image in enumerate(images):
            if not image.is_reg:
                pools.setdefault(group_of(image.attributes, names), []).extend([index] * image.repeats)
        return BalancedBatches(pools, self._bucket_of, self._batch_size, self._seed)

    def _shuffled_batch(self, number: int) -> tuple[int, ...]:
        epoch, position = divmod(number, self.batches_an_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, list(self._plan(epoch)))
        return self._epoch[1][position]

    def _plan(self, epoch: int) -> Iterator[tuple[int, ...]]:
        random = np.random.default_rng([self._seed, 1, epoch])
        batches = []
        for bucket in sorted(self._buckets):
            group = random.permutation(self._buckets[bucket]).tolist()
            batches += [
                tuple(group[at : at + self._batch_size]) for at in range(0, len(group), self._batch_size)
            ]
        for at in random.permutation(len(batches)):
            yield batches[at]

    def _reg(self, bucket: tuple[int, int], pool: list[int], position: int) -> int:
        round_, at = divmod(position, len(pool))
        key = (bucket, round_)
        if key not in self._shuffled:
            self._shuffled = {other: order for other, order in self._shuffled.items() if other[0] != bucket}
            self._shuffled[key] = (
                np.random.default_rng([self._seed, 2, *bucket, round_]).permutation(pool).tolist()
            )
        return int(self._shuffled[key][at])
