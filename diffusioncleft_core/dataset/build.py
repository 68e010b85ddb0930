"""From a folder of photographs and its table to a private image set: checked, captioned and split."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..conditions.prompts import healthy_caption
from ..conditions.vocabulary import Condition
from ..environment import versions
from ..errors import UserError
from ..faces.records import FaceRecord, are_phantoms
from ..files import read_jsonl, write_json, write_jsonl
from ..imageset.decode import INGEST_VERSION, SetAside
from ..imageset.manifest import ImageRow, listed_rows, write_image_set
from .admission import Candidate, served_warnings, subject_of, unknown_columns
from .copies import COPIES_CACHE
from .corrections import keep_captions
from .examine import Analyzer, Ledger
from .folder import (
    CACHE,
    CAPTIONS,
    READMITTED,
    SCHEMA,
    SET_ASIDE,
    SETTINGS,
    create_dataset_folder,
    dataset_lock,
    empty_folder,
    erase,
    erase_leftovers,
    erase_unlisted,
    image_name,
    is_sound,
    keyed_hash,
    refuse_overlap,
    save_embeddings,
    save_image,
    settle,
)
from .metadata import unclear_consent
from .opened import decoded, examine_all, near_copies_among, sources_and_copies
from .rating_consent import recorded_rating_consent, write_rating_consent
from .select import (
    Absent,
    Selection,
    choose_holdout,
    earlier_roles,
    group_subjects,
    region_box,
    roles_elsewhere,
    roles_of_absent,
    select,
)
from .settings import (
    BuildSettings,
    Photographs,
    read_overruled,
    read_roles,
    recorded_roles,
    roles_set_aside,
    write_roles,
)
from .trained import OnChange, restore_trainings, withdraw_trainings
from .unopened import Unopened, look_through


@dataclass(frozen=True)
class BuildResult:
    """What a build did.

    Attributes:
        examined: photographs that were opened and analysed.
        reused: those known from before.
        erased: those that had entered in an earlier build and were withdrawn, with all that was derived.
        warnings: sentences that name nothing private.
        notices: sentences that may name a file, a folder or a column: for the owner, never for a report.
    """

    folder: Path
    rows: tuple[ImageRow, ...]
    set_aside: tuple[SetAside, ...]
    subjects: int
    examined: int
    reused: int
    erased: int
    warnings: tuple[str, ...] = field(default=())
    notices: tuple[str, ...] = field(default=())

    def count(self, role: str) -> int:
        """How many photographs have the role `train` or `holdout`."""
        return sum(row.role == role for row in self.rows)

    @property
    def reasons(self) -> dict[str, int]:
        """How many were set aside for each reason, most frequent first."""
        return dict(Counter(item.reason for item in self.set_aside).most_common())


def build_dataset(
    photographs: Photographs,
    condition: Condition,
    out: Path,
    faces: Analyzer,
    *,
    settings: BuildSettings | None = None,
    arguments: Mapping[str, Any] | None = None,
    on_change: OnChange = lambda change: None,
) -> BuildResult:
    """Build the private dataset of some photographs, or bring it up to date.

    Without a table the folder's CONSENT.txt gives consent, and captions stand beside the photographs.

    Photographs are read, never changed. What can't enter is listed with its reason in `set_aside.jsonl`. A
    photograph already examined is not opened again (content hash); one whose consent or file is gone is
    erased first of all. Where every file is gone nothing is erased: it may be a disk that is not there.

    Args:
        photographs: folder, table, and the datasets of other conditions.
        condition: whose captions and attributes they get.
        out: the dataset's folder.
        faces: finds and compares the faces.
        settings: how it is built.
        arguments: recorded, so that `dataset readmit` can build again.
        on_change: told when a photograph that was trained on has lost its consent, or has it again.

    Raises:
        UserError: a folder or column is missing, the models don't fit, no photograph can enter, or another
            build is at work in `out`.
    """
    settings, photos = settings or BuildSettings(), photographs.folder
    if faces.phantom_only and not settings.phantom:
        raise UserError(
            "the embedded face models know phantoms alone; name a face pack (--faces), or give --phantom"
        )
    refuse_overlap(photos, out)
    found = look_through(photographs, condition, dataset=out, form=settings.caption_form)
    aside = [*found.set_aside]
    with dataset_lock(out):
        folder = create_dataset_folder(out)
        erase_leftovers(folder)
        notices = [*found.table.notices, *unknown_columns(found.table, condition), *found.matches.notices]
        notices += [unclear] if (unclear := unclear_consent(found.table.rows)) else []
        notices += served_warnings(photos, out)
        notices += found.sidecars.notices(found.listing.photographs, "rename them to end in .txt")
        warnings: list[str] = []

        sources, unread, allowed, remember_copies = sources_and_copies(photos, found)
        aside += unread
        withdraw_trainings(folder, allowed, on_change)
        if found.lost and not found.listing.photographs:
            raise UserError(found.lost)
        ledger = Ledger(folder)
        recorded = recorded_roles(folder, settings, warnings)
        shown = {source for candidate, source in sources if candidate.rating}
        shown -= {source for candidate, source in sources if not candidate.rating}
        remember_copies()
        erased = _erase_withdrawn(folder, ledger, {source for _, source in sources}, allowed)
        _keep_rating_consent(folder, _pixels_shown(ledger, shown, sources))

        overruled = read_overruled(folder)
        seen = set(ledger.examined)
        examined, unread, opened = examine_all(ledger, photos, sources, faces, settings, overruled)
        aside += unread
        if faces.phantom_only:
            _refuse_people(folder, photos, ledger, seen, [item.examined.record for item in examined])
        selection = select(
            examined,
            settings.smallest_side,
            overruled,
            lambda items: near_copies_among(folder, photos, items, settings),
        )
        aside += selection.set_aside
        elsewhere = roles_elsewhere(selection.entered, photographs.apart_from, settings.person_threshold)
        absent = roles_of_absent(
            selection.entered,
            _absent(found, ledger, allowed, recorded, selection),
            settings.person_threshold,
        )
        roles_known = zip(earlier_roles(selection, recorded), absent, elsewhere, strict=True)
        before = [set().union(*each) for each in roles_known]
        rows, subjects, roles = _rows(folder, condition, selection, settings, before)
        _write_images(folder, photos, selection, settings.max_side, opened)
        kept = {source: role for source, role in recorded.items() if source in allowed.keys() - roles.keys()}
        write_roles(folder, roles, kept)
        _write_lists(folder, rows, aside)
        write_rating_consent(
            folder, {item.pixels for item in selection.entered} & _pixels_shown(ledger, shown, sources)
        )
        restore_trainings(folder, roles, on_change)
        if not rows:
            raise UserError(found.lost or _nothing_entered(folder, aside, settings, unclear))
        if settings.holdout and not any(row.role == "holdout" for row in rows):
            warnings.append(_none_held_out(subjects, elsewhere))
        result = BuildResult(
            folder=folder,
            rows=tuple(rows),
            set_aside=tuple(aside),
            subjects=subjects,
            examined=len(opened),
            reused=len(examined) - len(opened),
            erased=erased,
            warnings=tuple(warnings),
            notices=tuple(notices),
        )
        described = _description(result, condition, faces, settings, arguments or {})
        write_json(folder / SETTINGS, described | {"consent_for_folder": found.table.statement})
        return result


def _refuse_people(
    folder: Path, photos: Path, ledger: Ledger, before: set[str], records: Sequence[FaceRecord]
) -> None:
    """Raise UserError for photographs of people under the embedded face models; nothing new is kept."""
    if are_phantoms(records) or not any(record.has_face for record in records):
        return
    ledger.keep(before)
    erase_unlisted(folder, [row.sha256 for row in listed_rows(folder) if row.sha256])
    empty_folder(folder / CACHE)
    raise UserError(
        f"the embedded face models know phantoms alone, and {photos} seems to hold photographs of people: "
        "leave --phantom out and name a face pack (--faces); nothing was kept of them"
    )


def _absent(
    found: Unopened,
    ledger: Ledger,
    allowed: Mapping[str, str],
    recorded: Mapping[str, str],
    selection: Selection,
) -> list[Absent]:
    """The photographs that have consent and a role of an earlier build, and don't enter this one."""
    entered = {item.examined.source for item in selection.entered}
    return [
        Absent(
            recorded[source],
            subject_of(found.matches.rows[allowed[source]][0]),
            seen.record.embedding if (seen := ledger.examined.get(source)) else None,
        )
        for source in sorted((allowed.keys() & recorded.keys()) - entered)
    ]


