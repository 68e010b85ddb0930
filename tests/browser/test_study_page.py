"""A whole study in a real browser, by two raters at once, as each of them works; every page looked at."""

import json
import os
import re
from pathlib import Path

import pytest

from diffusioncleft.tools.study_server import StudyServer, make_study

PICTURES = os.environ.get("DIFFUSIONCLEFT_SCREENSHOTS", "")
DESK, TABLET, PHONE, SIDEWAYS = (1280, 800), (820, 1180), (390, 844), (844, 390)
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture
def serving(tmp_path, offline_env):
    servers = []

    def start(database=None, **settings):
        study = make_study(tmp_path / f"study{len(servers)}", **({"side": 256} | settings))
        servers.append(StudyServer(study, offline_env, database=database))
        return servers[-1].start()

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def browse(chromium):
    """Opens a browser of one's own; whatever it complains of fails the test."""
    contexts, complaints = [], []

    def open_page(size=DESK, **settings):
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text)
                if said.type == "error" and "Failed to load resource" not in said.text
                else None
            ),
        )
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def look(tmp_path):
    """A screenshot, into $DIFFUSIONCLEFT_SCREENSHOTS where it is set; nothing may stick out to the side."""

    def take(page, name):
        folder = Path(PICTURES) if PICTURES else tmp_path
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(folder / f"{name}.png"))
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], name

    return take


