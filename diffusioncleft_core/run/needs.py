"""What a run needs: looked for before the first stage, so that all that is missing is named at once."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..conditions.vocabulary import Condition
from ..dataset.settings import Photographs
from ..environment import check_packages, trainer_device
from ..errors import UserError
from ..report.folders import RunFolders
from .run import Run
from .settings import BASE_PARTS, NO_PHANTOMS, NO_PHOTOGRAPHS, RunSettings

GIB = 2**30
PACKAGES = ("accelerate", "diffusers", "insightface", "onnxruntime", "peft", "transformers")
"""What a stage imports when its turn comes."""
PIXEL_BYTES = 2
"""Of a generated PNG, which is noisy in its last bits."""
PHOTOGRAPH_BYTES = 16 << 20
"""Of a photograph's normalised copy with its latents, captions and features."""
TEXT_BYTES = 256 * 4096 * 2
"""Of a prompt's T5 embedding in bfloat16; they are on disk while a set is drawn, beyond the first GiB."""
STATE_BYTES = 12
"""A LoRA parameter's share of a checkpoint: itself and AdamW's two moments, float32."""


@dataclass(frozen=True)
class Need:
    """One thing that a run needs. problem: what is wrong with it, None when nothing is.

    detail: what was found. fetch: the command that fetches what is missing. required: whether the run stops
    without it.
    """

    what: str
    detail: str = ""
    problem: str | None = None
    fetch: str = ""
    required: bool = True

    @property
    def state(self) -> str:
        """`ok`, `missing`, or `short` for what only may turn out too little."""
        return "ok" if self.problem is None else "missing" if self.required else "short"


def check_settings(settings: RunSettings) -> None:
    """Stop before any work when something is missing or wrong: one sentence that names all of it."""
    missing = [need for need in needs_of(settings) if need.problem is not None and need.required]
    told = [
        f"{need.problem}; it is fetched by: {need.fetch}"
        if need.fetch and need.fetch not in str(need.problem)
        else str(need.problem)
        for need in missing
    ]
    if len(told) == 1:
        raise UserError(told[0])
    if told:
        numbered = "; ".join(f"({number}) {text}" for number, text in enumerate(told, start=1))
        raise UserError(f"{len(told)} things are missing or wrong: {numbered}")


def needs_table(needs: Sequence[Need]) -> str:
    """The table of `run --check`: what, state, and what was found or what to do."""
    width = max(len(need.what) for need in needs)
    lines = []
    for need in needs:
        lines.append(f"{need.what:<{width}}  {need.state:<7}  {need.problem or need.detail}".rstrip())
        if need.problem and need.fetch:
            lines.append(f"{'':<{width}}  {'':<7}  run: {need.fetch}")
    return "\n".join(lines)


def needs_of(settings: RunSettings) -> list[Need]:
    """Everything the run needs, in the order in which a person gets it. Nothing is written."""
    return [
        *options(settings),
        *photographs(settings),
        *base_model(settings),
        *networks(settings),
        disk(settings),
        *memory(settings),
    ]


def looked(what: str, look: Callable[[], str], fetch: str = "") -> Need:
    """What `look` found, or what it raised."""
    try:
        return Need(what, look(), fetch=fetch)
    except UserError as error:
        return Need(what, problem=str(error), fetch=fetch)


