"""The images of a run, and the order in which steps take them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..diffusioncleft_core.dataset.folder import SETTINGS, is_dataset
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import inside, read_json, shown
from ..diffusioncleft_core.imageset.captions import CaptionFiles
from ..diffusioncleft_core.imageset.decode import INGEST_VERSION, Rejected, pixel_sha256, read_image
from ..diffusioncleft_core.imageset.manifest import ImageRow, read_image_set, unlisted
from ..diffusioncleft_core.imageset.places import MANIFEST, is_set_aside, named
from ..diffusioncleft_core.recipe.recipe import Recipe, Subset
from ..diffusioncleft_core.small_counts import told
from .balance import BalancedBatches, Group, attribute_names, group_of
from .buckets import PLAIN_SIDES, BucketSides, assign_buckets, cover_box

MAX_SIDE = 4096  # larger photographs are reduced while they are read
_TRAINED_ROLES = {False: (None, "train"), True: (None, "train", "generated", "control")}


@dataclass(frozen=True)
class TrainImage:
    """One image: where it lies, the folder of its set, its caption, the SHA-256 of its normalised pixels, its
    bucket (width, height), where it is known the box of the finding as (x0, y0, x1, y1) in px of the bucket,
    and what its manifest says of it; `once_more`: the photograph stands before it already, at a larger size.
    """

    path: Path
    folder: Path
    caption: str
    is_reg: bool
    repeats: int
    sha256: str
    bucket: tuple[int, int]
    region: tuple[float, float, float, float] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    once_more: bool = False

    @property
    def bucket_name(self) -> str:
        return f"{self.bucket[0]}x{self.bucket[1]}"


@dataclass(frozen=True)
class Collected:
    """The images of a run, training images first; `left_out`: sentences on what is in the folders and was not
    taken, with its names.
    """

    images: tuple[TrainImage, ...]
    left_out: tuple[str, ...] = ()

    @property
    def train(self) -> tuple[TrainImage, ...]:
        return tuple(image for image in self.images if not image.is_reg)

    @property
    def reg(self) -> tuple[TrainImage, ...]:
        return tuple(image for image in self.images if image.is_reg)

    @property
    def photographs(self) -> int:
        """Number of training images, one that is trained at several sizes once."""
        return sum(not image.once_more for image in self.train)

    @property
    def reg_photographs(self) -> int:
        """The same of regularisation images."""
        return sum(not image.once_more for image in self.reg)

    def bucket_counts(self) -> dict[str, int]:
        """Number of training images a bucket, as `512x768: 40`, each at its largest size."""
        counts = Counter(image.bucket_name for image in self.train if not image.once_more)
        return dict(sorted(counts.items()))


def collect_images(
    subsets: Sequence[Subset],
    bases: Sequence[int],
    sides: BucketSides = PLAIN_SIDES,
    each: Callable[[], None] = lambda: None,
    *,
    every_base: bool = False,
) -> Collected:
    """Read the images of all folders. `each` is called before every image and may raise to stop.

    An image stands there once, at the largest base resolution that it covers; with `every_base` once for each
    that it covers.

    A folder with a manifest gives its rows of role `train` (for regularisation generated and control images
    too), with their captions or prompts; another folder gives its images with caption files beside them. What
    a filter rejected is left out and counted; an image that can't be read is left out and named.

    Raises:
        UserError: no training image can be read, or no regularisation image where there is a folder for them,
            or one has no caption.
    """
    images: list[TrainImage] = []
    left_out: list[str] = []
    uncaptioned: list[str] = []
    for subset in sorted(subsets, key=lambda entry: entry.is_reg):
        roles = _TRAINED_ROLES[subset.is_reg]
        found, omitted, bare = _images_of(subset, roles, subset.resolution or bases, sides, each)
        images += [image for image in found if every_base or not image.once_more]
        left_out += omitted
        uncaptioned += bare
    _refuse_uncaptioned(uncaptioned)
    collected = Collected(tuple(images), tuple(left_out))
    if not collected.train:
        raise UserError(
            "there is no training image that can be read; check the folder and the roles in its manifest"
        )
    if any(subset.is_reg for subset in subsets) and not collected.reg:
        raise UserError(
            "there is no regularisation image that can be read; check the folder and the roles in its "
            "manifest"
        )
    return collected


def collect_held_out(
    subsets: Sequence[Subset],
    trained: Collected,
    bases: Sequence[int],
    sides: BucketSides = PLAIN_SIDES,
    each: Callable[[], None] = lambda: None,
) -> Collected:
    """Read the images to validate on, each at its largest size, in the order of their pixels' hashes.

    A folder with a manifest gives its rows of role `holdout`; another one its images, where none of them is
    trained on. An image whose very pixels are trained on is left out and counted.

    Raises:
        UserError: there is none, or one has no caption.
    """
    known, sources = ({getattr(image, name) for image in trained.train} for name in ("sha256", "folder"))
    images: dict[str, TrainImage] = {}
    left_out: list[str] = []
    uncaptioned: list[str] = []
    for subset in subsets:
        listed = (subset.image_dir / MANIFEST).is_file()
        if not listed and subset.image_dir in sources:
            continue
        roles = ("holdout",) if listed else (None,)
        found, omitted, bare = _images_of(subset, roles, subset.resolution or bases, sides, each)
        images |= {image.sha256: image for image in found if not image.once_more}
        left_out += omitted
        uncaptioned += bare
    _refuse_uncaptioned(uncaptioned)
    kept = tuple(images[key] for key in sorted(images) if key not in known)
    if len(kept) < len(images):
        number = told(len(images) - len(kept)) or "a few"
        left_out.append(f"{number} held-out images are trained on too: they are not validated on")
    if not kept:
        raise UserError(
            "there is no held-out image to validate on; give --validation_data_dir FOLDER, or build the "
            "dataset with --holdout"
        )
    return Collected(kept, tuple(left_out))


def _refuse_uncaptioned(names: Sequence[str]) -> None:
    if names:
        raise UserError(
            f"{len(names)} images have no caption ({named(names)}); put a caption file "
            "beside each, or give class_tokens, or build a dataset with 'diffusioncleft dataset build'"
        )


def _images_of(
    subset: Subset,
    roles: Sequence[str | None],
    bases: Sequence[int],
    sides: BucketSides,
    each: Callable[[], None],
) -> tuple[list[TrainImage], list[str], list[str]]:
    """One folder's images at every base, sentences on what was left out, and the images without a caption.

    What is called by a photograph's hash is counted and not named: these sentences reach a report.
    """
    folder, private = subset.image_dir, is_dataset(subset.image_dir)
    captions = CaptionFiles(folder, subset.caption_extension)
    images: list[TrainImage] = []
    uncaptioned: list[str] = []
    unreadable: list[str] = []
    wrong: list[str] = []
    rows = [row for row in read_image_set(subset.image_dir) if row.role in roles]
    kept = [row for row in rows if row.accepted is not False and not is_set_aside(row.file)]
    for row in kept:
        each()
        try:
            caption = _caption(subset, row, captions)
        except Rejected as rejection:
            wrong.append(f"{row.file} ({rejection.detail})")
            continue
        try:
            pixels = read_pixels(inside(folder, row.file))
        except (Rejected, UserError):
            unreadable.append(row.file)
            continue
        if caption is None:
            uncaptioned.append(row.file)
            continue
        sha256, (height, width) = pixel_sha256(pixels), pixels.shape[:2]
        images += [
            TrainImage(
                folder / row.file,
                folder,
                caption,
                subset.is_reg,
                subset.num_repeats,
                sha256,
                bucket,
                region_in_bucket(row.region, width, height, bucket),
                row.attributes,
                once_more=place > 0,
            )
            for place, bucket in enumerate(assign_buckets(width, height, bases, sides))
        ]
    omitted = outdated(folder) if private else unlisted(folder)
    if rejected := len(rows) - len(kept):
        number = (told(rejected) or "a few") if private else rejected
        omitted.append(f"{number} images that a filter rejected were left out")
    if private and unreadable:
        number = told(len(unreadable)) or "a few"
        omitted.append(f"{number} images of a dataset can't be read; build it again")
    elif unreadable:
        omitted.append(
            f"images in {shown(folder)} that can't be read were left out ({len(unreadable)}): "
            f"{named(unreadable)}"
        )
    if wrong:
        omitted.append(
            f"images in {shown(folder)} were left out for their captions ({len(wrong)}): {named(wrong)}"
        )
    if not (folder / MANIFEST).is_file():
        omitted += captions.notices((row.file for row in rows), "give their suffix as caption_extension")
        uncaptioned = [_with_unread(captions, name) for name in uncaptioned]
    return images, omitted, uncaptioned


def outdated(folder: Path) -> list[str]:
    """A sentence on a dataset that an earlier version built, whose decoder read some files otherwise."""
    described = folder / SETTINGS
    if not described.is_file():
        return []
    if int(read_json(described).get("ingest", 1)) >= INGEST_VERSION:
        return []
    return [
        "a dataset was built by an earlier version, which turned TIFF files with an orientation the wrong "
        "way; build it again with the same command"
    ]


def read_pixels(path: Path) -> np.ndarray:
    """Read an image as [H, W, 3] uint8 sRGB, upright; Rejected if it can't be read."""
    return read_image(path, max_side=MAX_SIDE)


