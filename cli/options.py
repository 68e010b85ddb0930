"""Options that several commands share: base model, device, size, condition, attributes."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diffusioncleft_core.cluster.settings import LOCAL, TIMEOUT
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COUNT, SIDE, STRENGTH, number
from ..diffusioncleft_core.recipe.recipe import PAPER_SIDE, PHANTOM_SIDE

if TYPE_CHECKING:
    import torch

    from ..diffusioncleft_core.cluster.work import Engine
    from ..diffusioncleft_core.conditions.plan import AttributeChoices
    from ..diffusioncleft_core.conditions.vocabulary import Condition
    from ..diffusioncleft_core.flux.source import FluxSource
    from ..diffusioncleft_core.generation.settings import Sampling

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
DTYPES |= {name: name for name in DTYPES.values()}
PHANTOM_BATCH = 16


def add_base_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the base model's files (the trainer's names), the device and the number format."""
    group = parser.add_argument_group("base model")
    group.add_argument(
        "--base",
        "--pretrained-model-name-or-path",
        type=Path,
        metavar="PATH",
        help="FLUX.1 schnell: a diffusers folder, or the transformer's single file",
    )
    group.add_argument("--clip-l", type=Path, metavar="FILE", help="CLIP-L text encoder, single file")
    group.add_argument("--t5xxl", type=Path, metavar="FILE", help="T5-XXL text encoder, single file")
    group.add_argument("--ae", type=Path, metavar="FILE", help="autoencoder, single file")
    group.add_argument(
        "--tokenizer-clip", type=Path, metavar="DIR", help="CLIP's tokenizer, for single files"
    )
    group.add_argument("--tokenizer-t5", type=Path, metavar="DIR", help="T5's tokenizer, for single files")
    group.add_argument(
        "--phantom", action="store_true", help="the embedded phantom model, for tests and demonstrations"
    )
    group.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    group.add_argument(
        "--dtype", choices=list(DTYPES), help="number format (default: bf16 on CUDA, else fp32)"
    )


NO_BASE = "there is no base model: give --base with FLUX.1 schnell's folder or file, or --phantom"


def source_from(args: argparse.Namespace) -> FluxSource:
    """The base model the options name; UserError when none is named or a file is missing."""
    from ..diffusioncleft_core.flux.source import FluxSource

    source, absent = found_source(args)
    if "base" in absent:
        raise absent["base"]
    return source if args.phantom else FluxSource.from_arguments(**base_files(args))


def found_source(args: argparse.Namespace) -> tuple[FluxSource, dict[str, UserError]]:
    """What there is of the base model the options name, and what was not found (`base`: nothing at all)."""
    from ..diffusioncleft_core.flux.source import FluxSource, examined_source, phantom_source

    if args.phantom:
        if args.base is not None:
            raise UserError("--phantom uses the embedded model: leave out --base, or leave out --phantom")
        return phantom_source(), {}
    if args.base is None:
        return FluxSource(), {"base": UserError(NO_BASE)}
    try:
        return examined_source(**base_files(args))
    except UserError as error:
        return FluxSource(), {"base": error}


def base_files(args: argparse.Namespace) -> dict[str, Any]:
    """The base model's files as `FluxSource.from_arguments` calls them."""
    return {
        "base": args.base,
        "clip_l": args.clip_l,
        "t5xxl": args.t5xxl,
        "vae": args.ae,
        "tokenizer_clip": args.tokenizer_clip,
        "tokenizer_t5": args.tokenizer_t5,
    }


def device_and_dtype(
    args: argparse.Namespace, engine: Engine | None = None
) -> tuple[torch.device, torch.dtype]:
    """The device and number format the options name, or the best of those that work."""
    import torch

    from ..diffusioncleft_core.environment import default_dtype, pick_device

    if engine is None or not engine.elsewhere:
        device = pick_device(args.device)
    else:  # a worker sees the one GPU that is its own
        device = torch.device((args.device or engine.device).partition(":")[0])
    dtype: torch.dtype = getattr(torch, DTYPES[args.dtype]) if args.dtype else default_dtype(device)
    return device, dtype