def options(settings: RunSettings) -> Iterator[Need]:
    """The options that no parser can judge alone."""

    def recipe() -> str:
        from ..recipe.checks import check_places, check_recipe
        from .training import training_recipe

        trainer_device(settings.sampling.device, settings.sampling.dtype)
        run = Run(settings, dry=True)
        for condition in chosen(settings):
            run.facts[condition.name]["dataset"] = {"training_images": 1}
            trained = training_recipe(run, condition)
            if "base" in settings.absent:  # said where the base model is looked for
                trained = trained.replaced({"model.base": settings.out})
            check_places(check_recipe(trained))
        return settings.preset

    def conditions() -> str:
        for name in settings.photographs:
            settings.vocabulary.condition(name)
        if not settings.conditions:
            raise UserError(NO_PHANTOMS if settings.phantom else NO_PHOTOGRAPHS)
        for condition in chosen(settings):
            condition.mode(settings.mode)
        if settings.phantom:
            check_findings(settings)
        return f"{', '.join(settings.conditions)}; mode {settings.mode}"

    def folder() -> str:
        if settings.out.exists() and not settings.out.is_dir():
            raise UserError(f"{settings.out} is a file: give a folder for the run")
        return str(settings.out)

    yield looked("conditions", conditions)
    yield looked("recipe", recipe)
    yield looked("packages", lambda: check_packages(PACKAGES))
    yield looked("the run's folder", folder)


def chosen(settings: RunSettings) -> list[Condition]:
    """The run's conditions, those that the vocabulary does not have left out."""
    return [settings.vocabulary.conditions[name] for name in settings.conditions]


def check_findings(settings: RunSettings) -> None:
    """UserError where the vocabulary asks the phantom for what it can't draw."""
    from ..phantom.face import FINDINGS

    for condition in settings.vocabulary.conditions.values():
        if condition.phantom is not None and condition.phantom.finding not in FINDINGS:
            raise UserError(
                f"the phantom of {condition.name} is to draw {condition.phantom.finding!r}; it draws "
                f"{', '.join(FINDINGS)}: correct the vocabulary"
            )


def photographs(settings: RunSettings) -> Iterator[Need]:
    """Each condition's photographs and table, and the healthy faces of the face map."""
    for condition in chosen(settings):
        if condition.name in settings.photographs:
            given = settings.photographs[condition.name]
            yield looked(f"{condition.name} photographs", partial(admitted, condition, given, settings))

    def control() -> str:
        from ..metrics.sets import measured_set

        assert settings.control is not None
        images, _ = measured_set(settings.control, "control")
        if not images:
            raise UserError(f"there is no image in the control faces' folder {settings.control}")
        return f"{len(images)} images"

    if settings.control is not None:
        yield looked("control faces", control)


def admitted(condition: Condition, given: Photographs, settings: RunSettings) -> str:
    """How many photographs may enter by their rows; UserError when none may."""
    from ..dataset.folder import is_dataset, refuse_overlap
    from ..dataset.folder_consent import STATEMENT_FILE, TABLE
    from ..dataset.unopened import look_through

    if not given.folder.is_dir():
        raise UserError(f"the {condition.name} photographs {given.folder} are no folder: check the path")
    usual = given.folder / TABLE
    if given.metadata and given.metadata != usual and not given.metadata.is_file():
        raise UserError(
            f"the {condition.name} table {given.metadata} does not exist: give its path with "
            f"--metadata {condition.name}=CSV, docs/dataset.md lists its columns"
        )
    dataset = RunFolders(settings.out).dataset(condition.name)
    refuse_overlap(given.folder, dataset)
    found = look_through(given, condition, bracketed=settings.bracketed, dataset=dataset)
    reasons = counted([item.reason for item in found.set_aside])
    if found.lost:
        return "none may enter any more: what learned from them is marked as withdrawn"
    if not found.candidates and is_dataset(dataset):
        return f"none may enter any more ({reasons}): what an earlier build derived from them is erased"
    if not found.candidates:
        raise UserError(f"no {condition.name} photograph of {given.folder} may enter ({reasons})")
    left = f"; set aside unopened: {reasons}" if reasons else ""
    may, of = len(found.candidates), len(found.listing.photographs)
    return f"{may} of {of} may enter by {given.metadata.name if given.metadata else STATEMENT_FILE}{left}"


def counted(reasons: Sequence[str]) -> str:
    """`3 no_consent, 1 no_row`."""
    return ", ".join(f"{n} {reason}" for reason, n in Counter(reasons).most_common())


