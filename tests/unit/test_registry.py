"""What ComfyUI's registry reads from pyproject.toml, by its published rules; no address is made up."""

import re
import tomllib
import xml.etree.ElementTree as ElementTree
from urllib.parse import urlsplit

import pytest

PLACEHOLDERS = ("example.", "your-", "yourname", "<", "todo", "localhost")
URLS = {"Homepage", "Repository", "Documentation", "Bug Tracker", "Issues"}


@pytest.fixture(scope="module")
def pyproject(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_name_is_one_that_the_registry_takes_and_the_version_has_three_parts(pyproject):
    name = pyproject["project"]["name"]
    assert re.fullmatch(r"[a-z][a-z0-9._-]{0,99}", name) and not re.search(r"[._-]{2}", name)
    assert "comfy" not in name
    assert re.fullmatch(r"\d+\.\d+\.\d+", pyproject["project"]["version"])
    assert pyproject["tool"]["comfy"]["DisplayName"]
    assert re.fullmatch(r"[a-z0-9-]+", pyproject["tool"]["comfy"]["PublisherId"])


def test_every_address_is_a_whole_one_and_no_placeholder(pyproject):
    given = dict(pyproject["project"].get("urls", {}))
    assert set(given) <= URLS
    assert not given or "Repository" in given
    if icon := pyproject["tool"]["comfy"]["Icon"]:
        given["Icon"] = icon
    for name, address in given.items():
        parts = urlsplit(address)
        assert parts.scheme == "https" and "." in parts.netloc and parts.path.strip("/"), (name, address)
        assert not any(word in address.lower() for word in PLACEHOLDERS), (name, address)


def test_what_a_publisher_fills_in_is_written_down_while_it_is_missing(pyproject, repository):
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    steps = text.split("## Publishing")[1].split("## ")[0]
    for word in ("[project.urls]", "Repository", "Documentation", "Bug Tracker", "PublisherId", "Icon"):
        assert word in steps, word
    assert "comfy node validate" in steps and "<this repository>" in steps


def test_the_icon_is_square_and_small_enough(repository):
    icon = ElementTree.parse(repository / "docs" / "images" / "icon.svg").getroot()
    width, height = (int(icon.get(side)) for side in ("width", "height"))
    assert width == height <= 400
    assert not [value for part in icon.iter() for value in part.attrib.values() if "http" in value]


def test_the_releases_that_are_asked_for_are_those_that_the_docs_name_as_tested(pyproject, repository):
    asked = pyproject["tool"]["comfy"]["requires-comfyui"]
    oldest = re.fullmatch(r">=(\d+\.\d+\.\d+)", asked)[1]
    told = " ".join((repository / "docs" / "comfyui.md").read_text(encoding="utf-8").split())
    tested = re.findall(r"\d+\.\d+\.\d+", re.search(r"its tests are run on (.*?)\. ", told)[1] + ".")
    by_age = sorted(tested, key=lambda version: [int(part) for part in version.split(".")])
    assert by_age[0] == oldest
    assert f"needs ComfyUI {oldest} or later" in told


def test_no_dependency_pins_what_comfyui_brings(pyproject):
    for line in pyproject["project"]["dependencies"]:
        assert line in ("torch", "torchvision", "numpy") or not re.match(r"(torch|torchvision|numpy)\b", line)
