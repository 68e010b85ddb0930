"""The settings of a training run: kohya's argument names on a typed dataclass."""

import argparse
import functools
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import (
    COUNT,
    LEARNING_RATE,
    NONE_OR_MORE,
    SAMPLING_STEPS,
    SEED,
    SIDE,
    Range,
    number,
    sides,
    whole,
)
from ..diffusioncleft_core.recipe import PAPER, PRESETS, training_recipe
from .buckets import MULTIPLE
from .dataset_toml import read_dataset_config, read_toml
from .effects import refuse_without_effect
from .kohya import ALWAYS, REFUSED, refusal
from .subset import DEFAULT_CAPTION_EXTENSION, Subset

OPTIMIZERS = ("AdamW8bit", "AdamW")
SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine")
TIMESTEP_SAMPLING = ("uniform", "sigmoid", "shift", "schnell")
TARGETS = ("all", "attention", "no_modulation")
PRIOR_TARGETS = ("image", "base")
LOSS_WEIGHT = number(0, 1e6)
AS_GIVEN = "as_given"
"""In place of a preset: the settings are complete, as between a program and the trainer that it starts."""


@dataclass(frozen=True)
class TrainResult:
    """The LoRA file and the number of optimizer steps behind it."""

    path: Path
    steps: int


@dataclass(frozen=True)
class Option:
    """What the command line says about a setting."""

    help: str
    choices: tuple[str, ...] | None = None
    range: Range | None = None


