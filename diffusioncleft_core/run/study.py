"""The rater study at the end of a run on phantoms: made as for people, rated by a program, analysed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import UserError
from ..report.run_folder import read_study
from ..report.study_page import write_study_results
from ..study.create import create_study
from ..study.design import GENERATED, REAL
from ..study.design_file import load_design, written_design
from ..study.folder import FIGURES, RESULTS, Study, is_study, open_study
from ..study.sources import Source
from ..study.statistics.document import study_document
from ..study.statistics.simulated import simulated_ratings
from .generation import filtered_content
from .run import Run
from .settings import vocabulary_input
from .stages import Results, Stage

STAGE = "study"
DESIGN = "paper_plus"
REPEATS = 10
"""Pictures that are shown twice."""


def demonstrate_study(run: Run) -> Results:
    """Make the study of a run on phantoms, let a program rate it, and analyse that.

    It lies in the run's folder, and people can rate it too: a program's answers are in its results alone,
    not in its database.
    """
    settings, folders = run.settings, run.folders
    seed = settings.seed_for(STAGE)
    design = replace(load_design(DESIGN), seed=seed, repeats=REPEATS, conditions=tuple(settings.conditions))

    def made() -> Study:
        if is_study(folders.study):  # an earlier call was interrupted behind it
            return open_study(folders.study)
        sources = [Source(GENERATED, folders.generated(name), GENERATED, name) for name in run.facts]
        sources += [Source(REAL, folders.dataset(name), REAL, name) for name in run.facts]
        study, notices = create_study(folders.study, design, sources, settings.vocabulary)
        for notice in notices:
            run.warn(notice)
        return study

    def work() -> Results:
        try:
            study = made()
        except UserError as error:
            run.warn(f"there is no rater study: {error}")
            return {"pictures": 0}
        table = simulated_ratings(study, seed)
        document = study_document(table, study.design, simulated=True, seed=seed)
        write_study_results(document, table, study.results)
        return {"pictures": len(study.rated)}

    def inputs() -> dict[str, Any]:
        return {
            "filtered images": {part: filtered_content(folders.generated(part)) for part in run.facts},
            "photographs": {part: stages["dataset"]["manifest"] for part, stages in run.facts.items()},
            "design of the study": written_design(design),
            **vocabulary_input(settings),
        }

    outputs = [folders.study, folders.study / RESULTS / FIGURES]
    after = ["filters", *(f"{stage}-{part}" for part in run.facts for stage in ("dataset", "generation"))]
    return run.stages.run(Stage(STAGE, inputs, outputs, work, after))


def told_study(run: Run) -> Results | None:
    """What the report says of the run's study: a program's ratings only where this run asks for them."""
    found = read_study(run.folders, run.warn)
    return found if found and (run.settings.study or not found.get("simulated")) else None
