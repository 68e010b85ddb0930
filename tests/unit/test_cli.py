"""The command line: one line for a user's mistake, a status that scripts can read, and no traceback."""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusioncleft.cli import generate
from diffusioncleft.cli import main as cli
from diffusioncleft.cli.options import strength_from
from diffusioncleft.diffusioncleft_core import environment as device
from diffusioncleft.diffusioncleft_core import environment as versions
from diffusioncleft.diffusioncleft_core import progress
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.recipe.presets import named_recipe
from diffusioncleft.trainer import launch

COMMAND = """
import errno, time
from pathlib import Path
from diffusioncleft.diffusioncleft_core.errors import UserError
HELP = "made by a test"
EXAMPLES = "examples:\\n  diffusioncleft made --how user"
def configure(parser):
    parser.add_argument("--how", choices=["well", "user", "full", "bug", "wait"], default="well")
def run(args):
    if args.how == "user":
        raise UserError("the folder\\n'a' is empty; put photographs in it")
    if args.how == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "a.png")
    if args.how == "bug":
        raise OSError(errno.EBADF, "Bad file descriptor")
    if args.how == "wait":
        Path("waiting").touch()
        time.sleep(60)
    print("done")
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A real command module beside the table's own."""
    (tmp_path / "made_command.py").write_text(COMMAND)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.COMMANDS, "made", "made_command")
    monkeypatch.delitem(sys.modules, "made_command", raising=False)


def test_a_command_that_ends_well_returns_zero(made, capsys):
    assert cli.main(["made"]) == 0
    assert capsys.readouterr().out == "done\n"


def test_a_users_mistake_is_one_line_and_status_two(made, capsys):
    assert cli.main(["made", "--how", "user"]) == 2
    assert capsys.readouterr().err == (
        "diffusioncleft: error: the folder 'a' is empty; put photographs in it\n"
    )


def test_debug_shows_where_a_users_mistake_was_found(made, capsys, monkeypatch):
    monkeypatch.setenv("DIFFUSIONCLEFT_DEBUG", "1")
    assert cli.main(["made", "--how", "user"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_a_circumstance_and_an_oserror_without_a_file_is_a_fault(made, capsys):
    assert cli.main(["made", "--how", "full"]) == 2
    assert "the disk is full: a.png was not written; free some space" in capsys.readouterr().err
    with pytest.raises(OSError, match="Bad file descriptor"):
        cli.main(["made", "--how", "bug"])


def test_a_wrong_option_is_one_line_that_points_to_the_help(made, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["made", "--how", "badly"])
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert error.count("\n") == 1
    assert "badly" in error and "diffusioncleft made --help" in error


def test_a_commands_help_prints_its_examples(made, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["made", "--help"])
    assert exit_.value.code == 0
    assert "diffusioncleft made --how user" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="Windows interrupts a console, not a process")
def test_an_interrupted_command_says_how_to_go_on(tmp_path, offline_env):
    (tmp_path / "made_command.py").write_text(COMMAND)
    code = (
        "import sys; from diffusioncleft.cli import main as cli\n"
        "cli.COMMANDS['made'] = 'made_command'\n"
        "sys.exit(cli.main(['made', '--how', 'wait']))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=offline_env, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "waiting").exists():
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=60)
    assert (child.returncode, error) == (130, cli.INTERRUPTED + "\n")


def test_an_unknown_command_exits_two_without_a_traceback(command):
    done = command("trian")
    assert done.returncode == 2
    assert done.stderr == "diffusioncleft: error: there is no command 'trian'; did you mean 'train'?\n"


def test_help_lists_every_command_with_examples(command):
    done = command("--help")
    assert done.returncode == 0, done.stderr
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line.strip()]
    assert set(cli.COMMANDS) <= set(listed)
    assert "diffusioncleft run --phantom --out demo" in done.stdout


def test_without_a_command_the_help_is_printed_and_the_status_is_two(command):
    done = command()
    assert done.returncode == 2
    assert "examples:" in done.stdout