@dataclass(frozen=True)
class TrainSettings:
    """Everything a run depends on. Defaults are the paper's where the paper names a value."""

    pretrained_model_name_or_path: Annotated[
        Path | None, Option("FLUX.1 schnell: a diffusers folder, or the transformer's single file")
    ] = None
    clip_l: Annotated[Path | None, Option("CLIP-L text encoder, single file")] = None
    t5xxl: Annotated[Path | None, Option("T5-XXL text encoder, single file")] = None
    ae: Annotated[Path | None, Option("autoencoder, single file")] = None
    tokenizer_clip: Annotated[Path | None, Option("folder of CLIP's tokenizer, for single files")] = None
    tokenizer_t5: Annotated[Path | None, Option("folder of T5's tokenizer, for single files")] = None
    phantom: Annotated[
        bool, Option("train on the embedded phantom model: for tests and demonstrations only")
    ] = False

    dataset_config: Annotated[Path | None, Option("dataset TOML in kohya's form")] = None
    train_data_dir: Annotated[
        Path | None, Option("training images: a built dataset, or a plain folder with captions")
    ] = None
    reg_data_dir: Annotated[Path | None, Option("regularisation images, of either form")] = None
    class_tokens: Annotated[str | None, Option("caption of the training images that have none")] = None
    caption_extension: Annotated[str, Option("extension of caption files")] = DEFAULT_CAPTION_EXTENSION
    resolution: Annotated[tuple[int, ...], Option("base resolutions in px, separated by commas")] = PAPER[
        "resolution"
    ]
    bucket_reso_steps: Annotated[
        int,
        Option(
            "sides of buckets are multiples of this, itself a multiple of 16", range=whole(MULTIPLE, 1024)
        ),
    ] = MULTIPLE
    cache_latents_to_disk: Annotated[
        bool, Option("keep latents and text embeddings on disk, keyed by content")
    ] = True
    cache_dir: Annotated[
        Path | None,
        Option("private folder of the cache (default: in the output folder); a dataset has its own"),
    ] = None

    output_dir: Annotated[Path, Option("folder for the LoRA, checkpoints, previews and the loss history")] = (
        Path("output")
    )
    output_name: Annotated[str, Option("name of the LoRA file, without extension")] = "lora"
    save_every_n_steps: Annotated[
        int, Option("also save the LoRA every so many steps (0: only at the end)", range=NONE_OR_MORE)
    ] = 0
    save_last_n_steps: Annotated[
        int, Option("of these keep only those of the last so many steps (0: all)", range=NONE_OR_MORE)
    ] = 0
    checkpoint_every_n_steps: Annotated[
        int, Option("save a checkpoint to resume from every so many steps", range=COUNT)
    ] = 250
    resume: Annotated[
        str, Option("auto: go on from the output folder's checkpoint; no: start anew; or a checkpoint file")
    ] = "auto"

    network_dim: Annotated[int, Option("rank of the LoRA", range=whole(1, 4096))] = PAPER["network_dim"]
    network_alpha: Annotated[
        float, Option("alpha of the LoRA; the effective scale is alpha / rank", range=number(0, above=True))
    ] = PAPER["network_alpha"]
    network_targets: Annotated[
        str, Option("linear layers of the transformer blocks that get the LoRA", TARGETS)
    ] = PAPER["network_targets"]
    training_adapter: Annotated[
        Path | None,
        Option(
            "LoRA that is on while training and off in previews and in the saved file (schnell needs one)"
        ),
    ] = None

    learning_rate: Annotated[float, Option("learning rate", range=LEARNING_RATE)] = PAPER["learning_rate"]
    optimizer_type: Annotated[str, Option("optimizer", OPTIMIZERS)] = PAPER["optimizer_type"]
    adam_beta1: Annotated[float, Option("AdamW's first beta", range=number(0, 1, below=True))] = PAPER[
        "adam_beta1"
    ]
    adam_beta2: Annotated[float, Option("AdamW's second beta", range=number(0, 1, below=True))] = PAPER[
        "adam_beta2"
    ]
    adam_eps: Annotated[float, Option("AdamW's epsilon", range=number(0, 1))] = PAPER["adam_eps"]
    weight_decay: Annotated[float, Option("AdamW's weight decay", range=number(0, 100))] = PAPER[
        "weight_decay"
    ]
    max_grad_norm: Annotated[float, Option("clip the gradient's norm (0: do not)", range=number(0))] = PAPER[
        "max_grad_norm"
    ]
    lr_scheduler: Annotated[str, Option("learning-rate schedule", SCHEDULERS)] = PAPER["lr_scheduler"]
    lr_warmup_steps: Annotated[int, Option("linear warm-up over so many steps", range=NONE_OR_MORE)] = PAPER[
        "lr_warmup_steps"
    ]
    max_train_steps: Annotated[
        int, Option("optimizer steps (0: ten times the number of training images)", range=NONE_OR_MORE)
    ] = 0
    train_batch_size: Annotated[int, Option("training images in a batch", range=COUNT)] = PAPER[
        "train_batch_size"
    ]
    gradient_accumulation_steps: Annotated[int, Option("batches in a step", range=COUNT)] = PAPER[
        "gradient_accumulation_steps"
    ]
    prior_loss_weight: Annotated[
        float,
        Option("weight of the loss on the regularisation image paired with each image", range=LOSS_WEIGHT),
    ] = PAPER["prior_loss_weight"]
    prior_target: Annotated[
        str,
        Option("what regularisation aims at: the image, or the base model's own prediction", PRIOR_TARGETS),
    ] = PAPER["prior_target"]
    output_preservation_weight: Annotated[
        float,
        Option(
            "weight of holding each training image's output to the base model's where the trigger is missing "
            "from its caption (differential output preservation; 0: off)",
            range=LOSS_WEIGHT,
        ),
    ] = PAPER["output_preservation_weight"]
    other_trigger: Annotated[
        str | None,
        Option("another class's trigger, to which output preservation must not react either"),
    ] = None
    region_weight: Annotated[
        float,
        Option(
            "weight of the loss where the finding lies, in datasets that know it (1: as elsewhere)",
            range=number(0, above=True),
        ),
    ] = PAPER["region_weight"]
    timestep_sampling: Annotated[str, Option("distribution of the noise level sigma", TIMESTEP_SAMPLING)] = (
        PAPER["timestep_sampling"]
    )
    sigmoid_scale: Annotated[
        float,
        Option("standard deviation before the sigmoid (sigmoid and shift)", range=number(0, above=True)),
    ] = PAPER["sigmoid_scale"]
    discrete_flow_shift: Annotated[
        float, Option("shift of sigma towards noise (shift only)", range=number(0, above=True))
    ] = PAPER["discrete_flow_shift"]
    seed: Annotated[
        int, Option("seed of data order, noise levels, noise and the LoRA's first weights", range=SEED)
    ] = 0

    mixed_precision: Annotated[str, Option("number format of the base model", ("auto", "no", "bf16"))] = (
        "auto"
    )
    gradient_checkpointing: Annotated[bool, Option("compute activations twice to save memory")] = False
    blocks_to_swap: Annotated[
        int, Option("keep the weights of so many blocks in main memory and stream them", range=NONE_OR_MORE)
    ] = 0
    device: Annotated[str, Option("cuda, cuda:1, mps or cpu (auto: the best there is)")] = "auto"
    num_cpu_threads: Annotated[
        int, Option("threads for computing on the processor (0: as started)", range=NONE_OR_MORE)
    ] = PAPER["num_cpu_threads"]

    sample_prompts: Annotated[
        Path | None, Option("text file, one preview prompt a line, with kohya's --w --h --d --s")
    ] = None
    sample_every_n_steps: Annotated[int, Option("preview every so many steps", range=NONE_OR_MORE)] = 0
    sample_at_first: Annotated[bool, Option("preview before the first step too")] = False
    sample_size: Annotated[
        int,
        Option(
            "side of previews in px (0: 768, or the largest resolution if that is smaller)",
            range=whole(0, 4096),
        ),
    ] = 0
    sample_steps: Annotated[int, Option("sampling steps of previews", range=SAMPLING_STEPS)] = 4

    report_every_step: Annotated[
        bool, Option("a step event for every step, with its own seconds; waits for the GPU at each")
    ] = False

    trigger: Annotated[
        str | None, Option("trigger of the captions (default: the built dataset's, else read from them)")
    ] = None
    prompt_form: Annotated[
        str | None,
        Option(
            "form of the trigger recorded in the file (default: read from the captions)",
            ("bracketed", "bare"),
        ),
    ] = None
    stop_file: Annotated[Path | None, Option("save a checkpoint and stop as soon as this file exists")] = None
    stop_with_stdin: Annotated[
        bool, Option("save a checkpoint and stop when standard input ends or says stop")
    ] = False

    subsets: tuple[Subset, ...] = ()

    def __post_init__(self) -> None:
        for entry in _options():
            allowed, value = entry.option.range, getattr(self, entry.name)
            if allowed is not None:
                allowed.check(value, f"--{entry.name}")
        for side in self.resolution:
            SIDE.check(side, "--resolution")

    def to_arguments(self) -> list[str]:
        """Return the command-line arguments that `parse_settings` reads back into equal settings."""
        arguments = [f"--preset={AS_GIVEN}"]
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
    parser.add_argument(
        "--config_file", type=Path, help="TOML file with these settings; arguments come before it"
    )
    parser.add_argument(
        "--preset",
        choices=(*PRESETS, AS_GIVEN),
        default=argparse.SUPPRESS,
        help="recipe below the arguments: robust ties the finding to the trigger and looks closer where it "
        "lies; as_given fills in nothing for the phantom or the dataset (default: paper)",
    )
    for entry in _options():
        text = entry.option.help
        if entry.default not in (None, "", 0, False, (), 0.0):
            shown = ",".join(map(str, entry.default)) if isinstance(entry.default, tuple) else entry.default
            text += f" (default: {shown})"
        # SUPPRESS: only what was given is set, so that a config file can stand below the arguments.
        common: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
        if isinstance(entry.default, bool):
            parser.add_argument(f"--{entry.name}", action=argparse.BooleanOptionalAction, **common)
        else:
            kind = entry.option.range or _reader(entry.kind)
            parser.add_argument(f"--{entry.name}", type=kind, choices=entry.option.choices, **common)
    for name in sorted({*ALWAYS, *REFUSED}):
        parser.add_argument(
            f"--{name}", action=_Kohya, nargs="*", help=argparse.SUPPRESS, default=argparse.SUPPRESS
        )


