"""What the leak audit found, in sentences that a clinician reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..text import counted, was
from .blocks import NONE, Labels, percent

HEADING = "What the search for leaks found"
EXPLAINED = (
    "A stricter search takes two faces for one person’s only from a likeness of {threshold:.2f} on{rate}, "
    "and takes away what chance alone would find. {control}What is left is the share of images that show "
    "somebody whose photograph the model learned from. A search proves no more than that it found nothing: "
    "the sentences below say how much it could have missed."
)
RATE = " (where it takes {rate} of pairs of strangers for one person)"
BY_CHANCE = "What chance finds is known from many other {faces}. "
NO_RATE = " (the paper’s; how often it mistakes strangers is not known)"
NOT_RUN = "Whether the model file gives its photographs away when it is asked for them was not tried."
UNTOLD = (
    "Whether the model repeats its photographs is not told: it was asked with fewer than five descriptions "
    "that it learned from."
)
UNASKED = "Whether the model repeats its photographs is not known: the photographs have no descriptions."
MISSES_UNKNOWN = " How often the same person is overlooked is not known here, so it may be more."
AUC_LINE = 0.5
"""An AUC of no knowledge at all."""


def rough_percent(value: float, *, up: bool = False) -> str:
    """Per cent with as many digits as a count of images bears; `up`: of an upper end, never rounded down."""
    if 0 < value < 0.01:
        step = 10000
    else:
        step = 1000
    scaled = value * step
    whole = -(-scaled // 1) if up and abs(scaled - round(scaled)) > 1e-6 else round(scaled)
    return percent(min(1.0, whole / step)) if whole else percent(value)


def risk_sentence(risk: Mapping[str, Any]) -> str:
    """What a residual risk says, and what it leaves open, in one or two sentences."""
    if risk["value"] is None:
        return f"Not measured. {risk.get('note', '')}".strip()
    n = counted(risk["n"], "image")
    low, high = risk["ci95"]
    missed = rough_percent(max(high, risk.get("could_be_missed") or 0), up=True)
    attack, control = risk["attack"], risk["control"]
    if not attack["k"]:
        said = f"None found by these attacks among {n}; up to {missed} could be missed."
    elif low > 0:
        said = (
            f"About {rough_percent(risk['value'])} of {n} are leaks, beyond what chance finds (range "
            f"{rough_percent(low)} to {rough_percent(high, up=True)}); up to {missed} with what is missed."
        )
    else:
        chance = rough_percent(control["ci95"][1], up=True)
        said = (
            f"{attack['k']:,} of {n} {was(attack['k'])} found, which is no more than chance allows (up to "
            f"{chance} among other people); up to {missed} could be leaks."
        )
    return said + ("" if risk.get("true_match") else MISSES_UNKNOWN) + unassessed_sentence(risk)


def unassessed_sentence(risk: Mapping[str, Any]) -> str:
    """What images that could not be assessed add to the upper end; "" where there is none."""
    lost = (risk.get("n_no_face") or 0) + (risk.get("n_unreadable") or 0)
    if not lost or risk.get("upper_of_all") is None:
        return ""
    return (
        f" {lost:,} more could not be searched; were each of them a leak, it would be up to "
        f"{rough_percent(risk['upper_of_all'], up=True)} of all."
    )


def copies_sentence(risk: Mapping[str, Any]) -> str:
    """The same of copies of pixels."""
    n = counted(risk["n_images"], "image")
    if risk["value"] is None:
        found = (risk.get("attack") or {}).get("k")
        said = "not counted here" if found is None else f"{found:,} of {n}"
        return f"Copies of photographs: {said}, without a control."
    low, high = risk["ci95"]
    upper = rough_percent(high, up=True)
    if not risk["attack"]["k"]:
        return f"Copies of photographs: none found among {n}; up to {upper} could be missed."
    beyond = "more than chance finds" if low > 0 else "no more than chance allows"
    return f"Copies of photographs: {risk['attack']['k']:,} of {n}, {beyond}; up to {upper} could be copies."


def explained(threshold: Mapping[str, Any], *, phantom: bool) -> str:
    """What is searched for, and at which threshold."""
    stated = threshold.get("stated")
    faces = "drawings" if phantom else "faces"
    return EXPLAINED.format(
        threshold=threshold["value"],
        rate=RATE.format(rate=one_in(stated["rate"])) if stated else NO_RATE,
        control=BY_CHANCE.format(faces=faces) if threshold["source"] == "pack" else "",
    )


def one_in(rate: float) -> str:
    """`1 in 10,000`."""
    return f"1 in {round(1 / rate):,}"


def provenance(threshold: Mapping[str, Any]) -> str:
    """Where a threshold comes from, with its interval and what could not be stated, for who wants details."""
    stated, wanted = threshold.get("stated"), one_in(threshold["wanted"])
    said = {
        "pack": "the calibration that the face pack brings along",
        "photographs": "pairs of these photographs of different people",
        "photographs and control faces": "pairs of these photographs and of the control faces",
        "paper": "the paper, because nothing better could be stated",
    }[threshold["source"]]
    line = f"Threshold of the audit: a cosine of {threshold['value']:.3f}"
    if stated:
        low, high = stated["ci95"]
        line += (
            f" (95 %: {low:.3f} to {high:.3f}) at a false-match rate of {one_in(stated['rate'])} pairs, from "
            f"{said} ({stated['n_pairs']:,} pairs of {stated['n_people']:,} people; {stated['method']})"
        )
    else:
        line += f", from {said}"
    if threshold.get("reason"):
        line += f". {wanted} was asked for: {threshold['reason']}"
    return f"{line}. The paper’s {threshold['paper']:g} stands beside it."


def membership_sentence(membership: Mapping[str, Any]) -> str:
    """Whether the LoRA's loss tells the photographs that were learned from."""
    figure = membership["against_base"]
    if figure.get("value") is None:
        said = "Whether the model file tells which photographs it learned from could not be measured."
        return f"{said} {figure.get('note', '')}".strip()
    low, high = figure["ci95"]
    chances = (
        "A photograph that was learned from is told from one that was not in "
        f"{percent(round(figure['value'], 3))} of such pairs (range {percent(round(low, 3))} to "
        f"{percent(round(high, 3))}; guessing gives 50 %)"
    )
    if low > AUC_LINE:
        return f"{chances}: the model file gives away which photographs it learned from."
    return f"{chances}: that the model file gives them away is not shown, and not ruled out."


