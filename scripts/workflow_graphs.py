"""The shipped workflows, one function each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from workflow_builder import OURS, Graph, Group, Node

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary

NOTES = Path(__file__).with_name("workflow_notes.md")
# outputs of the filters
VERDICTS, RECORD = 4, 7
PHANTOM_PX, PX = 128, 768
TRIGGERS = {"pre_op": "CLP", "post_op": "CLPrep"}
TITLES = {"pre_op": "before repair", "post_op": "after repair"}
FILES = {
    "quick_start": "01 Quick start - train, draw, filter, measure",
    "train_pre_op": "02 Train a LoRA - faces before repair",
    "train_post_op": "03 Train a LoRA - faces after repair",
    "generate_pre_op": "04 Draw faces before repair",
    "generate_post_op": "05 Draw faces after repair",
    "checkpoint_strength_grid": "06 Compare checkpoints and strengths",
    "evaluate": "07 Measure two sets - FIR, FID, LPIPS, report",
    "classifier": "08 Train a classifier on generated faces",
    "rater_study": "09 Rater study - generated or photograph",
    "zero_shot_baseline": "10 Zero-shot baseline without a LoRA",
}
"""Each workflow and the name of its file, which ComfyUI shows as the template's title."""


def build_all(info: dict[str, Any]) -> dict[str, Graph]:
    """Every workflow by its name."""
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
    for name in FILES:
        graphs[name] = Graph(name, info)
        makers[name](graphs[name])
    return graphs


def quick_start(graph: Graph) -> None:
    """Train, generate, filter and measure on the phantom."""
    data = graph.group("1  Train a LoRA on phantoms", "data")
    data.note(note("quick_start"), width=330, height=150)
    dataset = data.add(f"{OURS}PhantomDataset", width=330, condition="pre_op", count=100, size=PHANTOM_PX)
    data.column()
    trainer = data.add(
        f"{OURS}LoraTrainer",
        width=330,
        height=570,
        grows=True,
        dataset=dataset[0],
        name="quick_start",
        base_model="phantom",
    )

    draw = graph.group("2  Draw new faces", "draw")
    loader = draw.add(f"{OURS}PhantomLoader")
    plan = draw.add(
        f"{OURS}PromptPlan", "Prompt plan", condition="pre_op", count=16, seed=0, control="increment"
    )
    draw.column()
    phantom = load_vocabulary().condition("pre_op").phantom
    assert phantom is not None
    lora = draw.add(
        "LoraLoaderModelOnly",
        "LoRA",
        model=loader[0],
        lora_name=trainer[0],
        strength_model=phantom.strength,
    )
    images = sample(draw, (lora[0], loader[1], loader[2]), plan[0], plan[1], PHANTOM_PX)

    graph.row()
    check = graph.group("3  Filter", "check")
    check.note(note("filters"), width=280, height=200)
    reference = training_faces(check, dataset)
    check.column()
    leaks = filters(check, images, plan[2], reference)

    measure = graph.group("4  Save and measure", "measure")
    saved = measure.add(
        f"{OURS}SaveSyntheticSet",
        width=300,
        height=440,
        grows=True,
        images=images,
        rows=plan[2],
        verdicts=leaks[RECORD],
        lora_name=trainer[0],
        folder="diffusioncleft/quick_start",
    )
    measure.column()
    made = measure.add(
        f"{OURS}Report",
        width=310,
        height=440,
        grows=True,
        image_set=saved[0],
        dataset=dataset[0],
        folder="diffusioncleft/quick_start_report",
    )
    measure.column()
    measure.add("PreviewAny", "Figures", width=270, height=170, grows=True, source=made[3])
    measure.add("PreviewAny", "All verdicts", width=270, height=170, grows=True, source=leaks[VERDICTS])


