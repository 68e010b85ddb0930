"""Vocabularies that the owner puts into ComfyUI's models folder, on a server of their own."""

import json
import re
from pathlib import Path

import pytest
from comfy_server import ComfyServer, server_environment
from graphs import builder, plan_of, training
from phantom_datasets import photograph

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import sampling_plan
from diffusioncleft.diffusioncleft_core.conditions.prompts import build_prompt
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs
from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
from diffusioncleft.diffusioncleft_core.flux.lora_file import read_lora

DOCS = Path(__file__).resolve().parents[2] / "docs" / "conditions.md"


@pytest.fixture(scope="module")
def own(comfyui, tmp_path_factory):
    """A server with the documentation's example, a damaged file, and one that takes a name that is taken."""
    base = tmp_path_factory.mktemp("own vocabularies")
    folder = base / "models" / "diffusioncleft" / "vocabularies"
    folder.mkdir(parents=True)
    example = re.search(r"```toml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert example is not None
    (folder / "palsy.toml").write_text(example[1], encoding="utf-8")
    (folder / "damaged.toml").write_text("schema = ", encoding="utf-8")
    (folder / "taken.toml").write_text(example[1].replace("conditions.acute", "conditions.pre_op"), "utf-8")
    running = ComfyServer(comfyui, base, server_environment())
    running.start()
    yield running, load_vocabulary(folder / "palsy.toml").condition("acute")
    running.kill()


def shown(source):
    return {"class_type": "PreviewAny", "inputs": {"source": source}}


def test_own_conditions_stand_behind_the_embedded_ones_and_their_attributes_are_optional(own, server):
    theirs = own[0].get("/object_info")["DiffusionCleft_PromptBuilder"]["input"]
    ours_alone = server.get("/object_info")["DiffusionCleft_PromptBuilder"]["input"]
    assert theirs["required"]["condition"][1]["options"] == ["pre_op", "post_op", "acute"]
    assert list(theirs["required"]) == list(ours_alone["required"])
    assert list(theirs["optional"]) == ["grade", "eyelid"]
    assert "optional" not in ours_alone or not ours_alone["optional"]
    assert "damaged.toml is not valid TOML" in own[0].log
    assert "taken.toml, [conditions.pre_op]: name or trigger is taken" in own[0].log


def test_graphs_of_embedded_and_own_conditions_give_the_cores_prompts(own):
    running, acute = own
    graph = {
        "old": builder(subject="girl", skin="light"),
        "new": builder(condition="acute", subject="woman", grade="complete", eyelid="left out"),
        "plan": plan_of(3, condition="acute", seed=4),
        "see old": shown(["old", 0]),
        "see new": shown(["new", 0]),
        "see plan": shown(["plan", 0]),
    }
    outputs = {name: out["text"] for name, out in running.run(graph).items() if "text" in out}
    pre_op = load_vocabulary().condition("pre_op")
    assert outputs["see old"] == [build_prompt(pre_op, {"subject": "girl", "skin": "light"})]
    assert outputs["see new"] == [build_prompt(acute, {"subject": "woman", "grade": "complete"})]
    assert outputs["see plan"] == [row.prompt for row in sampling_plan(acute, 3, 4)]


@pytest.mark.long
def test_a_dataset_of_an_own_vocabulary_is_trained_on_and_previewed_with_its_own_prompts(own):
    """With a vocabulary of one condition: no contrast, and regularisation images without any trigger."""
    running, acute = own
    photographs = running.base / "photographs"
    table = photograph(photographs, "scar", 1, gender="female", grade="partial") / "metadata.csv"
    build_dataset(
        Photographs(photographs, table),
        acute,
        running.base / "private datasets" / "palsy",
        load_face_analyzer("phantom"),
        settings=BuildSettings(phantom=True),
    )
    graph = training(
        "palsy", name="palsy", preset="robust", steps=2, regularisation_images=2, preview_every=2
    )
    graph["condition"] = shown(["data", 1])
    outputs = running.run(graph)
    assert outputs["condition"]["text"] == ["acute"]
    (lora,) = (running.base / "models" / "loras").glob("palsy*.safetensors")
    metadata = read_lora(lora).metadata
    assert metadata["trigger"].strip("[]") == "FPAL"
    assert "CLP" not in json.dumps(metadata)
