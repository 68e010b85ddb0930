"""Who does which job, and what becomes of one that ends its workers; no Ray here."""

from diffusioncleft.diffusioncleft_core.cluster.board import DEATHS, Board
from diffusioncleft.diffusioncleft_core.cluster.work import HERE, Done, SetAside, Work


def a_board(jobs, workers=2, block=100, **options):
    return Board(Work(lambda: None, block, **options), jobs, workers)


def jobs_of(tickets):
    return [ticket.job for ticket in tickets]


def test_a_worker_takes_half_of_its_share_at_once():
    board = a_board(range(8), workers=2)
    assert jobs_of(board.take()) == [0, 1]
    assert len(board) == 6


def test_a_worker_takes_no_more_than_it_can_prepare():
    assert jobs_of(a_board(range(100), workers=1, block=3).take()) == [0, 1, 2]


def test_what_was_not_begun_is_taken_next_in_its_order():
    board = a_board(range(8))
    taken = board.take()
    board.give_back(taken)
    assert jobs_of(board.take()) == [0, 1]


def test_a_job_that_ends_its_worker_is_tried_three_times_and_then_set_aside():
    board = a_board(["killer", "b"])
    for _ in range(DEATHS - 1):
        (ticket,) = board.take()
        assert ticket.job == "killer"
        assert board.died_at(ticket, "its process ended") is None
    (ticket,) = board.take()
    found = board.died_at(ticket, "its process ended")
    assert isinstance(found, SetAside)
    assert found.job == "killer"
    assert "its process ended" in found.reason
    assert jobs_of(board.take()) == ["b"]


def test_a_job_of_several_parts_is_split_before_any_is_set_aside():
    board = a_board([(1, 2, 3)], workers=1, split=lambda job: [(part,) for part in job])
    for _ in range(DEATHS):
        (ticket,) = board.take()
        assert board.died_at(ticket, "gone") is None
    parts = [board.take()[0] for _ in range(3)]
    assert jobs_of(parts) == [(1,), (2,), (3,)]
    assert [part.deaths for part in parts] == [0, 0, 0]


class Doubler:
    def __init__(self, log):
        self.log = log

    def prepare(self, jobs):
        self.log.append(("prepare", list(jobs)))

    def do(self, job):
        return 2 * job

    def close(self):
        self.log.append(("close",))


def test_one_process_does_the_jobs_in_their_order_block_by_block():
    log = []
    found = list(HERE.run(Work(lambda: Doubler(log), 2), [1, 2, 3]))
    assert found == [Done(1, 2), Done(2, 4), Done(3, 6)]
    assert log == [("prepare", [1, 2]), ("prepare", [3]), ("close",)]


def test_one_process_builds_no_worker_for_no_job():
    assert list(HERE.run(Work(lambda: 1 / 0, 2), [])) == []
