"""The settings of a training run: kohya's argument names on a typed dataclass."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from ..diffusioncleft_core.errors import UserError
from .buckets import MULTIPLE
from .kohya import ALWAYS, REFUSED, refusal

OPTIMIZERS = ("AdamW8bit", "AdamW")
SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine")
TIMESTEP_SAMPLING = ("uniform", "sigmoid", "shift", "schnell")
TARGETS = ("all", "attention", "no_modulation")
PRIOR_TARGETS = ("image", "base")
DEFAULT_BATCH = 1
DEFAULT_RESOLUTION = (256, 512, 768, 1024)
DEFAULT_CAPTION_EXTENSION = ".txt"


@dataclass(frozen=True)
class Subset:
    """One folder of images: `num_repeats` times an epoch; `class_tokens` is the caption where an image has none."""

    image_dir: Path
    is_reg: bool = False
    num_repeats: int = 1
    class_tokens: str | None = None
    caption_extension: str = DEFAULT_CAPTION_EXTENSION


def _option(default: Any, text: str, choices: tuple[str, ...] | None = None) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class TrainSettings:
    """Everything a run depends on. Defaults are the paper's where the paper names a value."""

    pretrained_model_name_or_path: Path | None = _option(
        None, "FLUX.1 schnell: a diffusers folder, or the transformer's single file"
    )
    clip_l: Path | None = _option(None, "CLIP-L text encoder, single file")
    t5xxl: Path | None = _option(None, "T5-XXL text encoder, single file")
    ae: Path | None = _option(None, "autoencoder, single file")
    tokenizer_clip: Path | None = _option(None, "folder of CLIP's tokenizer, for single files")
    tokenizer_t5: Path | None = _option(None, "folder of T5's tokenizer, for single files")
    phantom: bool = _option(False, "train on the embedded phantom model: for tests and demonstrations only")

    dataset_config: Path | None = _option(None, "dataset TOML in kohya's form")
    train_data_dir: Path | None = _option(None, "training images: a built dataset, or a plain folder with captions")
    reg_data_dir: Path | None = _option(None, "regularisation images, of either form")
    class_tokens: str | None = _option(None, "caption of the training images that have none")
    caption_extension: str = _option(DEFAULT_CAPTION_EXTENSION, "extension of caption files")
    resolution: tuple[int, ...] = _option(DEFAULT_RESOLUTION, "base resolutions in px, separated by commas")
    bucket_reso_steps: int = _option(MULTIPLE, "sides of buckets are multiples of this, itself a multiple of 16")
    cache_latents_to_disk: bool = _option(True, "keep latents and text embeddings on disk, keyed by content")
    cache_dir: Path | None = _option(None, "private folder of the cache (default: in the dataset or the output folder)")

    output_dir: Path = _option(Path("output"), "folder for the LoRA, checkpoints, previews and the loss history")
    output_name: str = _option("lora", "name of the LoRA file, without extension")
    save_every_n_steps: int = _option(0, "also save the LoRA every so many steps (0: only at the end)")
    save_last_n_steps: int = _option(0, "of these keep only those of the last so many steps (0: all)")
    checkpoint_every_n_steps: int = _option(250, "save a checkpoint to resume from every so many steps")
    resume: str = _option("auto", "auto: go on from the output folder's checkpoint; no: start anew; or a checkpoint file")

    network_dim: int = _option(16, "rank of the LoRA")
    network_alpha: float = _option(32.0, "alpha of the LoRA; the effective scale is alpha / rank")
    network_targets: str = _option("all", "linear layers of the transformer blocks that get the LoRA", TARGETS)
    training_adapter: Path | None = _option(
        None, "LoRA that is on while training and off in previews and in the saved file (schnell needs one)"
    )

    learning_rate: float = _option(1e-4, "learning rate")
    optimizer_type: str = _option("AdamW8bit", "optimizer", OPTIMIZERS)
    adam_beta1: float = _option(0.9, "AdamW's first beta")
    adam_beta2: float = _option(0.999, "AdamW's second beta")
    adam_eps: float = _option(1e-8, "AdamW's epsilon")
    weight_decay: float = _option(0.01, "AdamW's weight decay")
    max_grad_norm: float = _option(1.0, "clip the gradient's norm (0: do not)")
    lr_scheduler: str = _option("constant", "learning-rate schedule", SCHEDULERS)
    lr_warmup_steps: int = _option(0, "linear warm-up over so many steps")
    max_train_steps: int = _option(0, "optimizer steps (0: ten times the number of training images)")
    train_batch_size: int = _option(DEFAULT_BATCH, "training images in a batch")
    gradient_accumulation_steps: int = _option(1, "batches in a step")
    prior_loss_weight: float = _option(1.0, "weight of the loss on the regularisation image paired with each image")
    prior_target: str = _option(
        "image", "what regularisation aims at: the image, or the base model's own prediction", PRIOR_TARGETS
    )
    timestep_sampling: str = _option("uniform", "distribution of the noise level sigma", TIMESTEP_SAMPLING)
    sigmoid_scale: float = _option(1.0, "standard deviation before the sigmoid (sigmoid and shift)")
    discrete_flow_shift: float = _option(3.0, "shift of sigma towards noise (shift only)")
    seed: int = _option(0, "seed of data order, noise levels, noise and the LoRA's first weights")

    mixed_precision: str = _option("auto", "number format of the base model", ("auto", "no", "bf16"))
    gradient_checkpointing: bool = _option(False, "compute activations twice to save memory")
    blocks_to_swap: int = _option(0, "keep the weights of so many blocks in main memory and stream them")
    cpu: bool = _option(False, "train on the processor although there is a GPU")
    num_cpu_threads: int = _option(0, "threads for computing on the processor (0: as started)")

    sample_prompts: Path | None = _option(None, "text file, one preview prompt a line, with kohya's --w --h --d --s")
    sample_every_n_steps: int = _option(0, "preview every so many steps")
    sample_at_first: bool = _option(False, "preview before the first step too")
    sample_size: int = _option(0, "side of previews in px (0: 768, or the largest resolution if that is smaller)")
    sample_steps: int = _option(4, "sampling steps of previews")

    trigger: str | None = _option(None, "trigger recorded in the file (default: read from the captions)")
    prompt_form: str | None = _option(
        None, "form of the trigger recorded in the file (default: read from the captions)", ("bracketed", "bare")
    )
    stop_file: Path | None = _option(None, "save a checkpoint and stop as soon as this file exists")
    stop_with_stdin: bool = _option(False, "save a checkpoint and stop when standard input ends or says stop")

    subsets: tuple[Subset, ...] = field(default=(), metadata={"help": None})

    def to_arguments(self) -> list[str]:
        """Return the command-line arguments that `parse_settings` reads back into equal settings."""
        arguments: list[str] = []
        for entry in _options():
            value = getattr(self, entry.name)
            if value == entry.default:
                continue
            if isinstance(value, bool):
                arguments.append(f"--{'' if value else 'no-'}{entry.name}")
            else:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                arguments.append(f"--{entry.name}={text}")
        if self.subsets and self.dataset_config is None:
            raise ValueError("subsets travel to another process as a dataset TOML")
        return arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one argument a setting, and `--config_file`."""
    parser.add_argument("--config_file", type=Path, help="TOML file with these settings; arguments come before it")
    hints = typing.get_type_hints(TrainSettings)
    for entry in _options():
        text = entry.metadata["help"]
        if entry.default not in (None, "", 0, False, (), 0.0):
            shown = ",".join(map(str, entry.default)) if isinstance(entry.default, tuple) else entry.default
            text += f" (default: {shown})"
        # SUPPRESS: only what was given is set, so that a config file can stand below the arguments.
        common: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
        if isinstance(entry.default, bool):
            parser.add_argument(f"--{entry.name}", action=argparse.BooleanOptionalAction, **common)
        else:
            kind = _reader(hints[entry.name])
            parser.add_argument(f"--{entry.name}", type=kind, choices=entry.metadata["choices"], **common)


def parse_settings(arguments: Sequence[str]) -> TrainSettings:
    """Read settings from command-line arguments. A mistake, or a kohya option that is not honoured, raises UserError."""
    parser = _Parser(prog="flux_train_network.py", description=__doc__, allow_abbrev=False)
    add_arguments(parser)
    known, rest = parser.parse_known_args(list(arguments))
    return settings_from(known, rest)


def settings_from(namespace: argparse.Namespace, rest: Sequence[str] = ()) -> TrainSettings:
    """Build settings from what `add_arguments` parsed and from the arguments it did not know (`rest`)."""
    _refuse(rest)
    given = {entry.name: getattr(namespace, entry.name) for entry in _options() if hasattr(namespace, entry.name)}
    config_file = getattr(namespace, "config_file", None)
    values = (_read_config_file(config_file) if config_file else {}) | given
    if values.get("dataset_config"):
        from .dataset_toml import read_dataset_config

        subsets, from_toml = read_dataset_config(values["dataset_config"])
        values = from_toml | values | {"subsets": subsets}
    return checked(TrainSettings(**values))


def checked(settings: TrainSettings) -> TrainSettings:
    """Return the settings if they can be trained with; else raise UserError."""
    positive = ("network_dim", "network_alpha", "learning_rate", "train_batch_size", "gradient_accumulation_steps",
                "sample_steps", "checkpoint_every_n_steps", "sigmoid_scale", "discrete_flow_shift")  # fmt: skip
    for entry in _options():
        value = getattr(settings, entry.name)
        if entry.name in positive and not value > 0:
            raise UserError(f"--{entry.name} is {value}; it must be more than 0")
        if isinstance(value, (int, float)) and value < 0:
            raise UserError(f"--{entry.name} is {value}; it must not be negative")
        choices = entry.metadata["choices"]
        if choices and value is not None and value not in choices:
            raise UserError(f"--{entry.name} {value!r} is unknown; choose one of: {', '.join(choices)}")
    step = settings.bucket_reso_steps
    if step <= 0 or step % MULTIPLE:
        raise UserError(f"--bucket_reso_steps is {step}; FLUX needs a multiple of {MULTIPLE}")
    if not settings.resolution or min(settings.resolution) < max(step, 64):
        raise UserError(f"--resolution needs sizes of at least {max(step, 64)} px, separated by commas")
    name = settings.output_name
    if not name or name.startswith(".") or any(letter in name for letter in '/\\:*?"<>|\0'):
        raise UserError(f"--output_name {name!r} is no plain file name; leave out folders and special characters")
    if not settings.caption_extension.startswith("."):
        raise UserError(f"--caption_extension {settings.caption_extension!r} needs its dot: .txt")
    if settings.subsets and (settings.train_data_dir or settings.reg_data_dir):
        raise UserError("give --dataset_config, or --train_data_dir and --reg_data_dir, not both")
    if not settings.subsets and settings.train_data_dir is None:
        raise UserError("there are no training images; give --train_data_dir FOLDER or --dataset_config TOML")
    if settings.phantom and settings.pretrained_model_name_or_path:
        raise UserError("--phantom trains the embedded model; leave out --pretrained_model_name_or_path")
    if not settings.phantom and settings.pretrained_model_name_or_path is None:
        raise UserError("there is no base model; give --pretrained_model_name_or_path FLUX.1-schnell, or --phantom")
    if bool(settings.sample_every_n_steps or settings.sample_at_first) and settings.sample_prompts is None:
        raise UserError("previews need prompts; give --sample_prompts FILE, one prompt a line")
    return settings


def image_folders(settings: TrainSettings) -> tuple[Subset, ...]:
    """Return the folders to train on, whichever way they were given."""
    if settings.subsets:
        return settings.subsets
    shared = {"class_tokens": settings.class_tokens, "caption_extension": settings.caption_extension}
    assert settings.train_data_dir is not None
    folders = [Subset(settings.train_data_dir, **shared)]
    if settings.reg_data_dir is not None:
        folders.append(Subset(settings.reg_data_dir, is_reg=True, **shared))
    return tuple(folders)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def _options() -> list["dataclasses.Field[Any]"]:
    return [entry for entry in fields(TrainSettings) if entry.metadata["help"]]


def _reader(hint: Any) -> Any:
    """Return the function that reads an argument of the annotated type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        return _sizes
    return hint


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.replace(",", " ").split()}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, such as 512,768") from None


