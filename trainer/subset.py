"""A folder of training images, and how it is used."""

from dataclasses import dataclass
from pathlib import Path

DEFAULT_CAPTION_EXTENSION = ".txt"


@dataclass(frozen=True)
class Subset:
    """One folder of images: `num_repeats` times an epoch; `class_tokens` is the caption where an image has
    none.
    """

    image_dir: Path
    is_reg: bool = False
    num_repeats: int = 1
    class_tokens: str | None = None
    caption_extension: str = DEFAULT_CAPTION_EXTENSION