def generation(graph: Graph, condition: str) -> None:
    """New faces of one condition on FLUX.1 schnell."""
    base = graph.group("1  FLUX.1 [schnell] and the LoRA", "model")
    base.note(f"{note('generation', title=TITLES[condition])}\n\n{note('files')}", width=360, height=200)
    base.column()
    model, clip, vae = flux_loaders(base)

    prompt = graph.group("2  Prompt", "data")
    builder = prompt.add(f"{OURS}PromptBuilder", condition=condition, control="randomize")

    draw = graph.group("3  Draw", "draw")
    lora = draw.add(
        "LoraLoaderModelOnly", "LoRA", model=model, lora_name=f"{condition}.safetensors", strength_model=1.0
    )
    images = sample(draw, (lora[0], clip, vae), builder[0], builder[1], PX)

    graph.row()
    check = graph.group("4  Filter", "check")
    check.note(f"{note('prompt', trigger=TRIGGERS[condition])}\n\n{note('identity')}", height=160)
    dataset = check.add(f"{OURS}Dataset", "Training photographs", name=condition)
    reference = training_faces(check, dataset)
    check.column()
    leaks = filters(check, images, builder[3], reference)

    save = graph.group("5  Save", "measure")
    save.add("PreviewAny", "All verdicts", height=240, grows=True, source=leaks[VERDICTS])
    save.column()
    save.add(
        f"{OURS}SaveSyntheticSet",
        width=420,
        height=440,
        grows=True,
        images=images,
        rows=builder[3],
        verdicts=leaks[RECORD],
        folder=f"diffusioncleft/{condition}",
    )


def training(graph: Graph, condition: str) -> None:
    """A LoRA of one condition on FLUX.1 schnell."""
    data = graph.group("1  Photographs", "data")
    data.note(note("training", title=TITLES[condition], condition=condition), width=420, height=300)
    dataset = data.add(f"{OURS}Dataset", width=420, name=condition)
    captions = data.add(f"{OURS}Captions", width=420, height=260, dataset=dataset[0], show=False)

    train = graph.group("2  LoRA", "model")
    train.note(note("options"), width=420, height=150)
    trainer = train.add(
        f"{OURS}LoraTrainer",
        width=420,
        height=540,
        grows=True,
        dataset=captions[0],
        name=condition,
        base_model="flux1-schnell.safetensors",
    )

    follow = graph.group("3  Result", "measure")
    follow.note(note("trainer"), width=400, height=260)
    status = follow.add(f"{OURS}TrainingStatus", width=400, height=300, grows=True, training=trainer[4])
    follow.add("PreviewAny", "What was trained", width=400, height=150, source=status[3])


def generated(group: Group, condition: str) -> Node:
    """A saved set of generated faces."""
    name = f"diffusioncleft/{condition}"
    return group.add(f"{OURS}LoadImageSet", f"Generated, {TITLES[condition]}", width=340, name=name, limit=1)


def photographs(group: Group, condition: str) -> Node:
    """A dataset of photographs."""
    return group.add(f"{OURS}Dataset", f"Photographs, {TITLES[condition]}", width=340, name=condition)


def evaluate(graph: Graph) -> None:
    """The paper's metrics on two saved sets."""
    data = graph.group("1  Sets and photographs", "data")
    data.note(note("evaluate"), width=360, height=200)
    data.column()
    sets = {condition: generated(data, condition) for condition in TITLES}
    data.column()
    datasets = {condition: photographs(data, condition) for condition in TITLES}
    reference = data.add(
        f"{OURS}ReferenceSet",
        "Training faces of both",
        width=340,
        dataset=datasets["pre_op"][0],
        dataset_2=datasets["post_op"][0],
    )
    report = graph.group("2  Report of both", "check")
    made = report.add(
        f"{OURS}Report",
        width=380,
        height=420,
        grows=True,
        image_set=sets["pre_op"][0],
        dataset=datasets["pre_op"][0],
        image_set_2=sets["post_op"][0],
        dataset_2=datasets["post_op"][0],
        folder="diffusioncleft/report",
    )
    report.column()
    report.note(note("report"), width=340, height=120)
    report.add("PreviewAny", "Figures", width=340, height=300, grows=True, source=made[3])
    graph.row()
    for number, condition in enumerate(TITLES, start=3):
        measured = graph.group(f"{number}  Faces {TITLES[condition]}", "measure")
        figures(measured, sets[condition], reference, datasets[condition])


