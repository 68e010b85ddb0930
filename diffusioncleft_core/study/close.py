"""The end of a study: copies of photographs are erased, ratings are kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from ..dataset.folder import erase
from ..files import remove_leftovers, write_json
from .consent import erase_pictures
from .folder import CLOSED, IMAGES, KEY, PRIVATE, SOURCES, Study, study_lock
from .items import write_items


def pictures_to_erase(study: Study) -> int:
    """How many pictures of photographs of people a study holds."""
    return sum(item.photograph is not None and study.has_image(item.id) for item in study.items)


def close_study(study: Study) -> int:
    """Close a study: it takes no rating any more, and its pictures of photographs are erased.

    The key forgets which photographs they were and in which folders they lie; what was rated, and of which
    set, stays. Closed first and erased then, so that an interrupted call can be done again.

    Returns:
        How many pictures were erased.
    """
    with study_lock(study.root):
        if not study.closed:
            write_json(study.root / CLOSED, {"closed": datetime.now(UTC).isoformat(timespec="seconds")})
        erased = erase_pictures(study, [item for item in study.items if item.photograph is not None])
        for place in (study.root, study.root / PRIVATE, study.root / IMAGES):
            remove_leftovers(place)  # a half-written key names photographs
        write_items(study.root / KEY, [replace(item, photograph=None, source=None) for item in study.items])
        erase(study.root / SOURCES)
    return erased
