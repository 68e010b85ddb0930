"""What a model learned from, so that it knows its own pictures among those of a test set; private.

`learned.private.json` lies in the model's folder, readable by its owner alone:

    schema, key      1, and the random key of the digests, 64 hexadecimal digits
    pictures         HMAC-SHA256, with that key, of the hash of each picture's normalised pixels, sorted

Whoever has the file and a picture can tell whether the model learned from it, so it is never shared. A file
saved anew without loss is the same picture; one saved anew as a JPEG is another.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..files import keep_from_git, read_json, write_json

SCHEMA = 1
FILE_NAME = "learned.private.json"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def private_files(folder: Path) -> list[Path]:
    """The file of a model's folder and what keeps it out of a repository, where that is all it does."""
    ignoring = Path(folder) / ".gitignore"
    ours = ignoring.is_file() and ignoring.read_bytes().decode("utf-8", "replace").split() == [FILE_NAME]
    return [Path(folder) / FILE_NAME, *([ignoring] if ours else [])]


@dataclass(frozen=True, repr=False)
class LearnedPictures:
    """Keyed digests of pictures, by which they are known and can't be listed.

    Attributes:
        digests: of the hashes of their normalised pixels.
        key: of the digests.
    """

    digests: frozenset[str]
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    @classmethod
    def of(cls, pictures: Iterable[str]) -> LearnedPictures:
        """Of hashes of normalised pixels (`Crops.pictures`), with a new key."""
        empty = cls(frozenset())
        return cls(frozenset(map(empty._digest, pictures)), empty.key)

    def among(self, pictures: Sequence[str]) -> int:
        """How many of the pictures, by the hashes of their normalised pixels, were learned from."""
        return sum(self._digest(picture) in self.digests for picture in pictures)

    def write(self, folder: Path) -> None:
        """Write the file, which its owner alone can read from the first byte on."""
        document = {"schema": SCHEMA, "key": self.key.hex(), "pictures": sorted(self.digests)}
        write_json(Path(folder) / FILE_NAME, document, private=True)
        keep_from_git(folder, FILE_NAME)

    @classmethod
    def read(cls, folder: Path) -> LearnedPictures | None:
        """What a model's folder holds; None where it has no such file. UserError where that is damaged."""
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            return None
        document = read_json(path)
        rows = document if isinstance(document, dict) else {}
        key, pictures = rows.get("key"), rows.get("pictures")
        if (
            rows.get("schema") != SCHEMA
            or not isinstance(pictures, list)
            or not all(map(_is, [key, *pictures]))
        ):
            raise UserError(
                f"{path} is damaged: it tells which pictures the model learned from; restore it from a copy, "
                "or train the model again: diffusioncleft downstream train"
            )
        return cls(frozenset(pictures), bytes.fromhex(str(key)))

    def _digest(self, picture: str) -> str:
        return hmac.new(self.key, picture.encode(), hashlib.sha256).hexdigest()


def _is(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
