"""Every PNG of generated pixels is written in one place, with the whole mark."""

import ast
import sys
import types

import numpy as np
import torch
from PIL import Image
from synthetic_mark import assert_marked

from diffusioncleft.diffusioncleft_core.imageset.places import sidecar_of
from diffusioncleft.diffusioncleft_core.imageset.synthetic import (
    contact_sheet,
    drawn_by,
    is_ours,
    lora_of_image,
    write_image,
)
from diffusioncleft.nodes.pictures import preview_synthetic
from diffusioncleft.trainer.preview import PreviewPrompt, _save

WRITES_PNG = {
    "diffusioncleft_core/imageset/synthetic.py": "generated pixels, marked",
    "diffusioncleft_core/dataset/folder.py": "photographs, without metadata",
    "diffusioncleft_core/dataset/copies.py": "thumbnails of photographs, in their dataset",
    "diffusioncleft_core/phantom/photographs.py": "rendered stand-ins for photographs",
    "diffusioncleft_core/study/blind.py": "pictures of a study, which nothing may tell apart",
    "cli/checkup/training.py": "noise to train a step on, erased again",
}
PIXELS = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def saves_png(tree: ast.AST) -> bool:
    """Whether a module saves an image as a PNG with Pillow."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "save":
            values = [*node.args, *(keyword.value for keyword in node.keywords)]
            if any(isinstance(value, ast.Constant) and value.value == "PNG" for value in values):
                return True
    return False


def test_no_other_module_writes_pngs(repository):
    found = set()
    for room in ("diffusioncleft_core", "cli", "nodes", "trainer"):
        for path in (repository / room).rglob("*.py"):
            if saves_png(ast.parse(path.read_text("utf-8"))):
                found.add(path.relative_to(repository).as_posix())
    assert found == set(WRITES_PNG)


def test_images_sheets_and_previews_carry_the_whole_mark(tmp_path):
    record = {"prompt": "[CLP] a girl & a boy", "seed": 7, "index": 3, "base": {"sha256": "b"}, "lora": None}
    write_image(tmp_path, PIXELS, record)
    assert_marked(tmp_path / "000003_7.png", "[CLP] a girl &amp; a boy")
    sheet = [(PIXELS, label) for label in ("one", "two", "three")]
    contact_sheet(sheet, tmp_path / "sheet.png", title="Three faces")
    assert_marked(tmp_path / "sheet.png", "Three faces")
    preview = PreviewPrompt("[CLP] a boy", 64, 48, 9, 4)
    _save(tmp_path / "step_000010_00.png", torch.zeros(3, 48, 64), preview, 10)
    assert_marked(tmp_path / "step_000010_00.png", "[CLP] a boy")
    assert all(is_ours(path) for path in tmp_path.glob("*.png"))
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    Image.fromarray(PIXELS).save(tmp_path / "foreign.png")
    assert is_ours(tmp_path / "damaged.png") is is_ours(tmp_path / "foreign.png") is False


def test_a_picture_that_is_shown_on_a_node_carries_the_mark_too(tmp_path, monkeypatch):
    comfy = types.SimpleNamespace(get_temp_directory=lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "folder_paths", comfy)
    (shown,) = preview_synthetic([PIXELS], "Preview of a training.")["images"]
    assert shown["type"] == "temp"
    assert_marked(tmp_path / shown["filename"], "Preview of a training.", sidecar=False)


def test_a_record_of_several_loras_is_known_by_each_of_them():
    others = [{"sha256": "b" * 64, "strength": 0.5, "training": "c" * 64}, {"sha256": "d" * 64}]
    record = {"sha256": "unknown", "strength": 1.0, "others": others}
    assert drawn_by(record) == {"unknown", "b" * 64, "c" * 64, "d" * 64}
    assert drawn_by({"sha256": "a" * 64, "others": "damaged"}) == {"a" * 64}
    assert drawn_by(None) == set()


def test_a_picture_without_its_sidecar_still_names_every_lora_that_drew_it(tmp_path):
    lora = {"sha256": "a" * 64, "strength": 1.0, "others": [{"sha256": "b" * 64, "training": "c" * 64}]}
    row = {"index": 0, "seed": 1, "prompt": "a face", "base": {"sha256": "e" * 64}, "lora": lora}
    written = write_image(tmp_path, PIXELS, row)
    path = tmp_path / written["file"]
    sidecar_of(path).unlink()
    assert lora_of_image(path) == {"a" * 64, "b" * 64, "c" * 64}
