"""No number that is not finite, or out of range, passes any door: options, files, settings."""

import argparse
import dataclasses
import json
import math
import re
import tomllib

import pytest

from diffusioncleft.cli import main as cli
from diffusioncleft.cli.checkup.checkup import PlannedRun
from diffusioncleft.cli.comfyui.inputs import apply_settings
from diffusioncleft.diffusioncleft_core.conditions.loader import EMBEDDED, load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan_rows import read_plan
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.analyzer import PHANTOM_FOLDER, find_pack
from diffusioncleft.diffusioncleft_core.files import read_json, read_jsonl
from diffusioncleft.diffusioncleft_core.generation.settings import Sampling
from diffusioncleft.diffusioncleft_core.ranges import Range, number, whole
from diffusioncleft.diffusioncleft_core.recipe.recipe import (
    Data,
    Memory,
    Network,
    Objective,
    Optimizer,
    Output,
    Previews,
)
from diffusioncleft.diffusioncleft_core.run.settings import RunSettings
from diffusioncleft.trainer.config import parse_recipe

NOT_FINITE = ("nan", "inf", "-inf", "1e999", "-NaN")


def parsers():
    """Every command's parser and those of its actions, with the words that lead to each."""

    def below(words, parser):
        yield words, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    yield from below([*words, name], child)

    for name in cli.COMMANDS:
        yield from below([name], cli._command_parser(name, cli._load(name)))


def reads_numbers(action: argparse.Action) -> bool:
    """Whether an option's value becomes a number, or several."""
    if action.type is None or isinstance(action, argparse.BooleanOptionalAction):
        return False
    found = []
    for text in ("1", "0.5", "64"):
        try:
            value = action.type(text)
        except (ValueError, argparse.ArgumentTypeError):
            continue
        found += value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(value, (int, float)) for value in found)


NUMERIC = [
    (words, action)
    for words, parser in parsers()
    for action in parser._actions
    if action.option_strings and reads_numbers(action)
]


def test_the_numeric_options_are_found():
    names = {(words[0], action.dest) for words, action in NUMERIC}
    assert len(names) > 60
    assert {("run", "size"), ("train", "weight_decay"), ("comfy", "patience"), ("plan", "n")} <= names
    assert {("generate", "grid_strengths"), ("run", "resolution"), ("train", "resolution")} <= names


@pytest.mark.parametrize(
    ("words", "action"), NUMERIC, ids=[f"{' '.join(words)} {action.dest}" for words, action in NUMERIC]
)
def test_no_option_takes_what_is_not_finite_or_has_no_end(words, action, capsys):
    option = max(action.option_strings, key=len)
    for text in (*NOT_FINITE, str(-(10**30)), str(10**400)):
        with pytest.raises((SystemExit, UserError)) as caught:
            assert cli.main([*words, f"{option}={text}"]) == 2
            raise UserError(capsys.readouterr().err)
        error = capsys.readouterr().err or str(caught.value)
        assert option in error, (text, error)
        assert error.strip().count("\n") == 0
    allowed = action.type
    if isinstance(allowed, Range):
        assert not math.isinf(allowed.low)


@pytest.mark.parametrize("text", NOT_FINITE)
def test_weights_of_loras_are_finite(text, tmp_path, capsys):
    arguments = ["lora", "merge", f"a.safetensors:{text}", "--out", str(tmp_path / "c.safetensors")]
    with pytest.raises((SystemExit, UserError)):
        assert cli.main(arguments) == 2
        raise UserError
    assert "merge" in capsys.readouterr().err


def test_no_option_is_read_as_a_number_behind_the_check():
    """An option whose type is Python's own int or float would let not-a-number and any size through."""
    bare = [(w, a.dest) for w, p in parsers() for a in p._actions if a.type in (int, float, complex)]
    assert bare == []


@pytest.mark.parametrize("text", NOT_FINITE)
def test_weights_of_attributes_are_finite(text, tmp_path, capsys):
    arguments = ["plan", "--condition", "pre_op", "--n", "2", "--out", str(tmp_path / "plan.jsonl")]
    if text == "1e999":  # an exact fraction holds it; it is a share all the same
        text = "-1e999"
    assert cli.main([*arguments, f"--weight=skin=light:{text}"]) == 2
    assert "weight" in capsys.readouterr().err
    assert not (tmp_path / "plan.jsonl").exists()


# Settings

REQUIRED = {
    BuildSettings: {},
    PlannedRun: {},
    RunSettings: dict.fromkeys(("out", "source", "sampling", "faces")),
    Sampling: dict.fromkeys(("device", "dtype")),
    **{kind: {} for kind in (Data, Network, Optimizer, Objective, Memory, Previews, Output)},
}


def numeric_fields(kind):
    """The fields of a settings class that are one number, by their annotation."""
    number_first = re.compile(r"(typing\.)?(Annotated\[)?(<class ')?(int|float)\b")
    return [entry for entry in dataclasses.fields(kind) if number_first.match(str(entry.type))]


