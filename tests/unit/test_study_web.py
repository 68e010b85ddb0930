"""The study's database, links, orders and languages."""

import contextlib
import os
import shutil
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import read_json
from diffusioncleft.diffusioncleft_core.study.folder import open_study
from diffusioncleft.diffusioncleft_core.study.web import database as tables
from diffusioncleft.diffusioncleft_core.study.web.answers import read_answers
from diffusioncleft.diffusioncleft_core.study.web.messages import choose_language, load_languages
from diffusioncleft.diffusioncleft_core.study.web.order import Queue
from diffusioncleft.diffusioncleft_core.study.web.server import Listening, checked_url
from diffusioncleft.diffusioncleft_core.study.web.signin import FAILURES, Attempts, Signatures
from diffusioncleft.diffusioncleft_core.study.web.store import (
    AnsweredSince,
    RaterGone,
    Store,
    opened_store,
    stored_ratings,
)
from diffusioncleft.tools.study_server import make_study

FOUR = {"realism": 4, "plausibility": 5}
FIVE = {"realism": 5, "plausibility": 5}


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study", n=3, practice=1, side=64)


@pytest.fixture
def store(study, database):
    store = Store(study, database)
    yield store
    store.close()


@pytest.fixture
def rater(store):
    return store.invite("Anna")[0].id


# --- the database


def test_a_form_counts_once_however_often_it_is_sent(store, study, rater):
    item = study.rated[0].id
    for _ in range(3):
        store.save(rater, item, "form 1", FOUR, 3.0)
    assert [one.answers for one in store.history(rater, item)] == [FOUR]


def test_a_form_with_other_answers_corrects_and_each_of_its_requests_counts_once(store, study, rater):
    item = study.rated[0].id
    for answers in (FOUR, FOUR, FIVE, FIVE):
        store.save(rater, item, "form 1", answers, 3.0)
    with pytest.raises(AnsweredSince) as told:
        store.save(rater, item, "form 1", FOUR, 3.0)
    assert told.value.answers == FIVE
    assert [one.answers for one in store.history(rater, item)] == [FOUR, FIVE]
    store.save(rater, item, "form 2", FOUR, 3.0)
    assert [one.answers for one in store.history(rater, item)] == [FOUR, FIVE, FOUR]


def test_forms_sent_at_the_same_moment_leave_one_rating(store, study, rater):
    item = study.rated[0].id
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.save(rater, item, f"form {n % 2}", FOUR, 3.0), range(16)))
    assert [one.answers for one in store.history(rater, item)] == [FOUR]


def test_a_correction_counts_and_the_earlier_answer_is_kept(store, study, rater):
    item = study.rated[0].id
    store.save(rater, item, "form 1", FOUR, 9.0)
    store.save(rater, item, "form 2", FIVE, 2.0)
    assert [(one.revision, one.answers) for one in store.history(rater, item)] == [(1, FOUR), (2, FIVE)]
    assert store.answered(rater) == {item: FIVE}
    with pytest.raises(AnsweredSince):  # the first request, replayed
        store.save(rater, item, "form 1", FOUR, 9.0)
    assert store.answered(rater) == {item: FIVE}


def test_the_answers_that_count_come_out_without_practice_and_corrections(store, study, rater):
    store.save(rater, study.practice[0].id, "form 0", FOUR, 1.0)
    store.save(rater, study.rated[0].id, "form 1", FOUR, 9.0)
    store.save(rater, study.rated[0].id, "form 2", FIVE | {"wrong": [0.25, 0.5]}, 2.0)
    found = {(one.rater, one.item, one.question): (one.value, one.seconds) for one in store.ratings(study)}
    item = study.rated[0].id
    assert found == {
        (f"R{rater}", item, "realism"): (5, 9.0),
        (f"R{rater}", item, "plausibility"): (5, 9.0),
        (f"R{rater}", item, "wrong"): ([0.25, 0.5], 9.0),
    }


def test_a_revoked_rater_saves_nothing_and_keeps_what_was_saved(store, study, rater):
    item = study.rated[0].id
    store.save(rater, item, "form 1", FOUR, 1.0)
    store.revoke("Anna")
    with pytest.raises(RaterGone):
        store.save(rater, item, "form 2", FIVE, 1.0)
    assert store.rater(rater) is None
    assert len(store.ratings(study)) == 2


