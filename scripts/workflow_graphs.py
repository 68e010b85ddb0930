"""The shipped workflows, one function each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from workflow_builder import OURS, Graph, Group, Node

NOTES = Path(__file__).with_name("workflow_notes.md")
EMPTY = "Empty (CFG 1 ignores it)"
# outputs of the filters
VERDICTS, RECORD = 4, 7
PHANTOM_PX, PX = 128, 768
TRIGGERS = {"pre_op": "CLP", "post_op": "CLPrep"}
TITLES = {"pre_op": "before repair", "post_op": "after repair"}


def build_all(info: dict[str, Any]) -> dict[str, Graph]:
    """Every workflow by its file's name."""
    makers: dict[str, Callable[[Graph], None]] = {
        "quick_start": quick_start,
        "generate_pre_op": lambda graph: generation(graph, "pre_op"),
        "generate_post_op": lambda graph: generation(graph, "post_op"),
        "train_pre_op": lambda graph: training(graph, "pre_op"),
        "train_post_op": lambda graph: training(graph, "post_op"),
        "evaluate": evaluate,
        "classifier": classifier,
        "rater_study": rater_study,
        "zero_shot_baseline": zero_shot,
        "checkpoint_strength_grid": checkpoint_grid,
    }
    graphs = {}
    for name, make in makers.items():
        graphs[name] = Graph(name, info)
        make(graphs[name])
    return graphs


def quick_start(graph: Graph) -> None:
    """Train, generate, filter and measure on the phantom."""
    data = graph.group("1  Train a LoRA on phantoms", "data")
    data.note(note("quick_start"), width=400, height=340)
    dataset = data.add(f"{OURS}PhantomDataset", width=400, condition="pre_op", count=100, size=PHANTOM_PX)
    data.column()
    trainer = data.add(
        f"{OURS}LoraTrainer",
        width=400,
        height=1560,
        dataset=dataset[0],
        name="quick_start",
        base_model="phantom",
        preset="paper",
    )

    draw = graph.group("2  Draw new faces", "draw")
    loader = draw.add(f"{OURS}PhantomLoader")
    plan = draw.add(
        f"{OURS}PromptPlan", "Prompt plan", condition="pre_op", count=16, seed=0, control="increment"
    )
    lora = draw.add("LoraLoaderModelOnly", "LoRA", model=loader[0], lora_name=trainer[0], strength_model=1.0)
    draw.column()
    images = sample(draw, (lora[0], loader[1], loader[2]), plan[0], plan[1], PHANTOM_PX)

    check = graph.group("3  Filter", "check")
    record, reference = filters(check, images, plan[2], dataset)

    measure = graph.group("4  Save and measure", "measure")
    saved = measure.add(
        f"{OURS}SaveSyntheticSet",
        width=440,
        height=560,
        images=images,
        rows=plan[2],
        verdicts=record,
        lora_name=trainer[0],
        folder="diffusioncleft/quick_start",
    )
    measure.column()
    figures(measure, saved, reference, dataset)


def generation(graph: Graph, condition: str) -> None:
    """New faces of one condition on FLUX.1 schnell."""
    base = graph.group("1  FLUX.1 [schnell] and the LoRA", "model")
    base.note(f"{note('generation', title=TITLES[condition])}\n\n{note('files')}", width=400, height=300)
    model, clip, vae = flux_loaders(base)
    lora = base.add(
        "LoraLoaderModelOnly",
        "LoRA",
        width=400,
        model=model,
        lora_name=f"{condition}.safetensors",
        strength_model=1.0,
    )

    prompt = graph.group("2  Prompt", "data")
    prompt.note(note("prompt", trigger=TRIGGERS[condition]), width=400, height=150)
    builder = prompt.add(f"{OURS}PromptBuilder", width=400, condition=condition, control="randomize")

    draw = graph.group("3  Draw", "draw")
    images = sample(draw, (lora[0], clip, vae), builder[0], builder[1], PX)

    check = graph.group("4  Filter", "check")
    check.note(note("identity"), height=150)
    dataset = check.add(f"{OURS}Dataset", "Training photographs", name=condition)
    check.column()
    record, _ = filters(check, images, builder[3], dataset)

    save = graph.group("5  Save", "measure")
    save.add(
        f"{OURS}SaveSyntheticSet",
        width=520,
        height=680,
        images=images,
        rows=builder[3],
        verdicts=record,
        folder=f"diffusioncleft/{condition}",
    )