def parse_settings(arguments: Sequence[str]) -> TrainSettings:
    """Read settings from command-line arguments.

    A mistake, or a kohya option that is not honoured, raises UserError.
    """
    parser = _Parser(prog="flux_train_network.py", description=__doc__, allow_abbrev=False)
    add_arguments(parser)
    return settings_from(parser.parse_args(list(arguments)))


def settings_from(namespace: argparse.Namespace) -> TrainSettings:
    """Build settings from what the arguments of `add_arguments` were parsed into."""
    _refuse(namespace)
    values = _given(namespace)
    config_file = getattr(namespace, "config_file", None)
    if config_file:
        values = _read_config_file(config_file) | values
    if values.get("dataset_config"):
        subsets, from_toml = read_dataset_config(values["dataset_config"])
        values = from_toml | values | {"subsets": subsets}
    preset = values.pop("preset", "paper")
    if preset != AS_GIVEN:
        from ..diffusioncleft_core.dataset.settings import training_facts

        facts = training_facts(_dataset(values), phantom=values.get("phantom", False))
        values = training_recipe(preset, facts, values)
    return checked(TrainSettings(**values))


def _dataset(values: dict[str, Any]) -> Path | None:
    """The one folder of training images, if there is one."""
    trained = [subset for subset in values.get("subsets", ()) if not subset.is_reg]
    if trained:
        return trained[0].image_dir if len(trained) == 1 and trained[0].num_repeats == 1 else None
    return values.get("train_data_dir")


