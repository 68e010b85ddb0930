r"""Train a LoRA on FLUX.1 schnell: the recipe, to be read from top to bottom.

    accelerate launch --num_processes 1 trainer/flux_train_network.py \
        --pretrained_model_name_or_path FLUX.1-schnell \
        --train_data_dir private/pre_op --output_dir loras --output_name pre_op

docs/training.md explains the options, the events on standard output and how a run is stopped and continued.
"""

import contextlib
import glob
import os
import sys
import traceback
from pathlib import Path

if not __package__:  # started as a file: load the folder above as the package that this file belongs to
    import importlib
    import importlib.util

    # Python looks for every module in this file's folder first: `kernels` or `events` of a package that is
    # looked for elsewhere would be found here.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != _here]
    _root = _here.parent
    _spec = importlib.util.spec_from_file_location(
        "diffusioncleft", _root / "__init__.py", submodule_search_locations=[str(_root)]
    )
    assert _spec is not None and _spec.loader is not None
    sys.modules["diffusioncleft"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["diffusioncleft"])
    importlib.import_module("diffusioncleft.trainer")
    __package__ = "diffusioncleft.trainer"

import torch

from ..diffusioncleft_core.dataset.consent import check_consent, check_records
from ..diffusioncleft_core.dataset.folder import is_dataset
from ..diffusioncleft_core.dataset.trained import remember_lora, remember_training, run_fingerprint
from ..diffusioncleft_core.dataset.withdrawn import withdrawn_meanwhile
from ..diffusioncleft_core.environment import keep_freed_memory
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import remove_leftovers, sha256_model
from ..diffusioncleft_core.flux.lora_file import PRECISIONS
from ..diffusioncleft_core.flux.training_memory import planned_recipe
from ..diffusioncleft_core.flux.transformer import base_form, load_transformer
from ..diffusioncleft_core.outputs import can_write
from ..diffusioncleft_core.progress import watched
from ..diffusioncleft_core.recipe.document import FILE_NAME, write_recipe
from ..diffusioncleft_core.recipe.presets import told_recipe
from ..diffusioncleft_core.recipe.recipe import STEPS_PER_IMAGE, Recipe
from . import checkpoint as checkpoints
from . import memory, memory_plan
from .checkpoint import Beside
from .config import TrainResult, parse_arguments, recipe_from, unheard
from .data import refuse_rebuilt
from .data_order import data_order
from .ema import Average
from .endings import ending_of
from .epochs import in_steps
from .events import EVENT_SECONDS, Events, LossHistory, standard_output_events
from .folders import held_out_folders, image_folders
from .interruption import Interrupted, Interruption, output_lock
from .kernels import compile_blocks, kernels, uncompiled
from .metadata import STATE, fingerprinted, lora_metadata, remember_saved, saved_steps
from .network import attach, replaced, rounded, save_network, training_adapter
from .objective import Objective, autocast
from .optimizer import build_optimizer, learning_rate
from .pictures import RunPictures
from .prepare import base_model, loading_progress, prepare
from .preview import Previewer
from .processes import DRIFTED, Processes
from .step_sum import StepSum
from .trackers import check_trackers, tracking
from .validation import Best, Validation, remember_held_out, unrecorded_hold_out


