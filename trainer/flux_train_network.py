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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: load the folder above as the package that this file belongs to
    import importlib
    import importlib.util

    _root = Path(__file__).resolve().parents[1]
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
from ..diffusioncleft_core.dataset.withdrawn import SAID
from ..diffusioncleft_core.environment import pick_device
from ..diffusioncleft_core.errors import UserError, system_sentence
from ..diffusioncleft_core.files import remove_leftovers, sha256_model
from ..diffusioncleft_core.flux.components import base_form, load_transformer, load_vae
from ..diffusioncleft_core.flux.lora import lora_state
from ..diffusioncleft_core.flux.lora_file import PRECISIONS, save_kohya
from ..diffusioncleft_core.flux.sampling import no_cudnn_attention
from ..diffusioncleft_core.outputs import can_write
from ..diffusioncleft_core.progress import watched
from ..diffusioncleft_core.recipe.document import FILE_NAME, write_recipe
from ..diffusioncleft_core.recipe.presets import told_recipe
from ..diffusioncleft_core.recipe.recipe import STEPS_PER_IMAGE, Recipe
from . import checkpoint as checkpoints
from . import memory
from .config import TrainResult, parse_arguments, recipe_from, unheard
from .data import data_order
from .epochs import in_steps
from .events import EVENT_SECONDS, Events, LossHistory, standard_output_events
from .folders import image_folders
from .interruption import Interrupted, Interruption, output_lock
from .metadata import fingerprinted, lora_metadata, saved_steps
from .network import LORA, attach, rounded
from .objective import Objective, autocast
from .optimizer import build_optimizer, learning_rate
from .prepare import base_model, loading_progress, prepare
from .preview import Previewer


