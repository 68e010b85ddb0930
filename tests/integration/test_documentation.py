"""Examples of the documentation run as they are written, the phantom being the base model."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from downstream_phantoms import as_generated, write_phantoms
from PIL import Image
from stand_in_comfyui import GRAPH, StandIn

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import sampling_plan
from diffusioncleft.diffusioncleft_core.conditions.plan_rows import read_plan, write_plan
from diffusioncleft.diffusioncleft_core.flux.lora_file import save_kohya
from diffusioncleft.diffusioncleft_core.flux.source import phantom_source

EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOT_HERE = {
    'torch.device("cuda"), torch.bfloat16, width=768, height=768': (
        'torch.device("cpu"), torch.float32, width=128, height=128'
    ),
}
"""What a machine without a GPU does in its place."""


def examples(repository: Path) -> dict[str, list[str]]:
    """The Python examples of each document that has some."""
    documents = [*repository.glob("*.md"), *repository.glob("docs/*.md"), *repository.glob("w*/**/*.md")]
    found = {
        path.relative_to(repository).as_posix(): EXAMPLE.findall(path.read_text("utf-8"))
        for path in documents
    }
    return {name: parts for name, parts in found.items() if parts}


@pytest.fixture
def run(repository, python):
    """Runs the one example of a document in an empty folder, each of `changes` put in once."""

    def call(name: str, changes: dict[str, str] | None = None) -> None:
        (code,) = examples(repository)[name]
        for there, here in (changes or {}).items():
            assert code.count(there) == 1, there
            code = code.replace(there, here)
        done = python("-c", code)
        assert done.returncode == 0, done.stderr

    return call


def test_every_document_with_an_example_is_run_here(repository):
    assert set(examples(repository)) == {"docs/generation.md", "docs/prompts.md", "docs/workflows.md"}


def test_the_example_of_prompts_writes_its_plan(run, tmp_path):
    run("docs/prompts.md")
    rows = read_plan(tmp_path / "plan.jsonl")
    assert len(rows) == 100 and {row.attributes["skin"] for row in rows} == {"dark"}


def test_the_example_of_generation_draws_its_plan(run, tmp_path):
    source = phantom_source()
    (tmp_path / "FLUX.1-schnell").symlink_to(source.folder)
    rng = np.random.default_rng(0)
    save_lora(tmp_path / "clp.safetensors", rng)
    write_plan(tmp_path / "plan.jsonl", sampling_plan(load_vocabulary().condition("pre_op"), 2, 1))
    run("docs/generation.md", NOT_HERE)
    drawn = sorted((tmp_path / "generated").glob("*.png"))
    assert len(drawn) == 2
    with Image.open(drawn[0]) as image:
        assert image.size == (128, 128)


def save_lora(path: Path, rng: np.random.Generator) -> None:
    """A LoRA of one of the phantom's layers."""
    import torch

    from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer

    layer = load_transformer(phantom_source(), torch.device("cpu"), torch.float32).x_embedder
    down, up = (
        torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        for shape in ((2, layer.in_features), (layer.out_features, 2))
    )
    save_kohya(path, {"x_embedder.lora_A.weight": down, "x_embedder.lora_B.weight": up}, 2.0, {})


def test_the_example_of_workflows_runs_one_on_a_server(run, tmp_path):
    (tmp_path / "workflow.json").write_text(json.dumps(GRAPH))
    server = StandIn("ok")
    try:
        run("docs/workflows.md", {"http://127.0.0.1:8188": server.url})
    finally:
        server.close()
    assert len(server.queued) == 1
    assert list((tmp_path / "out").glob("*.png")) and (tmp_path / "out" / "outputs.json").is_file()


@pytest.mark.long
def test_the_commands_of_downstream_train_and_judge_a_classifier(repository, command, tmp_path):
    (block,) = re.findall(r"^```\n(.*?)^```", (repository / "docs/downstream.md").read_text(), re.M | re.S)
    commands = [shlex.split(line)[1:] for line in block.replace("\\\n", " ").strip().splitlines()]
    assert [words[:2] for words in commands] == [["downstream", "train"], ["downstream", "evaluate"]]
    for seed, (name, finding) in enumerate((("pre_op", "cleft"), ("post_op", "scar"))):
        as_generated(write_phantoms(tmp_path / "demo/generated" / name, finding, seed, 8), name)
        photos, dataset = tmp_path / "photos" / name, tmp_path / "demo/private" / name
        for words in (
            ("phantom", "render", "--condition", name, "--n", 16, "--subjects", 16, "--seed", 7 + seed),
            ("dataset", "build", photos, "--condition", name, "--phantom", "--holdout", 0.5),
        ):
            done = command(*words, "--out", photos if words[0] == "phantom" else dataset)
            assert done.returncode == 0, done.stderr
    for words in commands:
        done = command(*words, timeout=900)
        assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "evaluated/downstream.json").read_text())["tasks"]["pre_post"]
    assert figures["test"]["n"] == 16 and figures["test"]["leak"] is None
    assert figures["sources"]["its training sets"]["seeds"]["n"] == 5


def test_the_rehearsal_of_the_run_can_start_with_what_it_rendered(repository, command):
    text = (repository / "docs" / "run.md").read_text("utf-8")
    (block,) = (part for part in re.findall(r"^```\n(.*?)^```", text, re.M | re.S) if "render" in part)
    *render, run = (shlex.split(line)[1:] for line in block.splitlines())
    for words in (*render, *render, [*run, "--device", "cpu", "--check"]):
        done = command(*words)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("24 of 24 may enter") == 2