def training(graph: Graph, condition: str) -> None:
    """A LoRA of one condition on FLUX.1 schnell."""
    data = graph.group("1  Photographs", "data")
    data.note(note("training", title=TITLES[condition], condition=condition), width=440, height=270)
    dataset = data.add(f"{OURS}Dataset", width=440, name=condition)
    captions = data.add(f"{OURS}Captions", width=440, height=260, dataset=dataset[0], show=False)

    train = graph.group("2  LoRA", "model")
    trainer = train.add(
        f"{OURS}LoraTrainer",
        width=440,
        height=1560,
        dataset=captions[0],
        name=condition,
        base_model="flux1-schnell.safetensors",
        preset="robust",
    )

    follow = graph.group("3  Result", "measure")
    follow.note(note("trainer"), width=440, height=290)
    status = follow.add(f"{OURS}TrainingStatus", width=440, height=520, training=trainer[4])
    follow.add("PreviewAny", "What was trained", width=440, height=180, source=status[3])


def generated(group: Group, condition: str) -> Node:
    """A saved set of generated faces."""
    name = f"diffusioncleft/{condition}"
    return group.add(f"{OURS}LoadImageSet", f"Generated, {TITLES[condition]}", width=400, name=name, limit=1)


def photographs(group: Group, condition: str) -> Node:
    """A dataset of photographs."""
    return group.add(f"{OURS}Dataset", f"Photographs, {TITLES[condition]}", width=400, name=condition)


def evaluate(graph: Graph) -> None:
    """The paper's metrics on two saved sets."""
    sets: dict[str, Node] = {}
    datasets: dict[str, Node] = {}
    data = graph.group("1  Sets and photographs", "data")
    data.note(note("evaluate"), width=400, height=230)
    for condition in TITLES:
        sets[condition] = generated(data, condition)
        datasets[condition] = photographs(data, condition)
    reference = data.add(
        f"{OURS}ReferenceSet",
        "Training faces of both",
        width=400,
        dataset=datasets["pre_op"][0],
        dataset_2=datasets["post_op"][0],
    )
    for condition in ("pre_op", "post_op"):
        measured = graph.group(f"{2 + list(sets).index(condition)}  Faces {TITLES[condition]}", "measure")
        figures(measured, sets[condition], reference, datasets[condition])
    report = graph.group("4  Report", "check")
    report.note(note("report"), width=440, height=100)
    made = report.add(
        f"{OURS}Report",
        width=440,
        height=640,
        image_set=sets["pre_op"][0],
        dataset=datasets["pre_op"][0],
        image_set_2=sets["post_op"][0],
        dataset_2=datasets["post_op"][0],
        folder="diffusioncleft/report",
    )
    report.add("PreviewAny", "Figures", width=440, height=300, source=made[3])


def classifier(graph: Graph) -> None:
    """A classifier that learns from generated sets, tested on photographs that were held out."""
    data = graph.group("1  Generated faces to learn from", "data")
    data.note(note("classifier"), width=400, height=330)
    sets = [generated(data, condition) for condition in TITLES]
    train = graph.group("2  Classifier", "model")
    taught = train.add(
        f"{OURS}TrainClassifier",
        width=440,
        height=420,
        positive=sets[0][0],
        negative=sets[1][0],
        task="pre_post",
    )
    train.add("PreviewAny", "How it went", width=440, height=240, source=taught[2])
    held_out = graph.group("3  Photographs to test on", "data")
    held_out.note(note("held_out"), width=400, height=200)
    datasets = [photographs(held_out, condition) for condition in TITLES]
    test = graph.group("4  What it is good for", "measure")
    judged = test.add(
        f"{OURS}EvaluateClassifier",
        width=440,
        height=640,
        classifier=taught[0],
        positive=datasets[0][0],
        negative=datasets[1][0],
        trained_on=datasets[0][0],
        trained_on_2=datasets[1][0],
    )
    test.column()
    test.note(note("reading"), width=440, height=230)
    test.add("PreviewAny", "Figures", width=440, height=300, source=judged[8])


