"""The rater study: sets in, a blind study for people out, and later what they said."""

import time
from typing import Any

from comfy_api.latest import io

from . import places
from .common import CATEGORY, Dataset, Figures, ImageSet, Node, node_schema, output, seed_input, text_view
from .queued import QueuedNode

RATER_STUDY = "DiffusionCleft_RaterStudy"
GENERATED = ("generated", "generated_2", "other")
PHOTOGRAPHS = ("real", "real_2")
AS_RATED = "as the ratings tell"


class RaterStudy(Node):
    """Pictures of sets, drawn by seed and written blind, in a private folder of the server."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..diffusioncleft_core.study.design_file import DESIGNS

        return node_schema(
            node_id=RATER_STUDY,
            display_name="Cleft Rater Study",
            category=CATEGORY,
            search_aliases=["user study", "expert rating", "visual Turing test"],
            description=(
                "Draws pictures of generated sets and of photographs whose owners agreed to be shown to "
                "raters, and writes them blind into a private folder. The text says how people rate them; "
                "nothing is served by ComfyUI."
            ),
            inputs=[
                ImageSet.Input("generated", tooltip="Generated images of one condition."),
                io.String.Input("name", default="study", tooltip="First part of the study's name."),
                io.Combo.Input(
                    "design",
                    options=list(DESIGNS),
                    default=DESIGNS[0],
                    tooltip=(
                        "paper: realism and plausibility, 1 to 5. paper_plus: also real or generated, and "
                        "what looks wrong."
                    ),
                ),
                _count(
                    "n_generated", 50, "Pictures of each generated origin, in equal shares of conditions."
                ),
                _count("n_real", 10, "Photographs, likewise."),
                _count("repeats", 0, "Pictures shown twice, to compare a rater with himself.", least=0),
                _count("practice", 2, "Generated pictures that come first and don't count.", least=0),
                io.Float.Input(
                    "margin",
                    default=0.5,
                    min=0.01,
                    max=10.0,
                    step=0.05,
                    tooltip="Difference, in points of the scale, that would not matter. Decide it before.",
                ),
                seed_input("Decides which pictures are drawn."),
                io.Combo.Input(
                    "which",
                    options=["filtered", "raw"],
                    default="filtered",
                    tooltip="filtered: what the filters accepted. raw: every image as first generated.",
                ),
                ImageSet.Input(
                    "generated_2", optional=True, tooltip="Generated images of the other condition."
                ),
                Dataset.Input(
                    "real",
                    optional=True,
                    tooltip="Photographs; those are shown whose row says yes under consent_rating.",
                ),
                Dataset.Input("real_2", optional=True, tooltip="Photographs of the other condition."),
                ImageSet.Input(
                    "other", optional=True, tooltip="Images of another model, an origin of theirs."
                ),
            ],
            outputs=[
                output(io.String, "study", tooltip="The study's name, for Cleft Study Results."),
                output(io.Int, "pictures", tooltip="Pictures that count, those shown twice among them."),
                output(io.String, "text", tooltip="What was drawn, and how people rate it."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return places.check_study_name(name)

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from .needs import phantom_behind
        from .rater_study_work import check_kind

        places.check_private(places.STUDIES)
        linked = [name for name in (*GENERATED, *PHOTOGRAPHS) if node.source(name) is not None]
        check_kind([phantom_behind(node, name) for name in linked])

    @classmethod
    def execute(
        cls,
        generated: Any,
        name: str,
        design: str,
        n_generated: int,
        n_real: int,
        repeats: int,
        practice: int,
        margin: float,
        seed: int,
        which: str,
        generated_2: Any = None,
        real: Any = None,
        real_2: Any = None,
        other: Any = None,
    ) -> io.NodeOutput:
        from .rater_study_work import Plan, make

        plan = Plan(
            design,
            {"generated": n_generated, "real": n_real},
            {"repeats": repeats, "practice": practice, "margin": margin, "seed": seed},
            raw=which == "raw",
            generated=tuple(item for item in (generated, generated_2) if item is not None),
            photographs=tuple(item for item in (real, real_2) if item is not None),
            other=other,
        )
        made, pictures, text = make(name, plan)
        return io.NodeOutput(made, pictures, text, ui=text_view(text))


class StudyResults(Node):
    """What raters said: of a study of this server, or of a table of ratings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..diffusioncleft_core.study.design_file import DESIGNS

        return node_schema(
            node_id="DiffusionCleft_StudyResults",
            display_name="Cleft Study Results",
            category=CATEGORY,
            search_aliases=["user study", "ratings", "expert rating"],
            description=(
                "Distributions, means, agreement and the difference to real pictures, each with its "
                "interval, as 'diffusioncleft study analyse' has them. Reads the ratings anew each time."
            ),
            inputs=[
                io.String.Input(
                    "study",
                    default="",
                    tooltip=(
                        "Name of a study of this server, or of a CSV of ratings in ComfyUI's input folder or "
                        "beside the studies."
                    ),
                ),
                io.Combo.Input(
                    "design",
                    options=[AS_RATED, *DESIGNS],
                    default=AS_RATED,
                    tooltip="Of a CSV: what was asked. A study knows it itself.",
                ),
            ],
            outputs=[
                output(io.Image, "plots", is_output_list=True, tooltip="The plots, one by one."),
                output(io.Int, "raters", tooltip="How many people rated."),
                output(io.String, "text", tooltip="What they say, in sentences."),
                output(Figures, "figures", tooltip="The figures as in study.json."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, study: str | None = None) -> bool | str:
        return places.check_rated(study)

    @classmethod
    def fingerprint_inputs(cls, **kwargs: Any) -> Any:
        return time.time()

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from .rater_study_work import check_packages

        check_packages(node.value("study"))

    @classmethod
    def execute(cls, study: str, design: str) -> io.NodeOutput:
        from .metrics import given
        from .rater_study_work import results

        return given(results(study, None if design == AS_RATED else design))


def _count(name: str, default: int, tooltip: str, least: int = 1) -> Any:
    return io.Int.Input(name, default=default, min=least, max=10_000, tooltip=tooltip)
