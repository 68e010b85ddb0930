"""A training as the nodes see it: settings from widgets, a private run folder, a child process, its LoRA.

The run's folder is named after everything its result depends on, so the same graph finds its checkpoint
again, after an interruption, a crash or a restart of the server, and another graph starts a run of its own.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import (
    atomic_path,
    private_dir,
    read_json,
    sha256_bytes,
    sha256_file,
    write_json,
    write_text,
)
from . import places
from .training_settings import RunPlan, plan_run
from .training_view import NodeView
from .words import for_browser

STATE_FILE = "run.json"
PREPARING, TRAINING, INTERRUPTED, FAILED, DONE = "preparing", "training", "interrupted", "failed", "done"
_GRACE = 120.0
"""Seconds a child that was asked to stop may take for its step and checkpoint before it is killed."""


@dataclass
class Run:
    """A training of this process: what to do, and how far it is."""

    run_id: str
    folder: Path
    plan: RunPlan
    state: dict[str, Any] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def say(self, **fields: Any) -> None:
        """Note on disk how far the run is; a reader of the folder knows it after any crash."""
        self.state.update(fields, time=time.time())
        write_json(self.folder / STATE_FILE, self.state)


_detached: dict[str, tuple[Run, threading.Thread]] = {}


def prepare_run(inputs: dict[str, Any]) -> Run:
    """Check the settings and open the run's folder; nothing is trained yet."""
    plan = plan_run(inputs)
    digest = sha256_bytes(json.dumps(plan.identity(), sort_keys=True, default=str).encode())[:10]
    run_id = f"{plan.name}-{digest}"
    folder = places.run_folder(run_id)
    known = read_json(folder / STATE_FILE) if (folder / STATE_FILE).is_file() else {}
    run = Run(run_id, folder, plan, {"schema": 1, "name": plan.name, "dataset": plan.dataset.name, **known})
    if not known:
        run.say(state=PREPARING, step=0, total=0, warnings=list(plan.warnings))
    return run


def train_and_wait(run: Run, node_id: str | None) -> None:
    """Train, with the node's progress bar; ComfyUI's stop button saves a checkpoint and stops."""
    from comfy.model_management import InterruptProcessingException

    if _finished(run):
        return
    if is_running(run.run_id):
        raise UserError(
            f"{run.run_id} is being trained already, detached; follow it with Cleft Training Status"
        )
    view = NodeView(node_id)
    _free_memory()
    _train(run, view.stop_pressed, view)
    if view.stop_pressed():
        raise InterruptProcessingException
    if run.state["state"] != DONE:
        raise UserError(f"the training stopped at step {run.state.get('step', 0)}; queue it again to go on")


def start_detached(run: Run) -> None:
    """Train beside the queue. The thread dies with the server; the child then saves a checkpoint and ends."""
    if _finished(run) or is_running(run.run_id):
        return
    _free_memory()
    run.say(state=PREPARING, message="")

    def work() -> None:
        try:
            _train(run, run.stop.is_set, None)
        except Exception as error:  # there is no node to show it on; the status node does
            run.say(state=FAILED, message=_first_line(error))
        finally:
            _detached.pop(run.run_id, None)

    thread = threading.Thread(target=work, name=f"training {run.run_id}", daemon=True)
    _detached[run.run_id] = (run, thread)
    thread.start()


def is_running(run_id: str) -> bool:
    return run_id in _detached


def ask_to_stop(run_id: str) -> None:
    """Have a detached training save a checkpoint and end; wait for that."""
    running = _detached.get(run_id)
    if running is None:
        return
    run, thread = running
    run.stop.set()
    thread.join(_GRACE)


def wait_for(run_id: str, node_id: str | None) -> None:
    """Follow a detached training to its end. The stop button ends the waiting, not the training."""
    from comfy.model_management import InterruptProcessingException

    view = NodeView(node_id)
    while is_running(run_id):
        if view.stop_pressed():
            raise InterruptProcessingException
        state = read_state(run_id)
        view.step(state.get("step", 0), state.get("total", 0), describe(state))
        time.sleep(0.5)


