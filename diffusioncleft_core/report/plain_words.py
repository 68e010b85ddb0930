"""The report's first page, in words that an ethics board reads: photographs, findings, limits, sharing.

Every number is one that the run recorded; what it did not record or measure is said not to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..conditions.vocabulary import ALL
from ..dataset.withdrawn import SAID
from ..downstream.document import NOT_A_DEVICE
from ..downstream.reading import CHANCE_LEVEL, LINE, NEEDED, SHUFFLED
from ..filters.decisions import SAID as VERDICTS
from ..filters.identity import IDENTITY_LEAK, NEAR_COPY_LEAK
from ..imageset.decode import REASONS
from ..small_counts import FEWEST
from ..statistics import clopper_pearson
from ..text import counted as counted_words
from ..text import was
from .audit_words import HEADING, copies_sentence, explained, lora_sentences, risk_sentence
from .blocks import PHANTOM_TAG, Block, Cell, Labels, Row, Section, Table, Text, labels_of, percent, sentence
from .measured import figure_of, present

NOT_RECORDED, NOT_MEASURED, NOT_TOLD = "not recorded", "not measured", "not told"
LITTLE, NEARLY_ALL = f"less than {percent(0.001)}", f"more than {percent(0.999)}"
FEW = f"fewer than {FEWEST}"
PLAIN_REASONS = {
    **REASONS,
    "no_consent": "consent was not given",
    "no_row": "nothing is known about the photograph",
    "row_without_photo": "named in the table, but there is no photograph",
    "row_conflict": "contradictory information",
    "metadata": "information is missing or unclear",
    "other_condition": "belongs to the other group of patients",
    "caption": "its description can’t be used",
    "outside": "lies outside of the folder of photographs",
    "unsupported": "a kind of file that is not read",
    "undecodable": "a damaged file",
    "too_large": "too large a file",
    "several_faces": "more than one face, so possibly another person",
    "near_duplicate": "nearly the same photograph again",
}
USED = {
    "training_images": "The model learned from",
    "holdout_images": "Kept apart, never learned from",
    "subjects": "People in these photographs",
}
WITHDRAWN_NOTE = (
    f"Withdrawn: a LoRA behind these figures {SAID}. Don't use or share them; `diffusioncleft dataset "
    "withdraw` erases them, and the same `run` makes them anew without that photograph."
)
"""The note of a withdrawn report."""
WITHDRAWN_SET = (
    f"Withdrawn: the LoRA that drew these images {SAID}. Don't use or share them; `diffusioncleft dataset "
    "withdraw` and their folder erases them."
)
NO_LONGER_VALID = (
    "This run is no longer valid: consent was withdrawn for a photograph that the model learned from. "
    "Nothing of it may be used or shared, this page included."
)
ON_PHANTOMS = (
    "This run was started as one on drawings: what is called a photograph below is a drawing by a computer "
    "program, with which the whole procedure is tried before a patient is in it. A program can’t tell for "
    "certain whether pictures that a person named as drawings were drawings."
)
ON_PEOPLE = (
    "A computer model learned from clinical photographs. Only photographs for which consent is stated, each "
    "in the table of the photographs or all of a folder together in one statement, were opened; all "
    "others were left alone. This yes or no is all that the run knows of consent: who gave it, when, for "
    "which purpose and for how long stands in the consent forms, and is not recorded here."
)
HOW_COMPARED = (
    "A face recognition program gives each pair of faces a likeness; 1 is the same picture. From "
    "{threshold} on this report counts two faces as the same person. Every synthetic image was compared "
    "with the photographs that the model learned from, an image in which no face was found excepted.{all} "
    "{control} A range is what the count allows with 95 % certainty; few images give a wide one."
)
OF_ALL = (
    " The row “{all}” compares every image with the photographs of every group, so that it can count more "
    "than the rows above it."
)
WITH_CONTROL = (
    "The same was done with the photographs that were kept apart: they show other people, and are the "
    "control."
)
WITHOUT_CONTROL = (
    f"Photographs that were kept apart, of other people, would be the control; there were none, or {FEW}."
)


@dataclass(frozen=True)
class Likeness:
    """A way of being like a photograph: its figure in `sets` with its profile, and the control's.

    caption: of the table; more, less: what is said where the ranges lie apart.
    """

    metric: str
    profile: str
    control: str
    caption: str
    more: str
    less: str


PERSON = Likeness(
    "fir_images",
    "paper",
    "fir_control_images",
    "Images that count as a person whose photograph the model learned from",
    "Synthetic images look like these people more often than other people do.",
    "Synthetic images look like these people less often than other people do.",
)
COPY = Likeness(
    "near_copies",
    "robust",
    "near_copies_control",
    "Images that are nearly a copy of a photograph the model learned from",
    "Synthetic images are nearly copies more often than photographs of other people are.",
    "Synthetic images are nearly copies less often than photographs of other people are.",
)
HOW_COPIES = (
    "A second program looks for copies that the first may take for another person: one of these photographs, "
    "of any group, that comes back in grey or other colours, mirrored, a little turned or cut, or half "
    "covered."
)
NO_COPIES = f"Whether synthetic images are nearly copies of photographs was {NOT_MEASURED}."
BY_THE_LIP = (
    "It went by the lip, as far as the checks can tell: where the lip was hidden, or what was learned was "
    "meaningless, programs did no better than guessing. "
)
NOT_BY_THE_LIP = (
    "It may have gone by something else than the lip: a check that was to rule this out failed, so the "
    "number counts for little. "
)
NOT_KNOWN_BY_WHAT = (
    "Whether it went by the lip, or by something else in the pictures, is not known: checks that would tell "
    "were not made, or were too small. "
)
NO_BETTER = "That it does better than guessing is not shown. "
SEEN_BEFORE = (
    "People in these may be among those whose photographs the images were learned from, so the number may be "
    "too high. "
)
UNRATED = f"Whether clinicians find the images real and medically right was {NOT_MEASURED}."
SHARE = (
    "May be shared: this page and the folder of its plots, and of the run’s folder `report.json`, "
    "`summary.md` and `downstream.json`. They hold no photograph of a person, no name and no file name, and "
    f"of photographs of people numbers of {FEW} are not told.",
    "Must not be shared: any folder named `private`, wherever in the run’s folder it lies. The run’s own "
    "holds the photographs, what was computed from them, and a page that shows them beside synthetic images; "
    "that of a rater study (`study/private` where the study is named `study`) holds copies of photographs "
    "that raters are shown, and tells which they are.",
    "For the board to decide, with the tables above: the synthetic images, and the files that the model "
    "learned into (LoRAs). Synthetic images that were set aside are not part of what is handed on.",
    "Of the run’s folder `loras` those files alone, named `.safetensors`, and `recipe.json` beside them: the "
    "rest of it (`loss.jsonl`, `loss.png`, `previews`, `state`) tells how long the model learned, and with "
    "that how many photographs there were.",
    "When consent is withdrawn, building the dataset again erases the photograph and all that was computed "
    "from it, and marks every model that learned from it, its images and its reports. `diffusioncleft "
    "dataset withdraw` lists and erases those. What others were given, they must delete.",
)


def plain_words_section(document: Mapping[str, Any]) -> Section:
    """The page, from `training`, `sets` and `filters`."""
    labels = labels_of(document)
    phantom = bool(document.get("phantom"))
    withdrawn = WITHDRAWN_NOTE in (document.get("notes") or [])
    blocks: list[Block] = [
        *([Text([NO_LONGER_VALID], heading="Withdrawn")] if withdrawn else []),
        Text([ON_PHANTOMS if phantom else ON_PEOPLE], heading="Whose photographs"),
        *photographs(document.get("training") or {}, labels),
        *findings(document.get("sets") or {}, labels),
        *leaks(document, labels),
        Text(set_aside_images(document.get("filters") or {}, labels), listed=True),
        Text(uses(document.get("downstream") or {}), heading="What the synthetic images are good for"),
        Text(limits(document, phantom=phantom), listed=True, heading="What this can’t show"),
        Text(
            [NO_LONGER_VALID, *SHARE[1:2], *SHARE[4:]] if withdrawn else SHARE,
            listed=True,
            heading="What may be shared",
        ),
    ]
    lead = "For an ethics board. The sections after this one hold the details."
    return Section("plain-words", "In plain words", lead, blocks)


def photographs(training: Mapping[str, Any], labels: Labels) -> list[Block]:
    """How many were used, and how many were set aside for which reason."""
    if not training:
        return [Text([f"Which photographs were used, and how many were set aside, is {NOT_RECORDED}."])]
    columns = ("", *map(labels.name, training))
    used = [
        Row(words, [Cell(counted(part, key)) for part in training.values()]) for key, words in USED.items()
    ]
    tables: list[Block] = [Table("Photographs that were used", columns, used)]
    parts = [part.get("set_aside") for part in training.values()]
    reasons = dict.fromkeys(reason for part in parts for reason in part or {})
    rows = [
        Row(
            sentence(PLAIN_REASONS.get(reason, reason.replace("_", " "))).rstrip("."),
            [Cell(NOT_RECORDED if part is None else counted({reason: 0, **part}, reason)) for part in parts],
        )
        for reason in reasons
    ]
    if rows:
        tables.append(Table("Photographs that were set aside, and why", columns, rows))
    elif all(part is not None for part in parts):
        tables.append(Text(["No photograph was set aside."]))
    else:
        tables.append(Text([f"How many photographs were set aside is {NOT_RECORDED}."]))
    return tables


def counted(facts: Mapping[str, Any], key: str) -> str:
    """A count of photographs, in words where it is small or not known."""
    if key not in facts:
        return NOT_TOLD if key == "subjects" and facts.get("holdout_images", 0) is None else NOT_RECORDED
    n = facts[key]
    return FEW if n is None else "none" if n == 0 else f"{n:,}"


def findings(sets: Mapping[str, Any], labels: Labels) -> list[Block]:
    """How many synthetic images are like the people, and like the photographs, beside the control."""
    heading = "What was compared, and what was found"
    people = measured_of(sets, labels, PERSON)
    if not people:
        said = f"Whether synthetic images are like people in the photographs was {NOT_MEASURED}."
        return [Text([said], heading=heading)]
    explained = HOW_COMPARED.format(
        threshold=f"{people[0]['threshold']:g}",
        all=OF_ALL.format(all=labels.name(ALL)) if ALL in sets and len(sets) > 1 else "",
        control=WITH_CONTROL if measured_of(sets, labels, PERSON, control=True) else WITHOUT_CONTROL,
    )
    copies = bool(measured_of(sets, labels, COPY))
    return [
        Text([explained], heading=heading),
        beside_control(sets, labels, PERSON),
        Text([HOW_COPIES if copies else NO_COPIES]),
        *([beside_control(sets, labels, COPY)] if copies else []),
    ]


def leaks(document: Mapping[str, Any], labels: Labels) -> list[Block]:
    """What the leak audit found against its control, in sentences; and of the model file itself."""
    sets = document.get("sets") or {}
    found = {name: figure_of(sets, name, "residual_risk", "robust", "raw") for name in present(sets, labels)}
    threshold = ((document.get("figures") or {}).get("audit") or {}).get("threshold")
    lines = []
    for name, risk in found.items():
        if not risk:
            continue
        lines.append(f"{labels.name(name)}: {risk_sentence(risk)}")
        second = figure_of(sets, name, "residual_risk_second", "robust", "raw")
        if second:
            lines.append(f"{labels.name(name)}, by a second program: {risk_sentence(second)}")
        copies = figure_of(sets, name, "residual_copies", "robust", "raw")
        if copies:
            lines.append(f"{labels.name(name)}: {copies_sentence(copies)}")
    blocks: list[Block] = []
    if lines and threshold:
        said = explained(threshold, phantom=bool(document.get("phantom")))
        blocks = [Text([said], heading=HEADING), Text(lines, listed=True)]
    return [*blocks, Text(lora_sentences(document.get("audit") or {}, labels), listed=True)]


def measured_of(
    sets: Mapping[str, Any], labels: Labels, like: Likeness, *, control: bool = False
) -> list[Mapping[str, Any]]:
    """The figures of the raw sets, or of their controls, that have a value."""
    found = [likeness_of(sets, name, like)[control] for name in present(sets, labels)]
    return [figure for figure in found if figure and figure.get("value") is not None]


def likeness_of(
    sets: Mapping[str, Any], name: str, like: Likeness
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """A set's figure and its control's."""
    return (
        figure_of(sets, name, like.metric, like.profile, "raw"),
        figure_of(sets, name, like.control, "robust", "holdout"),
    )


def beside_control(sets: Mapping[str, Any], labels: Labels, like: Likeness) -> Table:
    """A row a set: its count, the control's, and what the two say."""
    rows = []
    for name in present(sets, labels):
        found, control = likeness_of(sets, name, like)
        if not found or found.get("value") is None:
            rows.append(Row(labels.name(name), [Cell(NOT_MEASURED), Cell(""), Cell("", numeric=False)]))
            continue
        cells = [share(found), share(control), Cell(compared(found, control, like), numeric=False)]
        rows.append(Row(labels.name(name), cells))
    figures = measured_of(sets, labels, like)
    phantom = any((figure.get("extractor") or {}).get("phantom") for figure in figures)
    columns = ("", "Synthetic images", "Control: other people", "What the two say")
    return Table(like.caption, columns, rows, tag=PHANTOM_TAG if phantom else "")


