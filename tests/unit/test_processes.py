"""Processes that train together: the order of their sums, what they agree on, and how they end."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.trainer.processes import Processes
from diffusioncleft.trainer.step_sum import StepSum

BATCHES = 12
WORKER = """
import json, os, signal, sys
import torch
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.trainer.interruption import Interrupted
from diffusioncleft.trainer.processes import LostProcess, Processes
from diffusioncleft.trainer.step_sum import StepSum
sys.path.insert(0, sys.argv[1])
from test_processes import gradients_of, LAYERS, BATCHES

processes = Processes.of_environment()
device = processes.join("auto" if not torch.cuda.is_available() else "cpu")
parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in LAYERS]
step_sum = StepSum(parameters, processes)
said = {"device": str(device)}
sums = []
for step in (1, 2):
    for number in processes.batches(step, BATCHES):
        for parameter, gradient in zip(parameters, gradients_of(number)):
            parameter.grad = gradient
        step_sum.add(torch.tensor([float(number) / 3, 1e-3 * number]))
    losses = step_sum.finish()
    sums.append([losses.tolist(), [parameter.grad.double().flatten().tolist() for parameter in parameters]])
said["sums"] = sums
processes.check_same(*parameters, "one", 2)
said["same"] = [processes.same(parameters[0]), processes.same(parameters[0] + 1e-6 * processes.index)]
try:
    processes.check_same(processes.index if processes.index else 0)
except UserError as error:
    said["different"] = str(error)
try:
    with processes.together():
        processes.agree(None)
        if processes.first:
            raise Interrupted("while it drew")
except Interrupted as stop:
    said["stopped"] = str(stop)
print(json.dumps(said), flush=True)
processes.wait()
if processes.index == processes.count - 1:
    os.kill(os.getpid(), signal.SIGKILL)
try:
    processes.wait()
except LostProcess as lost:
    print(json.dumps([str(lost), *processes.speaks_for_all(1)]), flush=True)
    os._exit(0)
"""
LAYERS = ((3, 7), (5,), (2, 2, 2))


def gradients_of(number: int) -> list[torch.Tensor]:
    """Gradients of a batch, of very different sizes, so that the order of a sum shows in its last bits."""
    random = torch.Generator().manual_seed(number)
    return [torch.randn(shape, generator=random) * 10.0 ** (number % 5) for shape in LAYERS]


def one_after_the_other(step: int) -> list:
    """What one process gets that accumulates all batches of the step."""
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in LAYERS]
    step_sum = StepSum(parameters, Processes())
    for number in range((step - 1) * BATCHES, step * BATCHES):
        for parameter, gradient in zip(parameters, gradients_of(number), strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        step_sum.add(torch.tensor([float(number) / 3, 1e-3 * number]))
    losses = step_sum.finish()
    return [losses.tolist(), [parameter.grad.double().flatten().tolist() for parameter in parameters]]


@pytest.fixture(scope="module", params=[3])
def together(request, tmp_path_factory):
    """What so many processes said, each in its turn of lines, and their exit codes."""
    count = request.param
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("processes")
    (folder / "worker.py").write_text(WORKER)
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
    }
    workers = [
        subprocess.Popen(
            [sys.executable, str(folder / "worker.py"), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            env={**environment, "RANK": str(index), "LOCAL_RANK": str(index)},
            text=True,
        )
        for index in range(count)
    ]
    said = [worker.communicate(timeout=240)[0].splitlines() for worker in workers]
    return [list(map(json.loads, lines)) for lines in said], [worker.returncode for worker in workers]


def test_the_sum_has_the_bits_of_one_process_that_accumulates(together):
    expected = [one_after_the_other(1), one_after_the_other(2)]
    said, _ = together
    assert all(lines[0]["sums"] == expected for lines in said)
    backwards = torch.zeros(3, 7)
    for number in reversed(range(BATCHES)):
        backwards += gradients_of(number)[0]
    assert backwards.double().flatten().tolist() != expected[0][1][0]


def test_without_a_gpu_each_computes_on_the_processor(together):
    assert {lines[0]["device"] for lines in together[0]} == {"cpu"}


def test_what_stops_one_stops_all_with_its_reason(together):
    assert [lines[0]["stopped"] for lines in together[0]] == ["while it drew"] * 3


def test_processes_that_see_other_things_refuse(together):
    assert all("do not see the same images" in lines[0]["different"] for lines in together[0])
    assert all(lines[0]["same"] == [True, False] for lines in together[0])


def test_one_that_is_killed_ends_the_others_and_one_of_them_says_so(together):
    said, codes = together
    assert codes == [0, 0, -signal.SIGKILL]
    assert all("one of the 3 processes ended without a word" in lines[1][0] for lines in said[:2])
    assert sorted(lines[1][1] for lines in said[:2]) == [False, True]
    assert {lines[1][2] for lines in said[:2]} == {1}


def test_batches_of_all_processes_are_those_of_one():
    for count in (1, 2, 3, 4, 6):
        shares = [Processes(index, count).batches(5, 12) for index in range(count)]
        assert sorted(number for share in shares for number in share) == list(range(48, 60))
        assert all(list(share) == sorted(share) and len(share) == 12 // count for share in shares)


def test_whole_batches_are_summed_where_one_takes_several_passes():
    parameter = torch.nn.Parameter(torch.zeros(1))
    whole = StepSum([parameter], Processes(), apart=True)
    for first, second in ((1e8, 1.0), (-1e8, 1.0)):
        parameter.grad = torch.tensor([first]) + torch.tensor([second])
        whole.add(torch.zeros(2))
        assert parameter.grad is None
    whole.finish()
    assert parameter.grad.tolist() == [0.0]


def test_a_device_that_can_not_be_shared_out_is_refused():
    with pytest.raises(UserError, match="can't share the device cpu:0"):
        Processes(0, 2)._checked(torch.device("cpu:0"))


def test_processes_that_were_not_started_are_missed(monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    with pytest.raises(UserError, match=r"accelerate launch --multi_gpu --num_processes N"):
        Processes.of_environment().join("cpu")