def read_state(run_id: str) -> dict[str, Any]:
    """What is known of a run. A run that nobody drives any more was interrupted, whatever its file says."""
    state = dict(read_json(places.find_run(run_id) / STATE_FILE))
    state["run"] = run_id
    if state["state"] in (PREPARING, TRAINING) and not is_running(run_id):
        state["state"] = INTERRUPTED
    if state["state"] == DONE and not (places.loras_folder() / str(state.get("lora"))).is_file():
        state |= {"state": INTERRUPTED, "message": "its LoRA was removed from the loras folder"}
        state.pop("lora", None)
    if "lora" in state and (told := _withdrawn(places.loras_folder() / state["lora"])):
        state |= {"message": told, "checkpoints": []}
        state.pop("lora")
    return state


def _withdrawn(lora: Path) -> str:
    """A sentence on a LoRA that must not be used any more; "" for others."""
    from ..diffusioncleft_core.dataset.withdrawn import SAID, lora_withdrawal

    found = lora_withdrawal(lora, places.withdrawals())
    return f"its LoRA {SAID}; train anew, without that photograph" if found else ""


def describe(state: dict[str, Any]) -> str:
    """The state in words."""
    lines = [f"{state.get('run', state.get('name'))}: {state['state']}"]
    if state.get("total"):
        loss = f", loss {state['loss']:.4f}" if "loss" in state else ""
        lines[0] += f", step {state['step']} of {state['total']}{loss}"
    if state.get("seconds_left") and state["state"] == TRAINING:
        lines[0] += f", {_duration(state['seconds_left'])} left"
    if state.get("lora"):
        lines.append(f"LoRA: {state['lora']}")
    if state["state"] == INTERRUPTED:
        lines.append("queue the trainer again to go on from its checkpoint")
    if state.get("message"):
        lines.append(state["message"])
    return "\n".join([*lines, *(f"warning: {text}" for text in state.get("warnings", []))])


def loss_plot(run_id: str) -> Any:
    """The loss over the steps as a picture [H, W, 3] uint8."""
    from .plots import training_plot

    return training_plot(run_id, places.find_run(run_id) / "training" / "loss.jsonl")


def last_previews(run_id: str) -> list[Any]:
    """The pictures [H, W, 3] uint8 of the last preview."""
    from ..diffusioncleft_core.imageset.decode import read_image

    found = sorted((places.find_run(run_id) / "training" / "previews").glob("step_*_*.png"))
    last = [path for path in found if path.name[:11] == found[-1].name[:11]]
    return [read_image(path) for path in last]


def _train(run: Run, stop: Callable[[], bool], view: NodeView | None) -> None:
    """Regularisation images where they are asked for, then the trainer's process, then the LoRA's name."""
    from ..trainer.interruption import Interrupted
    from ..trainer.launch import train

    failure = ""
    private_dir(run.folder / "training")
    run.say(state=PREPARING, message="", warnings=list(run.plan.warnings))
    try:
        _make_regularisation(run, stop, view)
        recipe = run.plan.recipe_in(run.folder)
        if recipe.previews.prompts is not None:
            write_text(recipe.previews.prompts, "\n".join(run.plan.previews) + "\n")
        result = train(recipe, _Listener(run, view), stop, grace=_GRACE)
    except Interrupted as stopped:
        run.say(state=INTERRUPTED, step=max(stopped.step, run.state.get("step", 0)))
        return
    except UserError as error:
        run.say(state=FAILED, message=_first_line(error))
        raise
    except RuntimeError as error:  # its further lines are the trainer's own output, which may name a file
        failure = _first_line(error)
        run.say(state=FAILED, message=failure)
    if failure:
        raise RuntimeError(failure)
    kept = sorted(result.path.parent.glob(f"{result.path.stem}-step*.safetensors"))
    dataset, name = run.plan.dataset.folder, run.plan.name
    names = [_install(path, f"{name}_{path.stem.rpartition('-')[2]}", dataset) for path in kept]
    name = _install(result.path, name, dataset)
    run.say(state=DONE, lora=name, checkpoints=[*names, name], step=result.steps, message="")