def violations(page):
    """What axe finds once nothing moves any more: in the middle of a transition colours are nobody's."""
    page.wait_for_function("document.getAnimations().every((one) => one.playState === 'finished')")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="NO AXE: not checked for WCAG")
    found = axe.Axe().run(page, options={"runOnly": LEVELS}).response["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


def saved(server):
    store = server.store()
    found = store.ratings(server.study)
    store.close()
    return found


def focused(page):
    return page.evaluate("document.activeElement.name || document.activeElement.textContent.trim()")


def begin_by_keyboard(page):
    """On to the first picture; the browser gives the focus of a new page when it draws it."""
    page.locator("a.main:focus").wait_for()
    page.keyboard.press("Enter")
    page.locator("#rating input:focus").wait_for(state="attached")


def test_two_raters_at_once_one_by_keyboard_alone_one_on_a_phone_without_scripts(
    serving, browse, look, database
):
    server = serving(database=database, n=4, practice=1)
    keyboard, phone = browse(), browse(PHONE, java_script_enabled=False, color_scheme="dark")
    keyboard.goto(server.invite("Anna"))
    phone.goto(server.invite("Berta"))
    look(keyboard, "desk_overview")
    look(phone, "phone_without_scripts_overview")
    seen = {"keyboard": [], "phone": []}
    begin_by_keyboard(keyboard)
    phone.click("a.main")
    for place in range(5):
        keyboard.locator("#rating input:focus").wait_for(state="attached")
        seen["keyboard"].append(keyboard.url)
        if place == 1:
            look(keyboard, "desk_item")
            look(phone, "phone_without_scripts_item")
        assert focused(keyboard) == "answer.realism"
        keyboard.keyboard.press("5")
        assert focused(keyboard) == "answer.plausibility"
        keyboard.keyboard.press("4")
        assert focused(keyboard) == "Save and go on"
        with keyboard.expect_navigation():
            keyboard.keyboard.press("Enter")
        seen["phone"].append(phone.url)
        phone.check("[name='answer.realism'][value='3']")
        phone.check("[name='answer.plausibility'][value='2']")
        phone.click("button.main")
        if place == 0:  # the practice is over
            assert "The practice is over" in keyboard.inner_text("main")
            assert "The practice is over" in phone.inner_text("main")
            look(keyboard, "desk_practice_over")
            begin_by_keyboard(keyboard)
            phone.click("a.main")
    for page, name in ((keyboard, "desk_done"), (phone, "phone_without_scripts_done")):
        assert "All pictures are rated" in page.inner_text("main")
        look(page, name)
    assert len(set(seen["keyboard"] + seen["phone"])) == 10
    found = saved(server)
    assert len(found) == 2 * 4 * 2
    by_rater = {}
    for one in found:
        by_rater.setdefault(one.rater, {}).setdefault(one.question, set()).add(one.value)
    assert list(by_rater.values()) == [
        {"realism": {5}, "plausibility": {4}},
        {"realism": {3}, "plausibility": {2}},
    ]


def test_the_keyboard_goes_back_and_corrects_without_scripts_too(serving, browse):
    server = serving(n=3, practice=0)
    for scripts in (True, False):
        page = browse(java_script_enabled=scripts)
        page.goto(server.invite(f"with scripts {scripts}"))
        begin_by_keyboard(page)
        first = page.url
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        page.focus("text=Back")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        assert page.url == first
        chosen = page.eval_on_selector_all("input:checked", "all => all.map(one => one.value)")
        assert chosen == ["3", "1"]
        page.focus("input:checked")
        page.keyboard.press("ArrowRight")
        with page.expect_navigation():
            page.keyboard.press("Enter")
    assert sorted(one.value for one in saved(server)) == [1, 1, 4, 4]


def test_a_digit_answers_the_scale_it_is_typed_in_and_no_other(serving, browse):
    """On a scale to 10 a 1 may go on as 10, but in no other question, nor once another is chosen."""
    page = browse()
    page.goto(serving(n=1, practice=0, ends=(0, 10)).invite("Anna"))
    begin_by_keyboard(page)

    def chosen():
        return page.eval_on_selector_all("input:checked", "all => all.map(one => one.value)")

    page.keyboard.press("1")
    page.keyboard.press("Tab")
    page.keyboard.press("0")
    assert chosen() == ["1", "0"]
    page.focus("[name='answer.realism']:checked")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("0")
    assert chosen() == ["0", "0"]
    page.focus("[name='answer.realism']:checked")
    page.keyboard.press("1")
    page.keyboard.press("0")
    assert chosen() == ["10", "0"]
    assert focused(page) == "answer.plausibility"


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        (DESK, "light"),
        pytest.param(DESK, "dark", marks=pytest.mark.long),
        pytest.param(TABLET, "light", marks=pytest.mark.long),
        (PHONE, "dark"),
    ],
    ids=["desk-light", "desk-dark", "tablet-light", "phone-dark"],
)
def test_axe_finds_nothing_on_any_page(serving, browse, look, size, scheme):
    server = serving(n=2, practice=0, more=True)
    page = browse(size, color_scheme=scheme, locale="es-ES" if size == TABLET else "en-GB")
    name = f"{size[0]}_{scheme}"

    def check(what, status=200):
        assert answer.status == status
        assert violations(page) == [], what
        look(page, f"{name}_{what}")

    link = server.invite("Anna")
    answer = page.goto(server.base)
    check("without_link", 403)
    answer = page.goto(link)
    check("overview")
    answer = page.goto(f"{server.base}{page.get_attribute('a.main', 'href')}")
    check("item")
    page.check("[name='answer.realism'][value='5']")
    page.click("button.main")  # the browser asks for what is missing
    page.check("[name='answer.plausibility'][value='5']")
    page.check("[name='answer.origin'][value='generated']")
    page.locator(".frame").click(position={"x": 80, "y": 60})
    assert violations(page) == []
    look(page, f"{name}_marked")
    page.click("a.full")
    assert violations(page) == []
    look(page, f"{name}_full_size")
    page.keyboard.press("Escape")
    held = []

    def hold(route):
        held.append(route)

    page.route("**/item/*", hold, times=1)
    page.click("button.main")
    page.locator("button.main[aria-busy]").wait_for()
    assert violations(page) == []
    look(page, f"{name}_saving")
    with page.expect_navigation():
        held[0].continue_()
    answer = page.goto(f"{server.base}/nowhere")
    check("nowhere", 404)
    answer = page.goto(server.invite("Berta"))
    check("switch")


def test_a_scale_and_its_words_are_in_sight_beside_the_picture_without_scrolling(serving, browse):
    server = serving(n=2, practice=0, side=512)
    for size in (DESK, TABLET, PHONE, SIDEWAYS):
        page = browse(size)
        page.goto(server.invite(f"{size}"))
        page.click("a.main")
        page.wait_for_selector("#rating")
        boxes = [one.bounding_box() for one in page.locator(".frame img, .anchors li, button.main").all()]
        assert len(boxes) == 6
        for box in boxes:
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= size[1], (size, box)


