"""Reads a page with the standard parser and lists what a reader of it would stumble over."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


@dataclass(eq=False)
class Element:
    tag: str
    attributes: dict[str, str]
    parents: list["Element"]
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def inside(self, tag: str) -> bool:
        return any(parent.tag == tag for parent in self.parents)


class Page(HTMLParser):
    """Every element of a page, in order, and what is wrong with its nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.problems: list[str] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        self.problems += [f"<{element.tag}> is not closed" for element in self._open]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {name: value or "" for name, value in attrs}, list(self._open))
        if self._open:
            self._open[-1].children.append(element)
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        element = Element(tag, {name: value or "" for name, value in attrs}, list(self._open))
        self.elements.append(element)
        if tag not in VOID and not element.inside("svg"):
            self.problems.append(f"<{tag}/> closes nothing in HTML")

    def handle_endtag(self, tag):
        if not self._open or self._open[-1].tag != tag:
            self.problems.append(f"</{tag}> where {[e.tag for e in self._open[-2:]]} is open")
            return
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element.text += data

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.elements if element.tag in tags]


def problems(text: str, *, alone: bool = True) -> list[str]:
    """What keeps the page from being read by keyboard, without a picture and, if `alone`, by itself."""
    page = Page(text)
    found = list(page.problems)
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    found += [f"id {name} twice" for name in set(ids) if ids.count(name) > 1]
    for element in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            for wanted in element.attributes.get(name, "").split():
                if wanted not in ids:
                    found.append(f"{name} names no id {wanted}")
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            value = element.attributes.get(name)
            if alone and value is not None and not value.startswith(("data:image/", "#")):
                found.append(f"{element.tag} {name}={value[:40]} is outside of the page")
        if any(name.startswith("on") for name in element.attributes):
            found.append(f"{element.tag} has a script")
    for link in page.all("a"):
        if link.attributes["href"].lstrip("#") not in ids:
            found.append(f"link to nowhere: {link.attributes['href']}")
    barred = ("iframe", "link", "object", "embed", *(["script"] if alone else []))
    found += [f"<{e.tag}> has no place here" for e in page.all(*barred)]
    found += [
        f"image without words: {e.parents[-1].text}" for e in page.all("img") if not e.attributes.get("alt")
    ]
    found += [f"{rule} in the style" for rule in re.findall(r"@import|url\(", page.all("style")[0].text)]
    found += tables(page) + plots(page) + outline(page)
    return found


def tables(page: Page) -> list[str]:
    found = []
    for table in page.all("table"):
        inner = [e for e in page.elements if table in e.parents]
        captions = [e for e in inner if e.tag == "caption"]
        if len(captions) != 1 or not captions[0].text.strip():
            found.append("table without a caption")
        found += [
            f"th without scope: {e.text}" for e in inner if e.tag == "th" and "scope" not in e.attributes
        ]
        found += [
            f"th without text in {captions[0].text}" for e in inner if e.tag == "th" and not e.text.strip()
        ]
        found += [f"td without text in {captions[0].text}" for e in inner if cell_is_silent(e)]
        widths = {
            sum(int(c.attributes.get("colspan", 1)) for c in e.children) for e in inner if e.tag == "tr"
        }
        if len(widths) != 1:
            found.append(f"rows of {sorted(widths)} cells in {captions[0].text}")
        region = table.parents[-1].attributes
        if region.get("tabindex") != "0" or region.get("role") != "region" or not region.get("aria-label"):
            found.append("table that can't be scrolled by keyboard")
    return found


def cell_is_silent(element: Element) -> bool:
    return element.tag == "td" and not element.inside("thead") and not element.text.strip()


def plots(page: Page) -> list[str]:
    found = []
    for svg in page.all("svg"):
        if svg.attributes.get("aria-hidden") == "true":
            continue
        inner = {e.tag: e.text for e in page.elements if svg in e.parents}
        if svg.attributes.get("role") != "img" or not inner.get("title") or not inner.get("desc"):
            found.append("plot without words")
    return found


def outline(page: Page) -> list[str]:
    found = []
    html = page.all("html")[0]
    if not html.attributes.get("lang"):
        found.append("page without a language")
    if len(page.all("main")) != 1 or len(page.all("h1")) != 1 or not page.all("title")[0].text.strip():
        found.append("page without one main part, one heading and a title")
    if any("width=device-width" in e.attributes.get("content", "") for e in page.all("meta")) is False:
        found.append("page without a viewport")
    level = 0
    for heading in page.all("h1", "h2", "h3", "h4"):
        if int(heading.tag[1]) > level + 1:
            found.append(f"{heading.tag} after h{level}: {heading.text}")
        level = int(heading.tag[1])
    return found


def luminance(color: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
