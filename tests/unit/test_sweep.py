"""A sweep's file becomes its combinations, and its runs one table; nothing is trained here."""

import json
from pathlib import Path

import pytest

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
from diffusioncleft.trainer.config import parse_recipe
from diffusioncleft.trainer.sweep_recipe import Combination, combinations, read_sweep, run_names
from diffusioncleft.trainer.sweep_table import DONE, FAILED, Row, losses_of, shown_table, write_table


def written(folder: Path, text: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(text)
    return path


def combined(folder: Path, text: str, **given):
    """The combinations of a sweep on the phantom."""
    choices = {"model.phantom": True, "data.train_dir": folder, "output.folder": folder / "out"}
    return combinations(read_sweep(written(folder, text)), {}, choices | given)


def test_every_combination_is_a_recipe_and_the_last_field_changes_fastest(tmp_path):
    found = combined(tmp_path, "[sweep]\nnetwork.rank = [4, 8]\nobjective.seed = [0, 1, 2]")
    assert [(one.recipe.network.rank, one.recipe.objective.seed) for one in found] == [
        (rank, seed) for rank in (4, 8) for seed in (0, 1, 2)
    ]
    assert [one.name for one in found][:2] == ["rank=4-seed=0", "rank=4-seed=1"]
    folders = {one.recipe.output.folder for one in found}
    assert folders == {tmp_path / "out" / one.name for one in found}
    assert {one.recipe.data.cache_dir for one in found} == {tmp_path / "out" / "private"}


def test_a_combination_is_the_recipe_that_train_makes_of_the_same_choices(tmp_path):
    (first, second) = combined(
        tmp_path,
        '[optimizer]\nsteps = 9\n[data]\nresolution = [64]\n[sweep]\npreset = ["paper", "robust"]',
    )
    for one, preset in ((first, "paper"), (second, "robust")):
        words = ["--phantom", "--preset", preset, "--train_data_dir", str(tmp_path), "--resolution", "64"]
        words += ["--max_train_steps", "9", "--cache_dir", str(tmp_path / "out" / "private")]
        words += ["--output_dir", str(tmp_path / "out" / one.name), "--output_name", f"lora-{one.name}"]
        assert one.recipe == parse_recipe(words)
    assert first.recipe.objective.output_preservation_weight == 0
    assert second.recipe.objective.output_preservation_weight == 1


def test_what_the_command_says_comes_before_the_file(tmp_path):
    text = 'preset = "robust"\n[optimizer]\nsteps = 9\n[sweep]\n"network.rank" = [4]'
    sweep = read_sweep(written(tmp_path, text))
    given = {"model.phantom": True, "data.train_dir": tmp_path, "optimizer.steps": 3}
    (from_file,) = combinations(sweep, {}, given)
    (from_command,) = combinations(sweep, {"preset": "paper"}, given)
    assert from_file.recipe.optimizer.steps == 3
    assert from_file.recipe.objective.region_weight == 8
    assert from_command.recipe.objective.region_weight == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"has no \[sweep\] with lists of values"),
        ("[sweep]", r"has no \[sweep\] with lists of values"),
        ("[sweep]\nnetwork.rank = 4", r"network.rank is 4; give a list of values"),
        ("[sweep]\nnetwork.rank = []", "give a list of values"),
        ("[sweep]\nnetwork.rank = [4, 8, 4]", r"network.rank names 4 twice; keep one"),
        ("[sweep]\noptimizer.learning_rate = [1e-4, 0.0001]", "names 0.0001 twice"),
        ("[sweep]\nnetwork.rank = [0]", "network.rank is 0; give a whole number from 1 to 4096"),
        (
            "[sweep]\nnetwork.ranks = [4]",
            "network.ranks is no setting of a recipe; did you mean network.rank",
        ),
        ("[sweep]\nnetwork_dim = [4]", "network_dim is no setting of a recipe; did you mean network.rank"),
        ("[sweep]\nrank = [4]", "rank is no setting of a recipe; did you mean network.rank"),
        ('[sweep]\npreset = ["best"]', "preset 'best' is unknown; choose one of: robust, paper"),
        ('[sweep]\ndata.train_dir = ["a", "b"]', "data.train_dir is a place"),
        ("[network]\nrank = 4\n[sweep]\nnetwork.rank = [4]", r"stands in \[sweep\] and outside of it"),
        ("[network]\nrang = 4\n[sweep]\nobjective.seed = [4]", "network.rang is no setting of a recipe"),
        ("[tracking]\nwandb_online = true\n[sweep]\nobjective.seed = [4]", "give it with the command"),
        (f"[sweep]\nobjective.seed = {list(range(1001))}", "makes 1001 combinations"),
    ],
)
def test_a_mistake_in_a_sweep_is_one_sentence_that_names_the_file(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence) as raised:
        read_sweep(written(tmp_path, text))
    assert str(tmp_path / "sweep.toml") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_command_may_not_say_what_is_swept(tmp_path, refused):
    path = written(tmp_path, '[sweep]\nobjective.seed = [0, 1]\npreset = ["paper", "robust"]')
    words = ["sweep", path, "--phantom", "--train_data_dir", tmp_path, "--output_dir", tmp_path / "out"]
    assert "objective.seed is swept" in refused(*words, "--seed", 3)
    assert "preset is swept" in refused(*words, "--preset", "paper")
    assert "--recipe takes the place of a preset" in refused(*words, "--recipe", "recipe.json")
    assert "--resume no" in refused(*words, "--resume", "state.safetensors")
    assert "belongs to --ray" in refused(*words, "--ray-workers", 2)
    assert not (tmp_path / "out").exists()