def rater_study(graph: Graph) -> None:
    """Pictures of both conditions for raters, and what they said."""
    data = graph.group("1  Generated faces and photographs", "data")
    data.note(note("rater_study"), width=400, height=330)
    sets = [generated(data, condition) for condition in TITLES]
    data.column()
    data.note(note("shown"), width=400, height=200)
    datasets = [photographs(data, condition) for condition in TITLES]
    study = graph.group("2  Study", "model")
    made = study.add(
        f"{OURS}RaterStudy",
        width=440,
        height=460,
        generated=sets[0][0],
        generated_2=sets[1][0],
        real=datasets[0][0],
        real_2=datasets[1][0],
    )
    study.column()
    study.add("PreviewAny", "How it is rated", width=440, height=300, source=made[2])
    found = graph.group("3  What raters say", "measure")
    found.note(note("rated"), width=440, height=200)
    said = found.add(f"{OURS}StudyResults", width=440, height=640, study=made[0])
    found.column()
    found.add("PreviewAny", "In words", width=440, height=300, source=said[2])


def zero_shot(graph: Graph) -> None:
    """What FLUX.1 schnell draws without a LoRA."""
    base = graph.group("1  FLUX.1 [schnell], no LoRA", "model")
    base.note(f"{note('zero_shot')}\n\n{note('files')}", width=400, height=280)
    models = flux_loaders(base)
    for number, (name, text) in enumerate(
        [("cleft_lip", "A boy's face with a cleft lip"), ("cleft_lip_scar", "a cleft lip scar")], start=2
    ):
        draw = graph.group(f"{number}  “{text}”", "draw")
        images = sample(draw, models, text, 0, PX)
        draw.column()
        draw.add(
            f"{OURS}SaveSyntheticSet",
            width=480,
            height=640,
            images=images,
            folder=f"diffusioncleft/zero_shot/{name}",
        )


def checkpoint_grid(graph: Graph) -> None:
    """One prompt and seed under two checkpoints and three strengths."""
    base = graph.group("1  FLUX.1 [schnell] and one prompt", "model")
    base.note(f"{note('grid')}\n\n{note('files')}", width=400, height=280)
    model, clip, vae = flux_loaders(base)
    base.column()
    builder = base.add(f"{OURS}PromptBuilder", width=400, condition="pre_op")
    positive = base.add("CLIPTextEncode", "Prompt", width=400, height=150, clip=clip, text=builder[0])
    negative = base.add("CLIPTextEncode", EMPTY, width=400, height=130, clip=clip, text="")
    latent = base.add("EmptySD3LatentImage", width=400, width_=PX, height_=PX, batch_size=1)
    titles = ("Checkpoint 1", "Checkpoint 2")
    names = ("pre_op-step000500.safetensors", "pre_op.safetensors")
    rows: list[list[Any]] = [[], []]
    for number, strength in enumerate((0.6, 0.8, 1.0), start=2):
        column = graph.group(f"{number}  Strength {strength:g}", "draw")
        for row, title, name in zip(rows, titles, names, strict=True):
            lora = column.add(
                "LoraLoaderModelOnly", title, model=model, lora_name=name, strength_model=strength
            )
            latents = ksampler(column, lora[0], positive[0], negative[0], latent[0], builder[1])
            row.append(column.add("VAEDecode", samples=latents[0], vae=vae)[0])
    whole = graph.group("5  Grid", "check")
    stitched = []
    for row, title in zip(rows, titles, strict=True):
        left = whole.add("ImageStitch", title, image1=row[0], image2=row[1], spacing_width=4)
        stitched.append(whole.add("ImageStitch", title, image1=left[0], image2=row[2], spacing_width=4)[0])
    whole.column()
    grid = whole.add(
        "ImageStitch",
        "Both",
        width=600,
        image1=stitched[0],
        image2=stitched[1],
        direction="down",
        spacing_width=4,
    )
    whole.add(
        f"{OURS}SaveSyntheticSet",
        width=600,
        height=620,
        images=grid[0],
        folder="diffusioncleft/grid",
    )


