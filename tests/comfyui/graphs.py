"""Graphs in API format that several tests use."""

from typing import Any

from diffusioncleft.diffusioncleft_core.filters.artifacts import ARTIFACTS

Graph = dict[str, Any]
SECRET = "Jane Roe"
"""Part of the file name of every photograph: nothing that leaves the dataset may hold it."""
PROMPT = "[CLP] A girl's whole face with an unrepaired unilateral cleft lip. Light skin. Brown eyes."
KINDS = dict.fromkeys(ARTIFACTS, True)
"""Every kind of artifact switched on."""
TRAINING = {
    "name": "pre_op",
    "base_model": "phantom",
    "preset": "paper",
    "mode": "wait",
    "steps": 24,
    "preview_every": 0,
}
OPTIONS = {"optimizer": "AdamW", "lr_scheduler": "constant"}
"""What trainings of tests differ in from the preset."""

CLASSIFIER = {"task": "pre_post", "model": "probe", "backbone": "auto", "seeds": 2, "seed": 3}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def ours(kind: str, **inputs: Any) -> dict[str, Any]:
    return node(f"DiffusionCleft_{kind}", **inputs)


def training(dataset: str, **settings: Any) -> Graph:
    """A dataset and its trainer (node `train`); settings that are not the trainer's go to its options."""
    trainer = {name: settings.get(name, value) for name, value in TRAINING.items()}
    options = {**OPTIONS, **{name: value for name, value in settings.items() if name not in TRAINING}}
    return {
        "data": ours("Dataset", name=dataset),
        "options": ours("TrainingOptions", **options),
        "train": ours("LoraTrainer", dataset=["data", 0], options=["options", 0], **trainer),
    }


def drawing(
    prompt: Any = PROMPT, seed: Any = 5, lora: Any = None, strength: float = 1.0, side: int = 128
) -> Graph:
    """A picture from the Phantom Loader through ComfyUI's own nodes (node `picture`)."""
    graph = {
        "load": ours("PhantomLoader"),
        "text": node("CLIPTextEncode", clip=["load", 1], text=prompt),
        "size": node("EmptySD3LatentImage", width=side, height=side, batch_size=1),
        "sample": node(
            "KSampler",
            model=["load", 0],
            positive=["text", 0],
            negative=["text", 0],
            latent_image=["size", 0],
            seed=seed,
            steps=4,
            cfg=1.0,
            sampler_name="euler",
            scheduler="simple",
            denoise=1.0,
        ),
        "picture": node("VAEDecode", samples=["sample", 0], vae=["load", 2]),
    }
    if lora is not None:
        graph["lora"] = node(
            "LoraLoaderModelOnly", model=["load", 0], lora_name=lora, strength_model=strength
        )
        graph["sample"]["inputs"]["model"] = ["lora", 0]
    return graph


def saving(images: Any, folder: str, **inputs: Any) -> dict[str, Any]:
    """Save Synthetic Set, with what it is given unless `inputs` say otherwise."""
    base = {"lora_name": "", "lora_strength": 1.0, "show": True}
    return ours("SaveSyntheticSet", images=images, folder=folder, **{**base, **inputs})


def plan_of(count: int, **inputs: Any) -> dict[str, Any]:
    """A Prompt Plan of `count` rows of pre_op unless `inputs` say otherwise."""
    base = {"condition": "pre_op", "start": 0, "seed": 0, "mode": "paper", "bracketed": True, "extra": ""}
    return ours("PromptPlan", count=count, **{**base, **inputs})


def builder(**values: Any) -> dict[str, Any]:
    """A Prompt Builder with everything left out but what is given."""
    names = ("subject", "skin", "hair_texture", "hair_length", "hair_color", "eyes", "cleft_type", "severity")
    names += ("side", "nasal_asymmetry", "scar", "asymmetry", "nasal_tip", "cupids_bow")
    base = {
        "condition": "pre_op",
        **dict.fromkeys(names, "left out"),
        "seed": 0,
        "bracketed": True,
        "extra": "",
    }
    return ours("PromptBuilder", **{**base, **values})