def parse_size(text: str) -> tuple[int, int]:
    """`768` or `768x1024` (width × height, px)."""
    sides = [SIDE(part) for part in text.lower().replace("×", "x").split("x")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give 768 or 768x1024")
    return sides[0], sides[-1]


def sampling_from(args: argparse.Namespace, strength: float, engine: Engine | None = None) -> Sampling:
    """How the options say that pictures are drawn; sizes are the paper's, on the phantom its own.

    engine: who draws, if not this process: a cluster with GPUs draws on them.
    """
    from ..diffusioncleft_core.generation.settings import Sampling

    side = PHANTOM_SIDE if args.phantom else PAPER_SIDE
    width, height = args.size or (side, side)
    return Sampling(
        *device_and_dtype(args, engine),
        width=width,
        height=height,
        steps=args.steps,
        batch=batch_from(args),
        strength=strength,
    )


def add_strength_argument(parser: argparse.ArgumentParser) -> None:
    """Add the LoRA's strength."""
    parser.add_argument(
        "--strength",
        type=STRENGTH,
        help="strength of the LoRA (default 1; on the phantom what the vocabulary says)",
    )


def strength_from(args: argparse.Namespace, conditions: Iterable[str | None]) -> float:
    """The LoRA's strength as given; else 1, and of the phantom's LoRA that of the one condition it draws."""
    from ..diffusioncleft_core.conditions.loader import load_vocabulary

    if args.strength is not None:
        return float(args.strength)
    names = set(conditions)
    if not args.phantom or not (args.lora or getattr(args, "grid_loras", None)) or len(names) != 1:
        return 1.0
    found = load_vocabulary(args.vocabulary).conditions.get(names.pop() or "")
    return found.phantom.strength if found and found.phantom else 1.0


def batch_from(args: argparse.Namespace) -> int:
    """Images at once: as given, else 1, and 16 of the tiny phantom."""
    return int(args.batch or (PHANTOM_BATCH if args.phantom else 1))


def add_ray_arguments(parser: argparse.ArgumentParser, *, timeout: bool = True) -> None:
    """Add where the work is done: in this process, or by workers on Ray, silent ones replaced or not."""
    group = parser.add_argument_group("workers on Ray (pip install ray fsspec; docs/scale.md)")
    group.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="share the work among workers: on this machine, or on the cluster at ADDRESS (auto, host:port)",
    )
    group.add_argument(
        "--ray-workers",
        type=COUNT,
        metavar="N",
        help="how many (default: one a GPU, without GPUs one a core)",
    )
    if timeout:
        group.add_argument(
            "--ray-timeout",
            type=number(0, above=True),
            metavar="S",
            help=f"replace a worker that gives no result for so many seconds (default {TIMEOUT:g})",
        )


@contextlib.contextmanager
def engine_from(args: argparse.Namespace, timeout: float | None = TIMEOUT) -> Iterator[Engine]:
    """Who does the work, as the options say; UserError where they contradict each other.

    timeout: seconds after which a silent worker is replaced, where no option says it; None: never.
    """
    from ..diffusioncleft_core.cluster.ray_engine import ray_engine
    from ..diffusioncleft_core.cluster.settings import RaySettings
    from ..diffusioncleft_core.cluster.work import HERE

    asked = getattr(args, "ray_timeout", None)
    if args.ray is None:
        if args.ray_workers is not None or asked is not None:
            option = "--ray-timeout" if args.ray_workers is None else "--ray-workers"
            raise UserError(f"{option} belongs to --ray: give it too")
        yield HERE
        return
    settings = RaySettings(args.ray, args.ray_workers, timeout if asked is None else asked)
    with ray_engine(settings, tell) as engine:
        yield engine


def strengths(text: str) -> list[float]:
    """`0.6,0.8,1` → [0.6, 0.8, 1.0]."""
    return [STRENGTH(part) for part in text.split(",") if part.strip()]


def paths(text: str) -> list[Path]:
    """`a.safetensors,b.safetensors` → two paths."""
    return [Path(part.strip()) for part in text.split(",") if part.strip()]


def named_folder(text: str) -> tuple[str, Path]:
    """`SDXL=zero_shot/sdxl` → (`SDXL`, path)."""
    name, equals, folder = text.partition("=")
    if not (name.strip() and equals and folder.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=PATH such as SDXL=zero_shot/sdxl")
    return name.strip(), Path(folder.strip())


def add_limit_argument(parser: argparse._ActionsContainer) -> None:
    """Add the artifact filter's limits."""
    from ..diffusioncleft_core.filters.artifacts import all_limits

    defaults = ", ".join(f"{name}={limit.default:g}" for name, limit in all_limits().items())
    parser.add_argument(
        "--limit",
        type=named_number,
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help=f"a limit of the artifact filter; repeat it for several ({defaults}; docs/filters.md)",
    )


def limits_from(args: argparse.Namespace) -> dict[str, float]:
    """Every limit of the artifact filter; UserError for one that is not known or out of range."""
    from ..diffusioncleft_core.filters.artifacts import check_limits

    return check_limits(dict(args.limit))


def named_number(text: str) -> tuple[str, float]:
    """`eye_detail=0.4` → (`eye_detail`, 0.4)."""
    name, _, number = text.partition("=")
    try:
        return name.strip(), float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=NUMBER such as eye_detail=0.4") from None


def add_vocabulary_argument(parser: argparse._ActionsContainer) -> None:
    """Add the vocabulary file."""
    parser.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="another vocabulary (TOML) than cleft lip's; docs/conditions.md tells how to write one",
    )


