"""Bars of long work: whoever watches hears of each item, and one thread serves however many there are."""

import threading

import pytest

from diffusioncleft.diffusioncleft_core.progress import progress, watched


def test_a_watcher_hears_of_each_item_before_it_and_of_each_update_after_it():
    heard = []
    with watched(lambda *told: heard.append(told)):
        assert list(progress("ab", "letters")) == ["a", "b"]
        bar = progress(3, "steps")
        bar.update(2)
        bar.close()
    list(progress("c", "unwatched"))
    assert heard == [("letters", 0, 2), ("letters", 1, 2), ("steps", 2, 3)]


def test_a_watcher_stops_the_work_by_raising():
    def stop(what, done, total):
        if done == 1:
            raise InterruptedError

    done = []
    with watched(stop), pytest.raises(InterruptedError):
        done.extend(progress(range(3), "numbers"))
    assert done == [0]


def test_many_bars_start_one_thread(monkeypatch):
    monkeypatch.setenv("DIFFUSIONCLEFT_PROGRESS", "1")
    list(progress(range(3), "first"))
    before = threading.active_count()
    for _ in range(5):
        with watched(lambda *told: None):
            list(progress(range(3), "another"))
    assert threading.active_count() == before