def classifier(graph: Graph) -> None:
    """A classifier that learns from generated sets, tested on photographs that were held out."""
    data = graph.group("1  Generated faces to learn from", "data")
    data.note(note("classifier"), width=380, height=300)
    data.column()
    sets = [generated(data, condition) for condition in TITLES]
    train = graph.group("2  Classifier", "model")
    taught = train.add(
        f"{OURS}TrainClassifier",
        width=380,
        positive=sets[0][0],
        negative=sets[1][0],
        task="pre_post",
    )
    train.add("PreviewAny", "How it went", width=380, height=160, grows=True, source=taught[2])
    graph.row()
    held_out = graph.group("3  Photographs to test on", "data")
    held_out.note(note("held_out"), height=120)
    datasets = [photographs(held_out, condition) for condition in TITLES]
    test = graph.group("4  What it is good for", "measure")
    judged = test.add(
        f"{OURS}EvaluateClassifier",
        width=420,
        height=500,
        grows=True,
        classifier=taught[0],
        positive=datasets[0][0],
        negative=datasets[1][0],
        trained_on=datasets[0][0],
        trained_on_2=datasets[1][0],
    )
    test.column()
    test.note(note("reading"), width=380, height=150)
    test.add("PreviewAny", "Figures", width=380, height=240, grows=True, source=judged[8])


def rater_study(graph: Graph) -> None:
    """Pictures of both conditions for raters, and what they said."""
    data = graph.group("1  Generated faces and photographs", "data")
    data.note(note("rater_study"), width=380, height=240)
    data.column()
    sets = [generated(data, condition) for condition in TITLES]
    data.column()
    data.note(note("shown"), width=340, height=120)
    datasets = [photographs(data, condition) for condition in TITLES]
    graph.row()
    study = graph.group("2  Study", "model")
    made = study.add(
        f"{OURS}RaterStudy",
        width=360,
        generated=sets[0][0],
        generated_2=sets[1][0],
        real=datasets[0][0],
        real_2=datasets[1][0],
    )
    study.column()
    study.add("PreviewAny", "How it is rated", width=340, height=300, grows=True, source=made[2])
    found = graph.group("3  What raters say", "measure")
    said = found.add(f"{OURS}StudyResults", width=420, height=500, grows=True, study=made[0])
    found.column()
    found.note(note("rated"), width=340, height=130)
    found.add("PreviewAny", "In words", width=340, height=240, grows=True, source=said[2])


def zero_shot(graph: Graph) -> None:
    """What FLUX.1 schnell draws without a LoRA."""
    base = graph.group("1  FLUX.1 [schnell], no LoRA", "model")
    base.note(f"{note('zero_shot')}\n\n{note('files')}", width=360, height=240)
    models = flux_loaders(base)
    for number, (name, text) in enumerate(
        [("cleft_lip", "A boy's face with a cleft lip"), ("cleft_lip_scar", "a cleft lip scar")], start=2
    ):
        draw = graph.group(f"{number}  “{text}”", "draw")
        images = sample(draw, models, text, 0, PX, columns=1)
        draw.column()
        draw.add(
            f"{OURS}SaveSyntheticSet",
            width=340,
            height=440,
            grows=True,
            images=images,
            folder=f"diffusioncleft/zero_shot/{name}",
        )


