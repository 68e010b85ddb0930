"""Jobs at once: all results, or the first failure with the others stopped."""

from __future__ import annotations

import threading
import time

import pytest

from diffusioncleft.diffusioncleft_core.run.training import Stop, side_by_side


@pytest.mark.parametrize("at_once", [1, 2])
def test_every_job_gives_its_result(at_once: int) -> None:
    assert side_by_side({"a": lambda stop: 1, "b": lambda stop: 2}, at_once) == {"a": 1, "b": 2}


def test_two_jobs_really_run_at_once() -> None:
    meeting = threading.Barrier(2, timeout=10)
    assert len(side_by_side({name: lambda stop: meeting.wait() for name in "ab"}, 2)) == 2


def test_a_failure_stops_the_other_job_and_is_raised() -> None:
    saved = []

    def long(stop: Stop) -> None:
        deadline = time.monotonic() + 10
        while not stop() and time.monotonic() < deadline:
            time.sleep(0.01)
        saved.append(stop())

    def failing(stop: Stop) -> None:
        raise ValueError("no such file")

    with pytest.raises(ValueError, match="no such file"):
        side_by_side({"long": long, "failing": failing}, 2)
    assert saved == [True]


def test_after_a_failure_no_job_starts_that_waited_for_its_turn() -> None:
    started = []

    def long(stop: Stop) -> None:
        deadline = time.monotonic() + 10
        while not stop() and time.monotonic() < deadline:
            time.sleep(0.01)

    def failing(stop: Stop) -> None:
        raise ValueError("no such file")

    def waiting(stop: Stop) -> None:
        started.append(stop())
        long(stop)

    later = {f"waiting {place}": waiting for place in range(5)}
    with pytest.raises(ValueError, match="no such file"):
        side_by_side({"long": long, "failing": failing, **later}, 2)
    assert len(started) <= 1, "the failed job's thread takes one before it is told"