@pytest.mark.parametrize("kind", REQUIRED)
def test_settings_check_every_number_themselves(kind):
    names = [entry.name for entry in numeric_fields(kind)]
    assert names
    for name in names:
        for value in (math.nan, math.inf, -math.inf, -(10**30)):
            with pytest.raises(UserError, match=name):
                kind(**{**REQUIRED[kind], name: value})


# Files

HOSTILE = ("NaN", "Infinity", "-Infinity", "1e999")


@pytest.mark.parametrize("text", HOSTILE)
def test_json_that_is_none_is_refused_with_its_file(tmp_path, text):
    path = tmp_path / "workflow.json"
    path.write_text(f'{{"a": {{"b": [{text}]}}}}')
    with pytest.raises(UserError, match=r"workflow\.json.*number"):
        read_json(path)
    for end in ("", "\n"):  # not taken for a line that a crash tore off
        path.write_text(f'{{"a": 1}}\n{{"a": {text}}}{end}')
        with pytest.raises(UserError, match=r"line 2 of .*workflow\.json"):
            read_jsonl(path)


@pytest.mark.parametrize("key", ["index", "seed"])
@pytest.mark.parametrize("value", [*HOSTILE, "-1", "1.5", "true", '"3"', str(10**30)])
def test_a_plan_holds_whole_numbers(tmp_path, key, value):
    row = {"index": "0", "seed": "0", key: value}
    path = tmp_path / "plan.jsonl"
    path.write_text(
        f'{{"index": {row["index"]}, "seed": {row["seed"]}, '
        '"prompt": "p", "attributes": {}, "condition": "pre_op"}\n'
    )
    with pytest.raises(UserError, match=r"plan\.jsonl"):
        read_plan(path)


@pytest.mark.parametrize("key", ["det_size", "det_thresh"])
@pytest.mark.parametrize("value", [*HOSTILE, "-1", "true", '"3"', "100000"])
def test_a_face_pack_is_described_in_numbers(tmp_path, key, value):
    pack = tmp_path / "pack"
    pack.mkdir()
    for path in PHANTOM_FOLDER.glob("*.onnx"):
        (pack / path.name).symlink_to(path)
    (pack / "pack.json").write_text(f'{{"{key}": {value}}}')
    with pytest.raises(UserError, match=r"pack\.json"):
        find_pack(pack)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1.0", "true", "1e400"])
def test_a_vocabularys_numbers_are_finite(tmp_path, value):
    text = EMBEDDED.read_text(encoding="utf-8")
    tomllib.loads(text)
    path = tmp_path / "vocabulary.toml"
    margin = next(line for line in text.splitlines() if "margin" in line)
    old = margin.partition("margin = ")[2].rstrip(" }")
    path.write_text(text.replace(margin, margin.replace(f"margin = {old}", f"margin = {value}")))
    with pytest.raises(UserError, match="margin"):
        load_vocabulary(path)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1", "true", "1.5", "[nan]", "[]"])
@pytest.mark.parametrize("key", ["batch_size", "resolution", "bucket_reso_steps", "num_repeats"])
def test_a_dataset_tomls_numbers_are_whole_and_in_range(tmp_path, key, value):
    path = tmp_path / "data.toml"
    place = "" if key == "num_repeats" else f"{key} = {value}\n"
    below = f"num_repeats = {value}\n" if key == "num_repeats" else ""
    path.write_text(f"[[datasets]]\n{place}[[datasets.subsets]]\nimage_dir = 'a'\n{below}")
    with pytest.raises(UserError, match=rf"data\.toml.*{key}"):
        parse_recipe(["--phantom", "--dataset_config", str(path)])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_config_files_numbers_are_options(tmp_path, value):
    path = tmp_path / "train.toml"
    for key in ("weight_decay", "prior_loss_weight", "seed", "network_alpha"):
        path.write_text(f"{key} = {value}\n")
        with pytest.raises(UserError, match=rf"train\.toml.*{key}"):
            parse_recipe(["--phantom", "--train_data_dir", "x", "--config_file", str(path)])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "2"])
def test_set_takes_what_the_server_says(value):
    info = {"Fir": {"input": {"required": {"threshold": ["FLOAT", {"min": 0.0, "max": 1.0}]}}}}
    info["Free"] = {"input": {"required": {"x": ["FLOAT", {}]}}}
    graph = {"1": {"class_type": "Fir", "inputs": {}}, "2": {"class_type": "Free", "inputs": {}}}
    with pytest.raises(UserError, match=r"1\.threshold"):
        apply_settings(graph, [f"1.threshold={value}"], info)
    if value != "2":
        with pytest.raises(UserError, match=r"2\.x"):
            apply_settings(graph, [f"2.x={value}"], info)


def test_a_range_says_what_it_takes():
    assert str(whole(1)) == "a whole number of 1 or more"
    assert str(number(0, 0.5)) == "a number from 0 to 0.5"
    assert str(number(0, 1, above=True)) == "a number above 0 and at most 1"
    assert str(number()) == "a finite number"
    assert number(0, 1).check(1, "x") == 1.0
    for value in (True, "1", None, [1], math.nan, 1.5):
        with pytest.raises(UserError, match="x is "):
            number(0, 1).check(value, "x")
    assert not whole(0, 9).holds(3.0)
    assert json.dumps(whole(0).check(3, "x")) == "3"