@pytest.mark.parametrize("words", [["weights", "verify"], ["train", "--help"], ["dataset", "check", "."]])
def test_what_opens_no_model_does_not_wait_for_pytorch(words, tmp_path, offline_env):
    """Its import takes seconds."""
    told = [sys.executable, "-X", "importtime", "-m", "diffusioncleft", *words]
    done = subprocess.run(told, cwd=tmp_path, env=offline_env, capture_output=True, text=True, check=False)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "diffusioncleft.cli.main" in imported and "torch" not in imported


TRAINERS = {"train", "sweep"}
"""Commands that take the trainer's options, which have kohya's underscores."""


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main([name, "--help"])
    assert exit_.value.code == 0
    assert f"diffusioncleft {name} " in capsys.readouterr().out.partition("\n")[2]


@pytest.mark.parametrize("name", sorted({*cli.COMMANDS} - TRAINERS))
def test_every_option_of_our_own_is_spelt_with_dashes(name):
    parser = cli._command_parser(name, cli._load(name))
    assert [option for option in cli.option_strings(parser) if "_" in option] == []


@pytest.mark.parametrize(
    ("name", "ours", "other"),
    [
        ("run", ["--training-adapter", "a_b", "--clip-l=c_d"], ["--training_adapter", "a_b", "--clip_l=c_d"]),
        ("generate", ["--bare-trigger", "--out", "x"], ["--bare_trigger", "--out", "x"]),
        (
            "train",
            ["--max_train_steps", "3", "--no-cache_latents_to_disk", "--clip_l", "a"],
            ["--max-train-steps", "3", "--no-cache-latents-to-disk", "--clip-l", "a"],
        ),
        ("dataset", ["show", "--list", "--", "--apart_from"], ["show", "--list", "--", "--apart_from"]),
    ],
)
def test_dashes_and_underscores_are_one(name, ours, other):
    parser = cli._command_parser(name, cli._load(name))
    assert cli.respelled(parser, other) == ours == cli.respelled(parser, ours)