def add_condition_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the vocabulary file, the condition, and the form of the prompt."""
    add_vocabulary_argument(parser)
    parser.add_argument("--condition", metavar="NAME", help="pre_op, post_op, or another of the vocabulary")
    parser.add_argument("--list", action="store_true", help="list conditions, attributes, values and modes")
    parser.add_argument("--bare-trigger", action="store_true", help="CLP instead of [CLP]")
    parser.add_argument(
        "--extra", default="", metavar="TEXT", help="a phrase of your own before the closing one"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="folder of CLIP's tokenizer, to count tokens exactly (default: an estimate)",
    )


def add_attribute_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is to become of the attributes."""
    group = parser.add_argument_group("attributes (repeat as often as needed)")
    for option, metavar, about in (
        ("--set", "ATTRIBUTE=VALUE", "fix: skin=dark"),
        ("--weight", "ATTRIBUTE=VALUE:W,…", "draw with weights: subject=baby:3,girl:1"),
        ("--omit", "ATTRIBUTE", "leave out: eyes"),
        ("--draw", "ATTRIBUTE", "draw in addition: side"),
    ):
        group.add_argument(option, action="append", default=[], metavar=metavar, help=about)
    parser.add_argument("--mode", default="paper", help="what is drawn and how (default paper; see --list)")


def condition_from(args: argparse.Namespace) -> Condition:
    """The condition that the options name."""
    from ..diffusioncleft_core.conditions.loader import load_vocabulary

    vocabulary = load_vocabulary(args.vocabulary)
    if args.condition is None:
        raise UserError(f"--condition is missing; choose one of: {', '.join(vocabulary.conditions)}")
    return vocabulary.condition(args.condition)


def choices_from(args: argparse.Namespace) -> AttributeChoices:
    """What the options say is to become of the attributes."""
    from ..diffusioncleft_core.conditions.plan import AttributeChoices

    return AttributeChoices(
        mode=args.mode,
        fixed=fixed_from(args.set),
        weights=weights_from(args.weight),
        omit=names_from(args.omit),
        draw=names_from(args.draw),
    )


def fixed_from(pairs: Iterable[str]) -> dict[str, str]:
    """`["skin=dark"]` -> `{"skin": "dark"}`."""
    return dict(_pairs(pairs, "--set", "skin=dark"))


def weights_from(pairs: Iterable[str]) -> dict[str, dict[str, Fraction]]:
    """`["subject=baby:3,girl:1"]` -> `{"subject": {"baby": 3, "girl": 1}}`."""
    example = "subject=baby:3,girl:1"
    weights: dict[str, dict[str, Fraction]] = {}
    for name, entries in _pairs(pairs, "--weight", example):
        for entry in entries.split(","):
            value, _, number = entry.rpartition(":")
            try:
                weights.setdefault(name, {})[value.strip()] = Fraction(number.strip())
            except (ValueError, ZeroDivisionError):
                raise UserError(f"--weight {name}={entries} can't be read; write it as {example}") from None
    return weights


def names_from(entries: Iterable[str]) -> list[str]:
    """`["eyes,skin", "side"]` -> `["eyes", "skin", "side"]`."""
    return [name.strip() for entry in entries for name in entry.split(",") if name.strip()]


def print_listing(args: argparse.Namespace) -> None:
    """Print what the vocabulary has to choose from."""
    from ..diffusioncleft_core.conditions.loader import load_vocabulary

    vocabulary = load_vocabulary(args.vocabulary)
    chosen = [vocabulary.condition(args.condition)] if args.condition else vocabulary.conditions.values()
    for condition in chosen:
        print(f"{condition.name}: {condition.title}, trigger {condition.trigger}")
        width = max(map(len, condition.attributes))
        for name, values in condition.attributes.items():
            print(f"  {name:<{width}}  {', '.join(values)}")
        for mode in condition.modes.values():
            print(f"  mode {mode.name}: {mode.title}; draws {', '.join(mode.draw)}")


def tokenizer_from(folder: Path | None) -> Callable[[str], Any] | None:
    """CLIP's tokenizer from a local folder; None without one."""
    if folder is None:
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder} holds no tokenizer that can be read; give the folder with CLIP's tokenizer files"
        ) from error
    return lambda text: tokenizer(text, truncation=False, verbose=False)


def agreed(args: argparse.Namespace, refusal: str, question: str) -> bool:
    """Whether a person agreed to an erasure, by --yes or now; UserError where nobody can be asked."""
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise UserError(refusal)
    if input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}:
        return True
    print("nothing was erased")
    return False


def tell(message: str) -> None:
    """Print one line on the work to standard error."""
    print(f"diffusioncleft: {message}", file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print one warning line to standard error."""
    print(f"diffusioncleft: warning: {message}", file=sys.stderr, flush=True)


def _pairs(entries: Iterable[str], option: str, example: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for entry in entries:
        name, _, value = (part.strip() for part in entry.partition("="))
        if not name or not value:
            raise UserError(f"{option} {entry!r} can't be read; write it as {option} {example}")
        if name in dict(pairs):
            raise UserError(f"{option} names {name} twice; keep one")
        pairs.append((name, value))
    return pairs