def share(figure: Mapping[str, Any] | None) -> Cell:
    """`5 of 2,000`, with its share and range under it."""
    if not figure or figure.get("value") is None:
        return Cell(NOT_MEASURED)
    said = f"{rough(figure['value'])}; range {spread(figure['ci95'])}"
    return Cell(f"{figure['k']:,} of {figure['n']:,}", said)


def compared(figure: Mapping[str, Any], control: Mapping[str, Any] | None, like: Likeness) -> str:
    """What the two ranges allow to say, and nothing beyond."""
    if not control or control.get("value") is None:
        return "Without a control it can’t be said whether this is many or few."
    (low, high), (control_low, control_high) = figure["ci95"], control["ci95"]
    if low > control_high:
        return like.more
    if high < control_low:
        return like.less
    return "The ranges overlap: a difference from other people is not shown, and not ruled out."


def set_aside_images(filters: Mapping[str, Any], labels: Labels) -> list[str]:
    """How many synthetic images the filters took out; said to be unknown where none ran."""
    if not filters:
        return ["Synthetic images were not sorted: none was set aside for being too like a photograph."]
    lines = []
    for name, part in filters.items():
        alike, n = part["by_kind"].get(IDENTITY_LEAK, 0), part["n"]
        copies = part["by_kind"].get(NEAR_COPY_LEAK)
        found = clopper_pearson(alike, n)
        if found.value is not None:
            lines.append(
                f"{labels.name(name)}: of {counted_words(n, 'synthetic image')} {alike:,} {was(alike)} set "
                f"aside as too like a photograph of any group ({rough(found.value)}; range "
                f"{spread(found.ci95)}), {f'{copies:,} as nearly a copy of one, ' if copies else ''}and "
                f"{part['rejected']:,} for any reason."
            )
        lines.append(f"{labels.name(name)}: {reviewed(part.get('reviewed') or {})}")
    return lines