def checkpoint_grid(graph: Graph) -> None:
    """One prompt and seed under two checkpoints and three strengths."""
    base = graph.group("1  FLUX.1 [schnell] and one prompt", "model")
    base.note(f"{note('grid')}\n\n{note('files')}", width=360, height=240)
    base.column()
    model, clip, vae = flux_loaders(base)
    cells = base.add(
        f"{OURS}LoraGrid",
        lora_1="pre_op-step000500.safetensors",
        lora_2="pre_op.safetensors",
        strengths="0.6, 0.8, 1.0",
    )
    draw = graph.group("2  Draw each cell", "draw")
    builder = draw.add(f"{OURS}PromptBuilder", condition="pre_op")
    draw.column()
    lora = draw.add("LoraLoaderModelOnly", "LoRA", model=model, lora_name=cells[0], strength_model=cells[1])
    images = sample(draw, (lora[0], clip, vae), builder[0], builder[1], PX, columns=1)
    whole = graph.group("3  Grid", "check")
    whole.add(
        f"{OURS}PictureGrid",
        width=480,
        height=400,
        grows=True,
        images=images,
        labels=cells[2],
        columns=cells[3],
    )


def note(name: str, **values: str) -> str:
    """A note's text from workflow_notes.md."""
    parts = NOTES.read_text(encoding="utf-8").split(f"<!-- note: {name} -->\n")
    return parts[1].split("<!-- note:")[0].strip().format(**values)


def flux_loaders(group: Group) -> tuple[Any, Any, Any]:
    """ComfyUI's own loaders of FLUX.1 schnell: MODEL, CLIP, VAE."""
    model = group.add("UNETLoader", unet_name="flux1-schnell.safetensors", weight_dtype="default")
    clip = group.add(
        "DualCLIPLoader",
        "Text encoders",
        clip_name1="clip_l.safetensors",
        clip_name2="t5xxl_fp16.safetensors",
        type="flux",
        device="default",
    )
    vae = group.add("VAELoader", vae_name="ae.safetensors")
    return model[0], clip[0], vae[0]


def sample(
    group: Group, models: tuple[Any, Any, Any], prompt: Any, seed: Any, size: int, *, columns: int = 2
) -> Any:
    """Schnell's graph: no guidance node, no shifted schedule, four steps, CFG 1. models: MODEL, CLIP, VAE.

    At CFG 1 the negative conditioning is never looked at, so the prompt's serves for both.
    """
    model, clip, vae = models
    text = group.add("CLIPTextEncode", "Prompt", height=90, grows=True, clip=clip, text=prompt)
    latent = group.add("EmptySD3LatentImage", "Size", width_=size, height_=size, batch_size=1)
    if columns > 1:
        group.column()
    latents = group.add(
        "KSampler",
        model=model,
        positive=text[0],
        negative=text[0],
        latent_image=latent[0],
        seed=seed,
        steps=4,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
        denoise=1.0,
    )
    return group.add("VAEDecode", samples=latents[0], vae=vae)[0]


def training_faces(group: Group, dataset: Node) -> Node:
    """The faces of a dataset, to compare with."""
    return group.add(f"{OURS}ReferenceSet", "Training faces", dataset=dataset[0])


def filters(group: Group, images: Any, rows: Any, reference: Node) -> Node:
    """Both filters on every picture, a column each; the second one has the verdicts of both."""
    artifacts = group.add(f"{OURS}ArtifactFilter", images=images, rows=rows)
    group.column()
    return group.add(
        f"{OURS}IdentityLeakFilter",
        height=560,
        grows=True,
        images=images,
        rows=rows,
        earlier=artifacts[RECORD],
        reference=reference[0],
    )


def figures(group: Group, saved: Node, reference: Node, dataset: Node) -> None:
    """FIR with its histogram, FID, LPIPS, each with its figures in words."""
    fir = group.add(
        f"{OURS}FIR", width=320, height=400, grows=True, image_set=saved[0], reference=reference[0]
    )
    group.column()
    fid = group.add(f"{OURS}FID", image_set=saved[0], dataset=dataset[0])
    lpips = group.add(f"{OURS}LPIPS", image_set=saved[0])
    group.column()
    for title, node, output in (("FIR", fir, 4), ("FID", fid, 1), ("LPIPS", lpips, 2)):
        group.add("PreviewAny", title, width=260, height=124, grows=True, source=node[output])
