"""The mark "synthetic" as others read it: text chunks, XMP packet and sidecar of a PNG."""

import json
from pathlib import Path

from PIL import Image

from diffusioncleft.diffusioncleft_core.files import sha256_file


def assert_marked(path: Path, description: str, *, sidecar: bool = True) -> None:
    """The PNG says in all three places that it is synthetic, and what of."""
    with Image.open(path) as image:
        assert image.info["synthetic"] == "true", path
        assert image.info["Software"] == "diffusioncleft", path
        assert image.info["digital_source_type"].endswith("/trainedAlgorithmicMedia"), path
        packet = image.info["XML:com.adobe.xmp"]
    assert "trainedAlgorithmicMedia" in packet and description in packet, path
    if sidecar:
        said = json.loads(path.with_suffix(".json").read_text("utf-8"))
        assert said["synthetic"] is True and said["file"] == path.name
        assert said["digital_source_type"].endswith("/trainedAlgorithmicMedia")
        assert said["png_sha256"] == sha256_file(path)