def train(recipe: Recipe, events: Events, interruption: Interruption) -> TrainResult:
    """Train, or go on training, one LoRA.

    Args:
        recipe: complete.
        events: gets what happens.
        interruption: says when to stop.

    Raises:
        UserError: a mistake in settings or data, or consent is required and not recorded.
        Interrupted: it was asked to stop, and a checkpoint is on disk: the same call then goes on, and ends
            with the tensors that it would have had without the stop.
    """
    # Whether the people in the images were asked, before anything is read or written.
    trained_on = [subset.image_dir for subset in image_folders(recipe)]
    if missing := [folder for folder in trained_on if not Path(folder).is_dir()]:
        raise UserError(f"there is no folder {missing[0]}; give the folder of the training images")
    for message in [*check_consent(trained_on), *check_records(trained_on, recipe.data.cache_dir)]:
        events.emit("warning", message=message, private=True)
    output_dir = recipe.output.folder
    states = output_dir / "state"
    device, dtype = _device(recipe)
    with (
        output_lock(output_dir),
        _reproducible(recipe, device),
        watched(loading_progress(events, interruption)),
    ):
        for folder in (output_dir, states, output_dir / "previews"):
            remove_leftovers(folder)  # of a run that was killed while it wrote

        # The base model, the images, and their latents and captions, encoded once.
        source = base_model(recipe)
        encoders_dtype = (
            torch.bfloat16 if dtype == torch.float16 else dtype
        )  # they overflow in half precision
        prepared = prepare(recipe, source, device, encoders_dtype, events, interruption)
        images = prepared.collected
        order = data_order(images.images, recipe)
        recipe = in_steps(recipe, order)
        total = recipe.optimizer.steps or STEPS_PER_IMAGE * len(images.train)
        adapter = _adapter(recipe, events)
        adapter_sha256 = sha256_model(adapter) if adapter else None
        if (weights := recipe.network.weights) and not weights.is_file():
            raise UserError(f"there is no file {weights}; check --network_weights")
        form = base_form(source, recipe.memory.base_format)
        made_from = fingerprinted(recipe, prepared, total, str(dtype), form, adapter_sha256)
        run = run_fingerprint(made_from)
        folders = {image.folder for image in images.images}
        datasets = [folder for folder in folders if is_dataset(folder) and can_write(folder)]

        # Where an earlier run stopped.
        checkpoint = _checkpoint(recipe, states, made_from, prepared.key_id, events)
        start = checkpoint.step if checkpoint else 0
        path = output_dir / f"{recipe.output.name}.safetensors"
        if start > total:
            raise UserError(
                f"{output_dir} is at step {start}, beyond --max_train_steps {total}; use --resume no"
            )
        if start == total and saved_steps(path, made_from) == total:
            events.emit("done", path=str(path), step=start)
            return TrainResult(path, start)

        # The datasets know what learns from them before it does: a consent may be withdrawn later.
        for dataset in datasets:
            remember_training(dataset, run, output_dir)

        # The transformer, frozen, with the LoRA to train and the adapter that keeps schnell a 4-step model.
        transformer = load_transformer(
            source, device, dtype, recipe.memory.base_format, recipe.memory.blocks_to_swap
        )
        parameters, activate = attach(transformer, recipe, device)
        if recipe.memory.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        optimizer = build_optimizer(recipe, list(parameters.values()), events)
        if checkpoint:
            checkpoints.restore(checkpoint, parameters, optimizer)

        precision = PRECISIONS[recipe.output.save_precision]
        write_recipe(output_dir / FILE_NAME, told_recipe(recipe, len(images.train)))
        objective = Objective(recipe, prepared, transformer, activate, device, dtype)
        seconds = 0.0 if recipe.output.report_every_step else EVENT_SECONDS
        history = LossHistory(output_dir / "loss.jsonl", events, start, total, seconds=seconds)
        previewer = Previewer(
            prepared.previews,
            prepared.text,
            lambda: load_vae(source, device, encoders_dtype),
            output_dir / "previews",
            events,
            device,
        )
        events.emit(
            "start",
            step=start,
            total=total,
            images=len(images.train),
            regularisation=len(images.reg),
            buckets=images.bucket_counts(),
            parameters=sum(parameter.numel() for parameter in parameters.values()),
            optimizer=type(optimizer).__name__,
            effective_scale=recipe.network.alpha / recipe.network.rank,
            memory=memory.describe(transformer, device),
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
            base_format=form,
        )

        def save_lora(to: Path, step: int) -> None:
            metadata = lora_metadata(recipe, prepared, made_from, step, total)
            save_kohya(to, lora_state(transformer, LORA), recipe.network.alpha, metadata, precision)
            told = [item for dataset in datasets for item in remember_lora(dataset, run, to)]
            if told:
                events.emit("warning", message=f"the LoRA {SAID} while it was trained: it is marked so")
            events.emit("saved", path=str(to), step=step)

        def save_checkpoint(step: int) -> None:
            history.flush()
            saved = checkpoints.save_checkpoint(
                states, step, made_from, parameters, optimizer, prepared.key_id
            )
            events.emit("checkpoint", path=str(saved), step=step)

        def preview(step: int) -> None:
            activate(True, False)
            transformer.eval()
            try:
                with rounded(parameters, precision), autocast(device, dtype):
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
            # Before the first step; or what a run that was stopped at this step had no time for.
            give_what_is_due(start, missing_only=start > 0)
            for step in range(start + 1, total + 1):
                interruption.raise_if_requested()
                rate = learning_rate(recipe, step, total)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                losses = torch.zeros(2, device=device)
                for part in range(recipe.optimizer.accumulation_steps):
                    number = (step - 1) * recipe.optimizer.accumulation_steps + part
                    losses += objective.backward(order.draw(number), number)
                finite = objective.unscale(parameters.values())
                if recipe.optimizer.max_grad_norm:
                    torch.nn.utils.clip_grad_norm_(parameters.values(), recipe.optimizer.max_grad_norm)
                if finite:
                    optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                history.add(step, losses, rate)
                done = step

                # First what is due, then the checkpoint that counts the step: a kill loses neither.
                give_what_is_due(step)
                if step % recipe.output.checkpoint_every_n_steps == 0 or step == total:
                    save_checkpoint(step)
        except Interrupted as interrupted:
            save_checkpoint(done)
            raise Interrupted(str(interrupted), done, total) from interrupted
        history.flush()
        save_lora(path, done)
        events.emit("done", path=str(path), step=done, peaks=memory.peaks(device))
        return TrainResult(path, done)


