"""An erasing that is stopped halfway is finished by the same command: nothing is left that nobody finds."""

import json
import shutil

import numpy as np
import pytest
from drawn_sets import PIXELS, draw_set
from report_documents import document
from safetensors.numpy import save_file

from diffusioncleft.diffusioncleft_core.dataset.drawn import traced
from diffusioncleft.diffusioncleft_core.dataset.folder import ROLES, create_dataset_folder
from diffusioncleft.diffusioncleft_core.dataset.trained import (
    remember_lora,
    remember_training,
    run_fingerprint,
    withdrawing,
)
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import MARK, MARK_LOCK, RUN_KEY
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import sha256_file, write_bytes, write_json
from diffusioncleft.diffusioncleft_core.imageset.shards import WEBDATASET, write_shards
from diffusioncleft.diffusioncleft_core.imageset.storage import Place
from diffusioncleft.diffusioncleft_core.imageset.synthetic import write_image, write_marked
from diffusioncleft.diffusioncleft_core.report.drawing import KINDS
from diffusioncleft.diffusioncleft_core.report.html import write_html
from diffusioncleft.diffusioncleft_core.run import holdings, withdrawal
from diffusioncleft.diffusioncleft_core.run.withdrawal import erase_held, find_withdrawn

pytestmark = pytest.mark.usefixtures("pages_drawn_once")

MATTERS = {"images": "those of a person who withdrew"}
RUN = run_fingerprint(MATTERS)


def withdrawn_run(root):
    """A run with one thing of each kind that a withdrawn training leaves, its LoRA marked."""
    dataset = create_dataset_folder(root / "private" / "pre_op")
    write_json(dataset / ROLES, {"aa": "train"})
    for name in ("stages/filters.json", "faces/a.npz", "nearest.json", "report.private.html"):
        write_bytes(root / "private" / name, b"{}")

    loras = root / "loras" / "pre_op"
    lora = loras / "clp.safetensors"
    for file, header in (
        (lora, {RUN_KEY: RUN}),
        (loras / "clp-step000001.safetensors", {RUN_KEY: RUN}),
        (loras / "state" / "step-000001.safetensors", {"checkpoint": json.dumps({"matters": MATTERS})}),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"a": np.zeros(1, np.float32)}, file, metadata=header)
    for name in ("recipe.json", "loss.jsonl", "loss.png"):
        write_bytes(loras / name, b"{}")
    write_marked(loras / "previews" / "step_000001_00.png", PIXELS, "a face", {})

    drawn = {"lora": traced(lora, sha256_file(lora), 1.0)}
    write_json(draw_set(root / "generated" / "pre_op", 3, moved=True) / "generation.json", drawn)
    shards = root / "shards"
    write_shards(root / "generated" / "pre_op", Place(str(shards), shards), WEBDATASET, loras=[RUN])
    record = {"index": 0, "condition": "pre_op", "prompt": "a face", "seed": 1, "attributes": {}, **drawn}
    record |= {"base": {"sha256": "b" * 64}}
    for seed in (1, 2):
        write_image(root / "copied", PIXELS + seed, record | {"index": seed, "seed": seed})
    for place in (root / "generated" / "pre_op", root / "copied"):
        write_bytes(place / ".faces" / "a.npz", b"a face")
        write_bytes(place / ".measure" / "a.npz", b"features")
    write_marked(root / "sheets" / "a.png", PIXELS, "a sheet", {"loras": [RUN]})

    told = {**document(n=3), "provenance": {"loras": {"pre_op": RUN}}}
    for place in (root / "told", root / "pages"):
        place.mkdir()
        write_html(told, None, place / "report.html")
        write_bytes(place / "figures" / f"{sorted(KINDS)[0]}.png", b"a plot")
    write_json(root / "told" / "report.json", told)
    write_bytes(root / "told" / "summary.md", b"figures")

    write_bytes(root / "copied" / "mine.txt", b"mine")
    remember_training(dataset, RUN, loras)
    remember_lora(dataset, RUN, lora)
    with withdrawing(dataset):
        pass


def erased(root):
    """Find and erase; the kinds of what was there."""
    held, _ = find_withdrawn([root])
    erase_held(held)
    return {item.kind for item in held}


def left(root):
    """The files outside the dataset, but for a mark without what it marks, with its lock, and the words of an
    image that is gone.
    """
    files = {path for path in root.rglob("*") if path.is_file() and path.name != MARK}
    files -= {path for path in files if path.name == MARK_LOCK and path.with_name(MARK).exists()}
    words = {path for path in files if path.parent.name == "copied" and path.suffix == ".json"}
    lonely = {path for path in words if not path.with_suffix(".png").exists()}
    names = {path.relative_to(root).as_posix() for path in files - lonely}
    return {name for name in names if not name.startswith("private/pre_op/")}


@pytest.fixture
def stopped_after(monkeypatch):
    """A function that has the erasing end with an error after so many files and folders; None: go on."""
    real, limit, done = withdrawal.erase, [None], [0]

    def erase(path):
        if done[0] == limit[0]:
            raise UserError("the disk is gone")
        done[0] += 1
        real(path)

    monkeypatch.setattr(withdrawal, "erase", erase)

    def arrange(n):
        limit[0], done[0] = n, 0

    return arrange


def test_wherever_an_erasing_is_stopped_the_next_one_erases_the_rest(tmp_path, monkeypatch, stopped_after):
    work, before = tmp_path / "work", tmp_path / "before"
    monkeypatch.setenv("XDG_STATE_HOME", str(work / "state"))
    withdrawn_run(work / "run")
    shutil.copytree(work, before)
    kinds = {holdings.LORA, holdings.CHECKPOINTS, holdings.IMAGES, holdings.SHEET, holdings.SHARDS}
    kinds |= {holdings.REPORT, holdings.PAGE, holdings.DERIVED}
    assert erased(work / "run") == kinds
    kept = left(work / "run")
    assert kept == {"copied/mine.txt"}

    wrong, n, stopped = {}, 0, True
    while stopped:
        shutil.rmtree(work)
        shutil.copytree(before, work)
        stopped_after(n)
        try:
            erased(work / "run")
            stopped = False
        except UserError:
            stopped_after(None)
            erased(work / "run")
        if left(work / "run") != kept:
            wrong[n] = sorted(left(work / "run") - kept)
        n += 1
    assert n > 20 and wrong == {}
