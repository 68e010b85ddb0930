"""By what the LoRAs behind a report's figures are known, in its document and in its page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE_LORAS = "diffusioncleft-loras"
"""Name of the page's meta element: a page that lies apart from its document says itself what it shows."""
_HEAD = 4096
"""Bytes of a page in which the element stands."""
_META = re.compile(rf'<meta name="{PAGE_LORAS}" content="([^"]*)">')


def report_loras(document: Mapping[str, Any]) -> list[str]:
    """By what the LoRAs behind a report, or behind figures that `diffusioncleft measure` wrote, are known."""
    training, provenance = document.get("training"), document.get("provenance")
    found: list[Any] = []
    if document.get("schema") == 1 and isinstance(training, Mapping):
        found += [facts.get("lora_sha256") for facts in training.values() if isinstance(facts, Mapping)]
    if document.get("schema") == 1 and isinstance(provenance, Mapping):
        for key in ("loras", "trainings"):
            named = provenance.get(key)
            found += list(named.values()) if isinstance(named, Mapping) else []
    return [name for lora in found if isinstance(lora, str) for name in lora.split()]


def page_loras(path: Path) -> list[str]:
    """The same of a page that `diffusioncleft report` or `run` wrote; none of any other HTML file."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", "replace")
    except OSError:
        return []
    found = _META.search(head)
    return found[1].split() if found else []
