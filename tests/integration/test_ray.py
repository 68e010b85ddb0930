"""Workers on Ray, real processes that are killed, hang and refuse: sets come out the same in every byte."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from diffusioncleft.diffusioncleft_core import phantom
from diffusioncleft.diffusioncleft_core.cluster.settings import RaySettings
from diffusioncleft.diffusioncleft_core.cluster.work import HERE, Done, SetAside, Work
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import sampling_plan
from diffusioncleft.diffusioncleft_core.conditions.plan_rows import write_plan
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
from diffusioncleft.diffusioncleft_core.filters.apply import filter_set
from diffusioncleft.diffusioncleft_core.filters.settings import FilterSettings, load_filters
from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
from diffusioncleft.diffusioncleft_core.generation.generate import generate
from diffusioncleft.diffusioncleft_core.generation.settings import GenerationSettings, Sampling
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
from diffusioncleft.diffusioncleft_core.metrics.extractors import Extractors, load_extractors
from diffusioncleft.diffusioncleft_core.metrics.measure import MeasureSettings, measure_sets
from diffusioncleft.diffusioncleft_core.metrics.sets import References

ray = pytest.importorskip("ray", reason="NO RAY: pip install ray fsspec")
N, BATCH, SIDE = 10, 4, 64


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def engine(said):
    """Two workers on this machine, which are replaced when they hang."""
    from diffusioncleft.diffusioncleft_core.cluster.ray_engine import ray_engine

    blocked = os.environ.get("OMP_NUM_THREADS")
    with ray_engine(RaySettings(workers=2, timeout=400), said.append) as found:
        yield found
    assert os.environ.get("OMP_NUM_THREADS") == blocked


def toy(folder):
    """How a worker is built that squares numbers, ends its process at 13, sleeps at 7 when it first sees it,
    and refuses 99; of the test's own, so it travels whole."""

    class Squarer:
        def __init__(self, folder):
            self.folder = folder

        def prepare(self, jobs):
            if 77 in jobs:
                raise UserError("77 can't be prepared")

        def do(self, job):
            first = not (self.folder / str(job)).exists()
            (self.folder / str(job)).write_text("seen")
            if job == 13:
                os.kill(os.getpid(), signal.SIGKILL)
            if job == 7 and first:
                time.sleep(3600)
            if job == 99:
                raise UserError("99 is refused")
            return job * job

    return partial(Squarer, folder)


def results(engine, work, jobs):
    found = list(engine.run(work, jobs))
    done = {item.job: item.found for item in found if isinstance(item, Done)}
    aside = {item.job: item.reason for item in found if isinstance(item, SetAside)}
    assert len(done) + len(aside) == len(found)  # nothing twice
    return done, aside


def test_every_job_is_done_once_whichever_worker_does_it(engine, tmp_path):
    done, aside = results(engine, Work(toy(tmp_path), 5), range(20, 60))
    assert done == {job: job * job for job in range(20, 60)}
    assert aside == {}


def test_killed_workers_lose_nothing_and_double_nothing(engine, said, tmp_path):
    done = []
    for item in engine.run(Work(toy(tmp_path), 5), range(20, 60)):
        done.append((item.job, item.found))
        if len(done) in (3, 15, 30):
            os.kill(engine.processes()[-1], signal.SIGKILL)
    assert sorted(done) == [(job, job * job) for job in range(20, 60)]
    assert any("is gone" in line for line in said)


def test_a_job_that_ends_its_worker_three_times_is_set_aside_and_the_rest_is_done(engine, tmp_path):
    done, aside = results(engine, Work(toy(tmp_path), 5), [20, 13, 21, 22])
    assert done == {20: 400, 21: 441, 22: 484}
    assert list(aside) == [13]
    assert aside[13].startswith("3 workers ended over it")