def base_model(settings: RunSettings) -> Iterator[Need]:
    """The base model's parts, one by one, and the training adapter."""
    from ..flux.components import check_transformer
    from ..flux.lora_file import read_lora
    from ..flux.tensors import check_file
    from ..weights.registry import find_entry, find_model

    source, absent = settings.source, settings.absent
    fetch = "" if settings.phantom else "diffusioncleft weights fetch flux1-schnell"

    def whole() -> str:
        if "base" in absent:
            found = find_model(find_entry("flux1-schnell"))
            here = f"; one lies in {next(iter(found.files.values())).parents[1]}" if found.complete else ""
            raise UserError(f"{absent['base']}{here}")
        if source.folder is not None:
            source.check_folder()
        if not settings.phantom and is_phantom(settings):
            raise UserError(
                "the embedded base model draws phantoms and nothing else: give --base with FLUX.1 schnell"
            )
        return str(source.folder or source.transformer)

    def part(name: str) -> str:
        if name in absent:
            raise absent[name]
        files = source.files(name)
        gone = [path.name for path in files if not path.is_file()]
        if gone:
            raise UserError(
                f"{BASE_PARTS[name]}: {', '.join(gone)} is not in {files[0].parent}; download it again"
            )
        for path in files:
            check_file(path, BASE_PARTS[name])
        if name == "transformer":
            check_transformer(source)
        return f"{gib(sum(path.stat().st_size for path in files))} in {counted_files(files)}"

    def tokenizer(kind: str) -> str:
        folder = source.tokenizer_folder(kind)
        if not folder.is_dir():
            raise UserError(f"there is no {kind.upper()} tokenizer; give its folder with --tokenizer-{kind}")
        return str(folder)

    base = looked("base model", whole, fetch)
    yield base
    if base.problem is None:
        if source.folder is None:
            fetch = "diffusioncleft weights fetch flux1-schnell-files"
        for name, title in BASE_PARTS.items():
            yield looked(title, partial(part, name), fetch)
        for kind, title in (("clip", "CLIP's tokenizer"), ("t5", "T5's tokenizer")):
            yield looked(title, partial(tokenizer, kind))

    adapter = settings.recipe.network.training_adapter
    if adapter is None:
        if not settings.phantom:
            yield Need("training adapter", "none: without --training-adapter a LoRA unlearns the four steps")
        return

    def adapted() -> str:
        if not adapter.is_file():
            raise UserError(f"there is no file {adapter}: check --training-adapter")
        read_lora(adapter)
        return str(adapter)

    yield looked("training adapter", adapted, "diffusioncleft weights fetch schnell-training-adapter")


def is_phantom(settings: RunSettings) -> bool:
    """Whether the base model is the embedded one; its size says so before its content is read."""
    from ..flux.source import phantom_source

    mine, embedded = (
        [path.stat().st_size for path in source.files("transformer")]
        for source in (settings.source, phantom_source())
    )
    return mine == embedded and settings.source.fingerprint() == phantom_source().fingerprint()


def networks(settings: RunSettings) -> Iterator[Need]:
    """Face pack, text reader and the networks of the metrics; embedded ones only under --phantom."""
    from ..faces.analyzer import find_pack
    from ..filters.text import load_text_reader
    from ..metrics.extractors import EXTRACTORS, check_extractors
    from ..weights.registry import read_registry, require_file

    def faces() -> str:
        pack = find_pack(settings.faces)
        if pack.phantom_only and not settings.phantom:
            raise UserError(
                "the embedded face pack knows phantoms and nothing else: give --faces a pack such as "
                "buffalo_l"
            )
        return str(pack.folder)

    def text() -> str:
        load_text_reader()
        return "in the rapidocr package"

    def extractor(metric: str) -> str:
        check_extractors((metric,), phantom=settings.phantom)
        return (
            "seeded, for phantoms alone"
            if settings.phantom
            else str(require_file(EXTRACTORS[metric].weights))
        )

    packs = {model.name for model in read_registry() if model.kind == "face_pack"}
    known = settings.faces if settings.faces in packs else "buffalo_l"
    yield looked("face pack", faces, f"diffusioncleft weights fetch {known}")
    yield looked("text reader", text)
    for metric, entry in EXTRACTORS.items():
        if metric in settings.metrics:
            yield looked(
                f"network of {entry.title}",
                partial(extractor, metric),
                f"diffusioncleft weights fetch {entry.weights}",
            )


