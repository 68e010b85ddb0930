"""ComfyUI's IMAGE and the core's pictures, without a server; and the progress that a node watches."""

import json

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from report_documents import document

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.progress import progress, watched
from diffusioncleft.diffusioncleft_core.report.drawing import ALARM, COLOURS, UNION
from diffusioncleft.nodes.pictures import batch_of, pixels_of, tensor_of
from diffusioncleft.nodes.plots import map_plot, similarity_plot, training_plot


def test_pixels_survive_the_way_there_and_back_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    assert np.array_equal(pixels_of(tensor_of(pixels))[0], pixels)


def test_lists_of_batches_of_mixed_sizes_grey_and_transparent_pictures_become_rgb():
    found = pixels_of([torch.zeros(2, 4, 6, 3), torch.full((1, 3, 3, 1), 0.5), torch.zeros(1, 2, 2, 4)])
    assert [picture.shape for picture in found] == [(4, 6, 3), (4, 6, 3), (3, 3, 3), (2, 2, 3)]
    assert found[2][0, 0].tolist() == [128, 128, 128]
    assert found[3].min() == 255  # what is transparent is white


@pytest.mark.parametrize("images", [[], torch.zeros(0, 4, 4, 3), [None]])
def test_no_picture_is_a_sentence(images):
    with pytest.raises(UserError, match="there is no picture"):
        pixels_of(images)


@pytest.mark.parametrize("images", [torch.zeros(1, 4, 4, 2), torch.zeros(4, 4), torch.zeros(1, 0, 4, 3)])
def test_what_is_no_picture_is_told_with_its_shape(images):
    with pytest.raises(UserError, match="a picture has the shape"):
        pixels_of(images)


def test_not_a_number_is_not_drawn_as_black():
    with pytest.raises(UserError, match="not-a-number"):
        pixels_of(torch.full((1, 2, 2, 3), float("nan")))


def test_a_batch_holds_pictures_of_all_sizes():
    batch = batch_of([np.zeros((2, 3, 3), np.uint8), np.zeros((4, 1, 3), np.uint8)])
    assert batch.shape == (2, 4, 3, 3)
    assert batch_of([]).shape == (1, 1, 1, 3)


def test_a_watcher_sees_all_progress_and_can_stop_the_work():
    seen = []
    with watched(lambda *told: seen.append(told)):
        assert list(progress(range(2), "faces")) == [0, 1]
        with progress(5, "images") as bar:
            bar.update(3)
            bar.update(2)
    assert seen == [("faces", 0, 2), ("faces", 1, 2), ("images", 3, 5), ("images", 5, 5)]

    def stop(description: str, done: int, total: int) -> None:
        if done:
            raise KeyError("stop")

    worked = []
    with watched(stop), pytest.raises(KeyError):
        for item in progress(range(3), "faces"):
            worked.append(item)
    assert worked == [0]
    assert list(progress(range(2), "unwatched")) == [0, 1]


def holds(picture: np.ndarray, colour: str) -> bool:
    """Whether a hundredth of a per cent of the pixels has the colour."""
    pixels = np.array([round(255 * part) for part in to_rgb(colour)])
    return bool((np.abs(picture.astype(int) - pixels).max(axis=-1) < 3).mean() > 1e-4)


def test_a_nodes_plots_are_the_reports_in_its_colours(tmp_path):
    report = document()
    similarities = report["figures"]["similarity"]
    first, second = (similarity_plot(name, similarities[name], report) for name in ("pre_op", "post_op"))
    assert holds(first, COLOURS["first"]) and not holds(first, COLOURS["second"])
    assert holds(second, COLOURS["second"]) and holds(second, ALARM), "the threshold is not drawn"
    plane = map_plot(report)
    assert holds(plane, COLOURS["first"]) and holds(plane, COLOURS["second"])
    losses = tmp_path / "loss.jsonl"
    losses.write_text("".join(json.dumps({"step": i, "loss": 1 / i}) + "\n" for i in range(1, 9)))
    assert holds(training_plot("pre_op-1", losses), UNION)
    assert {picture.dtype for picture in (first, second, plane)} == {np.dtype(np.uint8)}


def test_a_plot_of_nothing_is_a_sentence_and_no_error(tmp_path):
    report = document()
    report["figures"] |= {"pca": None}
    untold = {"raw": {**report["figures"]["similarity"]["pre_op"]["raw"], "counts": None}}
    empty = [
        similarity_plot("pre_op", {}, report),
        similarity_plot("pre_op", untold, report),
        map_plot(report),
        training_plot("pre_op-1", tmp_path / "loss.jsonl"),
    ]
    for picture in empty:
        assert picture.min() < 128 and not any(holds(picture, colour) for colour in COLOURS.values())


def test_nodes_write_words_on_pictures_in_one_place_and_draw_no_plots_of_their_own(repository):
    drawing = [
        path.name for path in (repository / "nodes").glob("*.py") if "ImageDraw" in path.read_text("utf-8")
    ]
    assert drawing == ["annotated.py"]