def _erase_withdrawn(folder: Path, ledger: Ledger, sources: set[str], agreed: Collection[str]) -> int:
    """Erase what was derived from photographs that are no longer there or no longer allowed; return their
    number. Of those that are `agreed` to and no `sources`, their rows being wrong, role and face stay known.

    Comes before anything else is done, so that an interrupted build has erased it already.
    """
    if not set(ledger.examined) <= set(agreed):
        erase(folder / CACHE / COPIES_CACHE)
    ledger.keep(agreed)
    for name in (SET_ASIDE, READMITTED):
        if (folder / name).is_file():
            rows_left = [row for row in read_jsonl(folder / name) if row.get("source", "") in sources]
            write_jsonl(folder / name, rows_left)
    allowed = {found.pixels for source, found in ledger.examined.items() if source in sources}
    rows = list(listed_rows(folder))
    kept = [row for row in rows if row.sha256 in allowed]
    if len(kept) < len(rows):
        empty_folder(folder / CACHE)  # while the manifest still says that something is to be erased
        if (folder / CAPTIONS).is_file():
            files = {row.file for row in kept}
            built = [row for row in read_jsonl(folder / CAPTIONS) if row.get("file") in files]
            write_jsonl(folder / CAPTIONS, built)
        write_image_set(folder, kept)
        erase_unlisted(folder, [row.sha256 for row in kept if row.sha256])
    roles, aside = read_roles(folder), roles_set_aside(folder)
    if not {*roles, *aside} <= sources:
        left = {source: role for source, role in roles.items() if source in sources}
        others = {
            source: role for source, role in (aside | roles).items() if source in set(agreed) - left.keys()
        }
        write_roles(folder, left, others)
    return len(rows) - len(kept)


