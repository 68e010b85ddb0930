"""The models that a run needs: the base model's parts, the training adapter, the networks on faces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ..errors import UserError
from .need import Need, gib, looked
from .settings import BASE_PARTS, RunSettings, downstream_backbone

ADAPTER = "diffusioncleft weights fetch schnell-training-adapter"


def base_model(settings: RunSettings) -> Iterator[Need]:
    """The base model's parts, one by one, and the training adapter."""
    from ..flux.lora_file import read_lora
    from ..flux.tensors import check_file
    from ..flux.transformer import check_transformer
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
            without = "none: without --training-adapter a LoRA unlearns the four steps"
            yield Need("training adapter", without, fetch=ADAPTER, warning=True)
        return

    def adapted() -> str:
        if not adapter.is_file():
            raise UserError(f"there is no file {adapter}: check --training-adapter")
        read_lora(adapter)
        return str(adapter)

    yield looked("training adapter", adapted, ADAPTER)


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
    from ..filters.text import check_text_reader
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
        check_text_reader()
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


def classifiers(settings: RunSettings) -> Iterator[Need]:
    """The tasks of the classifiers, and what they stand on."""
    from ..downstream.task import load_task
    from ..downstream.train_model import check_classifiers
    from ..weights.backbones import BACKBONES

    def known() -> str:
        return ", ".join(load_task(name).title for name in settings.downstream)

    def backbone() -> str:
        weights = check_classifiers(name)
        return entry.title if weights is None else str(weights)

    name = downstream_backbone(settings)
    entry = BACKBONES[name]
    if settings.downstream:
        yield looked("tasks of the classifiers", known)
        fetch = "" if entry.weights is None else f"diffusioncleft weights fetch {entry.weights}"
        yield looked("network of the classifiers", backbone, fetch)


def counted_files(files: Sequence[Path]) -> str:
    return f"{len(files)} files" if len(files) > 1 else str(files[0])
