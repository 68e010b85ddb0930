"""Several processes that write one file: each waits for the other, and no row and no withdrawal is lost."""

import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from diffusioncleft.diffusioncleft_core.dataset import trained
from diffusioncleft.diffusioncleft_core.dataset.folder import ROLES, create_dataset_folder
from diffusioncleft.diffusioncleft_core.dataset.trained import (
    recorded_runs,
    remember_lora,
    remember_training,
    restoring,
    trained_photographs,
    withdrawing,
)
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import read_mark, read_register, user_register
from diffusioncleft.diffusioncleft_core.files import (
    append_jsonl,
    read_jsonl,
    sha256_file,
    waiting_lock,
    write_json,
)

PROCESSES, ROWS = 4, 50
APPENDS = """
from diffusioncleft.diffusioncleft_core.files import append_jsonl
for row in range({rows}):
    append_jsonl(path, {{"process": process, "row": row, "more": "x" * 200}})
"""
WITHDRAWS = """
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import Withdrawal, change_user_register, merged
for row in range({rows}):
    new = Withdrawal(f"{{process}}-{{row}}", (), "2026-01-01", "a dataset")
    change_user_register(lambda known: merged([*known, new]))
"""
MARKS = """
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import Withdrawal, add_marks, lift_marks
for row in range({rows}):
    new = Withdrawal(f"{{process}}-{{row}}", (), "2026-01-01", "a dataset")
    add_marks(path, [new])
    lift_marks(path, [new] if row % 2 else [])
"""
STARTS = """
import sys
from pathlib import Path
process, path = sys.argv[1], Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
"""
HOLDS = """
import sys
from pathlib import Path
from diffusioncleft.diffusioncleft_core.files import waiting_lock
with waiting_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def all_at_once(work, path, env):
    """Run `work` in several processes that begin together."""
    code = STARTS + work.format(rows=ROWS)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(process), str(path)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for process in range(PROCESSES)
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate()
        assert child.returncode == 0


@contextmanager
def another_holds(path, env):
    """A process that holds a lock; it is killed at the end, if it was not before."""
    line = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(line, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A dataset of two training photographs, and a state folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = create_dataset_folder(tmp_path / "pre_op")
    write_json(folder / ROLES, {"aa": "train", "bb": "train"})
    return folder


@pytest.fixture
def meanwhile(monkeypatch):
    """A function that has another thread do something while `trained` is about to call one of its own, and
    returns how to wait until it is done.
    """
    threads = []

    def arrange(name, what):
        real = getattr(trained, name)

        def called(*arguments, **more):
            if not threads:
                threads.append(threading.Thread(target=what))
                threads[0].start()
                threads[0].join(0.5)
            return real(*arguments, **more)

        monkeypatch.setattr(trained, name, called)
        return lambda: threads[0].join()  # noqa: PLW0108 - there is none yet

    return arrange


def test_rows_that_several_processes_append_are_all_there(tmp_path, offline_env):
    path = tmp_path / "log.jsonl"
    all_at_once(APPENDS, path, offline_env)
    rows = read_jsonl(path)
    assert len(rows) == PROCESSES * ROWS
    assert {(row["process"], row["row"]) for row in rows} == {
        (str(process), row) for process in range(PROCESSES) for row in range(ROWS)
    }
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_withdrawals_that_several_processes_add_to_the_users_list_are_all_there(
    tmp_path, offline_env, monkeypatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    all_at_once(WITHDRAWS, tmp_path, {**offline_env, "XDG_STATE_HOME": str(tmp_path)})
    assert len(read_register(user_register())) == PROCESSES * ROWS


def test_marks_that_several_processes_put_beside_a_lora_are_all_there(tmp_path, offline_env):
    all_at_once(MARKS, tmp_path, offline_env)
    wanted = {f"{process}-{row}" for process in range(PROCESSES) for row in range(0, ROWS, 2)}
    assert {item.run for item in read_mark(tmp_path)} == wanted


def test_who_waits_for_a_lock_gets_it_when_its_holder_is_killed(tmp_path, offline_env):
    lock, got = tmp_path / ".lock", threading.Event()

    def wait():
        with waiting_lock(lock):
            got.set()

    with another_holds(lock, offline_env) as holder:
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not got.wait(0.3)
        holder.kill()
        waiter.join()
    assert got.is_set()


def test_a_training_that_starts_while_a_build_withdraws_is_known_afterwards(dataset, tmp_path, meanwhile):
    remember_training(dataset, "first", tmp_path)
    done = meanwhile("add_marks", lambda: remember_training(dataset, "second", tmp_path / "other"))
    with withdrawing(dataset, {"aa"}) as found:
        done()
        remember_training(dataset, "third", tmp_path / "third")
    assert [item.run for item in found] == ["first"]
    assert recorded_runs(dataset) == {"first", "second", "third"}
    assert trained_photographs(dataset) == {"second": {"aa", "bb"}, "third": {"aa", "bb"}}


def test_a_lora_that_is_saved_while_a_build_withdraws_is_marked(dataset, tmp_path, meanwhile):
    remember_training(dataset, "first", tmp_path)
    told, lora = [], tmp_path / "a.safetensors"
    lora.write_bytes(b"weights")
    done = meanwhile("add_marks", lambda: told.extend(remember_lora(dataset, "first", lora)))
    with withdrawing(dataset, {"aa"}):
        done()
    assert [item.run for item in told] == ["first"]
    assert [row["run"] for row in read_jsonl(dataset / "trained.jsonl") if "lora" in row] == ["first"]


def test_a_withdrawn_lora_that_is_saved_while_a_build_takes_another_withdrawal_back_stays_known(
    dataset, tmp_path, meanwhile
):
    agreed, lora = {"aa": "train", "bb": "train"}, tmp_path / "a.safetensors"
    lora.write_bytes(b"weights")
    remember_training(dataset, "first", tmp_path)
    write_json(dataset / ROLES, {**agreed, "cc": "train"})
    remember_training(dataset, "second", tmp_path)
    with withdrawing(dataset) as found:
        assert len(found) == 2
    done = meanwhile("lift_marks", lambda: remember_lora(dataset, "second", lora))
    with restoring(dataset, agreed) as back:
        done()
    assert [item.run for item in back] == ["first"]
    (left,) = read_register(dataset / "withdrawn.jsonl")
    assert (left.run, left.loras) == ("second", (sha256_file(lora),))


def test_a_training_waits_for_the_process_that_changes_what_the_dataset_knows(dataset, tmp_path, offline_env):
    append_jsonl(dataset / "trained.jsonl", {"run": "first"})
    with another_holds(dataset / ".trained.lock", offline_env) as holder:
        training = threading.Thread(target=remember_training, args=(dataset, "second", tmp_path))
        training.start()
        training.join(0.3)
        assert recorded_runs(dataset) == {"first"}
        holder.kill()
        training.join()
    assert recorded_runs(dataset) == {"first", "second"}