def checked(settings: TrainSettings) -> TrainSettings:
    """Return the settings if they can be trained with; else raise UserError."""
    for entry in _options():
        value = getattr(settings, entry.name)
        choices = entry.option.choices
        if choices and value is not None and value not in choices:
            raise UserError(f"--{entry.name} {value!r} is unknown; choose one of: {', '.join(choices)}")
    step = settings.bucket_reso_steps
    if step % MULTIPLE:
        raise UserError(f"--bucket_reso_steps is {step}; FLUX needs a multiple of {MULTIPLE}")
    if not settings.resolution or min(settings.resolution) < max(step, 64):
        raise UserError(f"--resolution needs sizes of at least {max(step, 64)} px, separated by commas")
    name = settings.output_name
    if not name or name.startswith(".") or any(letter in name for letter in '/\\:*?"<>|\0'):
        raise UserError(
            f"--output_name {name!r} is no plain file name; leave out folders and special characters"
        )
    if not settings.caption_extension.startswith("."):
        raise UserError(f"--caption_extension {settings.caption_extension!r} needs its dot: .txt")
    if settings.subsets and (settings.train_data_dir or settings.reg_data_dir):
        raise UserError("give --dataset_config, or --train_data_dir and --reg_data_dir, not both")
    if not settings.subsets and settings.train_data_dir is None:
        raise UserError("there are no training images; give --train_data_dir FOLDER or --dataset_config TOML")
    if settings.phantom and settings.pretrained_model_name_or_path:
        raise UserError("--phantom trains the embedded model; leave out --pretrained_model_name_or_path")
    if not settings.phantom and settings.pretrained_model_name_or_path is None:
        raise UserError(
            "there is no base model; give --pretrained_model_name_or_path FLUX.1-schnell, or --phantom"
        )
    if bool(settings.sample_every_n_steps or settings.sample_at_first) and settings.sample_prompts is None:
        raise UserError("previews need prompts; give --sample_prompts FILE, one prompt a line")
    refuse_without_effect(settings)
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


class _Setting(NamedTuple):
    name: str
    kind: Any
    option: Option
    default: Any


@functools.cache
def _options() -> list[_Setting]:
    """The settings that are command-line options, in their order."""
    hints = typing.get_type_hints(TrainSettings, include_extras=True)
    found = []
    for entry in fields(TrainSettings):
        if typing.get_origin(hints[entry.name]) is Annotated:
            kind, option = typing.get_args(hints[entry.name])
            found.append(_Setting(entry.name, kind, option, entry.default))
    return found


def _reader(hint: Any) -> Any:
    """Return the function that reads an argument of the annotated type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        return sides
    return hint


class _Kohya(argparse.Action):
    """Takes note of an option of kohya's trainer that is no setting here."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        value = " ".join(map(str, values or ()))
        namespace.kohya = [*(getattr(namespace, "kohya", None) or ()), (self.dest, value)]


def _refuse(namespace: argparse.Namespace) -> None:
    """Raise UserError for the first of kohya's options that can't be ignored."""
    for name, value in getattr(namespace, "kohya", ()):
        reason = refusal(name, value)
        if reason:
            raise UserError(reason)


def _given(namespace: argparse.Namespace) -> dict[str, Any]:
    names = ("preset", *(entry.name for entry in _options()))
    return {name: getattr(namespace, name) for name in names if hasattr(namespace, name)}


def _read_config_file(path: Path) -> dict[str, Any]:
    """Read kohya's `--config_file`: settings as TOML, in sections or not."""
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
        namespace = parser.parse_args(arguments)
        _refuse(namespace)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return _given(namespace)