def extraction_sentences(extraction: Mapping[str, Any]) -> list[str]:
    """What drawing from the training photographs' own descriptions brought to light."""
    asked = extraction["cliques"]["learned"]
    if asked.get("value") is None:
        return [UNASKED if asked.get("n") == 0 else UNTOLD]
    lines = []
    for key, found in (
        ("cliques", "drew nearly the same picture again and again"),
        ("found", "drew a face of the photographs at least once"),
        ("near_copies", "drew nearly a copy of a photograph at least once"),
    ):
        learned, unseen = extraction[key]["learned"], extraction[key]["unseen"]
        high = rough_percent(learned["ci95"][1], up=True)
        beside = ", without a control"
        if unseen.get("value") is not None:
            beside = f"; of descriptions that it never saw, {unseen['k']:,} of {unseen['n']:,}"
        count = f"{learned['k']:,}" if learned["k"] else NONE
        lines.append(
            f"Asked {extraction['seeds']} times with each of {counted(learned['n'], 'description')} that it "
            f"learned from, the model {found} with {count} of them (up to {high} could do so){beside}."
        )
    return lines


def lora_sentences(audits: Mapping[str, Any], labels: Labels) -> list[str]:
    """What the audits of the model files found, by condition."""
    if not audits:
        return [NOT_RUN]
    lines = []
    for name, audit in audits.items():
        said = []
        if audit.get("membership"):
            said.append(membership_sentence(audit["membership"]))
        if audit.get("extraction"):
            said += extraction_sentences(audit["extraction"])
        lines += [f"{labels.name(name)}: {line[0].lower()}{line[1:]}" for line in said]
    return lines
