"""What lies in the place of a model's weights: a Git LFS pointer, a saved web page, an error message."""

from pathlib import Path

from .text import opened

SOURCE_KEY = "source_sha256"
"""What a converted LoRA's metadata call the SHA-256 of the file that it was first converted from."""
MERGED_KEY = "merged_from"
"""What a merged LoRA's metadata call all that its sources are known by, with spaces between."""
_HEAD = 512
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head")
_PRINTABLE = frozenset(range(32, 256)) | {9, 10, 13}


def stand_in(path: Path) -> str | None:
    """What the file is instead of weights, and what to do, as the end of a sentence.

    None for what may be weights. UserError when it can't be opened.
    """
    with opened(path) as handle:
        head = handle.read(_HEAD)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return "is empty; get the file again"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; run git lfs pull where it lies, or download it"
    if start.startswith(_PAGES):
        return (
            "is a saved web page, not the file itself; open the page, sign in or accept its terms if it asks "
            "for that, and use its download button"
        )
    if len(head) > 8 and set(head) <= _PRINTABLE:
        begins = " ".join(head[:60].decode("latin-1").split())
        return f"is a text file that begins with {begins!r}; get the file again"
    return None
