"""Prompts from nodes are the core's."""

import json

import pytest
from comfy_server import GraphRefused
from graphs import builder, ours

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import AttributeChoices, sampling_plan
from diffusioncleft.diffusioncleft_core.conditions.prompts import build_prompt


def _shown(text):
    return {"class_type": "PreviewAny", "inputs": {"source": text}}


def _run(server, graph):
    return {name: out["text"][0] for name, out in server.run(graph).items() if "text" in out}


def test_fixed_attributes_give_the_cores_prompt(server):
    chosen = {"subject": "girl", "cleft_type": "unilateral", "side": "left", "skin": "light", "eyes": "brown"}
    found = _run(server, {"p": builder(**chosen), "a": _shown(["p", 2]), "see": _shown(["p", 0])})
    assert found["see"] == build_prompt(load_vocabulary().condition("pre_op"), chosen)
    assert json.loads(found["a"]) == chosen


def test_random_attributes_and_seed_are_the_plans_first_row(server):
    drawn = dict.fromkeys(("subject", "scar", "asymmetry", "skin"), "random")
    found = _run(
        server,
        {
            "p": builder(condition="post_op", seed=77, **drawn),
            "see": _shown(["p", 0]),
            "seed": _shown(["p", 1]),
        },
    )
    condition = load_vocabulary().condition("post_op")
    omit = [name for name in condition.details if name not in drawn]
    row = sampling_plan(condition, 1, 77, AttributeChoices(draw=list(drawn), omit=omit))[0]
    assert found["see"] == row.prompt
    assert int(found["seed"]) == row.seed


def test_a_plan_in_pieces_is_the_cores_plan(server):
    settings = {"condition": "pre_op", "seed": 9, "mode": "clinical", "bracketed": False, "extra": ""}
    graph = {
        "one": ours("PromptPlan", count=2, start=0, **settings),
        "two": ours("PromptPlan", count=3, start=2, **settings),
        "see one": _shown(["one", 0]),
        "see two": _shown(["two", 0]),
    }
    outputs = server.run(graph)
    plan = sampling_plan(
        load_vocabulary().condition("pre_op"), 5, 9, AttributeChoices("clinical"), bracketed=False
    )
    texts = [*outputs["see one"]["text"], *outputs["see two"]["text"]]
    assert texts == [row.prompt for row in plan]


def test_what_contradicts_itself_is_refused_with_a_message_and_the_server_goes_on(server):
    with pytest.raises(GraphRefused, match="can be set only with cleft_type unilateral"):
        server.run({"p": builder(side="left"), "see": _shown(["p", 0])})
    with pytest.raises(GraphRefused, match="has no scar"):
        server.run({"p": builder(scar="scar"), "see": _shown(["p", 0])})
    with pytest.raises(GraphRefused):
        server.run({"p": builder(condition="../../etc"), "see": _shown(["p", 0])})
    assert server.get("/queue")["queue_running"] == []
