"""The training stages: the regularisation images, where asked for, and a LoRA of each condition."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from ..conditions.names import RunOwn
from ..conditions.vocabulary import Condition
from ..dataset.folder import dataset_rows
from ..environment import trainer_device, usable_cores
from ..files import read_jsonl, sha256_file, sha256_model, write_text
from ..imageset.manifest import described
from ..recipe.document import recipe_document, shared_fields
from ..recipe.presets import TrainingFacts, completed_recipe
from ..recipe.recipe import Recipe
from .generation import drawn_content, prompts_of
from .run import WARNINGS, Run
from .settings import PREVIEWS, RunSettings, base_inputs, sampling_inputs
from .stages import Results, Stage, digest_of, say_on_stderr

Result = TypeVar("Result")
Stop = Callable[[], bool]


def side_by_side(jobs: Mapping[str, Callable[[Stop], Result]], at_once: int) -> dict[str, Result]:
    """Run `jobs`, `at_once` at a time, and return their results by name.

    Each job is given a function that says whether to stop. When one fails, or at Ctrl-C, those that run are
    asked to stop and waited for, and no other starts; then the first failure, or KeyboardInterrupt, is
    raised.
    """
    if at_once == 1:
        return {name: job(lambda: False) for name, job in jobs.items()}
    asked = threading.Event()
    with ThreadPoolExecutor(at_once) as pool:
        futures = {name: pool.submit(job, asked.is_set) for name, job in jobs.items()}
        try:
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            failures = [error for future in done if (error := future.exception())]
        finally:
            # On the way out of a Ctrl-C too: leaving the pool waits for jobs that save a checkpoint first.
            asked.set()
            for future in futures.values():
                future.cancel()
    if failures:
        raise failures[0]
    return {name: future.result() for name, future in futures.items()}


Event = Mapping[str, Any]
Train = Callable[[Recipe, Callable[[Event], None], Stop], None]
"""Starts the trainer with a recipe, reports its events, returns when it is done.

The last argument says whether to stop: the trainer then saves a checkpoint and raises.
"""


def regularize(run: Run, condition: Condition) -> Results:
    """Pictures of the base model for prompts without the trigger, trained beside the photographs."""
    from ..generation.folder import set_fits
    from ..generation.generate import generate
    from ..generation.plans import regularization_plan

    settings, out = run.settings, run.folders.regularization(condition.name)
    n = settings.regularization_images
    seed = settings.seed_for("regularization", condition.name)
    plan = regularization_plan(condition, n, seed, bracketed=settings.bracketed)

    def work() -> Results:
        generate(settings.base_alone(), plan, out, role="control")
        return {"images": n, "content": drawn_content(out)}

    def fits() -> bool:
        return set_fits(settings.base_alone(), plan, out)

    inputs = {"prompts and seeds": prompts_of(plan), "number of images": n, **sampling_inputs(settings)}
    return run.stages.run(Stage(f"regularization-{condition.name}", lambda: inputs, [out], work, fits=fits))


def train_lora(run: Run, condition: Condition, train: Train, stop: Stop = lambda: False) -> Results:
    """One LoRA of the condition, in the trainer's own process: 10 steps a training image."""
    facts = run.facts[condition.name]
    out, lora = run.folders.training(condition.name), run.folders.lora(condition)
    name = f"training-{condition.name}"

    def work() -> Results:
        from ..progress import Phases

        recipe = training_recipe(run, condition)
        write_preview_prompts(run, condition)
        said: list[str] = []
        note = run.noted(said)
        with Phases() as bars:

            def on_event(event: Event) -> None:
                if event.get("event") in ("warning", "notice"):
                    (run.warn if event.get("private") else note)(str(event["message"]))
                if event.get("event") == "memory":
                    bars.clear()
                    say_on_stderr(f"{name}: {event['message']}")
                if event.get("event") == "stopping":
                    bars.clear()
                    say_on_stderr(f"{name}: {event['message']}")
                if event.get("event") in ("load", "prepare"):
                    bars.advance(f"{condition.name}: {event['what']}", event["done"], event["total"])
                if event.get("event") == "start":
                    bars.advance(f"training {condition.name}", event["step"], event["total"], "step")
                if event.get("event") == "step":
                    bars.advance(
                        f"training {condition.name}",
                        event["step"],
                        event["total"],
                        "step",
                        loss=f"{event['loss']:.3f}",
                    )

            train(recipe, on_event, stop)
        return {
            "lora_sha256": sha256_file(lora),
            "last_step": last_step(run.folders.losses(condition.name)),
            "training_images": facts["dataset"]["training_images"],
            "regularization_images": facts.get("regularization", {}).get("images", 0),
            "recipe": recipe_document(recipe),
            WARNINGS: said,
        }

    def inputs() -> dict[str, Any]:
        recipe = training_recipe(run, condition)
        adapter = recipe.network.training_adapter
        return {
            **photographs_input(run, name, facts["dataset"], recipe),
            **_held_out_input(run, condition, recipe),
            "regularisation": facts.get("regularization", {}).get("content"),
            "training settings": shared_fields(recipe),
            "training adapter": sha256_model(adapter) if adapter else None,
            **base_inputs(run.settings),
        }

    after = [f"dataset-{condition.name}", f"regularization-{condition.name}"]
    # The trainer goes on from its checkpoint when the LoRA alone is gone.
    done = run.stages.run(Stage(name, inputs, [out, lora], work, after))
    return done | {"lora_sha256": sha256_file(lora) if lora.is_file() else None}