def test_the_readme_names_every_command(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(cli.COMMANDS) == sorted(name for cell in table for name in re.findall("`(.+?)`", cell))


def test_every_command_in_the_documentation_has_the_options_it_is_shown_with(repository):
    wrong = []
    for page in (repository / "README.md", *sorted((repository / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in text.split("```")[1::2]:
            for line in block.splitlines():
                words = line.partition("diffusioncleft ")[2].split()
                if words and words[0] in cli.COMMANDS:
                    known = cli.option_strings(cli._command_parser(words[0], cli._load(words[0])))
                    options = [word.partition("=")[0] for word in words if word.startswith("--")]
                    wrong += [f"{page.name}: {words[0]} {o}" for o in options if o not in {*known, "--help"}]
    assert wrong == []


def test_text_that_the_console_cannot_show_does_not_stop_a_command(offline_env):
    code = (
        "import sys; from diffusioncleft.cli import main as cli\nsys.exit(cli.main(['ž\\u4e2d\\U0001f600']))"
    )
    env = {**offline_env, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"\\U0001f600" in done.stderr


def test_progress_in_a_pipe_is_a_line_now_and_then_more_when_asked_and_none_when_refused(capsys, monkeypatch):
    monkeypatch.delenv("DIFFUSIONCLEFT_PROGRESS", raising=False)
    assert list(progress.progress(range(3), "reading")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    assert list(progress.progress(range(3), "reading")) == [0, 1, 2]
    assert "reading: 100%" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setenv("DIFFUSIONCLEFT_PROGRESS", "0")
    assert list(progress.progress(range(3), "reading")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("DIFFUSIONCLEFT_PROGRESS", "1")
    with progress.progress(4, "writing", unit="step") as bar:
        bar.update(4)
    error = capsys.readouterr().err
    assert "\r" not in error and error.endswith("\n")
    assert "writing: 100%" in error.splitlines()[-1] and "4/4" in error


def test_each_phase_of_a_work_has_a_bar_of_its_own(capsys, monkeypatch):
    monkeypatch.setenv("DIFFUSIONCLEFT_PROGRESS", "1")
    with progress.Phases() as bars:
        bars.advance("latents", 1, 2)
        bars.advance("latents", 2, 2)
        bars.advance("training", 5, 10, "step")
        bars.advance("training", 10, 10, "step", loss="0.1")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "latents: 100%" in line and "2/2" in line]
    assert "training: 100%" in lines[-1] and "10/10" in lines[-1] and "loss=0.1" in lines[-1]


def test_a_device_that_is_not_there_is_refused_by_name():
    assert device.pick_device("cpu").type == "cpu"
    assert device.pick_device("auto") == device.pick_device(None)
    for name in ("tpu", "cuda:99", "cpu:1", "cuda:x"):
        with pytest.raises(UserError, match=name):
            device.pick_device(name)


def test_provenance_names_neither_user_nor_host_nor_folder(tmp_path):
    import getpass
    import platform

    told = str({**versions.versions(), **versions.hardware()})
    assert "torch" in versions.versions() and versions.hardware()["cores"] >= 1
    user = getpass.getuser()
    for secret in (platform.node(), str(Path.home()), user):
        assert len(secret) < 4 or secret not in told


@pytest.mark.skipif(os.name == "nt", reason="sends SIGTERM")
def test_a_schedulers_signal_ends_a_command_as_ctrl_c_does(tmp_path, offline_env):
    words = ["phantom", "render", "--condition", "pre_op", "--n", "5000", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "diffusioncleft", *words]
    with subprocess.Popen(command, env=offline_env, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(tmp_path.glob("out/*.png")):
            time.sleep(0.05)
        process.terminate()
        said = process.stderr.read()
    assert process.returncode == 130, said
    assert "run the same command again" in said


def test_a_file_of_the_working_folder_takes_no_librarys_place_in_training(tmp_path, offline_env):
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong random')")
    launcher = launch.command(named_recipe("paper", phantom=True))
    start = launcher[: launcher.index("accelerate.commands.launch") + 1]
    done = subprocess.run([*start, "--help"], cwd=tmp_path, env=offline_env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "given", [("s3://bucket/set",), ("--reference", "a", "--out=GS://b/c"), ("file:///a",)]
)
def test_a_command_that_reads_folders_sends_the_url_of_a_store_to_import_and_export(given, capsys):
    assert cli.main(["measure", *given]) == 2
    said = capsys.readouterr().err
    assert "'measure' reads and writes folders" in said and "'diffusioncleft import'" in said


def test_the_address_of_a_server_is_no_store():
    from diffusioncleft.diffusioncleft_core.imageset.storage import store_protocol

    assert [store_protocol(text) for text in ("http://127.0.0.1:8188", "C:/a", "a/b", "S3://a")] == [
        *(None, None, None),
        "s3",
    ]


@pytest.mark.parametrize(
    ("words", "conditions", "strength"),
    [
        (["--phantom", "--lora", "a"], ["pre_op", "pre_op"], 1.5),
        (["--phantom", "--lora", "a"], ["post_op"], 2.25),
        (["--phantom", "--grid-loras", "a"], ["post_op"], 2.25),
        (["--phantom", "--lora", "a"], ["pre_op", "post_op"], 1.0),
        (["--phantom", "--lora", "a"], ["another"], 1.0),
        (["--phantom", "--lora", "a"], [None], 1.0),
        (["--phantom", "--lora", "a", "--strength", "0.5"], ["pre_op"], 0.5),
        (["--phantom"], ["pre_op"], 1.0),
        (["--base", "b", "--lora", "a"], ["pre_op"], 1.0),
    ],
)
def test_the_phantoms_lora_draws_at_its_conditions_strength(words, conditions, strength):
    parser = argparse.ArgumentParser()
    generate.configure(parser)
    args = parser.parse_args([*words, "--out", "x"])
    assert strength_from(args, conditions) == strength