def note(name: str, **values: str) -> str:
    """A note's text from workflow_notes.md."""
    parts = NOTES.read_text(encoding="utf-8").split(f"<!-- note: {name} -->\n")
    return parts[1].split("<!-- note:")[0].strip().format(**values)


def flux_loaders(group: Group) -> tuple[Any, Any, Any]:
    """ComfyUI's own loaders of FLUX.1 schnell: MODEL, CLIP, VAE."""
    model = group.add("UNETLoader", width=400, unet_name="flux1-schnell.safetensors", weight_dtype="default")
    clip = group.add(
        "DualCLIPLoader",
        "Text encoders",
        width=400,
        clip_name1="clip_l.safetensors",
        clip_name2="t5xxl_fp16.safetensors",
        type="flux",
        device="default",
    )
    vae = group.add("VAELoader", width=400, vae_name="ae.safetensors")
    return model[0], clip[0], vae[0]


def sample(group: Group, models: tuple[Any, Any, Any], prompt: Any, seed: Any, size: int) -> Any:
    """Schnell's graph: no guidance node, no shifted schedule, four steps, CFG 1. models: MODEL, CLIP, VAE."""
    model, clip, vae = models
    positive = group.add("CLIPTextEncode", "Prompt", height=150, clip=clip, text=prompt)
    negative = group.add("CLIPTextEncode", EMPTY, height=130, clip=clip, text="")
    latent = group.add("EmptySD3LatentImage", width_=size, height_=size, batch_size=1)
    latents = ksampler(group, model, positive[0], negative[0], latent[0], seed)
    return group.add("VAEDecode", samples=latents[0], vae=vae)[0]


def ksampler(group: Group, model: Any, positive: Any, negative: Any, latent: Any, seed: Any) -> Node:
    return group.add(
        "KSampler",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent,
        seed=seed,
        steps=4,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
        denoise=1.0,
    )


def filters(group: Group, images: Any, rows: Any, dataset: Node) -> tuple[Any, Node]:
    """Both filters on every picture, their verdicts shown; the record of both, and the reference faces."""
    artifacts = group.add(f"{OURS}ArtifactFilter", images=images, rows=rows)
    group.add("PreviewAny", "Artifacts found", height=180, source=artifacts[VERDICTS])
    group.column()
    reference = group.add(f"{OURS}ReferenceSet", "Training faces", dataset=dataset[0])
    leaks = group.add(
        f"{OURS}IdentityLeakFilter",
        images=images,
        rows=rows,
        earlier=artifacts[RECORD],
        reference=reference[0],
    )
    group.add("PreviewAny", "All verdicts", height=180, source=leaks[VERDICTS])
    return leaks[RECORD], reference


def figures(group: Group, saved: Node, reference: Node, dataset: Node) -> None:
    """FIR with its histogram, FID, LPIPS, each with its figures in words."""
    fir = group.add(f"{OURS}FIR", width=400, height=420, image_set=saved[0], reference=reference[0])
    fid = group.add(f"{OURS}FID", width=400, image_set=saved[0], dataset=dataset[0])
    lpips = group.add(f"{OURS}LPIPS", width=400, image_set=saved[0])
    group.column()
    for title, node, output in (("FIR", fir, 4), ("FID", fid, 1), ("LPIPS", lpips, 2)):
        group.add("PreviewAny", title, width=400, height=200, source=node[output])
