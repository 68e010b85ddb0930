"""The doctor's parts: steps that fail for themselves alone, texts without names, the estimate."""

import platform
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import recipe_of
from tiny_flux import build_single_files, build_tiny_flux

from diffusioncleft.cli import doctor
from diffusioncleft.cli import main as cli
from diffusioncleft.cli.checkup import environment, face_pack, loading
from diffusioncleft.cli.checkup import loading as reload
from diffusioncleft.cli.checkup import models as model_files
from diffusioncleft.cli.checkup import training as pictures
from diffusioncleft.cli.checkup.checkup import Checkup, DoctorSettings, Found, PlannedRun
from diffusioncleft.cli.checkup.environment import duration, estimated
from diffusioncleft.cli.checkup.examination import BEGIN, END, document, examine, markdown, steps_of
from diffusioncleft.cli.checkup.redaction import Redaction
from diffusioncleft.cli.checkup.steps import Failed, Skipped, Step, run_steps
from diffusioncleft.cli.checkup.training import telling
from diffusioncleft.cli.doctor import workspace
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux.lora import attach_lora, lora_state
from diffusioncleft.diffusioncleft_core.flux.lora_file import save_kohya
from diffusioncleft.diffusioncleft_core.flux.source import examined_source, phantom_source
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer
from diffusioncleft.diffusioncleft_core.recipe.presets import named_recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return build_tiny_flux(tmp_path_factory.mktemp("doctor") / "flux")


def no_trainer(arguments, on_event, stop):
    raise AssertionError("the trainer must not start")


def checkup_of(base: Path, workspace: Path, **values) -> Checkup:
    workspace.mkdir(parents=True, exist_ok=True)
    source, absent = examined_source(base)
    settings = DoctorSettings(
        **{
            "source": source,
            "absent": absent,
            "recipe": recipe_of(pretrained_model_name_or_path=base, resolution=(64,)),
            "device": CPU,
            "dtype": torch.float32,
            "faces": "phantom",
            "workspace": workspace,
            **values,
        }
    )
    return Checkup(settings, no_trainer)


def silent(number, step):
    pass