def reviewed(counts: Mapping[str, int]) -> str:
    """What a person found who looked at the images beside the photographs that are most like them."""
    if not counts.get("pairs"):
        return "no person has looked at the most alike images beside the photographs."
    seen = ", ".join(f"{counts.get(verdict, 0):,} {words}" for verdict, words in VERDICTS.items())
    return (
        f"a person looked at {counted_words(counts['pairs'], 'image')} beside the photograph most like each: "
        f"{seen}. What is the same person was set aside."
    )


def uses(downstream: Mapping[str, Any]) -> list[str]:
    """What a program that learned from synthetic images tells apart, a sentence or two a task."""
    lines = []
    for task in (downstream.get("tasks") or {}).values():
        source, figures = next(iter(task["sources"].items()))
        accuracy, test, classes = figures["accuracy"], task["test"], task["classes"]
        if accuracy.get("value") is None:
            continue
        shown = "photographs" if test["photographs"] else "drawings"
        lines.append(
            f"A computer program that learned from {source.replace('_', ' ')} images told “"
            f"{classes['positive']}” from “{classes['negative']}” rightly in {rough(accuracy['value'])} of "
            f"{accuracy['n']:,} {shown} (range {spread(accuracy['ci95'])}). {beside(task, figures)}"
            f"{by_what(task, figures)}{SEEN_BEFORE if test.get('leak') else ''}{NOT_A_DEVICE}."
        )
    return lines


