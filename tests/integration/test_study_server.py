"""The study's server as a process: whole studies, attacks as requests, and what a kill leaves."""

import errno
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from diffusioncleft.diffusioncleft_core.study.web.order import Queue
from diffusioncleft.diffusioncleft_core.study.web.signin import FAILURES, Signatures, read_secret
from diffusioncleft.tools import study_kills
from diffusioncleft.tools.study_client import Client
from diffusioncleft.tools.study_server import StudyServer, make_study

ANSWERS = {"realism": 4, "plausibility": 5}
TELLING = ("How real", "How realistic", "Anna", "Berta", "R2", "/item/", "/picture/", " of ")
"""What nobody without a link may read."""
ANNA = 2
"""The number of the first who is invited: a server that nobody was invited to makes a first link itself."""


@pytest.fixture
def serving(tmp_path, offline_env):
    """Starts servers, and ends them with the test."""
    servers = []

    def start(*options, database=None, **settings):
        folder = tmp_path / f"study{len(servers)}"
        study = make_study(folder, side=64, **({"n": 3} | settings))
        servers.append(StudyServer(study, offline_env, *options, database=database))
        return servers[-1].start()

    yield start
    for server in servers:
        server.kill()


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


def queue_of(server, rater):
    return Queue(Signatures(read_secret(server.study.private)), rater, server.study.items)


def saved(server):
    store = server.store()
    found = {(one.rater, one.item, one.question): one.value for one in store.ratings(server.study)}
    store.close()
    return found


# --- whole studies


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


# --- nobody looks in


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


# --- nothing is lost


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


def fill(path):
    with open(path, "wb", buffering=0) as handle:
        for size in (4096, 1):
            try:
                while True:
                    handle.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC


def test_what_was_acknowledged_survives_a_kill_at_a_random_moment(tmp_path, offline_env, database):
    study = make_study(tmp_path / "study", n=4, practice=0, side=64)
    server = StudyServer(study, offline_env, database=database)
    found = study_kills.kill_once(server, 3, 0.3, 1) + study_kills.kill_once(server, 3, 0.7, 2)
    assert found["acknowledged"] > 0
    assert found["lost"] == found["refused"] == 0


# --- the command line


def test_the_command_line_invites_lists_and_revokes(tmp_path, command):
    study = make_study(tmp_path / "study", n=2, practice=1, side=64)
    invited = command("study", "invite", study.root, "Anna Ärztin")
    assert invited.returncode == 0, invited.stderr
    assert re.search(r"^http://127\.0\.0\.1:8377/enter/[\w-]{43}$", invited.stdout, re.MULTILINE)
    again = command("study", "invite", study.root, "Anna Ärztin")
    assert again.returncode == 2
    assert "has a link already; --renew" in again.stderr
    renewed = command("study", "invite", study.root, "Anna Ärztin", "--renew", "--url", "https://a.example")
    assert "https://a.example/enter/" in renewed.stdout
    listed = command("study", "raters", study.root).stdout
    assert re.match(r"R1\s+0 of 2 rated, 0 corrected\s+invited \d{4}-\d\d-\d\d\s+Anna Ärztin", listed)
    assert command("study", "revoke", study.root, "Anna Ärztin").returncode == 0
    assert "revoked" in command("study", "raters", study.root).stdout


def test_serve_is_loud_without_tls_and_says_what_it_cannot(serving, command, tmp_path):
    server = serving("--host", "0.0.0.0")
    assert "NO TLS" in server.said()
    assert "nobody was invited yet" not in server.said()
    taken = command("study", "serve", server.study.root, "--port", server.port)
    assert taken.returncode == 2
    assert "is taken by another program" in taken.stderr
    assert server.stop() == 0
    (server.study.root / "closed.json").write_text("{}", "utf-8")
    closed = command("study", "serve", server.study.root)
    assert closed.returncode == 2
    assert "is closed and takes no answers" in closed.stderr


def test_with_a_certificate_all_of_it_is_tls(serving, tmp_path):
    openssl = shutil.which("openssl") or pytest.skip("NO OPENSSL: TLS was not tested")
    files = [str(tmp_path / name) for name in ("key.pem", "certificate.pem")]
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", files[0], "-out", files[1]]
    subprocess.run([openssl, *made], check=True, capture_output=True)
    server = serving("--tls-key", files[0], "--tls-certificate", files[1])
    assert server.base.startswith("https://127.0.0.1:")
    assert "NO TLS" not in server.said()
    trusting = ssl.create_default_context(cafile=files[1])
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=trusting, timeout=30)
    connection.request("GET", server.invite("Anna").removeprefix(server.base))
    answer = connection.getresponse()
    assert answer.status == 303
    assert answer.headers["set-cookie"].startswith("__Host-study_")
    assert "Secure" in answer.headers["set-cookie"]
    assert answer.headers["strict-transport-security"]
