"""`python -m benchmarks.comfyui_overhead --server URL`: what ComfyUI costs beside the core, on the phantom.

Both sides hold the model in memory and draw the same rows one by one: encode the prompt, four steps, decode,
write PNG and sidecar. Three numbers: the core in this process; the server, by its own clock from the start of
the prompt to its end; the client, from queueing to the last picture on this disk. Rounds alternate, so that a
busy machine hurts all alike, each with other seeds, since the server keeps results; the medians count.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from diffusioncleft.cli.comfyui.outputs import collect
from diffusioncleft.cli.comfyui.run import new_id, queue_graph
from diffusioncleft.cli.comfyui.server import DEFAULT_URL, ComfyServer
from diffusioncleft.cli.comfyui.watch import Watcher, failure
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import sampling_plan
from diffusioncleft.diffusioncleft_core.files import write_json

STEPS, SIZE = 4, 128
RESULTS = Path(__file__).resolve().parent / "results"


def graph(n: int, seed: int) -> dict[str, Any]:
    """The shipped generation graph on the phantom, without LoRA and filters."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    plan = {"condition": "pre_op", "count": n, "start": 0, "seed": seed, "mode": "paper"}
    sampler = {"steps": STEPS, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    save = {"folder": f"overhead/{n}_{seed}_{time.time_ns()}", "lora_name": "", "lora_strength": 1.0}
    return {
        "model": node("DiffusionCleft_PhantomLoader"),
        "plan": node("DiffusionCleft_PromptPlan", **plan, bracketed=True, extra=""),
        "text": node("CLIPTextEncode", clip=["model", 1], text=["plan", 0]),
        "none": node("CLIPTextEncode", clip=["model", 1], text=""),
        "size": node("EmptySD3LatentImage", width=SIZE, height=SIZE, batch_size=1),
        "draw": node(
            "KSampler",
            model=["model", 0],
            positive=["text", 0],
            negative=["none", 0],
            latent_image=["size", 0],
            seed=["plan", 1],
            **sampler,
        ),
        "decode": node("VAEDecode", samples=["draw", 0], vae=["model", 2]),
        "save": node(
            "DiffusionCleft_SaveSyntheticSet", images=["decode", 0], rows=["plan", 2], show=True, **save
        ),
    }


def through_the_server(server: ComfyServer, watcher: Watcher, n: int, seed: int) -> tuple[float, float]:
    """Seconds of one prompt: by the server's clock, and until its pictures are here."""
    prompt, name = graph(n, seed), new_id()
    started = time.perf_counter()
    queue_graph(server, prompt, name)
    entry = watcher.wait(name, lambda kind, data: None)
    with tempfile.TemporaryDirectory() as folder:
        outputs = collect(server, entry, prompt, Path(folder))
        total = time.perf_counter() - started
    message = failure(entry, prompt)
    if message or sum(path.endswith(".png") for path in outputs["save"].files) != n:
        raise SystemExit(message or "the server did not give every picture")
    clock = {kind: data["timestamp"] for kind, data in entry["status"]["messages"]}
    return (clock["execution_success"] - clock["execution_start"]) / 1000, total


class Core:
    """The same work by the core, with the model in memory."""

    def __init__(self) -> None:
        import torch

        from diffusioncleft.diffusioncleft_core.flux.components import load_text_encoders
        from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
        from diffusioncleft.diffusioncleft_core.generation.folder import base_digests
        from diffusioncleft.diffusioncleft_core.generation.sampler import ImageSampler

        source, cpu = phantom_source(), torch.device("cpu")
        self.text = load_text_encoders(source, cpu, torch.float32)
        self.sampler = ImageSampler(source, cpu, torch.float32)
        self.base = base_digests(source)

    def draw(self, n: int, seed: int) -> float:
        """Seconds for n rows."""
        import torch

        from diffusioncleft.diffusioncleft_core.flux.sampling import encode_prompts
        from diffusioncleft.diffusioncleft_core.generation.settings import ImageSize
        from diffusioncleft.diffusioncleft_core.imageset.synthetic import write_image

        rows = sampling_plan(load_vocabulary().condition("pre_op"), n, seed)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            started = time.perf_counter()
            for row in rows:
                embedded = encode_prompts(self.text, [row.prompt], self.sampler.device)
                (pixels,) = self.sampler.draw(embedded, [row.seed], ImageSize(SIZE, SIZE), STEPS)
                record = {
                    "index": row.index,
                    "prompt": row.prompt,
                    "seed": row.seed,
                    "condition": row.condition,
                    "attributes": dict(row.attributes),
                    "base": self.base,
                    "lora": None,
                }
                write_image(Path(folder), pixels, record)
            return time.perf_counter() - started


def main() -> None:
    import torch

    from diffusioncleft.diffusioncleft_core.environment import hardware, versions

    parser = argparse.ArgumentParser(prog="python -m benchmarks.comfyui_overhead", description=__doc__)
    parser.add_argument("--server", default=DEFAULT_URL, help="a server with the pack, started with --cpu")
    parser.add_argument("--n", type=int, default=32, help="pictures a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="torch threads; give the server as many")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    server, core = ComfyServer(args.server), Core()
    seconds: dict[str, list[float]] = {"core": [], "server": [], "client": []}
    with Watcher(server) as watcher:
        through_the_server(server, watcher, 2, 999)
        core.draw(2, 999)
        for seed in range(args.rounds):
            seconds["core"].append(core.draw(args.n, seed))
            by_server, total = through_the_server(server, watcher, args.n, seed)
            seconds["server"].append(by_server)
            seconds["client"].append(total)
    each = {name: statistics.median(times) / args.n for name, times in seconds.items()}
    result = {
        "what": "milliseconds an image, 4 steps at 128 px on phantom-flux, median of the rounds",
        "n": args.n,
        "rounds": args.rounds,
        "threads": args.threads,
        "milliseconds_an_image": {name: round(1000 * value, 1) for name, value in each.items()},
        "server_over_core": round(each["server"] / each["core"], 3),
        "client_over_core": round(each["client"] / each["core"], 3),
        "seconds": {name: [round(value, 3) for value in times] for name, times in seconds.items()},
        "versions": versions(),
        "hardware": hardware(),
    }
    path = args.out / "comfyui_overhead_cpu.json"
    write_json(path, result)
    print(f"milliseconds an image: {result['milliseconds_an_image']}; kept in {path}")


if __name__ == "__main__":
    main()
