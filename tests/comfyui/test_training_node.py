"""The trainer node: stopped, restarted, detached, and always going on where it was."""

import json
import os
import threading
import time

import pytest
from comfy_server import ComfyServer, GraphRefused, NodeFailed, watch
from graphs import node, ours, training

STEPS = 120
LONG = {"name": "long", "steps": STEPS, "checkpoint_every": 40, "preview_every": 60}


def _states(server: ComfyServer, name: str) -> list[dict]:
    found = sorted((server.base / "diffusioncleft_runs").glob(f"{name}-*/run.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in found]


def _until(server: ComfyServer, what, seconds: float = 900.0):
    """Wait until `what()` is true; it is about a process that goes its own way."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, server.log[-3000:]
        time.sleep(0.05)


def _step(server: ComfyServer) -> int:
    states = _states(server, "long")
    return states[0].get("step", 0) if states else 0


def _bars(messages: list) -> list[dict]:
    """What the websocket brought of the progress bar so far."""
    return [m["data"] for m in list(messages) if isinstance(m, dict) and m["type"] == "progress"]


def _status(server: ComfyServer, **settings) -> str:
    graph = {"s": ours("TrainingStatus", **{"run": "(latest)", "stop": False, "wait": False, **settings})}
    return server.run(graph)["s"]["text"][0]


def _checkpoints(server: ComfyServer) -> list[int]:
    found = (server.base / "diffusioncleft_runs").glob("long-*/training/state/step-*.safetensors")
    return sorted(int(path.stem.removeprefix("step-")) for path in found)


def test_a_training_goes_on_after_interrupt_detachment_and_the_servers_death(server, dataset):
    # The stop button: a checkpoint, and the prompt ends as interrupted, not as failed.
    stop = threading.Event()
    messages = watch(server, stop)
    prompt = server.queue(training(dataset, **LONG))
    _until(server, lambda: _step(server) >= 1 and any(bar["max"] == STEPS for bar in _bars(messages)))
    server.interrupt()
    history = server.wait(prompt)
    assert "execution_interrupted" in [name for name, _ in history["status"]["messages"]]
    (first,) = _checkpoints(server)
    assert 1 <= first < STEPS
    stop.set()
    assert {"node": "train", "max": STEPS}.items() <= _bars(messages)[-1].items()
    texts = [m.decode("utf-8", "replace") for m in messages if isinstance(m, bytes)]
    assert any("loss" in text and f"of {STEPS}" in text for text in texts)

    # Detached: the node returns at once, what needs the LoRA does not run, the queue stays free.
    graph = {
        **training(dataset, **LONG, mode="detached"),
        "load": ours("PhantomLoader"),
        "lora": node("LoraLoaderModelOnly", model=["load", 0], lora_name=["train", 0], strength_model=1.0),
        "see": node("PreviewAny", source=["train", 3]),
        "unused": node("PreviewAny", source=["lora", 0]),
    }
    outputs = server.run(graph)
    assert "unused" not in outputs
    assert f"step {first}" in outputs["see"]["text"][0]
    with pytest.raises(NodeFailed, match="being trained already, detached"):
        server.run(training(dataset, **LONG))
    _until(server, lambda: _step(server) > first)
    assert "training, step" in _status(server)

    # Waiting for it is stopped; the training is not.
    waiting = server.queue({"s": ours("TrainingStatus", run="(latest)", stop=False, wait=True)})

    def stopped():  # asked again and again: ComfyUI forgets what comes before the prompt's start
        server.interrupt()
        return waiting in server.get(f"/history/{waiting}")

    _until(server, stopped)
    told = [name for name, _ in server.wait(waiting)["status"]["messages"]]
    assert "execution_interrupted" in told
    assert "training, step" in _status(server)

    # The server dies: the trainer notices, saves a checkpoint and ends.
    server.kill()
    _until(server, lambda: _checkpoints(server)[-1] > first)
    server.start()
    assert "interrupted" in _status(server)

    # The same graph again, after the restart, finishes what was begun.
    done = server.run(training(dataset, **LONG))["train"]
    assert f"done, step {STEPS} of {STEPS}" in done["text"][0]
    (run,) = (server.base / "diffusioncleft_runs").glob("long-*")
    rows = [json.loads(line) for line in (run / "training" / "loss.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert len(done["images"]) == 3  # two previews and the plot
    if os.name == "posix":
        assert run.stat().st_mode & 0o077 == 0

    # And once more trains nothing: the LoRA is there.
    again = server.run(
        {**training(dataset, **LONG), "s": ours("TrainingStatus", run=run.name, stop=False, wait=True)}
    )
    assert again["train"]["text"] == done["text"]
    assert "done" in again["s"]["text"][0]


@pytest.mark.long
def test_robust_trains_on_regularisation_images_too_and_keeps_loras_on_the_way(server, dataset):
    graph = training(
        dataset,
        name="robust",
        preset="robust",
        steps=4,
        regularisation_images=2,
        save_every=2,
        resolution="64",
    )
    graph["see"] = node("PreviewAny", source=["train", 5])
    outputs = server.run(graph)
    names = outputs["see"]["text"]
    assert [name.rpartition("_")[0] for name in names] == ["robust_step000002", "robust"]
    (run,) = (server.base / "diffusioncleft_runs").glob("robust-*")
    rows = [json.loads(line) for line in (run / "training" / "loss.jsonl").read_text().splitlines()]
    assert all("reg_loss" in row for row in rows)
    assert set(names) <= set(server.get("/models/loras"))


@pytest.mark.long
def test_a_training_is_mirrored_balanced_and_of_the_form_that_the_options_say(server, dataset):
    from safetensors import safe_open

    options = {"mirror": True, "balance_by": "cleft_type,side", "network_form": "lokr", "lokr_factor": 4}
    folder = server.base / "models" / "loras"
    for name, changed in (("mirrored", options), ("plain", {})):
        server.run(training(dataset, name=name, steps=2, resolution="64", **changed))
    told = {}
    for name in ("mirrored", "plain"):
        (lora,) = folder.glob(f"{name}_*.safetensors")
        with safe_open(lora, framework="pt") as file:
            told[name] = file.metadata()
            factors = [key for key in file.keys() if key.endswith("lokr_w1")]  # noqa: SIM118
            sides = {tuple(file.get_slice(key).get_shape()) for key in factors}
        assert (sides == {(4, 4)}) == (name == "mirrored")
    assert told["mirrored"]["ss_flip_aug"] == "True" and told["plain"]["ss_flip_aug"] == "False"
    assert told["mirrored"]["balance_by"] == "cleft_type,side" and "balance_by" not in told["plain"]
    assert json.loads(told["mirrored"]["ss_network_args"]) == {"algo": "lokr", "factor": "4"}


def test_a_trainer_names_only_what_lies_in_comfyuis_model_folders(server, dataset):
    for name in ("base_model", "vae", "training_adapter"):
        for hostile in ("../../etc/passwd", "/etc/passwd", "..\\..\\secret.safetensors"):
            with pytest.raises(GraphRefused, match="there is no"):
                server.queue(training(dataset, **{name: hostile}))
    for hostile in ("../escape", "a/b", "", "x" * 200):
        with pytest.raises(GraphRefused, match="can't begin a file name"):
            server.queue(training(dataset, name=hostile))
    with pytest.raises(GraphRefused, match="no training run"):
        server.queue({"s": ours("TrainingStatus", run="../../x", stop=False, wait=False)})
