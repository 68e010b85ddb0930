"""What the figures of a question say, in sentences that claim no more than they do.

Never “significant”: the effect with its interval, and whom it is about. Two raters are called two raters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...text import counted
from .intervals import ENOUGH_RATERS, FEWEST_IMAGES
from .summary import ALL

NUMBERS = ("no", "one", "two", "three", "four", "five")
SIMULATED = (
    "The raters of this study are simulated: no person judged a picture, and nothing here is about one."
)
LEFT_OUT = (
    "What is told over all images, such as agreement, leaves out the sets of fewer than five photographs: "
    "nothing is told of these."
)
FREQUENT = 0.75
"""Share of one answer from which kappa falls whatever the raters do."""
PERCENT = "\u00a0%"
"""Keeps the number and its sign on one line."""


def number(n: int) -> str:
    """A small number as a word."""
    return NUMBERS[n] if n < len(NUMBERS) else f"{n:,}"


def named(name: str) -> str:
    """A set's or condition's name as text: `pre_op` → `pre-op`."""
    return name.replace("_op", "-op").replace("_", " ")


def interval(figure: Mapping[str, Any], places: int = 2, sign: bool = False) -> str:
    """`4.81 (95 %: 4.70 to 4.90)`."""
    form = f"{'+' if sign else ''}z.{places}f"
    low, high = figure["ci95"]
    return f"{figure['value']:{form}} (95{PERCENT}: {low:{form}} to {high:{form}})"


def per_cent(figure: Mapping[str, Any]) -> str:
    """`93 % (95 %: 85 to 97 %)`."""
    low, high = figure["ci95"]
    return f"{100 * figure['value']:.0f}{PERCENT} (95{PERCENT}: {100 * low:.0f} to {100 * high:.0f}{PERCENT})"


def about_raters(n: int) -> str:
    """Whom the study speaks of."""
    if n >= ENOUGH_RATERS:
        return (
            f"{number(n).capitalize()} raters: intervals of means and differences count other images and "
            "other raters like these; those of agreement and of real or generated count other images only."
        )
    if n == 1:
        return "One rater: every interval counts other images, and nothing here is about other raters."
    return (
        f"These are {number(n)} raters: every interval counts other images, rated by the same "
        f"{number(n)}; how other raters would judge can't be told from so few."
    )


def of_margin(margin: float, origin: str) -> str:
    """Where the margin is from, and whether it was stated before the data."""
    return f"The margin of equivalence is ±{margin:g}: {origin}."


def of_means(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The mean of every origin, over all its images."""
    said = []
    for cell in cells:
        if cell["condition"] != ALL or cell["mean"] is None:
            continue
        said.append(
            f"{named(cell['origin']).capitalize()}: mean {interval(cell['mean'])} from "
            f"{counted(cell['images'], 'image')}; {per_cent(cell['high_share'])} of the ratings are "
            f"{cell['high_share']['from']} or more."
        )
    return said


def of_comparison(found: Mapping[str, Any]) -> str:
    """The difference, the verdict on equivalence, and what the study could have found."""
    where = "" if found["condition"] == ALL else f" ({named(found['condition'])})"
    what = f"{named(found['origin']).capitalize()} less real{where}"
    if found["difference"] is None:
        return f"{what}: not told, there are fewer than five photographs."
    margin, power = found["margin"], found["power"]
    if found["equivalent"]:
        verdict = f"The whole interval lies within the margin of ±{margin:g}: equivalent by that margin."
    else:
        verdict = (
            f"The interval reaches beyond the margin of ±{margin:g}: equivalence is not shown, which is no "
            "proof of a difference."
        )
    said = (
        f"{what}: {interval(found['difference'], sign=True)}, {found['images']} against "
        f"{counted(found['real_images'], 'image')}. {verdict}"
    )
    if found["condition"] != ALL:
        return said
    if min(found["images"], found["real_images"]) < FEWEST_IMAGES:
        return f"{said} What a study of this size could find can't be told from so few images."
    return (
        f"{said} A study of this size finds a true difference of {power['detectable']:.2f} in four of five "
        f"cases, and shows equivalence by this margin in {100 * power['equivalence']:.0f}{PERCENT} where "
        "there is none."
    )