def test_a_link_opens_until_it_is_revoked_or_renewed(store):
    _, first = store.invite("Anna")
    assert store.by_token(first).name == "Anna"
    for name in (" Anna ", "anna", " ANNA"):
        with pytest.raises(UserError, match=r"Anna \(R1\) has a link already; --renew"):
            store.invite(name)
    assert [rater.name for rater in store.raters()] == ["Anna"]
    store.revoke("Anna")
    assert store.by_token(first) is None
    again, second = store.invite("anna", renew=True)
    assert (again.id, again.name) == (1, "Anna")
    assert store.by_token(first) is None
    assert store.by_token(second).name == "Anna"
    with pytest.raises(UserError, match="no rater Berta"):
        store.revoke("Berta")
    with pytest.raises(UserError, match="no rater Berta"):
        store.invite("Berta", renew=True)


def test_names_are_compared_without_case_and_an_old_pair_is_told_apart(store):
    store.invite("José Müller")
    with pytest.raises(UserError, match=r"José Müller \(R1\) has a link already"):
        store.invite("jose\u0301  MU\u0308LLER")
    assert store.revoke("josé müller").code == "R1"
    with store._engine.begin() as connection:  # as an earlier version let them in
        for name in ("Anna", "anna"):
            values = {"name": name, "token_hash": name * 8, "invited_at": "2026-01-01"}
            connection.execute(tables.rater.insert().values(**values))
    assert store.revoke("anna").name == "anna" and store.revoke("Anna").name == "Anna"
    with pytest.raises(UserError, match=r"ANNA may be Anna \(R2\), anna \(R3\)"):
        store.revoke("ANNA")


def test_the_tables_are_those_that_the_migrations_make(store):
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


def test_a_database_of_an_earlier_version_is_brought_up_to_date_with_its_ratings(study, database):
    first = Store(study, database)
    rater = first.invite("Anna")[0].id
    first.save(rater, study.items[0].id, "form", {"realism": 4}, 1.0)
    with first._engine.begin() as connection:  # as the first version made it
        connection.exec_driver_sql("DROP TABLE repeated")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    first.close()
    later = Store(study, database)
    later.save(rater, study.items[0].id, "another form", {"realism": 4}, 1.0)
    assert [one.answers for one in later.history(rater, study.items[0].id)] == [{"realism": 4}]
    later.close()


def test_a_database_serves_one_study(study, tmp_path, database):
    place = database or f"sqlite:///{tmp_path / 'shared.sqlite'}"
    Store(study, place).close()
    Store(study, place).close()
    other = make_study(tmp_path / "other", n=1, practice=0, side=64)
    with pytest.raises(UserError, match="holds the ratings of another study"):
        Store(other, place)


