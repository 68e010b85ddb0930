"""A path that is not there, or of another kind, is named as what it is, and nothing is written."""

import pytest

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs

BUILD = ("--condition", "pre_op", "--phantom")


@pytest.mark.parametrize("table", [(), ("--metadata", "nothere/metadata.csv")])
def test_a_build_names_the_folder_that_is_not_there(refused, tmp_path, monkeypatch, table):
    monkeypatch.chdir(tmp_path)
    error = refused("dataset", "build", "nothere", *BUILD, "--out", "o", *table)
    assert f"there is no folder {tmp_path / 'nothere'}" in error
    assert not (tmp_path / "o").exists()


def test_a_build_of_a_file_asks_for_the_folder(refused, tmp_path):
    (tmp_path / "photo.png").touch()
    error = refused("dataset", "build", tmp_path / "photo.png", *BUILD, "--out", tmp_path / "o")
    assert f"{tmp_path / 'photo.png'} is a file; give the folder" in error


def test_inspecting_a_folder_says_that_it_is_one(refused, tmp_path):
    error = refused("lora", "inspect", tmp_path)
    assert f"{tmp_path} is a folder; give the path of a safetensors file" in error


def test_training_on_a_folder_that_is_not_there_says_that_alone_and_makes_nothing(command, tmp_path):
    words = ["train", "--phantom", "--train_data_dir", "nothere", "--output_dir", "t2"]
    done = command(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("diffusioncleft: error: there is no folder nothere")
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.rglob("t2"))


def test_a_check_calls_a_mistake_wrong_and_not_missing(capsys, tmp_path):
    (tmp_path / "run").touch()
    assert main(["run", "--phantom", "--out", str(tmp_path / "run"), "--check"]) == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "is a file" in line]
    assert line.split(f"{tmp_path}")[0].split() == ["the", "run's", "folder", "wrong"]


def test_the_columns_of_a_shown_dataset_stand_below_each_other(capsys, tmp_path):
    photos = tmp_path / "photos"
    write_photographs(photos, 3, "cleft", 3, subjects=3)
    built = tmp_path / "d"
    assert main(["dataset", "build", str(photos), *BUILD, "--holdout", "0", "--out", str(built)]) == 0
    capsys.readouterr()
    assert main(["dataset", "show", str(built)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert any("repair_status: unrepaired" in line for line in lines)
    assert len({len(line) for line in lines}) == 1