def of_ordinal(found: Mapping[str, Any]) -> str:
    """The second opinion."""
    if "missing" in found:
        return f"Second opinion, an ordinal model: none. {found['missing']}"
    return (
        "Second opinion, an ordinal model: a generated image is rated above a real one with a chance of "
        f"{per_cent(found['superiority'])}; 50{PERCENT} is no difference."
    )


def of_agreement(found: Mapping[str, Any]) -> str:
    """The agreement, whether it is more than chance, and why kappa falls where nearly all say the same."""
    exact, chance, ac2 = found["agreement"], found["chance"], found["ac2"]
    said = (
        f"Two raters give the same answer on {per_cent(exact)} of the images; by chance, each answering as "
        f"often as it did, {100 * chance:.0f}{PERCENT}. AC2 {interval(ac2)}."
    )
    mode, kappa = found["mode"], found["kappa"]["value"]
    value = "can't be computed" if kappa is None else f"is {kappa:.2f}"
    often = f"{100 * mode['share']:.0f}{PERCENT} of the ratings are {mode['answer']}"
    if exact["ci95"][0] <= chance:
        cause = f" {often}, and" if mode["share"] >= FREQUENT else ""
        return (
            f"{said} Agreement beyond chance is not shown:{cause} raters who did not look and answered as "
            f"often would agree about as much. Kappa {value}; a high AC2 says that the answers are alike, "
            "not that the raters see the same in an image."
        )
    if mode["share"] >= FREQUENT:
        said += (
            f" Kappa {value}: {often}, so much of the agreement is to be expected by chance and kappa "
            "divides by what is left; AC2 does not count agreement on a frequent answer as luck, and is the "
            "one to read."
        )
    return said


def of_repeats(found: Mapping[str, Any]) -> str:
    """A rater against himself."""
    return (
        f"Shown {counted(found['pictures'], 'picture')} twice, a rater gave the same answer on "
        f"{per_cent(found['same'])} of them."
    )


def of_ages(found: Mapping[str, Any]) -> str:
    """The paper's hypothesis, of one origin."""
    what = f"{named(found['origin']).capitalize()}, {named(found['condition'])}"
    difference = found["baby_less_older"]
    if difference is None:
        return f"{what}: too few images to compare babies with older faces."
    low, high = difference["ci95"]
    if low > 0:
        verdict = "older faces are rated lower, as the paper supposes of faces before repair"
    elif high < 0:
        verdict = "older faces are rated higher; of faces before repair the paper supposes the contrary"
    else:
        verdict = "neither sign is ruled out"
    return f"{what}: babies less older faces {interval(difference, sign=True)}; {verdict}."


def of_marks(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """How often a place was marked, of every origin over all its images."""
    return [
        f"{named(cell['origin']).capitalize()}: a place was marked in {per_cent(cell['marked'])} of the "
        f"ratings ({cell['marked']['n']} of {cell['ratings']}, {counted(cell['images'], 'image')})."
        for cell in cells
        if cell["condition"] == ALL and cell["marked"] is not None
    ]


def of_detection(found: Mapping[str, Any]) -> str:
    """Real or generated, against chance."""
    low, high = found["accuracy"]["ci95"]
    if low > 0.5:
        verdict = f"better than chance (50{PERCENT})"
    elif high < 0.5:
        verdict = f"worse than chance (50{PERCENT}): pictures are told apart and called the wrong way round"
    else:
        verdict = f"chance (50{PERCENT}) is not ruled out"
    return (
        f"{named(found['origin']).capitalize()} and real pictures are called what they are in "
        f"{per_cent(found['accuracy'])} of cases, both kinds counting alike; {verdict}. "
        f"d′ {interval(found['d_prime'])}, bias {interval(found['bias'], sign=True)}: above 0 the raters "
        "rather say real."
    )
