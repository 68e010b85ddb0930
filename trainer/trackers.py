"""TensorBoard and wandb by accelerate's trackers: they get losses and settings, nothing of the images."""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import private_dir
from ..diffusioncleft_core.recipe.document import shared_fields
from ..diffusioncleft_core.recipe.recipe import Recipe

_NAMES = {"loss": "loss/train", "reg_loss": "loss/regularisation", "val_loss": "loss/validation", "lr": "lr"}
"""What is tracked of a row of the loss history, by the trackers' names."""
Track = Callable[[Mapping[str, float]], None]
"""Takes a row of the loss history: `step`, and what `_NAMES` has of it."""


def chosen_trackers(recipe: Recipe) -> tuple[str, ...]:
    """The trackers by name; a folder for logs alone means TensorBoard, as in kohya's scripts."""
    chosen = recipe.tracking
    if chosen.log_with == "all":
        return ("tensorboard", "wandb")
    if chosen.log_with is not None:
        return (chosen.log_with,)
    return ("tensorboard",) if chosen.logging_dir is not None else ()


def check_trackers(recipe: Recipe) -> None:
    """Raise UserError if the package of a tracker is not installed."""
    for name in chosen_trackers(recipe):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--log_with {name} needs a package: pip install {name}")


@contextlib.contextmanager
def tracking(recipe: Recipe, start: int) -> Iterator[Track]:
    """Give a function that tracks the rows of a run that begins after step `start`, and close the trackers.

    recipe: as it may be told. TensorBoard drops what an interrupted run wrote beyond `start`; wandb begins
    another run.
    """
    with contextlib.ExitStack() as stack:
        trackers = []
        for name in chosen_trackers(recipe):
            tracker = _BUILT[name](recipe, start)
            tracker.start()
            stack.callback(tracker.finish)
            if start == 0 or name == "wandb":
                tracker.store_init_configuration(_settings(recipe))
            trackers.append(tracker)

        def track(row: Mapping[str, float]) -> None:
            values = {name: row[key] for key, name in _NAMES.items() if key in row}
            for tracker in trackers:
                tracker.log(values, step=int(row["step"]))

        yield track


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe without its locations, in the types that trackers take."""
    return {
        path: value if isinstance(value, (bool, int, float, str)) else str(value)
        for path, value in shared_fields(recipe).items()
    }


def _tensorboard(recipe: Recipe, start: int) -> Any:
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker(recipe.tracking.tracker_name, _folder(recipe), purge_step=start + 1)


def _wandb(recipe: Recipe, start: int) -> Any:
    """Offline unless the user said otherwise, and without what wandb notes by itself: the command line names
    folders.
    """
    os.environ["WANDB_ERROR_REPORTING"] = (
        "false"  # its reports of faults go out even offline, with tracebacks
    )
    import wandb
    from accelerate.tracking import WandBTracker

    folder = _folder(recipe)
    private_dir(folder)
    unsaid = wandb.Settings(
        console="off",
        silent=True,
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
        program="",
        host="",
    )
    return WandBTracker(
        recipe.tracking.tracker_name,
        name=recipe.tracking.wandb_run_name,
        dir=str(folder),
        mode="online" if recipe.tracking.wandb_online else "offline",
        settings=unsaid,
    )


_BUILT: Mapping[str, Callable[[Recipe, int], Any]] = {"tensorboard": _tensorboard, "wandb": _wandb}


def _folder(recipe: Recipe) -> Path:
    return recipe.tracking.logging_dir or recipe.output.folder / "logs"
