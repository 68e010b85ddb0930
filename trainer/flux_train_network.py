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
from collections.abc import Callable, Iterator
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

from ..diffusioncleft_core.environment import pick_device
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import sha256_model
from ..diffusioncleft_core.flux.components import load_transformer, load_vae
from ..diffusioncleft_core.flux.lora import (
    attach_lora,
    load_lora,
    lora_parameters,
    lora_state,
    set_active,
)
from ..diffusioncleft_core.flux.lora_file import save_kohya
from ..diffusioncleft_core.recipe import STEPS_PER_IMAGE
from . import checkpoint as checkpoints
from . import memory
from .config import TrainResult, TrainSettings, parse_settings
from .data import DataOrder
from .events import EVENT_SECONDS, Events, LossHistory, standard_output_events
from .interruption import Interrupted, Interruption, output_lock
from .metadata import lora_metadata, saved_steps, what_matters
from .objective import Objective, autocast
from .optimizer import build_optimizer, learning_rate
from .prepare import base_model, prepare
from .preview import Previewer

LORA = "default"
ADAPTER = "training_adapter"


def train(settings: TrainSettings, events: Events, interruption: Interruption) -> TrainResult:
    """Train, or go on training, one LoRA.

    Raises UserError for a mistake in settings or data, and Interrupted, with a checkpoint on disk, when it
    was asked to stop: the same call then goes on, and ends with the tensors that it would have had without
    the stop.
    """
    output_dir = settings.output_dir
    states = output_dir / "state"
    device, dtype = _device(settings)
    with output_lock(output_dir), _reproducible(settings, device):
        # The base model, the images, and their latents and captions, encoded once.
        source = base_model(settings)
        prepared = prepare(settings, source, device, dtype, events, interruption)
        images = prepared.collected
        total = settings.max_train_steps or STEPS_PER_IMAGE * len(images.train)
        adapter_sha256 = sha256_model(settings.training_adapter) if _adapter(settings, events) else None
        matters = what_matters(settings, prepared, total, str(dtype), adapter_sha256)

        # Where an earlier run stopped.
        checkpoint = _checkpoint(settings, states, matters)
        start = checkpoint.step if checkpoint else 0
        path = output_dir / f"{settings.output_name}.safetensors"
        if start > total:
            raise UserError(
                f"{output_dir} is at step {start}, beyond --max_train_steps {total}; use --resume no"
            )
        if start == total and saved_steps(path, matters) == total:
            events.emit("done", path=str(path), step=start)
            return TrainResult(path, start)

        # The transformer, frozen, with the LoRA to train and the adapter that keeps schnell a 4-step model.
        transformer = load_transformer(
            source, torch.device("cpu") if settings.blocks_to_swap else device, dtype
        )
        parameters, activate = _attach(transformer, settings)
        if settings.blocks_to_swap:
            memory.stream_blocks(transformer, settings.blocks_to_swap, device)
            transformer.to(device)
        if settings.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        optimizer = build_optimizer(settings, list(parameters.values()), events)
        if checkpoint:
            checkpoints.restore(checkpoint, parameters, optimizer)

        order = DataOrder(images.images, settings.train_batch_size, settings.seed)
        objective = Objective(settings, prepared, transformer, activate, device, dtype)
        seconds = 0.0 if settings.report_every_step else EVENT_SECONDS
        history = LossHistory(output_dir / "loss.jsonl", events, start, total, seconds=seconds)
        previewer = Previewer(
            prepared.previews,
            prepared.text,
            lambda: load_vae(source, device, dtype),
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
            effective_scale=settings.network_alpha / settings.network_dim,
            memory=memory.describe(transformer, device),
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
        )

        def save_lora(to: Path, step: int) -> None:
            metadata = lora_metadata(settings, prepared, matters, step, total)
            save_kohya(to, lora_state(transformer, LORA), settings.network_alpha, metadata)
            events.emit("saved", path=str(to), step=step)

        def save_checkpoint(step: int) -> None:
            history.flush()
            saved = checkpoints.save_checkpoint(states, step, matters, parameters, optimizer)
            events.emit("checkpoint", path=str(saved), step=step)

        def preview(step: int) -> None:
            activate(True, False)
            transformer.eval()
            try:
                with autocast(device, dtype):
                    previewer.preview(transformer, step, interruption.raise_if_requested)
            finally:
                transformer.train()
                activate(True, True)

        transformer.train()
        activate(True, True)
        if settings.sample_at_first and start == 0:
            preview(0)
        done = start
        try:
            for step in range(start + 1, total + 1):
                interruption.raise_if_requested()
                rate = learning_rate(settings, step, total)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                losses = torch.zeros(2, device=device)
                for part in range(settings.gradient_accumulation_steps):
                    number = (step - 1) * settings.gradient_accumulation_steps + part
                    losses += objective.backward(order.draw(number), number)
                if settings.max_grad_norm:
                    torch.nn.utils.clip_grad_norm_(parameters.values(), settings.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                history.add(step, losses, rate)
                done = step

                if step % settings.checkpoint_every_n_steps == 0 or step == total:
                    save_checkpoint(step)
                if settings.save_every_n_steps and step % settings.save_every_n_steps == 0 and step < total:
                    history.flush()
                    save_lora(_step_path(path, step), step)
                    _forget_old(path, step, settings.save_last_n_steps)
                if settings.sample_every_n_steps and step % settings.sample_every_n_steps == 0:
                    preview(step)
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
        settings = parse_settings(sys.argv[1:] if arguments is None else arguments)
        interruption = Interruption(settings.stop_file)
        with interruption.of_process(stdin=settings.stop_with_stdin):
            train(settings, events, interruption)
    except Interrupted as stop:
        events.emit("interrupted", step=stop.step, total=stop.total, reason=str(stop))
        return 130
    except UserError as error:
        message, _, hint = str(error).partition("; ")
        events.emit("error", kind="user", message=message, hint=hint)
        return 2
    except Exception as error:
        traceback.print_exc()
        if memory.is_out_of_memory(error):
            events.emit("error", kind="memory", message="out of memory", hint=memory.OUT_OF_MEMORY_HINT)
        else:
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            events.emit("error", kind="fault", message=message, hint="the traceback is on standard error")
        return 1
    return 0


def _device(settings: TrainSettings) -> tuple[torch.device, torch.dtype]:
    """Return where to train and the base model's number format."""
    from accelerate import Accelerator

    named = None if settings.device == "auto" else pick_device(settings.device)
    accelerator = Accelerator(cpu=named is not None and named.type == "cpu", mixed_precision="no")
    if accelerator.num_processes > 1:
        raise UserError("training runs in one process; start with accelerate launch --num_processes 1")
    device = named or torch.device(accelerator.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    auto = "bf16" if device.type == "cuda" else "no"
    precision = auto if settings.mixed_precision == "auto" else settings.mixed_precision
    return device, torch.bfloat16 if precision == "bf16" else torch.float32


def _adapter(settings: TrainSettings, events: Events) -> bool:
    """Whether there is a training adapter; its absence on a real, distilled base is worth a warning."""
    if settings.training_adapter is None:
        if not settings.phantom:
            events.emit(
                "warning",
                message="training schnell without --training_adapter unlearns its 4 steps",
            )
        return False
    if not settings.training_adapter.is_file():
        raise UserError(f"there is no file {settings.training_adapter}; check --training_adapter")
    return True


def _checkpoint(
    settings: TrainSettings, states: Path, matters: dict[str, Any]
) -> checkpoints.Checkpoint | None:
    """Return where to go on: the output folder's newest checkpoint, a given one, or None to start anew."""
    if settings.resume == "no":
        checkpoints.remove_checkpoints(states)
        return None
    if settings.resume == "auto":
        checkpoint = checkpoints.latest_checkpoint(states)
    else:
        checkpoint = checkpoints.read_checkpoint(Path(settings.resume))
    if checkpoint is not None:
        checkpoints.check_matters(checkpoint, matters, settings.output_dir)
    return checkpoint


def _attach(
    transformer: Any, settings: TrainSettings
) -> tuple[dict[str, torch.nn.Parameter], Callable[[bool, bool], None]]:
    """Attach the LoRA and the training adapter; return the LoRA's parameters and a switch (lora, adapter)."""
    if settings.training_adapter is not None:
        load_lora(transformer, settings.training_adapter, name=ADAPTER)
    attach_lora(
        transformer,
        settings.network_dim,
        settings.network_alpha,
        LORA,
        settings.network_targets,
        seed=settings.seed,
    )
    known = {id(parameter) for parameter in lora_parameters(transformer, LORA)}
    parameters = {name: entry for name, entry in transformer.named_parameters() if id(entry) in known}

    def activate(lora: bool, adapter: bool) -> None:
        adapter = adapter and settings.training_adapter is not None
        set_active(transformer, [LORA] * lora + [ADAPTER] * adapter)

    return parameters, activate


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
def _reproducible(settings: TrainSettings, device: torch.device) -> Iterator[None]:
    """Choose deterministic kernels on the GPU and the number of threads, and put both back.

    On the processor the kernels are deterministic for one number of threads.
    """
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    if settings.num_cpu_threads:
        torch.set_num_threads(settings.num_cpu_threads)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # it would write every tensor twice
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())
