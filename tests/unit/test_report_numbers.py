"""Numbers and axes as a reader sees them."""

import re

import pytest

from diffusioncleft.diffusioncleft_core.report.blocks import count, percent
from diffusioncleft.diffusioncleft_core.report.charts import Axis, Chart, decades, round_ticks
from diffusioncleft.diffusioncleft_core.report.training import loss_curve


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.416, "41.6 %"),
        (0.000025, "0.0025 %"),
        (0.000002, "0.0002 %"),
        (0.0049, "0.49 %"),
        (1e-9, "0 %"),
        (None, "none"),
    ],
)
def test_a_share_is_shown_with_the_digits_that_count(value, shown):
    assert percent(value).replace("\u00a0", " ") == shown


def test_a_suppressed_count_is_told_from_none():
    assert (count(None), count(0), count(2000)) == ("<5", "0", "2,000")


def test_ticks_are_round_and_inside_the_axis():
    assert round_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert round_ticks(-0.37, 0.81) == [-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]
    assert round_ticks(3, 3) == [3]
    for step in range(1, 400):
        assert 2 <= len(round_ticks(0, step * 0.0137)) <= 7
    assert decades(0.001, 1) == [0.001, 0.01, 0.1, 1.0]
    assert len(decades(1e-9, 1)) <= 6


@pytest.mark.parametrize("log", [True, False])
def test_nothing_is_drawn_outside_a_plot(log):
    axis = Axis(0.001, 1, "y", log=log)
    chart = Chart("name", "title", "words", Axis(0, 1, "x"), axis)
    chart.line([(-5, -5), (0.5, 0.5), (9, 9)], "pre")
    chart.dots([(-5, 0), (5, 5)], "pre")
    chart.bars([-1, 0, 0.5, 2], [0, 7, 0.2], "pre")
    chart.whisker(0.5, 0, 4, "pre")
    drawn = str(chart.draw())
    numbers = [float(n) for d in re.findall(r' d="([^"]+)"', drawn) for n in re.findall(r"-?\d+\.?\d*", d)]
    assert min(numbers) >= 0 and max(numbers) <= 400


def test_a_loss_history_is_brought_to_few_parts_and_a_short_or_torn_one_is_no_error(tmp_path):
    path = tmp_path / "loss.jsonl"
    path.write_text("".join(f'{{"step": {s}, "loss": {s}, "lr": 1}}\n' for s in range(1, 251)) + '{"st')
    curve = loss_curve(path, bins=50)
    assert len(curve["steps"]) == 50 and curve["steps"][-1] == 250
    assert curve["loss"]["mean"][0] == 3.0 and "reg_loss" not in curve
    path.write_text('{"step": 1, "loss": 2.0, "reg_loss": 1.0, "lr": 1}\n')
    assert loss_curve(path)["reg_loss"]["mean"] == [1.0]
    path.write_text("")
    assert loss_curve(path) == {"steps": []}