def train(
    recipe: Recipe, events: Events, interruption: Interruption, processes: Processes | None = None
) -> TrainResult:
    """Train, or go on training, one LoRA.

    Args:
        recipe: complete; its `accumulation_steps` are each process's.
        events: gets what happens.
        interruption: says when to stop.
        processes: this process among those that train together; None: it is the only one.

    Raises:
        UserError: a mistake in settings or data, or consent is required and not recorded.
        Interrupted: it was asked to stop, and a checkpoint is on disk: the same call then goes on, and ends
            with the tensors that it would have had without the stop.
    """
    processes = processes or Processes()
    if not processes.first:  # the first one speaks and writes
        events = Events(lambda event: None)
    device, dtype = _device(recipe, processes)
    batches = recipe.optimizer.accumulation_steps * processes.count
    recipe = recipe.replaced({"optimizer.accumulation_steps": batches})  # as one process would have it

    # Whether the people in the images were asked, before anything is read or written.
    trained_on = [subset.image_dir for subset in (*image_folders(recipe), *held_out_folders(recipe))]
    if missing := [folder for folder in trained_on if not Path(folder).is_dir()]:
        raise UserError(f"there is no folder {missing[0]}; check the folders of the images")
    for message in [*check_consent(trained_on), *check_records(trained_on, recipe.data.cache_dir)]:
        events.emit("warning", message=message, private=True)
    check_trackers(recipe)
    output_dir = recipe.output.folder
    states = output_dir / STATE
    with (
        kernels(recipe, device),
        output_lock(output_dir) if processes.first else contextlib.nullcontext(),
        watched(loading_progress(events, interruption)),
        contextlib.ExitStack() as stack,
    ):
        if processes.first:
            for folder in (output_dir, states, output_dir / "previews"):
                remove_leftovers(folder)  # of a run that was killed while it wrote

        # The base model, the images, and their latents and captions, encoded once.
        source = base_model(recipe)
        encoders_dtype = (
            torch.bfloat16 if dtype == torch.float16 else dtype
        )  # they overflow in half precision
        with processes.first_before_others(interruption):
            prepared = prepare(recipe, source, device, encoders_dtype, events, interruption)
        images = prepared.collected
        order = data_order(images.images, recipe)
        recipe = in_steps(recipe, order)
        total = recipe.optimizer.steps or STEPS_PER_IMAGE * images.photographs
        adapter = training_adapter(recipe, events)
        adapter_sha256 = sha256_model(adapter) if adapter else None
        if (weights := recipe.network.weights) and not weights.is_file():
            raise UserError(f"there is no file {weights}; check --network_weights")

        # Where an earlier run stopped, and how the base lies in memory: on its form the tensors depend.
        checkpoint = checkpoints.found_checkpoint(recipe, states, events)
        start = checkpoint.step if checkpoint else 0
        plan = memory_plan.plan(
            recipe, source, prepared, device, dtype, checkpoint, events, done=start >= total
        )
        recipe = planned_recipe(recipe, plan.layout)
        form = base_form(source, plan.layout.form)
        made_from = fingerprinted(recipe, prepared, total, str(dtype), form, adapter_sha256)
        run = run_fingerprint(made_from)
        folders = {image.folder for image in images.images}
        datasets = [folder for folder in folders if is_dataset(folder) and can_write(folder)]
        datasets = datasets if processes.first else []

        if checkpoint is not None:
            checkpoints.check_checkpoint(checkpoint, made_from, output_dir, prepared.key_id, events)
        processes.check_same(made_from, start, total)
        path = output_dir / f"{recipe.output.name}.safetensors"
        if recipe.validation.every_n_steps > total:
            raise UserError(f"--validate_every_n_steps is beyond the {total} steps; give less")
        if start > total:
            raise UserError(
                f"{output_dir} is at step {start}, beyond --max_train_steps {total}; use --resume no"
            )
        best = Best(recipe.validation.early_stop, checkpoint)
        behind = best.step or total
        ended = start == total or best.ended
        if ended and saved_steps(path, recipe, prepared, made_from) == behind:
            events.emit("done", path=str(path), step=behind)
            return TrainResult(path, behind)

        # The datasets know what learns from them before it does: a consent may be withdrawn later.
        for dataset in datasets:
            remember_training(dataset, run, output_dir)
            refuse_rebuilt(dataset, images.images)
        if processes.first and not checkpoints.goes_on_here(checkpoint, states):
            checkpoints.clear_for_new(recipe, states)
        if processes.first:
            datasets = list(dict.fromkeys([*datasets, *remember_held_out(recipe, prepared, run)]))
        if unrecorded := unrecorded_hold_out(prepared):
            events.emit("notice", message=unrecorded)

        # The transformer, frozen, with the LoRA to train and the adapter that keeps schnell a 4-step model.
        transformer = load_transformer(source, device, dtype, plan.layout.form, plan.layout.streamed)
        parameters, activate = attach(transformer, recipe, device)
        if plan.layout.checkpointing:
            transformer.enable_gradient_checkpointing()
        several_sizes = len({latents.shape for latents in prepared.latents}) > 1
        compile_blocks(transformer, recipe, several_sizes=several_sizes)
        optimizer = build_optimizer(recipe, list(parameters.values()), events)
        average = Average(parameters, recipe.optimizer.ema_decay)
        if checkpoint:
            checkpoints.restore(checkpoint, parameters, optimizer)
            average.restore(checkpoint.beside.tensors)

        processes.check_same(*parameters.values())

        precision = PRECISIONS[recipe.output.save_precision]
        if processes.first:
            write_recipe(output_dir / FILE_NAME, told_recipe(recipe, images.photographs))
        objective = Objective(recipe, prepared, transformer, activate, device, dtype)
        validation = Validation(recipe, prepared, transformer, device, dtype, total)
        seconds = 0.0 if recipe.output.report_every_step else EVENT_SECONDS
        losses_file = output_dir / "loss.jsonl" if processes.first else None
        told = told_recipe(recipe, images.photographs)
        track = stack.enter_context(tracking(told, start)) if processes.first else None
        history = LossHistory(losses_file, events, start, total, seconds=seconds, track=track)
        step_sum = StepSum(parameters.values(), processes, apart=batches > 1 and bool(images.reg))
        previewer = Previewer(
            prepared.previews,
            prepared.text,
            lambda: memory_plan.preview_vae(source, device, encoders_dtype, plan),
            output_dir / "previews",
            events,
            device,
        )
        pictures = RunPictures(output_dir, prepared.previews, phantom=recipe.model.phantom)
        events.emit(
            "start",
            step=start,
            total=total,
            images=images.photographs,
            regularisation=images.reg_photographs,
            buckets=images.bucket_counts(),
            parameters=sum(parameter.numel() for parameter in parameters.values()),
            optimizer=type(optimizer).__name__,
            effective_scale=recipe.network.alpha / recipe.network.rank,
            memory=memory.describe(transformer, device),
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
            base_format=form,
            processes=processes.count,
        )

        def save_lora(to: Path, step: int, final: Best | None = None) -> None:
            metadata = lora_metadata(recipe, prepared, made_from, step, total)
            metadata |= final.metadata if final else {}
            with replaced(parameters, (final and final.weights) or average.weights):
                save_network(to, transformer, recipe, metadata, precision)
            part = validation.part(step, final)
            told = [item for dataset in datasets for item in remember_lora(dataset, run, to, part)]
            if message := withdrawn_meanwhile(told):
                events.emit("warning", message=message)
            events.emit("saved", path=str(to), step=step)

        def save_checkpoint(step: int) -> None:
            history.flush()
            beside = Beside(
                {**average.tensors, **best.beside.tensors},
                {**best.beside.values, "memory": memory_plan.recorded(plan.layout)},
            )
            saved = checkpoints.save_checkpoint(
                states, step, made_from, parameters, optimizer, prepared.key_id, beside
            )
            events.emit("checkpoint", path=str(saved), step=step)
            pictures.draw(step)

        def preview(step: int) -> None:
            activate(True, False)
            transformer.eval()
            try:
                shown = replaced(parameters, average.weights)
                with shown, rounded(parameters, precision), autocast(device, dtype), uncompiled(recipe):
                    previewer.preview(transformer, step, interruption.raise_if_requested)
            finally:
                transformer.train()
                activate(True, True)

        def give_what_is_due(step: int, *, missing_only: bool = False) -> None:
            """The LoRA and the previews of `step`, where the recipe asks for them there."""
            every = recipe.output.save_every_n_steps
            file = _step_path(path, step)
            if every and step and step % every == 0 and step < total and not (missing_only and file.exists()):
                history.flush()
                save_lora(file, step)
                _forget_old(path, step, recipe.output.save_last_n_steps)
            every = recipe.previews.every_n_steps
            due = recipe.previews.at_first if step == 0 else every and step % every == 0
            if due and not (missing_only and previewer.has_all(step)):
                preview(step)

        transformer.train()
        activate(True, True)
        done = start
        try:
            with processes.together():
                # Before the first step; or what a run that was stopped at this step had no time for.
                if processes.first:
                    give_what_is_due(start, missing_only=start > 0)
                for step in range(start + 1, total + 1):
                    if best.ended:
                        break
                    processes.agree(interruption.reason())
                    rate = learning_rate(recipe, step, total)
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    for number in processes.batches(step, batches):
                        step_sum.add(objective.backward(order.draw(number), number))
                    losses = step_sum.finish()
                    finite = objective.unscale(parameters.values())
                    if recipe.optimizer.max_grad_norm:
                        torch.nn.utils.clip_grad_norm_(parameters.values(), recipe.optimizer.max_grad_norm)
                    if finite:
                        optimizer.step()
                        average.update(step, parameters)
                    optimizer.zero_grad(set_to_none=True)
                    loss = None
                    if validation.due(step):
                        with replaced(parameters, average.weights):
                            loss = validation.loss(step)
                            best.take(step, loss, parameters)
                    history.add(step, losses, rate, loss)
                    done = step

                    # First what is due, then the checkpoint that counts the step: a kill loses neither.
                    if processes.first:
                        give_what_is_due(step)
                    if step % recipe.output.checkpoint_every_n_steps == 0 or step == total or best.ended:
                        if not processes.same(*parameters.values()):
                            events.emit("warning", message=DRIFTED)
                        if processes.first:
                            save_checkpoint(step)
        except Interrupted as interrupted:
            if processes.first:
                save_checkpoint(done)
            processes.wait()  # or the launcher would end the first while it saves
            raise Interrupted(str(interrupted), done, total) from interrupted
        history.flush()
        kept = best.step or done
        if processes.first:
            pictures.draw(done, at_once=True)
            save_lora(path, kept, best)
            remember_saved(path, kept)
        if best.step:
            events.emit("notice", message=best.told(done))
        events.emit("done", path=str(path), step=kept, peaks=memory.peaks(device))
        return TrainResult(path, kept)