def _refuse(rest: Sequence[str]) -> None:
    """Raise UserError for the first argument in `rest` that can't be ignored."""
    index = 0
    while index < len(rest):
        name, equals, value = rest[index].partition("=")
        index += 1
        while not equals and index < len(rest) and not rest[index].startswith("--"):
            value = f"{value} {rest[index]}".strip()
            index += 1
        try:
            reason = refusal(name.removeprefix("--"), value) if name.startswith("--") else f"{name!r} belongs to no option"
        except KeyError:
            reason = f"there is no option {name}; see --help"
        if reason:
            raise UserError(reason)


def _read_config_file(path: Path) -> dict[str, Any]:
    """Read kohya's `--config_file`: settings as TOML, in sections or not."""
    from .dataset_toml import read_toml

    flat: dict[str, Any] = {}
    for key, value in read_toml(path).items():
        flat |= value if isinstance(value, dict) else {key: value}
    arguments: list[str] = []
    names = {entry.name: entry for entry in _options()}
    for key, value in flat.items():
        if value is False and key in (*ALWAYS, *REFUSED):
            continue  # an option that is switched off
        text = "" if value is True else ",".join(map(str, value)) if isinstance(value, list) else str(value)
        if isinstance(value, bool) and key in names:
            arguments.append(f"--{'' if value else 'no-'}{key}")
        else:
            arguments.append(f"--{key}={text}" if text else f"--{key}")
    parser = _Parser(allow_abbrev=False)
    add_arguments(parser)
    try:
        known, rest = parser.parse_known_args(arguments)
        _refuse(rest)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return {name: getattr(known, name) for name in names if hasattr(known, name)}
