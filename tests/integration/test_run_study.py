"""The study at the end of a run on phantoms: made as for people, rated by a program, told in its report."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import SIDE, photographed, settings_of, train_here

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import Withdrawal
from diffusioncleft.diffusioncleft_core.files import TEMPORARY_PREFIX, read_json, sha256_file, write_json
from diffusioncleft.diffusioncleft_core.imageset.places import MANIFEST
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_healthy
from diffusioncleft.diffusioncleft_core.run.holdings import SHOWN, Search
from diffusioncleft.diffusioncleft_core.run.pipeline import plan_run, remove_half_written, run_pipeline
from diffusioncleft.diffusioncleft_core.run.run import Run
from diffusioncleft.diffusioncleft_core.run.stages import State
from diffusioncleft.diffusioncleft_core.run.study import demonstrate_study, told_study
from diffusioncleft.diffusioncleft_core.study.folder import open_study
from diffusioncleft.diffusioncleft_core.study.statistics.words import SIMULATED
from diffusioncleft.diffusioncleft_core.study.web.store import Store


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    photographed(root, "pre_op", 6)
    write_healthy(root / "healthy", 2, 5, size=SIDE)
    found = replace(settings_of(root, "pre_op"), study=True)
    run_pipeline(found, train_here, say=lambda line: None)
    return found


def staged(settings, manifest: str | None = None):
    """The stage alone, in a later call; manifest: another content of the photographs."""
    run = Run(settings, say=lambda line: None)
    there = run.folders.dataset("pre_op") / MANIFEST
    run.facts["pre_op"]["dataset"] = {"manifest": manifest or sha256_file(there)}
    demonstrate_study(run)
    return run.stages.rows[-1].state


def test_the_report_tells_the_study_and_every_page_and_file_that_nobody_rated(settings):
    root = settings.out
    study = open_study(root / "study")
    assert study.design.of_phantoms and {item.origin for item in study.items} == {"generated", "real"}
    assert study.private.stat().st_mode & 0o077 == 0 or os.name == "nt"
    assert not study.database.exists(), "a program's answers are no rater's"
    report = read_json(root / "report.json")
    assert report["study"] == read_json(study.results / "study.json")
    assert report["study"]["simulated"] and report["study"]["raters"] == 2
    for page in (root / "summary.md", root / "report.html", study.results / "study.html"):
        assert SIMULATED in page.read_text("utf-8"), page
    assert "Rater study, simulated raters: agreement" in (root / "report.html").read_text("utf-8")
    for plot in [*(root / "figures").glob("study-*.svg"), *(study.results / "figures").glob("*.svg")]:
        assert "simulated raters" in plot.read_text("utf-8"), plot
    with (study.results / "ratings.csv").open(newline="", encoding="utf-8-sig") as file:
        assert {row["rater"] for row in csv.DictReader(file)} == {"simulated-1", "simulated-2"}


def test_a_later_call_skips_it_and_goes_on_with_the_same_study(settings):
    assert {row.state for row in plan_run(settings)} == {State.DONE}
    study, figures = open_study(settings.out / "study"), settings.out / "study" / "results" / "study.json"
    before = read_json(figures)
    figures.unlink()
    assert staged(settings) == State.GOES_ON
    assert open_study(study.root).items == study.items and read_json(figures) == before
    assert staged(settings) == State.DONE


def test_what_a_killed_call_left_is_removed_folders_too(settings):
    left = settings.out / f"{TEMPORARY_PREFIX}0123" / "private" / "images"
    left.mkdir(parents=True)
    (left / "a.png").write_bytes(b"half")
    remove_half_written(settings.out)
    assert not list(settings.out.rglob(f"{TEMPORARY_PREFIX}*"))
    assert (settings.out / "study" / "study.toml").is_file()


def test_peoples_ratings_are_told_and_a_programs_only_where_the_run_asks(settings, capsys):
    later = Run(replace(settings, study=False))
    assert told_study(Run(settings)) and told_study(later) is None
    figures = settings.out / "study" / "results" / "study.json"
    before = read_json(figures)
    write_json(figures, {**before, "simulated": False})
    assert told_study(later)
    assert main(["report", str(settings.out)]) == 0
    page = (settings.out / "report.html").read_text("utf-8")
    assert "Rater study: agreement" in page and "Rater study, simulated" not in page
    figures.write_text("{", "utf-8")
    assert main(["report", str(settings.out)]) == 0
    assert "study.json" in capsys.readouterr().err
    write_json(figures, before)


def test_pictures_of_a_withdrawn_lora_are_found(settings):
    study = open_study(settings.out / "study")
    names = {item.lora for item in study.items if item.origin == "generated"} - {None}
    assert names
    withdrawal = Withdrawal(names.pop(), (), "2026-01-01", "a dataset")
    held = {item.kind: item for item in Search([withdrawal], [settings.out]).held()}
    generated = [study.image(item.id) for item in study.items if item.origin == "generated"]
    assert set(held[SHOWN].files) == {path.resolve() for path in generated}


def test_another_content_makes_it_anew_and_what_people_rated_is_kept(settings):
    study = open_study(settings.out / "study")
    store = Store(study)
    rater = store.invite("Anna")[0].id
    store.close()
    assert staged(settings, manifest="other photographs") == State.ANEW
    assert {item.id for item in open_study(study.root).items}.isdisjoint(item.id for item in study.items)
    kept = open_study(settings.out / "superseded" / "study-1" / "study")
    store = Store(kept)
    assert [item.id for item in store.raters()] == [rater]
    store.close()


def test_a_program_rates_no_photographs(settings, refused, tmp_path):
    told = refused(
        "run", "--photos-pre", settings.out.parent / "pre_op", "--study", "--out", tmp_path / "run"
    )
    assert "diffusioncleft study create" in told and not Path(tmp_path / "run").exists()
