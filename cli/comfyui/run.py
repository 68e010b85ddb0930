"""Run one workflow on a server, with the phantom's loaders in place where asked for."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.files import read_json
from .inputs import Graph, apply_settings
from .outputs import NodeOutput, collect, write_outputs
from .server import ComfyServer, ConnectionLost, Refused, Unanswered, refusal
from .watch import ProgressBar, PromptLost, Watcher, failure

PHANTOM_LOADER = "DiffusionCleft_PhantomLoader"
PHANTOM_SIZE = 128
# class of a stock loader -> output of the Phantom Loader that stands in for it
_LOADERS = {"UNETLoader": 0, "DualCLIPLoader": 1, "VAELoader": 2}
_LATENTS = {"EmptySD3LatentImage", "EmptyLatentImage"}
_TRAINER = "DiffusionCleft_LoraTrainer"
# class of a node that names LoRAs -> its inputs that do
_LORAS = {
    "LoraLoaderModelOnly": ("lora_name",),
    "LoraLoader": ("lora_name",),
    "DiffusionCleft_LoraGrid": ("lora_1", "lora_2", "lora_3", "lora_4"),
}
_STRENGTHS = {
    "LoraLoaderModelOnly": "strength_model",
    "LoraLoader": "strength_model",
    "DiffusionCleft_LoraGrid": "strengths",
}


def swap_loaders(
    graph: Graph,
    object_info: Mapping[str, Any],
    *,
    lora: str | None = None,
    size: int = PHANTOM_SIZE,
    settings: Sequence[str] = (),
) -> Graph:
    """A copy of an API-format graph that runs on the embedded phantom model.

    LoRAs are as many times as strong as the vocabulary says for phantoms: at 1 a finding is faint on them.

    Args:
        graph: with loaders of model files.
        object_info: the server's /object_info.
        lora: name for every LoRA loader, None keeps the graph's own.
        size: side of the images, px.
        settings: what `apply_settings` will change in it: a condition says how strong its LoRAs are.

    Raises:
        UserError: a condition that is set where there is none; the server does not have the Phantom Loader.
    """
    if PHANTOM_LOADER not in object_info:
        raise UserError(
            "the server has no Phantom Loader; put DiffusionCleft in its custom_nodes and restart ComfyUI"
        )
    swapped = {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in graph.items()}
    gone = {
        name: _LOADERS[node["class_type"]] for name, node in graph.items() if node["class_type"] in _LOADERS
    }
    loader_id = _loader_id(swapped, gone) if gone else ""
    conditions = [each for each in settings if each.partition("=")[0].endswith(".condition")]
    stronger = _phantom_strength(apply_settings(graph, conditions, object_info)) if gone else 1.0
    for node in swapped.values():
        kind, inputs = node["class_type"], node["inputs"]
        for name, value in inputs.items():
            if isinstance(value, list) and len(value) == 2 and value[0] in gone:
                inputs[name] = [loader_id, gone[value[0]]]
        if kind in _LATENTS:
            inputs.update(width=size, height=size)
        if kind == _TRAINER:
            inputs["base_model"] = "phantom"
        if (name := _STRENGTHS.get(kind, "")) in inputs and stronger != 1:
            inputs[name] = _times(inputs[name], stronger)
        for name in _LORAS.get(kind, ()) if lora is not None else ():
            if inputs.get(name, "none") != "none" and not isinstance(inputs[name], list):
                inputs[name] = lora
    for node_id in gone:
        del swapped[node_id]
    return swapped


def _phantom_strength(graph: Graph) -> float:
    """The vocabulary's strength of LoRAs on phantoms, for the one condition that a graph names; else 1."""
    from ...diffusioncleft_core.conditions.loader import load_vocabulary

    known = {
        item.name: item.phantom.strength for item in load_vocabulary().conditions.values() if item.phantom
    }
    named = {str(node["inputs"].get("condition")) for node in graph.values()} & known.keys()
    return known[named.pop()] if len(named) == 1 else 1.0


def _times(value: Any, factor: float) -> Any:
    """A strength, or a list of them as text, times `factor`; what is linked or no number stays."""
    with contextlib.suppress(ValueError):
        if isinstance(value, str):
            return ", ".join(f"{float(part) * factor:g}" for part in value.split(","))
        if isinstance(value, int | float):
            return round(value * factor, 4)
    return value


