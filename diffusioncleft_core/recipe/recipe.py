"""The recipe: everything that a training run depends on, in groups. Every default stands here, once.

Defaults are the paper's where it names a value, else kohya's; `presets.py` holds the other named recipes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..ranges import COUNT, LEARNING_RATE, NONE_OR_MORE, SAMPLING_STEPS, SEED, number, whole
from .observing import Tracking, Validation
from .setting import Field, Group, fields_of_group, setting

SIZE_STEP = 16
"""Sides of pictures are multiples of it: the autoencoder's 8 times the transformer's 2 x 2 patches."""
STEPS_PER_IMAGE = 10
PAPER_SIDE, PHANTOM_SIDE = 768, 128
"""Sides of drawn pictures, px: the paper's, and the phantom's."""
OPTIMIZERS = ("AdamW8bit", "AdamW", "Adafactor", "Lion", "Lion8bit", "Prodigy")
SCHEDULES = (
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
)
TIMESTEP_SAMPLINGS = ("uniform", "sigmoid", "shift", "flux_shift", "sigma", "logit_normal", "schnell")
BASE_FORMATS = ("auto", "stored", "plain", "fp8", "int8", "nf4")
DYNAMO_BACKENDS = ("inductor", "aot_eager", "cudagraphs", "no")
FORMS = ("lora", "dora", "lokr")
TARGETS = ("all", "attention", "no_modulation")
SAVE_PRECISIONS = ("bf16", "fp16", "float")
LOSS_WEIGHT = number(0, 1e6)


@dataclass(frozen=True)
class Subset:
    """A folder of images, `num_repeats` times an epoch; `class_tokens` is the caption where there is none.

    `resolution`: base sizes of this folder's images alone; None: the recipe's.
    """

    image_dir: Path
    is_reg: bool = False
    num_repeats: int = 1
    class_tokens: str | None = None
    caption_extension: str = ".txt"
    resolution: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        COUNT.check(self.num_repeats, "num_repeats")


@dataclass(frozen=True)
class Model(Group):
    """The base model."""

    base: Path | None = setting(
        None, "FLUX.1 schnell: a diffusers folder, or the transformer's single file", location=True
    )
    clip_l: Path | None = setting(None, "CLIP-L text encoder, single file", location=True)
    t5xxl: Path | None = setting(None, "T5-XXL text encoder, single file", location=True)
    vae: Path | None = setting(None, "autoencoder, single file", location=True)
    tokenizer_clip: Path | None = setting(None, "folder of CLIP's tokenizer, for single files", location=True)
    tokenizer_t5: Path | None = setting(None, "folder of T5's tokenizer, for single files", location=True)
    phantom: bool = setting(False, "train on the embedded phantom model: for tests and demonstrations only")


@dataclass(frozen=True)
class Data(Group):
    """The images, their captions and sizes. `subsets`: the folders of a dataset TOML."""

    config: Path | None = setting(None, "dataset TOML in kohya's form", location=True)
    train_dir: Path | None = setting(
        None, "training images: a built dataset, or a plain folder with captions", location=True
    )
    reg_dir: Path | None = setting(None, "regularisation images, of either form", location=True)
    class_tokens: str | None = setting(None, "caption of the training images that have none", location=True)
    caption_extension: str = setting(".txt", "extension of caption files")
    resolution: tuple[int, ...] = setting(
        (256, 512, 768, 1024), "base resolutions in px, separated by commas"
    )
    multi_resolution: bool = setting(
        False,
        "train each image at every base resolution that it is large enough for, not at the largest alone",
    )
    bucket_step: int = setting(
        SIZE_STEP,
        "sides of buckets are multiples of this, itself a multiple of 16",
        range=whole(SIZE_STEP, 1024),
    )
    bucket_min_side: int = setting(
        0, "no side of a bucket is shorter, px (0: as the aspect ratio has it)", range=whole(0, 4096)
    )
    bucket_max_side: int = setting(
        0, "no side of a bucket is longer, px (0: as the aspect ratio has it)", range=whole(0, 4096)
    )
    mirror: bool = setting(
        False,
        "train on each image's mirror image too, with left and right exchanged in its caption",
    )
    batch_size: int = setting(1, "training images in a batch", range=COUNT, tensors=True)
    balance_by: str | None = setting(
        None,
        "draw images so that the values of these attributes of a built dataset are equally frequent, as "
        "cleft_type,side",
    )
    cache_on_disk: bool = setting(True, "keep latents and text embeddings on disk, keyed by content")
    cache_dir: Path | None = setting(
        None,
        "private folder of the cache (default: in the output folder); a dataset has its own",
        location=True,
    )
    trigger: str | None = setting(None, "trigger recorded in the file (default: read from the captions)")
    prompt_form: str | None = setting(
        None,
        "form of the trigger recorded in the file (default: read from the captions)",
        choices=("bracketed", "bare"),
    )
    subsets: tuple[Subset, ...] = setting((), "folders of the dataset TOML", location=True)


@dataclass(frozen=True)
class Network(Group):
    """The LoRA."""

    form: str = setting(
        "lora",
        "lora; dora: the magnitude of each output's weights is trained apart from their direction; lokr: a "
        "Kronecker product of two small matrices, in a smaller file",
        choices=FORMS,
    )
    rank: int = setting(16, "rank of the LoRA", range=whole(1, 4096), tensors=True)
    alpha: float = setting(
        32.0,
        "alpha of the LoRA; the effective scale is alpha / rank",
        range=number(0, above=True),
        tensors=True,
    )
    targets: str = setting(
        "all", "linear layers of the transformer blocks that get the LoRA", choices=TARGETS, tensors=True
    )
    qkv: str = setting(
        "joint",
        "joint: q, k and v of a block, and a single block's MLP, share one down matrix, as in kohya's "
        "scripts; separate: each has its own, for a larger file",
        choices=("joint", "separate"),
    )
    factor: int = setting(
        0,
        "sides of a LoKr's first matrix: this or the nearest divisor below (0: near the square root)",
        range=whole(0, 4096),
    )
    args: tuple[str, ...] = setting(
        (),
        "ranks by layer or block, as NAME=VALUE: img_attn_dim, txt_attn_dim, img_mlp_dim, txt_mlp_dim, "
        "img_mod_dim, txt_mod_dim, single_dim, single_mod_dim (0: no LoRA there), train_blocks, "
        "train_double_block_indices, train_single_block_indices (0,4-6), network_reg_dims (REGEX=RANK,...)",
    )
    weights: Path | None = setting(None, "LoRA file of the same rank and layers to start from", location=True)
    training_adapter: Path | None = setting(
        None,
        "LoRA that is on while training and off in previews and in the saved file (schnell needs one)",
        location=True,
    )


@dataclass(frozen=True)
class Optimizer(Group):
    """How the weights move, and for how long."""

    name: str = setting("AdamW8bit", "optimizer", choices=OPTIMIZERS)
    learning_rate: float = setting(1e-4, "learning rate", range=LEARNING_RATE, tensors=True)
    beta1: float = setting(0.9, "AdamW's first beta", range=number(0, 1, below=True), tensors=True)
    beta2: float = setting(0.999, "AdamW's second beta", range=number(0, 1, below=True), tensors=True)
    epsilon: float = setting(1e-8, "AdamW's epsilon", range=number(0, 1), tensors=True)
    weight_decay: float = setting(0.01, "AdamW's weight decay", range=number(0, 100), tensors=True)
    args: tuple[str, ...] = setting(
        (), "further arguments of the optimizer, as NAME=VALUE (betas=0.9,0.99 weight_decay=0.1)"
    )
    max_grad_norm: float = setting(1.0, "clip the gradient's norm (0: do not)", range=number(0), tensors=True)
    schedule: str = setting("constant", "learning-rate schedule", choices=SCHEDULES, tensors=True)
    warmup_steps: int = setting(0, "linear warm-up over so many steps", range=NONE_OR_MORE, tensors=True)
    cycles: float = setting(
        1.0, "cycles of cosine_with_restarts and cosine_with_min_lr", range=number(0, 1000)
    )
    power: float = setting(1.0, "power of polynomial", range=number(0, 100))
    min_lr_ratio: float = setting(
        0.0, "lowest rate of cosine_with_min_lr and warmup_stable_decay, as a share", range=number(0, 1)
    )
    decay_steps: int = setting(0, "steps of warmup_stable_decay's fall at the end", range=NONE_OR_MORE)
    timescale: int = setting(0, "timescale of inverse_sqrt (0: the warm-up, or 10,000)", range=NONE_OR_MORE)
    epochs: int = setting(0, "epochs, in place of steps (0: by steps)", range=NONE_OR_MORE)
    steps: int = setting(
        0,
        "optimizer steps (0: by the preset's epochs, else ten times the number of training images)",
        range=NONE_OR_MORE,
    )
    accumulation_steps: int = setting(1, "batches in a step", range=COUNT, tensors=True)
    ema_decay: float = setting(
        0.0,
        "decay of the LoRA's exponential moving average, which previews and file then hold (0: none)",
        range=number(0, 1, below=True),
    )


@dataclass(frozen=True)
class Objective(Group):
    """The loss, its noise, and the seed of both."""

    prior_loss_weight: float = setting(
        1.0, "weight of the loss on the regularisation image paired with each image", range=LOSS_WEIGHT
    )
    prior_target: str = setting(
        "image",
        "what regularisation aims at: the image, or the base model's own prediction",
        choices=("image", "base"),
    )
    output_preservation_weight: float = setting(
        0.0,
        "weight of holding each training image's output to the base model's where its caption lacks the "
        "trigger or the finding (differential output preservation; 0: off)",
        range=LOSS_WEIGHT,
    )
    other_trigger: str | None = setting(
        None, "another class's trigger, to which output preservation must not react either"
    )
    region_weight: float = setting(
        1.0,
        "weight of the loss where the finding lies, in datasets that know it (1: as elsewhere)",
        range=number(0, above=True),
    )
    caption_dropout_rate: float = setting(
        0.0, "share of images that are trained under the empty caption", range=number(0, 1)
    )
    caption_dropout_every_n_epochs: int = setting(
        0, "train every so many epochs under the empty caption throughout (0: none)", range=NONE_OR_MORE
    )
    timestep_sampling: str = setting(
        "uniform", "distribution of the noise level sigma", choices=TIMESTEP_SAMPLINGS, tensors=True
    )
    sigmoid_scale: float = setting(
        1.0,
        "standard deviation before the sigmoid (sigmoid, shift and flux_shift)",
        range=number(0, above=True),
        tensors=True,
    )
    shift: float = setting(
        3.0,
        "shift of sigma towards noise (shift, sigma and logit_normal)",
        range=number(0, above=True),
        tensors=True,
    )
    logit_mean: float = setting(0.0, "mean of logit_normal", range=number(-100, 100))
    logit_std: float = setting(1.0, "standard deviation of logit_normal", range=number(0, 100, above=True))
    min_timestep: int = setting(0, "least noise that is trained, in thousandths", range=whole(0, 999))
    max_timestep: int = setting(1000, "most noise that is trained, in thousandths", range=whole(1, 1000))
    seed: int = setting(
        0, "seed of data order, noise levels, noise and the LoRA's first weights", range=SEED, tensors=True
    )


@dataclass(frozen=True)
class Memory(Group):
    """Where and in what form the model lies."""

    precision: str = setting(
        "auto", "number format of the base model", choices=("auto", "no", "fp16", "bf16")
    )
    base_format: str = setting(
        "auto",
        "form of the frozen base model's large weights: auto (what the memory allows; an fp8 or GGUF file "
        "as it is), stored (as in its file), plain (widened to the number format), or fp8, int8, nf4 "
        "(quantised while it is read)",
        choices=BASE_FORMATS,
    )
    gradient_checkpointing: bool | None = setting(
        None, "compute activations twice to save memory (default: where memory asks for it)"
    )
    blocks_to_swap: int | None = setting(
        None,
        "keep the weights of so many blocks in main memory and stream them (default: as memory asks for)",
        range=NONE_OR_MORE,
    )
    limit: float | None = setting(
        None,
        "plan for a card of so many GB: 8, 12, 16, 24, 40, 80 (default: for what is free)",
        range=number(1, 4096),
        location=True,
    )
    device: str = setting("auto", "cuda, cuda:1, mps or cpu (auto: the best there is)", location=True)
    compile: bool = setting(
        False, "compile the transformer's blocks once, in minutes, for a faster step (torch.compile)"
    )
    dynamo_backend: str = setting(
        "inductor", "compiler of the blocks; aot_eager needs no C++ compiler", choices=DYNAMO_BACKENDS
    )
    deterministic: bool = setting(
        True, "on a GPU, deterministic kernels: a run that was stopped ends on the same bits, a slower step"
    )
    cpu_threads: int = setting(
        0, "threads for computing on the processor (0: as started)", range=NONE_OR_MORE
    )


@dataclass(frozen=True)
class Previews(Group):
    """Pictures drawn on the way."""

    prompts: Path | None = setting(
        None, "text file, one preview prompt a line, with kohya's --w --h --d --s", location=True
    )
    every_n_steps: int = setting(0, "preview every so many steps", range=NONE_OR_MORE)
    every_n_epochs: int = setting(0, "preview after every so many epochs", range=NONE_OR_MORE)
    at_first: bool = setting(False, "preview before the first step too")
    size: int = setting(
        0,
        f"side of previews in px (0: {PAPER_SIDE}, or the largest resolution if that is smaller)",
        range=whole(0, 4096),
    )
    steps: int = setting(4, "sampling steps of previews", range=SAMPLING_STEPS)


@dataclass(frozen=True)
class Output(Group):
    """What is written, where, and how a run stops and goes on."""

    folder: Path = setting(
        Path("output"), "folder for the LoRA, checkpoints, previews and the loss history", location=True
    )
    name: str = setting("lora", "name of the LoRA file, without extension", location=True)
    save_precision: str = setting("bf16", "number format of the LoRA file", choices=SAVE_PRECISIONS)
    save_every_n_steps: int = setting(
        0, "also save the LoRA every so many steps (0: only at the end)", range=NONE_OR_MORE
    )
    save_every_n_epochs: int = setting(0, "also save the LoRA after every so many epochs", range=NONE_OR_MORE)
    save_last_n_steps: int = setting(
        0, "of these keep only those of the last so many steps (0: all)", range=NONE_OR_MORE
    )
    checkpoint_every_n_steps: int = setting(
        250, "save a checkpoint to resume from every so many steps", range=COUNT
    )
    resume: str = setting(
        "auto",
        "auto: go on from the output folder's checkpoint; no: start anew; or a checkpoint file",
        location=True,
    )
    report_every_step: bool = setting(
        False, "a step event for every step, with its own seconds; waits for the GPU at each"
    )
    stop_file: Path | None = setting(
        None, "save a checkpoint and stop as soon as this file exists", location=True
    )


@dataclass(frozen=True)
class Recipe:
    """A training run's settings."""

    model: Model = Model()
    data: Data = Data()
    network: Network = Network()
    optimizer: Optimizer = Optimizer()
    objective: Objective = Objective()
    validation: Validation = Validation()
    memory: Memory = Memory()
    previews: Previews = Previews()
    tracking: Tracking = Tracking()
    output: Output = Output()

    def __getitem__(self, path: str) -> Any:
        """The value of a field by its path, as `optimizer.learning_rate`."""
        group, _, name = path.partition(".")
        return getattr(getattr(self, group), name)

    def replaced(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with other values, by path."""
        groups: dict[str, dict[str, Any]] = {}
        for path, value in changes.items():
            group, _, name = path.partition(".")
            groups.setdefault(group, {})[name] = value
        return replace(self, **{name: replace(getattr(self, name), **new) for name, new in groups.items()})


@functools.cache
def recipe_fields() -> dict[str, Field]:
    """Every field of a recipe by its path, in the groups' order."""
    kinds: list[Any] = [type(entry.default) for entry in fields(Recipe)]
    groups = [fields_of_group(kind) for kind in kinds]
    return {entry.path: entry for group in groups for entry in group}