def _pixels_shown(
    ledger: Ledger, shown: set[str], sources: Sequence[tuple[Candidate, str]]
) -> set[str | None]:
    """Pixel hashes of what raters may see: none that a photograph has which they may not."""
    known = ledger.examined
    allowed, denied = (
        {found.pixels for source in part if (found := known.get(source))}
        for part in (shown, {source for _, source in sources} - shown)
    )
    return allowed - denied


def _keep_rating_consent(folder: Path, allowed: set[str | None]) -> None:
    """Take back at once what raters may no longer see; what they may see anew waits for the build's end."""
    recorded = recorded_rating_consent(folder)
    if not recorded <= allowed:
        write_rating_consent(folder, recorded & allowed)


def _rows(
    folder: Path,
    condition: Condition,
    selection: Selection,
    settings: BuildSettings,
    before: Sequence[set[str]],
) -> tuple[list[ImageRow], int, dict[str, str]]:
    """The manifest's rows, the number of subjects, and the role of each source.

    before: the roles that each photograph that enters, or its subject, has had.
    """
    entered = selection.entered
    subjects = [item.candidate.subject for item in entered]
    groups = group_subjects(
        subjects,
        [item.examined.record.embedding for item in entered],
        selection.same_picture,
        settings.person_threshold,
    )
    names = [
        f"id {subject}" if subject else f"photo {item.examined.source}"
        for subject, item in zip(subjects, entered, strict=True)
    ]
    roles = choose_holdout(groups, names, settings.holdout, settings.seed, before)
    smallest: dict[int, str] = {}
    for group, name in zip(groups, names, strict=True):
        smallest[group] = min(name, smallest.get(group, name))
    rows = [
        ImageRow(
            file=image_name(item.pixels),
            sha256=item.pixels,
            width=item.examined.record.width,
            height=item.examined.record.height,
            condition=condition.name,
            role=role,
            attributes=dict(item.candidate.attributes),
            caption=item.candidate.caption,
            healthy_caption=healthy_caption(
                condition, item.candidate.attributes, whole=settings.whole_captions
            ),
            subject=keyed_hash(folder, smallest[group])[:12],
            region=region_box(condition.region, item.examined.record),
        )
        for item, role, group in zip(entered, roles, groups, strict=True)
    ]
    by_source = {item.examined.source: role for item, role in zip(entered, roles, strict=True)}
    return rows, len(smallest), by_source


