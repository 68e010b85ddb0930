"""The private page in a real browser: what is chosen under the pairs is the file that `filter` reads."""

import pytest
from report_folders import make_run

from diffusioncleft.diffusioncleft_core.filters.decisions import read_review
from diffusioncleft.diffusioncleft_core.report.html import write_private_html
from diffusioncleft.diffusioncleft_core.report.nearest import nearest_pairs


@pytest.fixture(scope="module")
def page_and_pairs(tmp_path_factory, analyzer):
    folders = make_run(tmp_path_factory.mktemp("private page") / "run", analyzer)
    names = ("pre_op", "post_op")
    sets = {name: folders.generated(name) for name in names}
    datasets = {name: folders.dataset(name) for name in names}
    pairs = nearest_pairs(folders.root, sets, datasets, analyzer, cache=folders.private / "faces", top=5)
    path = folders.private / "report.private.html"
    return write_private_html(pairs, folders.root, path, phantom=True), pairs


def test_a_person_reviews_pairs_and_saves_the_file(page_and_pairs, chromium, tmp_path):
    path, pairs = page_and_pairs
    page = chromium.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(path.as_uri())
    assert page.inner_text("#said") == f"0 of {len(pairs)} pairs reviewed."
    page.click("fieldset >> nth=0 >> text=Same person")
    page.click("fieldset >> nth=1 >> text=Unsure")
    assert page.inner_text("#said") == f"2 of {len(pairs)} pairs reviewed."
    with page.expect_download() as saved:
        page.click("button")
    saved.value.save_as(tmp_path / saved.value.suggested_filename)
    page.close()
    assert problems == []
    found = read_review(tmp_path / "review.json")
    assert [item.verdict for item in found] == ["same_person", "unsure"]
    assert [item.image for item in found] == [pair.generated.rpartition("/")[2] for pair in pairs[:2]]
    assert found[0].similarity == pairs[0].similarity
