"""The images of a run."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from ..diffusioncleft_core.recipe.recipe import Subset
from ..diffusioncleft_core.small_counts import told
from .buckets import PLAIN_SIDES, BucketSides, assign_buckets, cover_box

MAX_SIDE = 4096  # larger photographs are reduced while they are read
_TRAINED_ROLES = {False: (None, "train"), True: (None, "train", "generated", "control")}


@dataclass(frozen=True)
class TrainImage:
    """One image: where it lies, the folder of its set, its caption, the SHA-256 of its normalised pixels, its
    bucket (width, height), where it is known the box of the finding as (x0, y0, x1, y1) in px of the bucket,
    what its manifest says of it and the caption of the same person without the anomaly; `once_more`: the
    photograph stands before it already, at a larger size;
    `mirrored`: it stands before it as it is, and this is its mirror image, in words, box and attributes too.
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
    healthy_caption: str | None = None
    once_more: bool = False
    mirrored: bool = False

    @property
    def again(self) -> bool:
        """Whether the photograph is among the images before it already."""
        return self.once_more or self.mirrored

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
        """Number of training images, one that is trained at several sizes or mirrored too once."""
        return sum(not image.again for image in self.train)

    @property
    def reg_photographs(self) -> int:
        """The same of regularisation images."""
        return sum(not image.again for image in self.reg)

    def bucket_counts(self) -> dict[str, int]:
        """Number of training images a bucket, as `512x768: 40`, each at its largest size."""
        counts = Counter(image.bucket_name for image in self.train if not image.again)
        return dict(sorted(counts.items()))


def collect_images(
    subsets: Sequence[Subset],
    bases: Sequence[int],
    sides: BucketSides = PLAIN_SIDES,
    each: Callable[[], None] = lambda: None,
    *,
    every_base: bool = False,
    mirror: bool = False,
) -> Collected:
    """Read the images of all folders. `each` is called before every image and may raise to stop.

    An image stands there once, at the largest base resolution that it covers; with `every_base` once for each
    that it covers. With `mirror` each training image is followed by its mirror image.

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
        taken = [image for image in found if every_base or not image.once_more]
        if mirror and not subset.is_reg:
            taken = [either for image in taken for either in (image, mirror_image(image))]
        images += taken
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


_OTHER_SIDE = {
    form(a): form(b)
    for form in (str.lower, str.capitalize, str.upper)
    for a, b in (("left", "right"), ("right", "left"))
}
_SIDES = re.compile(rf"\b({'|'.join(_OTHER_SIDE)})\b")


def sides_exchanged(words: str) -> str:
    """`words` with left and right exchanged, as they are true of the mirror image."""
    return _SIDES.sub(lambda found: _OTHER_SIDE[found[0]], words)


def mirror_image(image: TrainImage) -> TrainImage:
    """The mirror image of an image: its caption, box and attributes have the other side."""
    width, region = image.bucket[0], image.region
    return replace(
        image,
        caption=sides_exchanged(image.caption),
        healthy_caption=image.healthy_caption and sides_exchanged(image.healthy_caption),
        region=region and (width - region[2], region[1], width - region[0], region[3]),
        attributes=mirrored_attributes(image.attributes),
        mirrored=True,
    )


def mirrored_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """What a manifest says of an image, as it is true of the mirror image."""
    return {name: sides_exchanged(value) for name, value in attributes.items()}


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
                row.healthy_caption,
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


def refuse_rebuilt(dataset: Path, images: Sequence[TrainImage]) -> None:
    """Raise UserError where an image of `dataset` is no longer trained on: its consent may be withdrawn since
    it was read.
    """
    if not (dataset / MANIFEST).is_file():  # it has none that could have changed
        return
    known = {dataset / row.file for row in read_image_set(dataset) if row.role == "train"}
    if any(image.folder == dataset and image.path not in known for image in images):
        raise UserError(f"{dataset} was built again while its images were read; run the same command again")


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
