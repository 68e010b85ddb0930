"""Two Ray nodes on this machine, one of them killed while a set is drawn: the set is that of one process."""

import time

import pytest

from diffusioncleft.tools.cluster_kills import Drawn, command, compared, content, written_plan

pytest.importorskip("ray", reason="NO RAY: pip install ray fsspec")
pytestmark = pytest.mark.long
N = 24


@pytest.fixture(scope="module")
def nodes():
    from diffusioncleft.tools.cluster_nodes import two_nodes

    with two_nodes() as found:
        yield found


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return Drawn(written_plan(tmp_path_factory.mktemp("plan") / "plan.jsonl", N))


def finished(process, log):
    process.join(900)
    assert process.exitcode == 0, log.read_text()
    return log.read_text()


def test_a_node_that_is_killed_while_a_set_is_drawn_loses_nothing_and_doubles_nothing(nodes, drawn, tmp_path):
    out, log = tmp_path / "set", tmp_path / "log"
    process = command(drawn.words(out, "--ray", nodes.address, "--ray-workers", "2"), log)
    try:
        limit = time.monotonic() + 600
        while not (nodes.second_has_workers() and list(out.glob("*.png"))) and time.monotonic() < limit:
            assert process.is_alive(), log.read_text()
            time.sleep(0.1)
        before = len(list(out.glob("*.png")))
        nodes.kill_second()
        assert 0 < before < N
        assert "is gone" in finished(process, log)
    finally:
        process.kill()
    alone = tmp_path / "alone"
    finished(command(drawn.words(alone), tmp_path / "alone.log"), tmp_path / "alone.log")
    assert len([name for name in content(alone) if name.endswith(".png")]) == N
    assert set(compared(alone, out).values()) == {0}


def test_a_difference_is_counted(tmp_path):
    for name, pictures in (("alone", ("a", "b", "c")), ("set", ("a", "b", "d"))):
        (tmp_path / name).mkdir()
        rows = "".join(f'{{"file": "{picture}.png"}}\n' for picture in pictures)
        (tmp_path / name / "manifest.jsonl").write_text(rows + '{"file": "a.png"}\n' * (name == "set"))
        for picture in pictures:
            (tmp_path / name / f"{picture}.png").write_text(name if picture == "b" else picture)
    assert compared(tmp_path / "alone", tmp_path / "set") == {
        "lost": 1,
        "too many": 1,
        "twice in the manifest": 1,
        "of other bytes": 2,
    }
