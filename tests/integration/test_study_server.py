"""A study's server as a process: whole studies, from the link to the last answer."""

from study_serving import ANNA, ANSWERS, saved

from diffusioncleft.tools.study_client import Client


def test_two_raters_rate_a_whole_study_each_in_their_order(serving, database):
    server = serving(database=database)
    raters = [server.rater("Anna"), server.rater("Berta")]
    for rater in raters:
        seen = []
        while item := rater.next_item():
            page = rater.get(item)
            assert rater.get(page.picture).headers["content-type"] == "image/png"
            seen.append(item)
            page = rater.rate(item, ANSWERS)
            assert page.status == 303, page.text
        assert len(seen) == 4
        assert "All pictures are rated" in rater.get("/").text
    assert len(saved(server)) == 2 * 3 * 2
    assert set(saved(server).values()) == {4, 5}


def test_another_device_goes_on_where_the_first_was(serving):
    server = serving()
    link = server.invite("Anna")
    first, second = Client(server.base), Client(server.base)
    first.open_link(link)
    first.rate(first.next_item(), ANSWERS)
    first.rate(first.next_item(), ANSWERS)
    second.open_link(link)
    assert second.next_item() == first.next_item()
    assert "1 of 3 pictures are rated" in second.get("/").text or "1 of 3 rated" in second.get("/").text


def test_an_answer_is_corrected_and_its_history_kept(serving):
    server = serving(practice=0)
    anna = server.rater("Anna")
    item = anna.next_item()
    anna.rate(item, ANSWERS)
    page = anna.get(item)
    assert page.fields(item)["answer.realism"] == "4"
    assert anna.rate(item, {"realism": 1}).status == 303
    (item_id,) = {key[1] for key in saved(server)}
    assert saved(server)[(f"R{ANNA}", item_id, "realism")] == 1
    assert saved(server)[(f"R{ANNA}", item_id, "plausibility")] == 5
    store = server.store()
    assert [one.answers["realism"] for one in store.history(ANNA, item_id)] == [4, 1]


def test_a_page_with_a_missing_answer_comes_back_with_the_others(serving):
    server = serving(more=True)
    anna = server.rater("Anna")
    item = anna.next_item()
    page = anna.rate(item, {"realism": 3, "wrong": "0.25 0.75", "remark": "an <b>odd</b> ear"})
    assert page.status == 422
    assert "Please answer: How plausible" in page.text
    fields = page.fields(item)
    assert fields["answer.realism"] == "3"
    assert "an &lt;b&gt;odd&lt;/b&gt; ear" in page.text
    assert saved(server) == {}
    sent = {"answer.realism": "3", "answer.plausibility": "2", "answer.origin": "real"}
    assert anna.post(item, fields | sent).status == 303


def test_pages_are_in_the_language_that_is_asked_for(serving):
    server = serving()
    anna = server.rater("Anna")
    spanish = anna.get("/", **{"Accept-Language": "es-MX,es;q=0.9"}).text
    assert '<html lang="es"' in spanish
    assert "Cómo funciona" in spanish
    assert "¿Qué tan reales" in spanish
    csrf = anna.get("/").fields("/language")["csrf"]
    assert anna.post("/language", {"csrf": csrf, "language": "es"}).status == 303
    assert "Cómo funciona" in anna.get("/", **{"Accept-Language": "en"}).text
