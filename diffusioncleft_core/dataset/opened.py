"""Photographs are opened here: hashed, read, examined, and compared for near copies."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import UserError
from ..files import sha256_bytes, sha256_file
from ..imageset.copies import Grey, Pair
from ..imageset.decode import Rejected, SetAside, normalise, pixel_sha256, read_bytes
from ..progress import progress
from .admission import Candidate, with_consent, without_consent
from .copies import keep_thumbnail, known_thumbnail, near_copies, thumbnail_cache
from .examine import Analyzer, Ledger, examine, examine_settings, settings_key
from .folder import Array, save_image
from .select import Selected
from .settings import BuildSettings, recorded_max_side
from .unopened import Unopened
from .withheld import Withheld

SAME_WITHHELD = "the same picture has another row without consent"


def hashes_of(photos: Path, names: Iterable[str]) -> set[str]:
    """SHA-256 of these files, as far as they can be read."""
    return set(_names_by_hash(photos, names))


def _names_by_hash(photos: Path, names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(OSError):
            if (photos / name).is_file():
                found[sha256_file(photos / name)] = name
    return found


def hash_sources(
    photos: Path, candidates: Sequence[Candidate], withheld: Collection[str]
) -> tuple[list[tuple[Candidate, str]], list[SetAside]]:
    """Every candidate with the SHA-256 of its file; one that has a row without consent too is set aside."""
    sources: list[tuple[Candidate, str]] = []
    aside = []
    for candidate in progress(candidates, "reading"):
        try:
            path = photos / candidate.file
            if not path.is_file():
                raise Rejected("unreadable", "not a regular file")
            source = sha256_file(path)
            if source in withheld:
                raise Rejected("no_consent", SAME_WITHHELD)
            sources.append((candidate, source))
        except Rejected as rejection:
            aside.append(SetAside(candidate.file, rejection.reason, rejection.detail))
        except OSError as error:
            aside.append(SetAside(candidate.file, "unreadable", f"{error.strerror}; check its permissions"))
    return sources, aside


def sources_with_consent(
    photos: Path, found: Unopened
) -> tuple[list[tuple[Candidate, str]], list[SetAside], dict[str, str]]:
    """Every candidate with the SHA-256 of its file, what can't be read, and the names by hash of all
    photographs that have consent, those whose rows are wrong in something else too."""
    sources, aside, allowed, _ = sources_and_copies(photos, found)
    return sources, aside, allowed


def sources_and_copies(
    photos: Path, found: Unopened
) -> tuple[list[tuple[Candidate, str]], list[SetAside], dict[str, str], Callable[[], None]]:
    """`sources_with_consent`, and what has the dataset remember the copies that their pixels keep out.

    That is called before the dataset forgets what it has seen of them.
    """
    denied = hashes_of(photos, without_consent(found.listing, found.matches))
    hashed, aside = hash_sources(photos, found.candidates, denied)
    names = {source: candidate.file for candidate, source in hashed}
    others = {*with_consent(found.listing, found.matches)} - {*names.values()}
    names |= _names_by_hash(photos, sorted(others))
    agreed = names.keys() - denied
    withheld = Withheld(found.dataset, denied)
    side = recorded_max_side(found.dataset)
    copies = withheld.copies(agreed, lambda source: _pixels_of(photos / names[source], source, side))
    aside += [SetAside(item.file, "no_consent", SAME_WITHHELD) for item, source in hashed if source in copies]
    sources = [(item, source) for item, source in hashed if source not in copies]
    allowed = {source: names[source] for source in agreed - copies}
    return sources, aside, allowed, lambda: withheld.remember(copies)


def examine_all(
    ledger: Ledger,
    photos: Path,
    sources: Sequence[tuple[Candidate, str]],
    faces: Analyzer,
    settings: BuildSettings,
    overruled: Mapping[str, set[str]],
) -> tuple[list[Selected], list[SetAside], set[str]]:
    """Every candidate examined, from the ledger or by opening it; what can't be read; the sources opened.

    The normalised image of a photograph that seems fit is written at once.
    """
    known = examine_settings(faces, settings.max_side)
    thumbnails = thumbnail_cache(ledger.folder)
    examined: list[Selected] = []
    aside: list[SetAside] = []
    opened: set[str] = set()
    for candidate, source in progress(sources, "photographs"):
        allowed = overruled.get(source, set())
        key = settings_key(known, "animated" in allowed)
        found = ledger.find(source, key)
        if found is None:
            try:
                data = _unchanged(photos / candidate.file, source)
            except Rejected as rejection:
                aside.append(SetAside(candidate.file, rejection.reason, rejection.detail))
                continue
            found, photograph = examine(
                data, source, key, faces, max_side=settings.max_side, first_frame="animated" in allowed
            )
            fit = found.rejection(settings.smallest_side, allowed) is None
            if photograph is not None and found.pixels is not None and fit:
                save_image(ledger.folder, found.pixels, photograph.pixels)
                keep_thumbnail(thumbnails, found.pixels, photograph.pixels)
            ledger.add(found)
            opened.add(source)
        examined.append(Selected(candidate, found))
    return examined, aside, opened


def near_copies_among(
    folder: Path, photos: Path, items: Sequence[Selected], settings: BuildSettings
) -> list[Pair]:
    """Pairs of these photographs of which one is a near copy of the other."""
    thumbnails = thumbnail_cache(folder)

    def read(item: Selected) -> Grey:
        grey = known_thumbnail(thumbnails, item.pixels)
        if grey is None:  # an earlier version had examined it, or a withdrawal has erased it
            pixels = decoded(photos, item, settings.max_side)
            grey = keep_thumbnail(thumbnails, item.pixels, pixels)
        return grey

    hashes = [item.pixels for item in items]
    return near_copies(thumbnails, hashes, lambda: [read(item) for item in items], settings.copy_threshold)


def decoded(photos: Path, item: Selected, max_side: int) -> Array:
    """The photograph once more, [H, W, 3]. UserError when it can't be read any longer."""
    try:
        data = _unchanged(photos / item.candidate.file, item.examined.source)
        return normalise(data, max_side=max_side, first_frame=True).pixels
    except Rejected as rejection:
        raise UserError(f"{item.candidate.file}: {rejection.detail}; build again") from rejection


def _pixels_of(path: Path, source: str, max_side: int) -> str | None:
    """The hash of a photograph's normalised pixels; None where it can't be read."""
    with contextlib.suppress(Rejected):
        return pixel_sha256(normalise(_unchanged(path, source), max_side=max_side, first_frame=True).pixels)
    return None


def _unchanged(path: Path, source: str) -> bytes:
    data = read_bytes(path)
    if sha256_bytes(data) != source:
        raise Rejected("unreadable", "it changed while it was read")
    return data
