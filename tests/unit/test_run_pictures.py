"""The loss plot and the grid of previews: what they show is what there is."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from synthetic_mark import assert_marked

from diffusioncleft.diffusioncleft_core.imageset.synthetic import write_marked
from diffusioncleft.diffusioncleft_core.report.blocks import labels_of
from diffusioncleft.diffusioncleft_core.report.loss_history import loss_history, smoothed
from diffusioncleft.diffusioncleft_core.report.training import loss_curve, loss_plot
from diffusioncleft.trainer.pictures import RunPictures, write_grid
from diffusioncleft.trainer.preview import PreviewPrompt


def history(steps, **more):
    rows = [{"step": step, "loss": 1.0 / step, "lr": 1e-3} for step in range(1, steps + 1)]
    for name, by_step in more.items():
        for step, value in by_step.items():
            rows[step - 1][name] = value
    return rows


@pytest.mark.parametrize("window", [1, 2, 5, 40])
def test_a_smoothed_loss_is_the_mean_of_the_steps_round_it(window):
    values = np.random.default_rng(0).random(30)
    expected = [values[max(0, i - window // 2) : i + (window + 1) // 2].mean() for i in range(30)]
    np.testing.assert_allclose(smoothed(values.tolist(), window), expected)


def test_the_plot_holds_every_number_and_is_the_same_each_time():
    rows = history(40, val_loss={20: 0.5, 40: 0.4}, reg_loss=dict.fromkeys(range(1, 41), 0.2))
    drawing = loss_history(rows)
    lines = drawing.numbers().splitlines()
    assert lines[0] == "step,loss,reg_loss,val_loss,lr"
    assert lines[20] == "20,0.05,0.2,0.5,0.001"
    first, second = (loss_history(rows).render("png")[0] for _ in range(2))
    assert first == second
    assert first != loss_history(history(40)).render("png")[0]
    assert Image.open(io.BytesIO(first)).width > 1200


def test_axes_and_lines_are_named():
    rows = history(40, val_loss={20: 0.5, 40: 0.4}, reg_loss=dict.fromkeys(range(1, 41), 0.2))
    text = loss_history(rows, phantom=True).svg.decode()
    for word in (
        "step",
        "loss",
        "learning rate",
        "training, mean of 2 steps",
        "regularisation",
        "validation",
        "Phantom",
    ):
        assert word in text, word
    assert "validation" not in loss_history(history(40)).svg.decode()


def test_fewer_than_two_steps_are_no_plot():
    assert loss_history(history(1)) is None
    assert loss_history([]) is None


def test_the_reports_curve_has_the_hold_out_too(tmp_path):
    (tmp_path / "loss.jsonl").write_text("\n".join(map(json.dumps, history(40, val_loss={20: 0.5, 40: 0.4}))))
    curve = loss_curve(tmp_path / "loss.jsonl")
    assert curve["val_loss"] == {"steps": [20, 40], "values": [0.5, 0.4]}
    drawing = loss_plot("pre_op", curve, labels_of({}), phantom=False).drawing
    assert "hold-out,20,0.5,," in drawing.numbers().splitlines()
    assert "hold-out" in drawing.svg.decode()
    assert (
        "hold-out"
        not in loss_plot(
            "pre_op", curve | {"val_loss": None}, labels_of({}), phantom=False
        ).drawing.svg.decode()
    )


def preview(folder, step, index, shade, width=64):
    pixels = np.full((64, width, 3), shade, np.uint8)
    write_marked(folder / f"step_{step:06d}_{index:02d}.png", pixels, "a boy", {"step": step})


def test_the_grid_has_a_row_a_prompt_and_a_column_a_step(tmp_path):
    for column, step in enumerate((0, 50, 100)):
        for row in range(2):
            preview(tmp_path, step, row, 60 * column + 20 * row, 64 + 32 * row)
    preview(tmp_path, 150, 0, 255)  # its second one is not there yet
    preview(tmp_path, 200, 0, 255)  # of a longer run before this one
    preview(tmp_path, 200, 1, 255)
    path = write_grid(tmp_path, ["a boy", "a girl with a very long description"], 150)
    sheet = np.asarray(Image.open(path).convert("RGB"))
    assert sheet.shape[1] == 3 * 264 + 8
    middles = [8 + 264 * column + 128 for column in range(3)]
    shades = [{int(value) for value in sheet[:, x, 0]} for x in middles]
    for column, found in enumerate(shades):
        assert {60 * column, 60 * column + 20} <= found
    assert_marked(path, "Previews by step")


def test_pictures_wait_a_minute_and_are_there_at_the_end(tmp_path):
    (tmp_path / "loss.jsonl").write_text("\n".join(map(json.dumps, history(5))))
    (tmp_path / "previews").mkdir()
    preview(tmp_path / "previews", 5, 0, 90)
    pictures = RunPictures(tmp_path, [PreviewPrompt("a boy", 64, 64, 1, 4)], phantom=True)
    pictures.draw(5)
    assert not (tmp_path / "loss.png").exists()
    pictures.draw(5, at_once=True)
    assert (tmp_path / "loss.png").is_file()
    assert (tmp_path / "previews" / "grid.png").is_file()