def disk(settings: RunSettings) -> Need:
    """Free space where the run lies, beside what it will write there."""
    place = next(path for path in (settings.out, *settings.out.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    parts = disk_bytes(settings)
    there = sum(path.stat().st_size for path in settings.out.rglob("*") if path.is_file())
    wanted = max(0, sum(parts.values()) - there)
    listed = ", ".join(f"{what} {gib(size)}" for what, size in parts.items() if size)
    told = f"{gib(free)} free at {place}; about {gib(wanted)} to be written ({listed})"
    return Need("disk", told, told if free < wanted else None, required=False)


def disk_bytes(settings: RunSettings) -> dict[str, int]:
    """About how many bytes a run writes, by what."""
    sampling, conditions = settings.sampling, len(settings.conditions)
    drawn = conditions * (settings.n + settings.regularization_images)
    found = sum(
        sum(path.is_file() for path in given.folder.rglob("*"))
        for given in settings.photographs.values()
        if given.folder.is_dir()
    )
    output = settings.recipe.output
    steps = settings.recipe.optimizer.steps or 10 * found
    saved = 1 + (steps // output.save_every_n_steps if output.save_every_n_steps else 0)
    lora = settings.recipe.network.rank * transformer_size(settings)[1]
    prompts = 0 if settings.phantom else max(0, settings.n * TEXT_BYTES - GIB)
    return {
        "images": drawn * sampling.width * sampling.height * PIXEL_BYTES,
        "LoRAs and checkpoints": conditions * lora * (4 * saved + 2 * STATE_BYTES),
        "photographs": found * PHOTOGRAPH_BYTES,
        "prompts for a while": prompts,
    }


def transformer_size(settings: RunSettings) -> tuple[int, int]:
    """The transformer's parameters, and a LoRA's for each rank; zeros where it can't be read."""
    from ..flux.components import adapted_sides, open_transformer

    try:
        with open_transformer(settings.source) as tensors:
            return sum(math.prod(tensors.shape(name)) for name in tensors.names()), adapted_sides(tensors)
    except (UserError, OSError):
        return 0, 0


def memory(settings: RunSettings) -> Iterator[Need]:
    """The memory that the transformer is trained in, beside its weights."""
    import psutil
    import torch

    from ..flux.components import RESERVE_BYTES

    device = settings.sampling.device
    weights = transformer_size(settings)[0] * settings.sampling.dtype.itemsize
    if not weights:
        return
    if device.type == "cuda":
        place, held = "the GPU", torch.cuda.get_device_properties(device).total_memory
        reserve, advice = RESERVE_BYTES, "--blocks-to-swap streams blocks from main memory"
    else:
        place, held = "main memory", psutil.virtual_memory().total
        reserve, advice = 0, "close what else runs, or use a machine with more"
    told = f"{gib(held)} of {place}; the transformer's weights take {gib(weights)}"
    short = weights + reserve > held and not settings.recipe.memory.blocks_to_swap
    problem = f"{told}: {advice}; `diffusioncleft doctor` measures it" if short else None
    yield Need("memory", told, problem, required=False)


def gib(size: float) -> str:
    """`22.2 GiB`, or MiB below a tenth of one."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{-(-int(size) // 2**20)} MiB"


def counted_files(files: Sequence[Path]) -> str:
    return f"{len(files)} files" if len(files) > 1 else str(files[0])