def main(arguments: list[str] | None = None) -> int:
    """Train as told on the command line: 0 done, 1 a fault of ours, 2 a user's mistake, 130 stopped with a
    checkpoint.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched behind the user's back
    keep_freed_memory()
    events = standard_output_events()
    processes = Processes.of_environment()
    try:
        namespace = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        recipe = recipe_from(namespace)
        for message in unheard(namespace, recipe) if processes.first else ():
            events.emit("warning", message=message)
        interruption = Interruption(recipe.output.stop_file, processes.one_has_ended)
        with interruption.of_process(stdin=namespace.stop_with_stdin and processes.first):
            try:
                train(recipe, events, interruption, processes)
            except Interrupted:
                processes.raise_if_one_is_gone()
                raise
        processes.leave()
    except Exception as error:
        ending = ending_of(error)
        speaks, status = processes.speaks_for_all(ending.status)
        if speaks:
            if ending.ours:
                traceback.print_exc()
            events.emit(ending.event, **ending.fields)
        return status
    return 0


def _device(recipe: Recipe, processes: Processes) -> tuple[torch.device, torch.dtype]:
    """Return where to train and the base model's number format."""
    device = processes.join(recipe.memory.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    auto = "bf16" if device.type == "cuda" else "no"
    precision = auto if recipe.memory.precision == "auto" else recipe.memory.precision
    return device, {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)


def _step_path(path: Path, step: int) -> Path:
    return path.with_name(f"{path.stem}-step{step:06d}{path.suffix}")


def _forget_old(path: Path, step: int, kept: int) -> None:
    """Delete the LoRAs that were saved more than `kept` steps ago."""
    if kept:
        for old in path.parent.glob(f"{glob.escape(path.stem)}-step*{path.suffix}"):
            number = old.stem.rpartition("-step")[2]
            if number.isdigit() and int(number) <= step - kept:
                old.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