def test_a_failing_step_takes_along_only_those_that_need_it():
    def fails():
        raise UserError("the file is empty; get it again")

    def breaks():
        return {"quotient": 1 // 0}

    def declines():
        raise Skipped("there is nothing to do")

    def finds():
        raise Failed("too small", "take a larger one", {"side": 3})

    told = []
    results = run_steps(
        [
            Step("a", "it fails", fails),
            Step("b", "it needs a", dict, ("a",)),
            Step("c", "it needs b", dict, ("b",)),
            Step("d", "it has a fault", breaks),
            Step("e", "it declines", declines),
            Step("f", "it finds something", finds),
            Step("g", "it is fine", lambda: {"n": 1}, ()),
        ],
        "cpu",
        lambda number, step: told.append((number, step.name)),
    )
    outcomes = [(result.name, result.outcome) for result in results]
    assert outcomes == [
        ("a", "failed"), ("b", "skipped"), ("c", "skipped"), ("d", "failed"), ("e", "skipped"),
        ("f", "failed"), ("g", "ok"),
    ]  # fmt: skip
    assert (results[0].message, results[0].hint) == ("the file is empty", "get it again")
    assert (
        results[1].message == "needs a, which failed" and results[2].message == "needs b, which was skipped"
    )
    assert "ZeroDivisionError" in results[3].message and "report" in results[3].hint
    assert results[5].figures == {"side": 3}
    assert told == [(number, name) for number, name in enumerate("abcdefg", start=1) for _ in range(2)]


def test_every_step_needs_only_steps_before_it(flux, tmp_path):
    seen = set()
    for step in steps_of(checkup_of(flux, tmp_path / "w")):
        assert set(step.needs) <= seen, step.name
        seen.add(step.name)


def test_texts_lose_paths_files_people_and_computers(tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "jroe")
    base = tmp_path / "Jane Roe" / "my flux" / "model of june.safetensors"
    text = Redaction([base, Path("Hospital X/photo 12.jpg")])
    for message in (
        f"{base} is damaged",
        f"in {base.parent}/vae/config.json",
        "model of june.safetensors is empty",
        "there is no file Hospital X/photo 12.jpg",
        "the folder my flux of Jane Roe",
        "/home/jroe/x y, C:\\Users\\jroe\\a.png and ~/secret/b and \\\\server\\share",
        "OSError: 'IMG_0001.HEIC' of jroe",
        f"host {platform.node()}" if len(platform.node()) > 2 else "host",
    ):
        said = text(message)
        for secret in (
            "Jane", "Roe", "june", "my flux", "Hospital", "photo 12", "jroe", "Users", "secret", "server",
            "IMG_0001", str(tmp_path), platform.node() or "?",
        ):  # fmt: skip
            assert secret not in said, (message, said)


def test_a_missing_face_pack_is_told_without_its_name_or_the_folders(flux, tmp_path, monkeypatch, capsys):
    packs = tmp_path / "Dr Roe" / "packs of june"
    packs.mkdir(parents=True)
    monkeypatch.setenv("DIFFUSIONCLEFT_FACE_PACKS", str(packs))
    arguments = ["--base", str(flux), "--faces", "clinic_pack", "--resolution", "64", "--device", "cpu"]
    parser = cli._command_parser("doctor", cli._load("doctor"))
    args = parser.parse_args(arguments)
    checkup = Checkup(doctor.settings_from(args, tmp_path), no_trainer)
    with pytest.raises(UserError) as error:
        face_pack.opens(checkup)
    said = Redaction(doctor._named(args, checkup))(str(error.value))
    assert "clinic_pack" in str(error.value) and "face pack" in said
    for secret in ("clinic_pack", "Roe", "june", str(tmp_path)):
        assert secret not in said, said


def test_texts_keep_what_is_no_name():
    text = Redaction([Path("/work/main/models/flux")])
    for message in (
        "alpha / rank, n/a and 3/4 of FLUX.1",
        "ValueError: a picture of 768 x 768 (at doctor.reload:44)",
        "main memory has no room for the work of the models",
        "torch 2.14.1, NVIDIA GeForce RTX 4090, Linux x86_64",
    ):
        assert text(message) == message


def test_the_estimate_follows_what_was_measured():
    found = Found(
        step_seconds=2.0, start_seconds=30.0, image_seconds=3.0, prompt_seconds=0.5, encode_seconds=0.1,
        face_seconds=0.2, image_bytes=1000, lora_parameters=10,
    )  # fmt: skip
    robust = named_recipe("robust", phantom=True)
    paper = estimated(found, PlannedRun(100, 1000, "paper"), named_recipe("paper"), 512)
    assert paper.training == pytest.approx(100 * (10 * 2.0 + 0.1 + 0.5) + 2 * 30)
    assert paper.generation == pytest.approx(1000 * 3.5)
    assert paper.filters == pytest.approx(1100 * 0.2)
    found.filter_seconds = 0.3
    assert estimated(found, PlannedRun(100, 1000), robust, 512).filters == pytest.approx(1100 * 0.3)
    batches = 20 * 7 * 2  # 20 epochs of two conditions' 50 photographs in eights
    epochs = estimated(found, PlannedRun(100, 1000), robust, 512)
    assert epochs.training == pytest.approx(batches * 2.0 + 100 * 0.6 + 2 * 30)
    assert paper.disk == 1000 * 1000 + 100 * (8 << 20) + 100 * 16 * 64 * 64 * 4 + 2 * 30 * 10
    assert [duration(s) for s in (0.2, 40, 95, 7320)] == ["1 s", "1 min", "2 min", "2 h 2 min"]


def test_a_real_base_without_a_gpu_is_declined_before_it_is_loaded(flux, tmp_path):
    checkup = checkup_of(flux, tmp_path / "w")
    checkup.found.parameters = 11_900_000_000
    with pytest.raises(Failed, match="12 billion parameters") as failure:
        environment.room(checkup)
    assert "CUDA" in failure.value.hint


def test_a_truncated_transformer_fails_alone(tmp_path):
    broken = tmp_path / "Jane Roe" / "flux"
    shutil.copytree(phantom_source().folder, broken)
    file = next((broken / "transformer").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    checkup = checkup_of(broken, tmp_path / "w")
    results = {result.name: result for result in examine(checkup, silent)}
    failed = results["transformer file"]
    assert failed.outcome == "failed" and "damaged" in failed.message and failed.hint == "download it again"
    for name in ("autoencoder file", "text encoder files", "disk", "autoencoder", "text encoders"):
        assert results[name].outcome == "ok", results[name]
    for name in ("schnell", "transformer", "training", "reload", "estimate"):
        assert results[name].outcome == "skipped", results[name]
    assert "phantoms and nothing else" in results["face pack"].message
    told = document(list(results.values()), checkup.notes, Redaction([broken, file]), phantom=False)
    block = markdown(told)
    assert block.startswith(BEGIN) and block.endswith(END) and not told["ok"]
    assert "Jane" not in block and file.name not in block and "**failed**" in block


def test_a_truncated_single_file_is_a_finding_too(flux, tmp_path):
    files = build_single_files(flux, tmp_path / "files")
    files["transformer"].write_bytes(files["transformer"].read_bytes()[:-1000])
    files["vae"].unlink()
    checkup = checkup_of(files["transformer"], tmp_path / "w")
    with pytest.raises(UserError, match="damaged"):
        model_files.transformer(checkup)
    with pytest.raises(UserError, match=r"ae\.safetensors"):
        model_files.autoencoder(checkup)
    assert model_files.text_encoders(checkup)["t5_stored_as"] == "F32"


def test_another_size_than_schnells_is_told_and_stops_nothing(flux, tmp_path):
    checkup = checkup_of(flux, tmp_path / "w")
    for look in (model_files.transformer, model_files.autoencoder, model_files.text_encoders):
        look(checkup)
    with pytest.raises(Failed, match="num_layers 2 instead of 19"):
        model_files.is_schnell(checkup)


def test_models_that_measure_are_looked_for_and_their_absence_is_told(flux, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("DIFFUSIONCLEFT_WEIGHTS", str(tmp_path / "weights"))
    checkup = checkup_of(flux, tmp_path / "w")
    with pytest.raises(Failed) as failure:
        model_files.measuring(checkup)
    assert failure.value.figures["inception-fid"] == failure.value.figures["lpips-alexnet"] == "missing"
    assert "weights fetch inception-fid" in failure.value.hint
    damaged = tmp_path / "weights" / "pt_inception-2015-12-05-6726825d.pth"
    damaged.parent.mkdir()
    damaged.write_bytes(b"not it")
    with pytest.raises(Failed) as failure:
        model_files.measuring(checkup)
    assert failure.value.figures["inception-fid"] == "damaged"


def test_a_full_disk_is_told_in_one_sentence(flux, small_disk):
    checkup = checkup_of(flux, small_disk / "w")
    with pytest.raises(Failed, match=r"the disk has 0\.00 GiB free"):
        environment.disk(checkup)


def write_lora(flux: Path, path: Path, spread: float) -> Path:
    transformer = load_transformer(examined_source(flux)[0], CPU, torch.float32)
    attach_lora(transformer, 4, 8.0, seed=1)
    state = lora_state(transformer)
    generator = torch.Generator().manual_seed(5)
    for key, value in state.items():
        if "lora_B" in key:
            state[key] = spread * torch.randn(value.shape, generator=generator)
    save_kohya(path, state, 8.0, {})
    return path


@pytest.mark.parametrize("form", ["folder", "single files"])
def test_diffusers_draws_the_same_picture_from_either_form(flux, tmp_path, form):
    base = flux if form == "folder" else build_single_files(flux, tmp_path / "files")["transformer"]
    checkup = checkup_of(base, tmp_path / "w")
    for look in (model_files.transformer, loading.text_encoders, loading.transformer):
        look(checkup)
    checkup.found.lora = write_lora(flux, tmp_path / "lora.safetensors", 0.2)
    figures = reload.same_picture(checkup)
    assert figures["psnr_db"] >= 60 and figures["without_lora_db"] < 50
    checkup.found.lora = write_lora(flux, tmp_path / "faint.safetensors", 0.0)
    with pytest.raises(Failed, match="proves nothing"):
        reload.same_picture(checkup)


def test_metadata_that_name_the_folder_are_found(tmp_path):
    assert telling({"a": "3", "b": f"x {tmp_path}/y"}, tmp_path) == ["b"]


def test_psnr_is_in_decibels():
    black = torch.zeros(3, 8, 8)
    assert pictures.psnr(black, black) == 99.0
    assert pictures.psnr(black, black + 0.1) == pytest.approx(20.0, abs=1e-4)


def test_rendered_training_pictures_differ():
    first, second = pictures.phantom_pictures(2, 64, seed=0)
    assert first.shape == (64, 64, 3) and not np.array_equal(first, second)


def test_the_temporary_folder_is_erased_and_a_given_one_kept(tmp_path):
    with pytest.raises(RuntimeError), workspace(None) as folder:
        (folder / "picture.png").write_bytes(b"x")
        raise RuntimeError
    assert not folder.exists()
    for _ in range(2):
        with workspace(tmp_path / "out") as kept:
            assert list(kept.iterdir()) == []
            (kept / "picture.png").write_bytes(b"x")
    assert (kept / "picture.png").exists()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"), workspace(tmp_path / "out"):
        pass


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "no base model"),
        (["--base", "nowhere"], "nowhere"),
        (["--phantom", "--base", "x"], "leave out"),
        (["--phantom", "--resolution", "100"], "--resolution 100"),
    ],
)
def test_a_mistake_in_the_options_is_one_line(arguments, word, capsys):
    assert cli.main(["doctor", *arguments]) == 2
    error = capsys.readouterr().err
    assert word in error and error.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_line(read_only_folder, capsys):
    assert cli.main(["doctor", "--phantom", "--out", str(read_only_folder / "x")]) == 2
    error = capsys.readouterr().err
    assert "permission" in error and error.count("\n") == 1