def main(arguments: list[str] | None = None) -> int:
    """Train as told on the command line: 0 done, 1 a fault of ours, 2 a user's mistake, 130 stopped with a
    checkpoint.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched behind the user's back
    events = standard_output_events()
    try:
        namespace = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        recipe = recipe_from(namespace)
        for message in unheard(namespace, recipe):
            events.emit("warning", message=message)
        interruption = Interruption(recipe.output.stop_file)
        with interruption.of_process(stdin=namespace.stop_with_stdin):
            train(recipe, events, interruption)
    except Interrupted as stop:
        events.emit("interrupted", step=stop.step, total=stop.total, reason=str(stop))
        return 130
    except UserError as error:
        message, _, hint = str(error).partition("; ")
        events.emit("error", kind="user", message=message, hint=hint)
        return 2
    except Exception as error:
        sentence = system_sentence(error) if isinstance(error, OSError) else None
        if sentence:
            message, _, hint = sentence.partition("; ")
            events.emit("error", kind="user", message=message, hint=hint)
            return 2
        traceback.print_exc()
        if memory.is_out_of_memory(error):
            events.emit("error", kind="memory", message="out of memory", hint=memory.OUT_OF_MEMORY_HINT)
        else:
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            events.emit("error", kind="fault", message=message, hint="the traceback is on standard error")
        return 1
    return 0


def _device(recipe: Recipe) -> tuple[torch.device, torch.dtype]:
    """Return where to train and the base model's number format."""
    from accelerate import Accelerator

    named = None if recipe.memory.device == "auto" else pick_device(recipe.memory.device)
    accelerator = Accelerator(cpu=named is not None and named.type == "cpu", mixed_precision="no")
    if accelerator.num_processes > 1:
        raise UserError("training runs in one process; start with accelerate launch --num_processes 1")
    device = named or torch.device(accelerator.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    auto = "bf16" if device.type == "cuda" else "no"
    precision = auto if recipe.memory.precision == "auto" else recipe.memory.precision
    return device, {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)


def _adapter(recipe: Recipe, events: Events) -> Path | None:
    """The training adapter's file; its absence on a real, distilled base is worth a warning."""
    adapter = recipe.network.training_adapter
    if adapter is None:
        if not recipe.model.phantom:
            events.emit(
                "warning",
                message="training schnell without --training_adapter unlearns its 4 steps",
            )
        return None
    if not adapter.is_file():
        raise UserError(f"there is no file {adapter}; check --training_adapter")
    return adapter


def _checkpoint(
    recipe: Recipe, states: Path, made_from: dict[str, Any], key_id: str, events: Events
) -> checkpoints.Checkpoint | None:
    """Return where to go on: the output folder's newest checkpoint, a given one, or None to start anew."""

    def warn(message: str) -> None:
        events.emit("warning", message=message, private=True)

    if recipe.output.resume == "no":
        checkpoints.remove_checkpoints(states)
        return None
    if recipe.output.resume == "auto":
        checkpoint = checkpoints.latest_checkpoint(states, warn)
    else:
        checkpoint = checkpoints.read_checkpoint(Path(recipe.output.resume))
    if checkpoint is not None:
        checkpoints.refuse_withdrawn_checkpoint(checkpoint, recipe.output.folder)
        checkpoints.check_made_from(checkpoint, made_from, recipe.output.folder, key_id=key_id, warn=warn)
    return checkpoint


def _step_path(path: Path, step: int) -> Path:
    return path.with_name(f"{path.stem}-step{step:06d}{path.suffix}")


def _forget_old(path: Path, step: int, kept: int) -> None:
    """Delete the LoRAs that were saved more than `kept` steps ago."""
    if kept:
        for old in path.parent.glob(f"{glob.escape(path.stem)}-step*{path.suffix}"):
            number = old.stem.rpartition("-step")[2]
            if number.isdigit() and int(number) <= step - kept:
                old.unlink(missing_ok=True)


@contextlib.contextmanager
def _reproducible(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Choose deterministic kernels on the GPU and the number of threads, and put both back.

    On the processor the kernels are deterministic for one number of threads.
    """
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory_filling: Any = torch.utils.deterministic
    fill = memory_filling.fill_uninitialized_memory
    if recipe.memory.cpu_threads:
        torch.set_num_threads(recipe.memory.cpu_threads)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory_filling.fill_uninitialized_memory = False  # it would write every tensor twice
    try:
        with no_cudnn_attention():
            yield
    finally:
        memory_filling.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())
