"""What `diffusioncleft measure` says: each figure with its interval and its control, and the sets' order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CONTROLS = {
    "fir_pairs": ("paper", "fir_control_pairs", "hold-out photographs"),
    "fir_images": ("paper", "fir_control_images", "hold-out photographs"),
    "near_copies": ("robust", "near_copies_control", "hold-out photographs"),
    "lpips": ("paper", "lpips_reference", "the photographs themselves"),
}
"""Metrics in the order they are shown: profile, the metric of the control, and what that is."""
OVER_VECTORS = {
    "": ("paper", "_holdout", "to hold-out photographs"),
    "_matched": ("robust", "_floor", "half of the photographs to the other"),
    "kid": ("robust", "kid_floor", "hold-out photographs"),
    "precision": ("robust", "", ""),
    "recall": ("robust", "", ""),
    "density": ("robust", "", ""),
    "coverage": ("robust", "", ""),
    "vendi": ("robust", "vendi_reference", "the photographs themselves"),
}
"""The same over each extractor's vectors, by what follows its name, or by their own names."""
FID = "fid"


def summary(sets: Mapping[str, Any], ranking: Mapping[str, Any] | None = None) -> list[str]:
    """A line for each figure of each set, with its interval and its control; the leak audit; the order of
    sets that were compared with the same photographs.
    """
    lines = []
    for name, metrics in sets.items():
        for metric, (profile, control, words) in shown_metrics(metrics).items():
            for variant, figure in metrics.get(metric, {}).get(profile, {}).items():
                beside = beside_it(metric, metrics.get(control), variant, words)
                lines.append(f"{name:<8} {metric:<12} {variant:<8} {shown(metric, figure)}{beside}")
        lines += [f"{name:<8} {line}" for line in audit_lines(metrics)]
    lines += ranking_lines(ranking or {})
    if any(is_phantom(figure) for figure in all_figures(sets)):
        lines.append("phantom models: these values say nothing about photographs")
    return lines


def shown_metrics(metrics: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Profile, control and its words of the metrics that a set has, in the order they are shown."""
    found = dict(CONTROLS)
    extractors = [FID, *(name for name in metrics if f"{name}_kid" in metrics)]
    for name in dict.fromkeys(extractors):
        for ending, (profile, control, words) in OVER_VECTORS.items():
            front = "" if name == FID else f"{name}_"
            joined = ending.startswith("_") or not ending
            metric = f"{name}{ending}" if joined else f"{front}{ending}"
            beside = f"{name}{control}" if control.startswith("_") else f"{front}{control}" if control else ""
            found[metric] = (profile, beside, words)
    return {metric: found[metric] for metric in found if metric in metrics}


def beside_it(metric: str, control: Mapping[str, Any] | None, variant: str, words: str) -> str:
    """The control of a figure with its interval, or that there is none."""
    if not words:
        return ""
    variants = {key: figure for part in (control or {}).values() for key, figure in part.items()}
    figure = variants.get(variant) or next(iter(variants.values()), None)
    if figure is None or figure["value"] is None:
        return "; no control"
    ends = figure.get("ci95") or figure.get("range")
    between = f" ({value_of(metric, ends[0])} to {value_of(metric, ends[1])})" if ends else ""
    return f"; {words}: {value_of(metric, figure['value'])}{between}"


def shown(metric: str, figure: Mapping[str, Any]) -> str:
    """A figure with its interval and its number."""
    if figure["value"] is None:
        return f"not measured: {figure.get('note', '')}".rstrip(".")
    value, ends = value_of(metric, figure["value"]), figure.get("ci95") or figure.get("range")
    counted = f"{figure['k']} of {figure['n']}" if figure.get("k") is not None else f"n = {figure['n']}"
    faceless = f", {figure['n_no_face']} without a face" if figure.get("n_no_face") else ""
    if not ends:
        return f"{value}  ({counted}{faceless})"
    return f"{value}  ({value_of(metric, ends[0])} to {value_of(metric, ends[1])}; {counted}{faceless})"


def value_of(metric: str, value: float) -> str:
    """A value in the report's own words, with plain spaces."""
    from ..diffusioncleft_core.report.metric_names import shown_value

    return shown_value(metric, value).replace("\u00a0", " ")


def ranking_lines(ranking: Mapping[str, Any]) -> list[str]:
    """The sets in order by each metric, and which of the others are surely behind the best."""
    lines = []
    for condition, metrics in ranking.items():
        lines.append(f"sets compared with the same photographs ({condition}), the best first:")
        for metric, part in metrics.items():
            order = ", ".join(place(metric, item) for item in part["sets"])
            lines.append(f"  {metric:<16} {order}")
            best = part["sets"][0]["name"]
            lines += [
                f"  {'':<16} {told_difference(metric, item)}"
                for item in part["differences"]
                if item["first"] == best
            ]
    return lines


def place(metric: str, item: Mapping[str, Any]) -> str:
    return f"{item['name']} {value_of(metric, item['value'])}"


def told_difference(metric: str, item: Mapping[str, Any]) -> str:
    """`b is 3.2 (1.0 to 5.4) above a: beyond chance`."""
    apart = f"{item['second']} is {value_of(metric, abs(item['value']))}"
    above = "below" if item["value"] > 0 else "above"
    if item["ci95"] is None:
        return f"{apart} {above} {item['first']}; too few images for an interval"
    low, high = sorted(end if item["value"] > 0 else -end for end in item["ci95"])
    said = "beyond chance" if item["beyond_chance"] else "could be chance"
    return f"{apart} ({value_of(metric, low)} to {value_of(metric, high)}) {above} {item['first']}: {said}"


def audit_lines(metrics: Mapping[str, Any]) -> list[str]:
    """The audit's attack and control, its residual risk, and what it says."""
    from ..diffusioncleft_core.report.audit_words import risk_sentence

    lines = []
    for suffix in ("", "_second"):
        risk = metrics.get(f"residual_risk{suffix}", {}).get("robust", {}).get("raw")
        if risk is None:
            continue
        label = f"residual_risk{suffix}"
        if risk["value"] is None:
            lines.append(f"{label} raw      not measured: {risk.get('note', '')}")
            continue
        low, high = risk["ci95"]
        lines.append(
            f"{label} raw      {100 * risk['value']:.3f} %  ({100 * low:.3f} to {100 * high:.3f}); "
            f"found {100 * risk['attack']['value']:.3f} %, control ({risk['control']['name']}) "
            f"{100 * risk['control']['value']:.3f} %; from {risk['threshold']:.3f} on"
        )
        lines.append(risk_sentence(risk))
    return lines


def all_figures(sets: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Every figure that has an extractor."""
    from ..diffusioncleft_core.report.measured import figures_of

    return figures_of(sets)


def is_phantom(figure: Mapping[str, Any]) -> bool:
    return bool(figure["extractor"].get("phantom"))