def test_a_worker_that_hangs_is_replaced(engine, said, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_settings", RaySettings(workers=2, timeout=5))
    done, aside = results(engine, Work(toy(tmp_path), 5), [20, 7, 21])
    assert done == {20: 400, 7: 49, 21: 441}
    assert aside == {}
    assert any("no result for" in line for line in said)


@pytest.mark.parametrize(("job", "sentence"), [(99, "99 is refused"), (77, "77 can't be prepared")])
def test_what_a_job_refuses_is_the_commands_own_error(engine, tmp_path, job, sentence):
    with pytest.raises(UserError, match=sentence):
        list(engine.run(Work(toy(tmp_path), 5), [20, job]))


def drawn_with():
    return GenerationSettings(
        phantom_source(), Sampling(torch.device("cpu"), torch.float32, width=SIDE, height=SIDE, batch=BATCH)
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """This process computes as workers do: in several threads sums may have other last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def plan():
    return sampling_plan(load_vocabulary().condition("pre_op"), N, 7)


@pytest.fixture(scope="module")
def alone(plan, tmp_path_factory):
    """The set as one process draws it."""
    out = tmp_path_factory.mktemp("alone")
    generate(drawn_with(), plan, out)
    return out


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def test_two_workers_of_which_one_is_killed_draw_the_bytes_of_one_process(engine, plan, alone, tmp_path):
    kills = []

    def kill(done, total):
        if not kills:
            kills.append(engine.processes()[0])
            os.kill(kills[0], signal.SIGKILL)

    result = generate(drawn_with(), plan, tmp_path / "set", engine=engine, on_image=kill)
    assert kills
    assert result.made == N
    assert content(tmp_path / "set") == content(alone)


@pytest.mark.long
def test_a_killed_command_goes_on_from_what_it_drew(plan, alone, tmp_path):
    # Not cut off from other hosts: Ray's own processes speak to each other by this host's address.
    write_plan(tmp_path / "plan.jsonl", plan)
    out = tmp_path / "set"
    words = [
        "--plan",
        tmp_path / "plan.jsonl",
        "--phantom",
        "--size",
        SIDE,
        "--batch",
        BATCH,
        "--dtype",
        "fp32",
    ]
    words += ["--device", "cpu", "--out", out, "--ray", "--ray-workers", 1]
    command = [sys.executable, "-m", "diffusioncleft", "generate", *map(str, words)]
    with subprocess.Popen(command, cwd=tmp_path) as process:
        limit = time.monotonic() + 900
        while not list(out.glob("0*.png")) and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
        process.kill()
    before = len(list(out.glob("0*.png")))
    assert 0 < before < N
    assert generate(drawn_with(), plan, out).made >= N - before
    assert content(out) == content(alone)


def test_what_asks_for_ray_without_it_is_told_what_to_install(python):
    hidden = "import sys; sys.modules['ray'] = None; from diffusioncleft.cli.main import main; "
    words = "['generate', '--n', '1', '--condition', 'pre_op', '--phantom', '--out', 'x', '--ray']"
    done = python("-c", f"{hidden} sys.exit(main({words}))")
    assert done.returncode == 2
    assert "pip install ray fsspec" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--ray-workers", "2"], "belongs to --ray"),
        (["--ray", "--grid-strengths", "1"], "a grid is drawn in one process"),
        (["--ray", "--ray-workers", "0"], "--ray-workers"),
    ],
)
def test_options_that_contradict_each_other_are_refused(refused, tmp_path, options, sentence):
    words = ["generate", "--n", 1, "--condition", "pre_op", "--phantom", "--out", tmp_path / "x"]
    assert sentence in refused(*words, *options)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Phantoms as photographs in a dataset, and a set of others with artifacts and a copied photograph."""
    root = tmp_path_factory.mktemp("pictures")
    folder = root / "photographs"
    phantom.write_photographs(folder, 8, "cleft", 5, subjects=8)
    condition, faces = load_vocabulary().condition("pre_op"), load_face_analyzer("phantom")
    photographs = Photographs(folder, folder / "metadata.csv")
    build_dataset(photographs, condition, root / "dataset", faces, settings=BuildSettings(phantom=True))
    phantom.write_photographs(root / "set", 8, "cleft", 11, subjects=8)
    for name in ("metadata.csv", "CONSENT.txt"):
        (root / "set" / name).unlink(missing_ok=True)
    shutil.copy(next(folder.glob("*.png")), root / "set" / "copied.png")
    (root / "set" / "torn.png").write_bytes(b"\x89PNG\r\n")
    return root


def filtered(folder, dataset, engine):
    settings = FilterSettings("phantom", references=(dataset,))
    result = filter_set(folder, load_filters(settings), engine=engine)
    return {row.name: row.verdicts for row in read_image_set(folder)}, result.checked


def test_two_workers_filter_and_measure_to_the_figures_of_one_process(engine, pictures, tmp_path):
    found = {}
    for name, who in (("here", HERE), ("ray", engine)):
        folder = shutil.copytree(pictures / "set", tmp_path / name)
        verdicts, checked = filtered(folder, pictures / "dataset", who)
        extractors = load_extractors({"fid"}, phantom=True, device=torch.device("cpu"))
        measured = measure_sets(
            {"pre_op": folder}, [pictures / "dataset"], load_face_analyzer("phantom"), extractors, engine=who
        )
        found[name] = (verdicts, checked, flat(measured))
    assert found["ray"][:2] == found["here"][:2]
    assert found["here"][1] == 10
    assert "near_copy" in found["here"][0]["copied.png"]["reasons"]
    assert found["here"][0]["torn.png"]["accepted"] is False
    assert found["ray"][2].keys() == found["here"][2].keys()
    for key, value in found["here"][2].items():
        assert found["ray"][2][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key


@pytest.mark.long
@pytest.mark.parametrize("beside", [True, False])
def test_two_workers_find_the_copies_of_a_bare_folders_photographs(engine, pictures, tmp_path, beside):
    bare, drawn = tmp_path / "bare", shutil.copytree(pictures / "set", tmp_path / "set")
    phantom.write_photographs(bare, 5, "cleft", 23, subjects=5)
    for place, photograph in enumerate(sorted(bare.glob("*.png"))[:2]):
        shutil.copy(photograph, drawn / f"of the bare folder {place}.png")
    references = References((pictures / "dataset",) if beside else (), {bare: "all"})
    found = []
    for who, cache in ((engine, "elsewhere"), (HERE, "alone"), (HERE, "elsewhere")):
        settings = MeasureSettings(cache_dir=tmp_path / cache)
        analyzer = load_face_analyzer("phantom")
        measured = measure_sets({"pre_op": drawn}, references, analyzer, Extractors(), settings, engine=who)
        found.append(measured["sets"]["pre_op"]["near_copies"]["robust"]["raw"])
    assert found[0] == found[1] == found[2]
    assert (found[0]["n_reference"] > 5) is beside and found[0]["k"] >= 2


def flat(value, name=""):
    """Every number of a document by its path."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{name}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, part in enumerate(value) for k, v in flat(part, f"{name}/{i}").items()}
    return {name: value} if isinstance(value, (int, float)) else {}