def test_a_place_is_marked_by_click_by_keyboard_and_without_scripts(serving, browse, look):
    server = serving(n=1, practice=0, more=True)
    found = {}
    for name, scripts in (("click", True), ("keyboard", True), ("without scripts", False)):
        page = browse(PHONE, java_script_enabled=scripts)
        page.goto(server.invite(name))
        page.click("a.main")
        for question, value in (("realism", 5), ("plausibility", 5), ("origin", "real")):
            page.check(f"[name='answer.{question}'][value='{value}']")
        box = page.locator(".frame").bounding_box()
        if name == "keyboard":
            page.focus(".grid input")
            for _ in range(3):
                page.keyboard.press("ArrowRight")
            page.keyboard.press("ArrowDown")
        else:
            page.locator(".frame").click(position={"x": box["width"] * 0.62, "y": box["height"] * 0.33})
        look(page, f"phone_mark_{name}".replace(" ", "_"))
        with page.expect_navigation():
            page.click("button.main")
        found[name] = [one.value for one in saved(server) if one.question == "wrong"][-1]
    assert found["click"] == pytest.approx([0.62, 0.33], abs=0.005)
    assert found["keyboard"] == [0.35, 0.15]
    assert found["without scripts"] == [0.65, 0.35]


def test_while_the_server_is_gone_the_answer_stays_and_is_sent_later(serving, browse, look):
    server = serving(n=2, practice=0)
    page = browse()
    page.goto(server.invite("Anna"))
    page.click("a.main")
    page.wait_for_selector("#rating")
    page.check("[name='answer.realism'][value='2']")
    page.check("[name='answer.plausibility'][value='3']")
    port = server.port
    server.kill()
    page.click("button.main")
    page.locator("#said", has_text="not saved yet: the server").wait_for()
    look(page, "desk_server_gone")
    assert page.is_checked("[name='answer.realism'][value='2']")
    server.start(port)
    with page.expect_navigation():
        page.click("button.main")
    assert sorted(one.value for one in saved(server)) == [2, 3]


def test_a_session_that_ended_meanwhile_costs_no_answer(serving, browse, look):
    server = serving(n=2, practice=0)
    page = browse()
    link = server.invite("Anna")
    page.goto(link)
    page.click("a.main")
    page.wait_for_selector("#rating")
    page.check("[name='answer.realism'][value='2']")
    page.check("[name='answer.plausibility'][value='3']")
    page.context.clear_cookies()
    page.click("button.main")
    page.locator("#said", has_text="Open your personal link").wait_for()
    look(page, "desk_session_ended")
    other = page.context.new_page()
    other.goto(link)
    other.close()
    with page.expect_navigation():
        page.click("button.main")
    assert sorted(one.value for one in saved(server)) == [2, 3]


def test_a_double_click_saves_once(serving, browse):
    server = serving(n=2, practice=0)
    page = browse()
    page.goto(server.invite("Anna"))
    page.click("a.main")
    page.wait_for_selector("#rating")
    first = page.url
    page.check("[name='answer.realism'][value='2']")
    page.check("[name='answer.plausibility'][value='3']")
    sent = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    with page.expect_navigation():
        page.dblclick("button.main")
    assert re.match(rf"{server.base}/item/", page.url)
    assert page.url != first
    assert len(saved(server)) == 2
    assert json.dumps(sent).count("/item/") == 1


def test_an_answer_that_goes_back_to_an_earlier_one_is_kept_at_the_second_save(serving, browse):
    server = serving(n=3, practice=0)
    page = browse()
    page.goto(server.invite("Anna"))
    begin_by_keyboard(page)
    item = page.url
    sent = """async (realism) => {
        const fields = new FormData(document.getElementById("rating"));
        fields.set("answer.realism", realism);
        fields.set("answer.plausibility", "3");
        const body = new URLSearchParams(fields), headers = { Accept: "application/json" };
        const action = document.getElementById("rating").action;
        return (await fetch(action, { method: "POST", body, headers })).status;
    }"""
    assert [page.evaluate(sent, realism) for realism in ("2", "4")] == [200, 200]
    page.check("[name='answer.realism'][value='2']")
    page.check("[name='answer.plausibility'][value='3']")
    page.click("button.main")
    page.wait_for_selector("#said p")
    assert "Your answer is not saved" in page.inner_text("#said") and page.url == item
    with page.expect_navigation():
        page.click("button.main")
    assert page.url != item
    assert sorted((one.question, one.value) for one in saved(server)) == [("plausibility", 3), ("realism", 2)]
