"""Numbers as a reader sees them."""

import pytest

from diffusioncleft.diffusioncleft_core.report.blocks import count, percent
from diffusioncleft.diffusioncleft_core.report.metric_names import shown_value
from diffusioncleft.diffusioncleft_core.report.training import loss_curve
from diffusioncleft.diffusioncleft_core.study.statistics.words import interval


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
        (-1e-9, "0 %"),
        (None, "none"),
    ],
)
def test_a_share_is_shown_with_the_digits_that_count(value, shown):
    assert percent(value).replace("\u00a0", " ") == shown


def test_what_is_rounded_to_zero_has_no_sign():
    assert shown_value("kid", -0.00001) == "0.0000" and shown_value("kid", -0.0002) == "-0.0002"
    assert interval({"value": -0.001, "ci95": [-0.2, 0.004]}, sign=True).startswith("+0.00 (")


def test_a_suppressed_count_is_told_from_none():
    assert (count(None), count(0), count(2000)) == ("<5", "0", "2,000")


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