def _make_regularisation(run: Run, stop: Callable[[], bool], view: NodeView | None) -> None:
    """What the base model draws without the trigger: made once a run; stopped, it goes on where it was."""
    plan = run.plan
    if not plan.regularisation:
        return
    from ..diffusioncleft_core.environment import default_dtype, pick_device
    from ..diffusioncleft_core.generation.generate import generate
    from ..diffusioncleft_core.generation.plans import regularization_plan
    from ..diffusioncleft_core.generation.settings import GenerationSettings, Sampling
    from ..trainer.interruption import Interrupted
    from .conditions import condition_of

    out = run.folder / "regularisation"
    made = run.folder / "regularisation.json"
    if made.is_file():
        return
    condition = condition_of(plan.dataset.condition)
    prompts = regularization_plan(
        condition, plan.regularisation, plan.recipe.objective.seed, bracketed=plan.bracketed
    )
    device = pick_device(plan.recipe.memory.device)

    def on_image(done: int, total: int) -> None:
        if view is not None:
            view.step(done, total, f"regularisation image {done} of {total}")
        if stop():
            raise Interrupted("stopped while regularisation images were made")

    sampling = Sampling(
        device,
        default_dtype(device),
        width=plan.regularisation_side,
        height=plan.regularisation_side,
        batch=4 if plan.phantom else 1,
    )
    settings = GenerationSettings(plan.source, sampling)
    generate(settings, prompts, out, role="control", on_image=on_image)
    write_json(made, {"images": plan.regularisation})


class _Listener:
    """Takes the trainer's events: to the node, and to the run's file at most twice a second."""

    def __init__(self, run: Run, view: NodeView | None) -> None:
        self._run, self._view, self._written = run, view, 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        kind, state = event["event"], self._run.state
        if kind == "load":
            self._show(event["done"], event["total"], event["what"])
        elif kind == "prepare":
            self._show(event["done"], event["total"], f"preparing {event['what']}")
        elif kind == "start":
            self._run.say(state=TRAINING, step=event["step"], total=event["total"])
        elif kind == "step":
            left = (event["total"] - event["step"]) * event["seconds"]
            state |= {"state": TRAINING, "step": event["step"], "total": event["total"]}
            state |= {"loss": event["loss"], "seconds_left": round(left)}
            if time.monotonic() - self._written > 0.5:
                self._written = time.monotonic()
                self._run.say()
            self._show(event["step"], event["total"], describe({**state, "run": self._run.plan.name}))
        elif kind == "preview" and self._view is not None:
            self._view.picture(Path(event["path"]))
        elif kind in ("warning", "notice"):
            known = state.setdefault("warnings", [])
            text = for_browser(event["message"])
            known += [text] if text not in known else []

    def _show(self, done: int, total: int, text: str) -> None:
        if self._view is not None:
            self._view.step(done, total, text)


def _finished(run: Run) -> bool:
    state = read_state(run.run_id)
    return bool(state["state"] == DONE)


def _install(lora: Path, name: str, dataset: Path) -> str:
    """Copy the LoRA into ComfyUI's loras folder; its hash is in its name, because loaders cache by path.

    The dataset knows the copy, so that a consent that is withdrawn later reaches it.
    """
    from ..diffusioncleft_core.dataset.trained import remember_lora
    from ..diffusioncleft_core.dataset.withdrawn import lora_run

    file = places.loras_folder() / f"{name}_{sha256_file(lora)[:12]}.safetensors"
    if not file.is_file():
        with atomic_path(file) as temporary:
            temporary.write_bytes(lora.read_bytes())
    remember_lora(dataset, lora_run(lora), file)
    return file.name


def _free_memory() -> None:
    """The trainer needs the GPU that ComfyUI's models sit on."""
    import comfy.model_management

    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return for_browser(lines[0] if lines else type(error).__name__)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
