"""What a study's server acknowledged is kept once, whatever happens to page, database, disk and process."""

import errno
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from study_serving import ANNA, saved

from diffusioncleft.tools import study_kills
from diffusioncleft.tools.study_client import Client
from diffusioncleft.tools.study_server import StudyServer, make_study


def test_a_double_click_a_replay_and_two_tabs_give_one_rating(serving, database):
    server = serving(practice=0, database=database)
    anna = server.rater("Anna")
    item = anna.next_item()
    tabs = [anna.get(item).fields(item) for _ in range(2)]
    answers = {"answer.realism": "2", "answer.plausibility": "3"}
    clicks = [Client(server.base, dict(anna.cookies)) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(lambda n: clicks[n].post(item, tabs[n % 2] | answers), range(8)))
    assert {page.status for page in pages} == {303}
    assert len({page.location for page in pages}) == 1
    store = server.store()
    (item_id,) = {key[1] for key in saved(server)}
    assert len(store.history(ANNA, item_id)) == 1
    other = {"answer.realism": "5", "answer.plausibility": "3"}
    assert anna.post(item, anna.get(item).fields(item) | other).status == 303
    for tab in tabs:  # replayed: one whose answers were kept, and one that came when they were known
        assert anna.post(item, tab | answers).status == 409
    assert [one.answers["realism"] for one in store.history(ANNA, item_id)] == [2, 5]


@pytest.mark.parametrize("script", [False, True])
def test_an_answer_that_goes_back_to_an_earlier_one_is_kept_or_said_not_to_be(serving, database, script):
    """A, B and A again from one form: what is acknowledged is what counts."""
    server = serving(practice=0, more=True, database=database)
    anna = server.rater("Anna")
    item = anna.next_item()
    form = anna.get(item).fields(item) | {"answer.plausibility": "3", "answer.origin": "real"}
    headers = {"Accept": "application/json"} if script else {}
    done = 200 if script else 303

    def send(realism, form):
        return anna.post(item, form | {"answer.realism": realism, "answer.remark": "an ear"}, **headers)

    assert [send(realism, form).status for realism in ("2", "4")] == [done, done]
    page = send("2", form)
    said = json.loads(page.body)["error"] if script else page.text
    assert page.status == 409 and "not saved" in said
    assert " 4; " in said and "Photograph" in said and "an ear" in said
    store = server.store()
    (item_id,) = {key[1] for key in saved(server)}
    assert [one.answers["realism"] for one in store.history(ANNA, item_id)] == [2, 4]
    fresh = {"form": json.loads(page.body)["form"]} if script else page.fields(item)
    assert script or fresh["answer.realism"] == "2", "what was chosen stays on the page"
    again = form | fresh
    assert [send("2", again).status for _ in range(2)] == [done, done]
    assert [one.answers["realism"] for one in store.history(ANNA, item_id)] == [2, 4, 2]
    assert send("4", form).status == 409
    assert [one.answers["realism"] for one in store.history(ANNA, item_id)] == [2, 4, 2]
    store.close()


def test_while_the_database_is_away_the_answer_stays_on_the_page(serving, postgres):
    server = serving(practice=0, database=postgres.database())
    anna = server.rater("Anna")
    item = anna.next_item()
    fields = anna.get(item).fields(item) | {"answer.realism": "2", "answer.plausibility": "3"}
    postgres.stop()
    try:
        page = anna.post(item, fields)
        script = anna.post(item, fields, Accept="application/json")
        assert anna.get("/").status == 503
    finally:
        postgres.start()
    assert page.status == script.status == 503
    assert "Your answer is not saved yet" in page.text
    assert "Your answer is not saved yet" in json.loads(script.body)["error"]
    kept = page.fields(item)
    assert (kept["answer.realism"], kept["answer.plausibility"]) == ("2", "3")
    assert "the database is away" in server.said()
    assert "Traceback" not in server.said()
    assert anna.post(item, kept).status == 303
    assert sorted(saved(server).values()) == [2, 3]


def test_on_a_full_disk_the_answer_stays_on_the_page(serving, small_disk):
    server = serving(practice=0, database=f"sqlite:///{small_disk / 'study.sqlite'}")
    anna = server.rater("Anna")
    item = anna.next_item()
    fields = anna.get(item).fields(item) | {"answer.realism": "2", "answer.plausibility": "3"}
    fill(small_disk / "filler")
    page = anna.post(item, fields)
    assert page.status == 503, page.text
    assert "Your answer is not saved yet" in page.text
    kept = page.fields(item)
    (small_disk / "filler").unlink()
    assert anna.post(item, kept).status == 303
    assert sorted(saved(server).values()) == [2, 3]


def test_what_was_acknowledged_survives_a_kill_at_a_random_moment(tmp_path, offline_env, database):
    study = make_study(tmp_path / "study", n=4, practice=0, side=64)
    server = StudyServer(study, offline_env, database=database)
    found = study_kills.kill_once(server, 3, 0.3, 1) + study_kills.kill_once(server, 3, 0.7, 2)
    assert found["acknowledged"] > 0
    assert found["lost"] == found["refused"] == 0


def fill(path):
    with open(path, "wb", buffering=0) as handle:
        for size in (4096, 1):
            try:
                while True:
                    handle.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