def _write_images(
    folder: Path, photos: Path, selection: Selection, max_side: int, opened: Collection[str]
) -> None:
    """Write the images that are missing or torn, and make all of them and the embeddings durable.

    Trusted are the images that a finished manifest names and those just written; others are checked.
    """
    before = {row.sha256 for row in listed_rows(folder)}
    for item in selection.entered:
        is_there = (folder / image_name(item.pixels)).is_file()
        trusted = item.pixels in before or item.examined.source in opened
        if is_there and (trusted or is_sound(folder, item.pixels)):
            continue
        save_image(folder, item.pixels, decoded(photos, item, max_side))
    hashes = [item.pixels for item in selection.entered]
    settle(folder, [sha256 for sha256 in hashes if sha256 not in before])
    save_embeddings(folder, hashes, [item.examined.record.embedding for item in selection.entered])


def _write_lists(folder: Path, rows: Sequence[ImageRow], aside: list[SetAside]) -> None:
    """Write manifest and what was set aside, then erase the images that no row names."""
    if (folder / CAPTIONS).is_file():  # a stop in between leaves the right ones to restore
        keep_captions(folder, rows)
    write_image_set(folder, rows)
    erase(folder / CAPTIONS)
    aside.sort(key=lambda item: (item.file, item.reason))
    write_jsonl(folder / SET_ASIDE, (item.to_json() for item in aside))
    erase_unlisted(folder, [row.sha256 for row in rows if row.sha256])


def _none_held_out(subjects: int, elsewhere: Sequence[Collection[str]]) -> str:
    """Why no subject could be held out."""
    if subjects == 1:
        return "no subject could be held out: all photographs are of one subject"
    if any(elsewhere):
        return (
            "no subject could be held out: subjects keep the side that they have in the dataset of the other "
            "condition (--apart-from), and were trained on there, or here before"
        )
    return "no subject could be held out: all were trained on before"


def _nothing_entered(folder: Path, aside: Sequence[SetAside], settings: BuildSettings, unclear: str) -> str:
    reasons = Counter(item.reason for item in aside)
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    said = [f"no photograph could enter the dataset ({told})", *([unclear] if unclear else [])]
    if reasons["too_small"]:
        said.append(f"a --min-side of less than {settings.smallest_side} lets smaller ones in")
    if any(item.overrulable for item in aside):
        said.append("'diffusioncleft dataset readmit' takes single ones back")
    return "; ".join([*said, f"{folder / SET_ASIDE} names each with its reason"])


def _description(
    result: BuildResult,
    condition: Condition,
    faces: Analyzer,
    settings: BuildSettings,
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    trained = sorted(f"{row.sha256} {row.caption}" for row in result.rows if row.role == "train")
    return {
        "schema": SCHEMA,
        "ingest": INGEST_VERSION,
        "condition": condition.name,
        "trigger": condition.trigger,
        "contrast_trigger": condition.contrast_trigger,
        "settings": asdict(settings),
        "counts": {
            "train": result.count("train"),
            "holdout": result.count("holdout"),
            "subjects": result.subjects,
            "set_aside": result.reasons,
        },
        "fingerprint": keyed_hash(result.folder, "\n".join(trained)),
        "faces": faces.describe(),
        "versions": versions(),
        "arguments": dict(arguments),
    }