def bucket_pixels(pixels: np.ndarray, bucket: tuple[int, int]) -> np.ndarray:
    """Cover the bucket (width, height) with the image, crop its centre: [H, W, 3] uint8 -> [height, width, 3]
    uint8.
    """
    image = Image.fromarray(pixels)
    if image.size == bucket:
        return pixels
    box = cover_box(image.width, image.height, bucket)
    return np.asarray(image.resize(bucket, Image.Resampling.LANCZOS, box=box))


def region_in_bucket(
    region: Sequence[float] | None, width: int, height: int, bucket: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """A box in px of the image (width, height) as a box in px of its bucket; None when it is cropped away."""
    if region is None:
        return None
    left, top, right, bottom = cover_box(width, height, bucket)
    across, down = bucket[0] / (right - left), bucket[1] / (bottom - top)
    x0, x1 = (min(max((x - left) * across, 0.0), float(bucket[0])) for x in (region[0], region[2]))
    y0, y1 = (min(max((y - top) * down, 0.0), float(bucket[1])) for y in (region[1], region[3]))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


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


def _caption(subset: Subset, row: ImageRow, captions: CaptionFiles) -> str | None:
    """The manifest's caption or prompt; else the caption file's text; else the subset's class tokens.

    Raises Rejected for a caption file that can't be used.
    """
    text = row.caption or row.prompt
    if text is None and not (subset.image_dir / MANIFEST).is_file():
        text = captions.read(row.file)
    return " ".join((text or "").split()) or subset.class_tokens


def _with_unread(captions: CaptionFiles, image: str) -> str:
    others = captions.unread([image])
    return f"{image} (beside {named(others)}; caption_extension names the suffix)" if others else image