def test_no_token_is_kept_and_no_one_else_reads_the_file(study):
    store = Store(study)
    _, token = store.invite("Anna")
    store.close()
    files = list(study.private.glob("study.sqlite*"))
    assert files
    for path in [*files, study.private / "secret"]:
        assert token.encode() not in path.read_bytes()
        if os.name == "posix":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_database_of_a_newer_version_is_refused(study):
    Store(study).close()
    with sqlite3.connect(study.private / "study.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UserError, match="made by a newer version"):
        Store(study)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nonsense", "is no URL"),
        ("mysql://u:secret@host/db", "kept in SQLite or PostgreSQL"),
        ("postgresql://u:secret@127.0.0.1:1/db", "can't be used"),
        ("postgresql://u:secret@db.example/x?sslmode=require", "sslmode=require is not known"),
        ("sqlite:////proc/none/study.sqlite", "can't be used"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(study, url, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        Store(study, url)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(study):
    (study.private / "study.sqlite").write_bytes(b"a letter, and no database" * 100)
    for use in (Store, stored_ratings):
        with pytest.raises(UserError, match=r"can't be used .*restore it from a copy"):
            use(study)


def rated(study, url=None):
    """Let Anna rate a picture, and return what is stored."""
    store = Store(study, url)
    store.save(store.invite("Anna")[0].id, study.rated[0].id, "form", FOUR, 1.0)
    store.close()
    return sorted(stored_ratings(study, url).value)


def test_ratings_are_read_where_nothing_can_be_written(study, make_read_only):
    made = rated(study)
    make_read_only(study.private)
    assert sorted(stored_ratings(study).value) == made == [4, 5]
    refused = pytest.raises(UserError, match="make its folder and the file writable")
    with refused, opened_store(study) as store:
        store.invite("Berta")


def test_ratings_are_read_beside_a_server_that_has_just_written(study, database):
    store = Store(study, database)
    store.save(store.invite("Anna")[0].id, study.rated[0].id, "form", FOUR, 1.0)
    assert sorted(stored_ratings(study, database).value) == [4, 5]
    store.save(1, study.rated[0].id, "form 2", FIVE, 1.0)
    assert sorted(stored_ratings(study, database).value) == [5, 5]
    store.close()


def test_what_lies_in_the_log_of_a_killed_server_is_read_or_said_not_to_be(study, tmp_path, make_read_only):
    """The copy is as a kill leaves it: the database without the newest answers, and a log with them."""
    store = Store(study)
    store.save(store.invite("Anna")[0].id, study.rated[0].id, "form", FOUR, 1.0)
    for name in ("killed", "locked"):
        shutil.copytree(study.root, tmp_path / name, ignore=shutil.ignore_patterns("*-shm"))
    store.close()
    assert sorted(stored_ratings(open_study(tmp_path / "killed")).value) == [4, 5]
    make_read_only(tmp_path / "locked" / "private")
    with pytest.raises(UserError, match="can't be used"):
        stored_ratings(open_study(tmp_path / "locked"))


def test_reading_makes_no_database(study):
    assert len(stored_ratings(study)) == 0
    assert not study.database.exists()


def test_on_a_full_disk_it_is_said_that_the_disk_is_full_and_ratings_are_still_read(study, small_disk):
    url = f"sqlite:///{small_disk / 'study.sqlite'}"
    made = rated(study, url)
    with open(small_disk / "filler", "wb", buffering=0) as handle, contextlib.suppress(OSError):
        while handle.write(b"x" * 4096):
            pass
    assert sorted(stored_ratings(study, url).value) == made == [4, 5]
    full = pytest.raises(UserError, match="the disk is full: free some space")
    with full, opened_store(study, url) as store:
        for number in range(200):
            store.invite(f"Berta {number} {'x' * 150}")
    (small_disk / "filler").unlink()
    assert sorted(stored_ratings(study, url).value) == made


def test_a_database_that_another_program_holds_is_called_that(study, monkeypatch):
    monkeypatch.setattr(tables, "WAIT", 0.1)
    rated(study)
    with sqlite3.connect(study.database) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="another program holds it"):
            Store(study)


# --- orders and names


def test_each_rater_has_an_order_of_their_own_and_keeps_it(tmp_path):
    items = make_study(tmp_path / "study", n=12, practice=2, side=64).items
    signatures = Signatures(b"secret")
    queues = [Queue(signatures, rater, items) for rater in range(1, 5)]
    orders = [[item.id for item in queue.items] for queue in queues]
    assert len(set(map(tuple, orders))) == 4
    assert all(sorted(order) == sorted(item.id for item in items) for order in orders)
    assert all([item.practice for item in queue.items] == [True] * 2 + [False] * 12 for queue in queues)
    assert [item.id for item in Queue(signatures, 1, items[::-1]).items] == orders[0]
    names = [name for queue in queues for name in queue.by_name]
    assert len(set(names)) == len(names)
    assert not {item.id for item in items} & set(names)


def test_a_picture_comes_again_about_half_a_study_later(tmp_path):
    items = make_study(tmp_path / "study", n=12, practice=0, repeats=4, side=64).items
    firsts = set()
    for rater in range(20):
        order = list(Queue(Signatures(b"secret"), rater, items).items)
        for item in order:
            if item.repeat_of:
                places = [place for place, one in enumerate(order) if one.picture == item.picture]
                assert abs(places[0] - places[1]) >= 4
                firsts.add(order[places[0]].repeat_of is None)
    assert firsts == {True, False}


# --- signing in


def test_sessions_and_forms_of_another_key_are_not_read():
    mine, other = Signatures(b"one"), Signatures(b"two")
    assert mine.read_session(mine.session(3, "f" * 64)).rater == 3
    assert other.read_session(mine.session(3, "f" * 64)) is None
    assert mine.read_form(mine.form(3, "item")).item == "item"
    assert other.read_form(mine.form(3, "item")) is None
    assert mine.read_session(mine.form(3, "item")) is None
    for wrong in (None, "", "a.b.c", "é", "x" * 5000):
        assert mine.read_session(wrong) is None
        assert mine.read_form(wrong or "") is None


def test_attempts_are_limited_by_address():
    attempts = Attempts()
    for _ in range(FAILURES):
        assert attempts.wait("1.2.3.4") == 0
        attempts.failed("1.2.3.4")
    assert attempts.wait("1.2.3.4") > 500
    assert attempts.wait("1.2.3.5") == 0


# --- answers and languages


def test_answers_are_read_by_their_question_and_others_are_named(tmp_path):
    design = make_study(tmp_path / "study", n=1, practice=0, more=True, side=64).design
    good = {
        "realism": "5",
        "plausibility": "1",
        "origin": "real",
        "wrong": "0.25 0.5",
        "remark": "a\r\nb\x00",
    }
    filled = read_answers(design, {f"answer.{name}": text for name, text in good.items()})
    assert filled.complete
    assert filled.answers == {
        "realism": 5,
        "plausibility": 1,
        "origin": "real",
        "wrong": [0.25, 0.5],
        "remark": "a\nb",
    }
    bad = {"realism": "6", "plausibility": "", "origin": "generated'--", "wrong": "nan 2"}
    filled = read_answers(design, {f"answer.{name}": text for name, text in bad.items()})
    assert [one.name for one in filled.missing] == ["plausibility"]
    assert [one.name for one in filled.wrong] == ["realism", "origin", "wrong"]


def test_every_shipped_language_says_everything(tmp_path):
    languages, notices = load_languages(tmp_path)
    assert {"en", "es"} <= set(languages)
    assert notices == []
    for language in languages.values():
        assert set(language.texts) == set(languages["en"].texts)
        assert language("picture_of", place=1, count=2)


def test_a_clinic_adds_a_language_and_what_it_lacks_is_english(tmp_path):
    (tmp_path / "messages").mkdir()
    path = tmp_path / "messages" / "de.toml"
    path.write_text('language = "Deutsch"\n[texts]\nsave = "Speichern"\n', "utf-8")
    languages, (notice,) = load_languages(tmp_path)
    assert languages["de"]("save") == "Speichern"
    assert languages["de"]("back") == "Back"
    assert "de.toml lacks" in notice
    for text, sentence in (
        ('language = "Deutsch"\n[texts]\nbac = "Zurück"\n', "has the text 'bac'"),
        ('language = "Deutsch"\n[texts]\npicture_of = "{place.__class__}"\n', "fills in what is not there"),
        ('language = "Deutsch"\n[texts]\npicture_of = "{place:>99999999}"\n', "fills in what is not there"),
        ("[texts]\n", "needs language"),
    ):
        path.write_text(text, "utf-8")
        with pytest.raises(UserError, match=sentence):
            load_languages(tmp_path)


def test_the_browsers_language_is_taken_where_the_study_has_it():
    assert choose_language(["en", "es"], None, "de-CH,es-MX;q=0.8,en;q=0.5") == "es"
    assert choose_language(["en", "es"], "en", "es") == "en"
    assert choose_language(["en", "es"], "fr", "fr") == "en"
    assert choose_language(["en", "es"], None, "es;q=0") == "en"


# --- where it listens


def test_it_is_loud_where_a_network_can_read_along():
    assert not Listening().is_open
    assert Listening(host="0.0.0.0").is_open
    assert not Listening(host="::1").is_open
    assert Listening().hosts == ("localhost", "127.0.0.1", "[::1]")
    assert Listening(url="https://study.clinic.example").tls
    assert Listening(url="https://study.clinic.example/").base(1) == "https://study.clinic.example"
    for wrong in ("study.clinic.example", "ftp://x", "https://x/y", "https://u:p@x", "javascript:alert(1)"):
        with pytest.raises(UserError, match="no address"):
            checked_url(wrong)
    with pytest.raises(UserError, match="both --tls-certificate and --tls-key"):
        Listening(certificate=__file__)


# --- what is kept of the measurements


def test_the_kept_kills_are_a_hundred_and_cost_nothing(repository):
    kept = read_json(repository / "experiments" / "study_kills.json")["databases"]
    assert kept["sqlite"]["kills"] >= 100
    for one in kept.values():
        assert one["acknowledged"] > one["kills"]
        assert one["lost"] == one["refused"] == 0


def test_the_kept_load_is_fifty_raters_without_an_error(repository):
    kept = read_json(repository / "benchmarks" / "results" / "study_load_cpu.json")
    assert kept["raters"] == 50
    assert set(kept["databases"]) == {"sqlite", "postgresql"}
    assert [one["errors"] for one in kept["databases"].values()] == [[], []]


def test_a_certificate_that_is_none_is_told_before_anything_is_served(tmp_path):
    for name in ("certificate.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate")
    with pytest.raises(UserError, match="are no certificate and its key"):
        Listening(certificate=tmp_path / "certificate.pem", key=tmp_path / "key.pem")
    with pytest.raises(UserError, match="does not exist"):
        Listening(certificate=tmp_path / "certificate.pem", key=tmp_path / "nowhere.pem")