def by_what(task: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """What the controls leave of the claim that a program went by the lip, as `reading` says it to others."""
    auc = figures["auc"]
    ends = auc.get("ci95_trainings") or auc.get("ci95")
    controls = task.get("controls") or ()
    passed = {item["name"]: item["passed"] for item in controls if item["expected"] != LINE}
    if passed.get(SHUFFLED) is not False and (ends is None or ends[0] <= CHANCE_LEVEL):
        return NO_BETTER
    if False in passed.values():
        return NOT_BY_THE_LIP
    stands = None not in map(passed.get, (*NEEDED, *passed)) and not task["test"].get("leak")
    return BY_THE_LIP if stands else NOT_KNOWN_BY_WHAT


def beside(task: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """What guessing and photographs to learn from come to, beside a program's figure."""
    both = (figures.get("balanced_accuracy") or {}).get("value")
    if both is None:
        return ""
    said = f"With both kinds counted alike that is {percent(both)}, where guessing gives 50 %"
    line = next((item for item in task.get("controls") or () if item["name"] == "real"), None)
    best = ((line or {}).get("figures") or {}).get("balanced_accuracy") or {}
    shown = "photographs" if task["test"]["photographs"] else "drawn photographs"
    more = f" and learning from {shown} {percent(best['value'])}" if best.get("value") is not None else ""
    return f"{said}{more}. "


def limits(document: Mapping[str, Any], *, phantom: bool) -> list[str]:
    """What the findings leave open."""
    return [
        "All numbers here are of drawings. They say nothing about people."
        if phantom
        else "How often the face recognition program knows the same patient again, a child or a face with a "
        f"cleft, was {NOT_MEASURED}. It is known to be less sure of children. A likeness that it misses is "
        "in no number here.",
        *upper_ends(document.get("sets") or {}, labels_of(document)),
        "Likeness to people who are in none of the photographs was not looked for.",
        *([] if rated(document) else [UNRATED]),
        "Nothing here shows a use or a harm for a patient.",
    ]


def rated(document: Mapping[str, Any]) -> bool:
    """Whether people rated the images; a program that stood in for them does not count."""
    study = document.get("study") or {}
    return bool(study) and not study.get("simulated")


def upper_ends(sets: Mapping[str, Any], labels: Labels) -> list[str]:
    """The largest share of matches that each count still allows, in one sentence; none of nothing."""
    shares = []
    for name in present(sets, labels):
        found = figure_of(sets, name, "fir_images", "paper", "raw")
        if found and found.get("value") is not None:
            images = f"{labels.name(name).lower()}, {counted_words(found['n'], 'image')}"
            shares.append(f"up to {spread(found['ci95']).partition(' to ')[2]} ({images})")
    said = (
        "A count among so many images leaves a margin. Of all that the model could draw, a larger share may"
    )
    return [f"{said} count as a person in the photographs: {', '.join(shares)}."] if shares else []


def rough(value: float | None) -> str:
    """A proportion as per cent with one decimal, which is as much as such counts can say."""
    if value is not None and 0 < value < 0.0005:
        return LITTLE
    if value is not None and 0.9995 <= value < 1:
        return NEARLY_ALL
    return percent(value if value is None else round(value, 3))


def spread(ci95: Sequence[float]) -> str:
    """`0 % to 0.3 %`: an interval with one decimal, rounded as the tables behind it are."""
    return f"{rough(ci95[0])} to {rough(ci95[1])}"