def test_a_combination_that_can_not_be_is_named_and_the_others_stay(tmp_path):
    text = '[network]\nfactor = 4\n[sweep]\nnetwork.form = ["lora", "lokr"]'
    lora, lokr = combined(tmp_path, text)
    assert lora.recipe is None
    assert lora.problem.startswith("network.factor 4 would have no effect")
    assert lokr.recipe.network.form == "lokr"
    with pytest.raises(UserError, match=r"network.factor 4 would have no effect"):
        combined(tmp_path, '[network]\nfactor = 4\n[sweep]\nnetwork.form = ["lora", "dora"]')


def test_a_swept_value_that_a_dataset_toml_takes_the_place_of_is_no_combination(tmp_path):
    (tmp_path / "data.toml").write_text(
        f"[general]\nbatch_size = 2\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = '{tmp_path}'\n"
    )
    sweep = read_sweep(written(tmp_path, "[sweep]\ndata.batch_size = [1, 2]"))
    given = {"model.phantom": True, "data.config": tmp_path / "data.toml"}
    one, two = combinations(sweep, {}, given)
    assert one.problem == "data.batch_size 1 has no effect: it is 2 by another setting"
    assert two.recipe.data.batch_size == 2


def test_a_hold_out_is_measured_at_the_end_with_one_noise_unless_the_file_says_otherwise(dataset, tmp_path):
    given = {"data.train_dir": dataset, "optimizer.steps": 30}
    found = combined(tmp_path, "[sweep]\nobjective.seed = [5, 6]", **given)
    assert any(row.role == "holdout" for row in read_image_set(dataset))
    assert [one.recipe.validation.every_n_steps for one in found] == [30, 30]
    assert [one.recipe.validation.seed for one in found] == [5, 5]
    (never,) = combined(tmp_path, "[validation]\nevery_n_steps = 0\n[sweep]\nobjective.seed = [5]", **given)
    assert never.recipe.validation.every_n_steps == 0
    (epochs,) = combined(
        tmp_path, "[sweep]\nobjective.seed = [5]", **{"data.train_dir": dataset, "optimizer.epochs": 3}
    )
    assert (epochs.recipe.validation.every_n_steps, epochs.recipe.validation.every_n_epochs) == (0, 3)
    rows = [json.loads(line) for line in (dataset / "manifest.jsonl").read_text().splitlines()]
    few = [row for row in rows if row["role"] == "holdout"] + [row for row in rows if row["role"] == "train"][
        :4
    ]
    (dataset / "manifest.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in few))
    (told,) = combined(tmp_path, "[sweep]\nobjective.seed = [5]", **given)
    assert told.recipe.validation.every_n_steps == 0


def test_runs_have_names_that_differ_and_that_every_system_takes():
    settings = [
        {"optimizer.args": ("a=1",), "network.args": ()},
        {"optimizer.args": ("a/1",), "network.args": ()},
        {"optimizer.args": ("x" * 300,), "network.args": ()},
    ]
    names = run_names(settings)
    assert len({name.casefold() for name in names}) == 3
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789=._-+") for name in names)
    assert all(len(name) < 120 for name in names)
    assert names[0].startswith("optimizer.args=")
    assert run_names([{"data.resolution": (64, 128), "optimizer.learning_rate": 1e-4}]) == [
        "resolution=64x128-learning_rate=0.0001"
    ]


def test_the_table_says_of_each_run_what_it_came_to(tmp_path):
    found = [Combination(f"rank={rank}", {"network.rank": rank}, None) for rank in (4, 8)]
    rows = [
        Row(found[0], DONE, 0.5, 0.25, 12.3, False, "rank=4/lora-rank=4.safetensors"),
        Row(found[1], FAILED),
    ]
    write_table(tmp_path, rows)
    document = json.loads((tmp_path / "sweep.json").read_text())
    assert document["swept"] == ["network.rank"]
    assert document["runs"][0] == {
        "run": "rank=4",
        "settings": {"network.rank": 4},
        "state": "done",
        "final_loss": 0.5,
        "validation_loss": 0.25,
        "seconds": 12.3,
        "resumed": False,
        "lora": "rank=4/lora-rank=4.safetensors",
    }
    assert (tmp_path / "sweep.csv").read_text().splitlines() == [
        "run,network.rank,state,final_loss,validation_loss,seconds,resumed,lora",
        "rank=4,4,done,0.5,0.25,12.3,false,rank=4/lora-rank=4.safetensors",
        "rank=8,8,failed,,,,,",
    ]
    assert shown_table(rows).splitlines() == [
        "network.rank  state   final loss  validation  seconds  LoRA",
        "           4  done        0.5000      0.2500       12  rank=4/lora-rank=4.safetensors",
        "           8  failed",
    ]


def test_the_final_loss_is_the_mean_of_the_last_tenth_and_the_validation_that_of_the_file(tmp_path):
    (one,) = combined(tmp_path, "[sweep]\nobjective.seed = [0]")
    folder = one.recipe.output.folder
    folder.mkdir(parents=True)
    rows = [{"step": step, "loss": float(step), "lr": 1.0} for step in range(1, 31)]
    rows[9]["val_loss"], rows[29]["val_loss"] = 0.25, 0.5
    (folder / "loss.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert losses_of(one.recipe) == (29.0, 0.5)
    early = one.recipe.replaced({"validation.every_n_steps": 10, "validation.early_stop": 3})
    assert losses_of(early) == (29.0, 0.25)
    del rows[29]["val_loss"]
    (folder / "loss.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert losses_of(one.recipe) == (29.0, None)


def test_a_dry_run_lists_the_runs_and_writes_nothing(tmp_path, capsys):
    text = '[network]\nfactor = 4\n[sweep]\nnetwork.form = ["lora", "lokr"]\nobjective.seed = [0, 1]'
    words = ["sweep", written(tmp_path, text), "--phantom", "--train_data_dir", tmp_path]
    assert main([str(word) for word in (*words, "--output_dir", tmp_path / "out", "--dry-run")]) == 2
    told = capsys.readouterr()
    assert [line.split() for line in told.out.splitlines()] == [
        ["network.form", "objective.seed", "state"],
        ["lora", "0", "failed"],
        ["lora", "1", "failed"],
        ["lokr", "0", "to", "do"],
        ["lokr", "1", "to", "do"],
    ]
    assert "form=lora-seed=0 can't be trained: network.factor 4 would have no effect" in told.err
    assert not (tmp_path / "out").exists()