def _held_out_input(run: Run, condition: Condition, recipe: Recipe) -> dict[str, Any]:
    """The hold-out where an early stop chooses the LoRA by it."""
    if not recipe.validation.early_stop or recipe.validation.data_dir is not None:
        return {}
    rows = dataset_rows(run.folders.dataset(condition.name), "holdout")
    return {"held-out photographs": digest_of(described(rows, healthy=False))}


def photographs_input(run: Run, stage: str, dataset: Results, recipe: Recipe) -> dict[str, Any]:
    """What the dataset has to be trained on: the hold-out has no part in it, and healthy captions in output
    preservation alone.

    A record of an earlier version has the whole manifest, which counts while nothing in it has changed.
    """
    earlier = run.stages.inputs(stage).get("dataset")
    if earlier is not None and earlier == digest_of(dataset["manifest"]):
        return {"dataset": dataset["manifest"]}
    healthy = dataset.get("healthy_captions") if recipe.objective.output_preservation_weight else None
    return {
        "training photographs": dataset["trained_on"],
        **({"healthy captions": healthy} if healthy else {}),
    }


def last_step(history: Path) -> dict[str, Any]:
    """Step, loss and rate of a training's last step, whichever call made it; empty without any."""
    rows = read_jsonl(history) if history.is_file() else []
    return {key: rows[-1][key] for key in ("step", "loss", "lr")} if rows else {}


def write_preview_prompts(run: Run, condition: Condition) -> None:
    """Two prompts that the trainer draws now and then."""
    from ..conditions.plan import AttributeChoices, sampling_plan

    settings = run.settings
    seed = settings.seed_for("previews", condition.name)
    rows = sampling_plan(condition, 2, seed, AttributeChoices(settings.mode), bracketed=settings.bracketed)
    write_text(run.folders.previews(condition.name), "".join(f"{row.prompt}\n" for row in rows))


def trainings_at_once(settings: RunSettings) -> int:
    """As many LoRAs at once on a processor as it has cores, which is faster than one after the other.

    A GPU has room for one, and draws its pictures before the next one learns.
    """
    return min(len(settings.conditions), usable_cores()) if settings.sampling.device.type == "cpu" else 1


def training_recipe(run: Run, condition: Condition) -> Recipe:
    """The run's recipe for one condition: with its dataset, seed and folders."""
    settings, folders = run.settings, run.folders
    images = int(run.facts[condition.name]["dataset"]["training_images"])
    known = TrainingFacts(
        images,
        condition.trigger,
        condition.contrast_trigger,
        settings.bracketed,
        condition.max_timestep,
    )
    recipe = completed_recipe(settings.recipe, known)
    return recipe.replaced(
        {
            **trainer_device(settings.sampling.device, settings.sampling.dtype),
            "objective.seed": settings.seed_for("training", condition.name),
            "data.train_dir": folders.dataset(condition.name),
            "data.reg_dir": (
                folders.regularization(condition.name) if settings.regularization_images else None
            ),
            "data.cache_dir": folders.private / RunOwn.TRAINING_CACHE,
            "output.folder": folders.training(condition.name),
            "output.name": folders.lora(condition).stem,
            "previews.prompts": folders.previews(condition.name),
            "previews.every_n_steps": recipe.optimizer.steps // PREVIEWS or 1,
            "previews.every_n_epochs": recipe.optimizer.epochs // PREVIEWS,
            "previews.at_first": settings.phantom,  # whoever tries it out sees a face before the first step
        }
    )