def _loader_id(graph: Graph, gone: Mapping[str, int]) -> str:
    """Id of the graph's own Phantom Loader, or of one that is added."""
    for node_id, node in graph.items():
        if node["class_type"] == PHANTOM_LOADER:
            return node_id
    node_id = next((name for name, output in gone.items() if output == 0), "phantom")
    node_id = f"{node_id}_phantom"
    graph[node_id] = {
        "inputs": {},
        "class_type": PHANTOM_LOADER,
        "_meta": {"title": "Phantom Loader"},
    }
    return node_id


# A prompt that a restarted server lost is queued again; a graph that ends the server must not do so forever.
MOST_RESTARTS = 2
LOST = "the server lost the prompt again and again; see its log, then run the same command again"
REQUEUED = "the server was restarted and lost the prompt: queued again"
_NO_ANSWER = "nothing answers at {}; start ComfyUI, or give its address with --server"
_LATE = "{} took the graph and has not said whether it is queued; see its log before you run it again"
_CANCEL_PATIENCE = 30.0


def read_workflow(path: Path) -> Any:
    """The content of a workflow file, UI or API format."""
    return read_json(path, "give a workflow that ComfyUI exported")


def server_info(server: ComfyServer) -> dict[str, Any]:
    """The server's node classes. Raises UserError when nothing answers."""
    try:
        return server.object_info()
    except ConnectionLost as error:
        raise UserError(_NO_ANSWER.format(server.url)) from error


def run_graph(
    server: ComfyServer,
    graph: Graph,
    folder: Path,
    say: Callable[[str], None] = print,
) -> dict[str, NodeOutput]:
    """Run an API-format graph and download what its output nodes made into `folder`, with `outputs.json`.

    KeyboardInterrupt takes the prompt off the server (others stay) and is raised again.

    Raises:
        UserError: a node failed, with its message, or the server stays away longer than its patience.
    """
    with Watcher(server) as watcher, ProgressBar(graph) as bar:
        for attempt in range(MOST_RESTARTS + 1):
            prompt_id = new_id()
            try:
                queue_graph(server, graph, prompt_id)
                entry = watcher.wait(prompt_id, bar.on_event)
                if failure(entry, graph) is None:  # the history knows, also where the socket was late
                    bar.on_event("execution_success", {})
                break
            except PromptLost:
                if attempt == MOST_RESTARTS:
                    raise UserError(LOST) from None
                say(REQUEUED)
            except KeyboardInterrupt:
                cancel(server, [prompt_id], say)
                raise
    outputs = collect(server, entry, graph, folder)
    write_outputs(folder, outputs)
    failed = failure(entry, graph)
    if failed:
        raise UserError(failed)
    return outputs


def new_id() -> str:
    """An id for a prompt: ours, so that a prompt whose acknowledgement got lost can be found again."""
    return str(uuid.uuid4())


def queue_graph(server: ComfyServer, graph: Graph, prompt_id: str) -> None:
    """Queue a graph; waits for a server that does not answer, and never queues twice.

    Raises:
        Refused: the graph is invalid, also where the server would run a part of it.
        UserError: the server is away for longer than its patience, or took the graph and answered nothing.
    """
    end = time.monotonic() + server.patience
    while True:
        try:
            answer = server.queue(graph, prompt_id)
            break
        except Unanswered:  # it may queue the graph yet
            if _knows(server, prompt_id, time.monotonic() + server.patience):
                return
            raise UserError(_LATE.format(server.url)) from None
        except ConnectionLost:
            if _knows(server, prompt_id, end):
                return
    refused = refusal(answer, graph)
    if refused:
        server.cancel(prompt_id)
        raise Refused(refused)


def _knows(server: ComfyServer, prompt_id: str, end: float) -> bool:
    """Whether a server that stopped answering got a prompt, once it answers; UserError when it is `end`."""
    while time.monotonic() < end and server.wait_until_up(end - time.monotonic()):
        with contextlib.suppress(ConnectionLost):
            return server.is_queued(prompt_id) or server.history(prompt_id) is not None
        time.sleep(0.5)
    raise UserError(_NO_ANSWER.format(server.url))


def cancel(server: ComfyServer, prompt_ids: list[str], say: Callable[[str], None]) -> None:
    """Take prompts off the server and wait until it has let go of them, so that nothing goes on unseen."""
    end = time.monotonic() + _CANCEL_PATIENCE
    with contextlib.suppress(ConnectionLost, UserError):
        # the last first: otherwise the next one would start; and again and again, because a prompt that is
        # just being started forgets the interruption
        while left := [name for name in reversed(prompt_ids) if server.is_queued(name)]:
            if time.monotonic() > end:
                say("the server was told to stop, but its node has not stopped yet")
                return
            for name in left:
                server.cancel(name)
            time.sleep(0.5)
