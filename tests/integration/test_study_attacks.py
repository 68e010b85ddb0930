"""A study's server attacked by requests: nobody looks in, nobody writes for another."""

import json
import os
import re
import time

import pytest
from study_serving import ANNA, queue_of, saved

from diffusioncleft.diffusioncleft_core.study.web.signin import FAILURES, Signatures, read_secret
from diffusioncleft.tools.study_client import Client
from diffusioncleft.tools.study_server import StudyServer, make_study

TELLING = ("How real", "How realistic", "Anna", "Berta", "R2", "/item/", "/picture/", " of ")
"""What nobody without a link may read."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    server = StudyServer(make_study(tmp_path_factory.mktemp("attacked") / "study", side=64), environment)
    yield server.start()
    server.kill()


@pytest.fixture(scope="module")
def anna(server):
    return server.rater("Anna")


@pytest.fixture(scope="module")
def berta(server):
    return server.rater("Berta")


@pytest.mark.parametrize("path", ["/", "/item/0123", "/picture/0123", "/enter/wrong", "/enter/%C3%A9%00"])
def test_without_a_valid_link_nothing_is_seen(server, anna, path):
    for client in (Client(server.base), Client(server.base, dict.fromkeys(anna.cookies, "x"))):
        page = client.get(path)
        assert page.status in (403, 404)
        assert not [word for word in TELLING if word in page.text]


def test_an_image_of_another_raters_queue_is_refused(server, anna, berta):
    item = berta.next_item()
    picture = berta.get(item).picture
    assert berta.get(picture).status == 200
    assert anna.get(picture).status == 404
    assert anna.get(item).status == 404
    fields = berta.get(item).fields(item)
    assert anna.post(item, fields).status == 404
    own = anna.next_item()
    before = saved(server)
    assert anna.post(own, fields | {"answer.realism": "1", "answer.plausibility": "1"}).status == 403
    assert saved(server) == before


def test_an_items_own_id_names_nothing(server, anna):
    for item in server.study.items:
        assert anna.get(f"/item/{item.id}").status == 404
        assert anna.get(f"/picture/{item.id}").status == 404


def test_a_picture_tells_nothing_of_its_file(server, anna):
    page = anna.get(anna.get(anna.next_item()).picture)
    assert set(page.headers) & {"last-modified", "etag", "content-disposition"} == set()
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("spoilt", ["missing", "wrong", "another's"])
def test_a_form_without_its_csrf_token_is_not_kept_and_stays_on_the_page(server, anna, berta, spoilt):
    item = anna.next_item()
    fields = anna.get(item).fields(item) | {"answer.realism": "2", "answer.plausibility": "3"}
    other = berta.get(berta.next_item())
    tokens = {"missing": "", "wrong": "0" * 64, "another's": re.search(r'csrf" value="(\w+)"', other.text)[1]}
    before = saved(server)
    page = anna.post(item, fields | {"csrf": tokens[spoilt]})
    assert page.status == 403
    assert page.fields(item)["answer.realism"] == "2"
    for path in ("/leave", "/language"):
        assert anna.post(path, {"csrf": tokens[spoilt], "language": "es"}).status == 403
    assert saved(server) == before


def test_a_form_of_another_site_is_refused(server, anna):
    item = anna.next_item()
    fields = anna.get(item).fields(item) | {"answer.realism": "2", "answer.plausibility": "3"}
    before = saved(server)
    assert anna.post(item, fields, **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert saved(server) == before


def test_a_session_that_was_changed_or_has_expired_is_nobodys(server, anna, monkeypatch):
    ((name, cookie),) = anna.cookies.items()
    payload, _, rest = cookie.partition(".")
    for wrong in (cookie[:-2], f"{payload[:-2]}AA.{rest}", f"{cookie}x", payload):
        assert Client(server.base, {name: wrong}).get("/").status == 403
    store = server.store()
    rater = store.rater(1)
    store.close()
    signatures = Signatures(read_secret(server.study.private))
    now = time.time()
    for age, status in ((11, 200), (13, 403)):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda age=age: now - age * 3600)
            old = signatures.session(1, rater.token_hash)
        assert Client(server.base, {name: old}).get("/").status == status
    assert Client(server.base, {name: signatures.session(1, "0" * 64)}).get("/").status == 403
    assert Client(server.base, {name: signatures.session(99, rater.token_hash)}).get("/").status == 403


def test_an_expired_session_keeps_the_answer_and_says_what_to_do(server, anna):
    item = anna.next_item()
    fields = anna.get(item).fields(item) | {"answer.realism": "2", "answer.plausibility": "3"}
    lost = Client(server.base)
    page = lost.post(item, fields)
    assert page.status == 401
    assert "not saved yet" in page.text
    assert "Open your personal link in another tab" in page.text
    assert "not saved yet" in json.loads(lost.post(item, fields, Accept="application/json").body)["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/picture/..%2f..%2fstudy.toml",
        "/picture/../private/key.jsonl",
        "/picture/%2e%2e%2fkey.jsonl",
        "/picture/....//key.jsonl",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2fetc%2fpasswd",
        "/static/study.css%00.png",
        "/item/..%5c..%5cprivate",
        "//etc/passwd",
        "/private/key.jsonl",
    ],
)
def test_paths_in_a_request_lead_nowhere(anna, path):
    page = anna.get(path)
    assert page.status == 404
    assert b"schema" not in page.body


def test_every_answer_carries_the_security_headers(server, anna):
    item = anna.next_item()
    answers = [anna.get("/"), anna.get(item), anna.get(anna.get(item).picture), anna.get("/nowhere")]
    answers += [anna.get("/static/study.css"), anna.post("/", {}), Client(server.base).get("/")]
    answers.append(anna.get("/", Host="evil.example"))
    assert [answer.status for answer in answers] == [200, 200, 200, 404, 200, 405, 403, 400]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers
    cookie = Client(server.base).get(server.invite("Carla").removeprefix(server.base)).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


def test_no_page_has_script_or_style_of_its_own(anna):
    for page in (anna.get("/"), anna.get(anna.next_item())):
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|javascript:", page.text)


def test_a_form_that_is_too_large_is_refused(server, anna):
    item = anna.next_item()
    fields = anna.get(item).fields(item)
    assert anna.post(item, fields | {"answer.remark": "x" * 300_000}).status == 413
    assert anna.post(item, fields | {f"a{n}": "" for n in range(300)}).status == 413
    assert anna.get("/").status == 200


def test_wrong_links_are_limited_and_a_valid_one_gets_in_from_the_same_address(serving, command):
    server = serving()
    link, revoked = server.invite("Anna"), server.invite("Berta")
    assert command("study", "revoke", server.study.root, "Berta").returncode == 0
    thief = Client(server.base)
    statuses = [thief.get(f"/enter/guess{n}").status for n in range(FAILURES + 2)]
    assert statuses == [403] * FAILURES + [429] * 2
    page = thief.get(revoked.removeprefix(server.base))
    assert page.status == 429
    assert int(page.headers["retry-after"]) > 500
    for _ in range(2):
        colleague = Client(server.base)
        assert colleague.open_link(link).status == 200
        assert colleague.next_item()
    assert thief.get("/enter/guess").status == 429


def test_a_proxys_word_on_who_asks_counts_only_where_there_is_one(serving):
    for options, last in (((), 429), (("--behind-proxy",), 403)):
        server = serving(*options)
        client = Client(server.base)
        statuses = [
            client.get("/enter/guess", **{"X-Forwarded-For": f"10.0.0.{n}"}).status
            for n in range(FAILURES + 1)
        ]
        assert statuses[-1] == last


def test_a_revoked_link_ends_its_sessions(serving, command):
    server = serving()
    anna = server.rater("Anna")
    item = anna.next_item()
    fields = anna.get(item).fields(item) | {"answer.realism": "2", "answer.plausibility": "3"}
    picture = anna.get(item).picture
    done = command("study", "revoke", server.study.root, "Anna")
    assert done.returncode == 0, done.stderr
    assert anna.get("/").status == anna.get(picture).status == anna.get(item).status == 403
    assert anna.post(item, fields).status == 401
    assert saved(server) == {}


def test_a_link_of_someone_else_asks_before_it_changes_who_rates(serving):
    server = serving()
    anna = server.rater("Anna")
    link = server.invite("Berta").removeprefix(server.base)
    page = anna.get(link)
    assert page.status == 200
    assert f"signed in as R{ANNA}" in page.text
    assert f"You rate as R{ANNA};" in anna.get("/").text
    assert anna.post(link, {"csrf": "0" * 64}).status == 403
    assert anna.post(link, page.fields(link)).status == 303
    assert f"You rate as R{ANNA + 1};" in anna.get("/").text


def test_a_withdrawn_picture_is_not_shown_on_and_a_closed_study_takes_nothing(serving):
    server = serving(practice=0)
    anna = server.rater("Anna")
    item = anna.next_item()
    fields = anna.get(item).fields(item) | {"answer.realism": "2", "answer.plausibility": "3"}
    picture = anna.get(item).picture
    first = queue_of(server, ANNA).items[0]
    server.study.image(first.id).unlink()
    assert anna.get(picture).status == anna.get(item).status == anna.post(item, fields).status == 404
    assert "2 pictures" in anna.get("/").text
    item = anna.next_item()
    fields = anna.get(item).fields(item) | {"answer.realism": "2", "answer.plausibility": "3"}
    (server.study.root / "closed.json").write_text("{}", "utf-8")
    assert anna.get("/").status == anna.get(item).status == anna.post(item, fields).status == 410
    assert saved(server) == {}
