"""Whole training steps against reference_training.py: images, order, terms, clipping, schedule, optimizer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference_training import (
    Example,
    clipped,
    linear_layers,
    loss_terms,
    put_lora,
    rate,
    share_down,
    total,
)
from safetensors.torch import load_file, save_file
from tiny_flux import build_tiny_flux
from trainer_settings import trainer_settings

from diffusioncleft.trainer.buckets import assign_buckets
from diffusioncleft.trainer.data import TrainImage
from diffusioncleft.trainer.data_order import DataOrder
from diffusioncleft.trainer.events import Events
from diffusioncleft.trainer.flux_train_network import train
from diffusioncleft.trainer.interruption import Interruption

STEPS = 5
ADAPTED = ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.1.proj_out")
# (file, width, height, role, caption, region)
IMAGES = (
    ("a.png", 64, 64, "train", "[CLP] A girl's whole face with a cleft lip.", [16.0, 20.0, 44.0, 52.0]),
    ("b.png", 64, 64, "train", "[CLP] A boy's whole face.", None),
    ("c.png", 80, 48, "train", "[CLP] A kid with a cleft lip.", [40.0, 0.0, 80.0, 30.0]),
    ("held out.png", 64, 64, "holdout", "[CLP] A man.", None),
)
HEALTHY = {IMAGES[0][4]: "A girl's whole face.", IMAGES[2][4]: "A kid."}
"""Captions without the finding, where the manifest has one."""
REG = (
    ("x.png", 64, 64, "control", "A girl's whole face.", None),
    ("y.png", 80, 48, "generated", "A woman.", None),
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A base model, two folders with manifests, a training adapter, and a cache that the runs share."""
    folder = tmp_path_factory.mktemp("steps")
    build_tiny_flux(folder / "flux")
    random = np.random.default_rng(4)
    for name, rows in (("photos", IMAGES), ("reg", REG)):
        (folder / name).mkdir()
        lines = []
        for file, width, height, role, caption, region in rows:
            pixels = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / file)
            row = {"file": file, "width": width, "height": height, "role": role}
            row |= {"prompt" if role in ("control", "generated") else "caption": caption}
            row |= {"healthy_caption": HEALTHY[caption]} if caption in HEALTHY else {}
            lines.append(json.dumps(row | ({"region": region} if region else {})))
        (folder / name / "manifest.jsonl").write_text("\n".join(lines))
    draw = torch.Generator().manual_seed(8)
    weights = {
        f"transformer.{module}.{matrix}.weight": 0.3 * torch.randn(shape, generator=draw)
        for module, wide, high in ((ADAPTED[0], 64, 64), (ADAPTED[1], 320, 64))
        for matrix, shape in (("lora_A", (2, wide)), ("lora_B", (high, 2)))
    }
    save_file(weights, folder / "adapter.safetensors")
    return folder


@pytest.fixture(scope="module")
def encoded(workplace):
    """Latents and embeddings by diffusers' own pipeline."""
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(workplace / "flux", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    vae = pipeline.vae

    def latents(path: Path) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 127.5 - 1
        mean = vae.encode(pixels).latent_dist.mean
        return (mean[0] - vae.config.shift_factor) * vae.config.scaling_factor

    captions = {row[4] for row in (*IMAGES, *REG)}
    captions |= {text for caption in captions for text in preserved(caption)}
    length = len(pipeline.tokenizer_2("", padding="max_length").input_ids)
    with torch.no_grad():
        text = {
            caption: tuple(
                part[0] for part in pipeline.encode_prompt(caption, None, max_sequence_length=length)[:2]
            )
            for caption in captions
        }
        examples = [
            Example(latents(workplace / name / row[0]), row[4], row[5] and tuple(row[5]), preserved(row[4]))
            for name, rows in (("photos", IMAGES[:3]), ("reg", REG))
            for row in rows
        ]
    return examples, text, pipeline.transformer.requires_grad_(False)


def preserved(caption: str) -> tuple[str, ...]:
    other, healthy = caption.replace("[CLP]", "[CLPrep]"), HEALTHY.get(caption)
    return (caption.removeprefix("[CLP] "), other, *((healthy,) if healthy else ()))


def expected_run(workplace, encoded, values, *, reg, adapter):
    """Train the reference's LoRA for as many steps; give its weights by name and the rows of loss.jsonl."""
    from diffusers import FluxTransformer2DModel

    examples, text, base = encoded
    models = [FluxTransformer2DModel.from_pretrained(workplace / "flux" / "transformer") for _ in range(2)]
    plain, model = (one.requires_grad_(False) for one in models)
    layers = linear_layers(base)
    if adapter:
        state = load_file(workplace / "adapter.safetensors")
        for one in (plain, model):
            for name, value in put_lora(one, "training_adapter", 2, 2.0, 0, ADAPTED).items():
                key = "transformer." + name.replace(".training_adapter.", ".")
                value.data.copy_(state[key])
                value.requires_grad_(False)
    parameters = put_lora(model, "default", 4, 6.0, values["seed"], layers)
    if values.get("network_qkv") != "separate":
        parameters = share_down(model, "default")
    for name, value in model.named_parameters():
        value.requires_grad_(name in parameters)
    plain.train()
    model.train()
    beta1, beta2 = values.get("adam_beta1", 0.9), values.get("adam_beta2", 0.999)
    moments = {name: (torch.zeros_like(v), torch.zeros_like(v)) for name, v in parameters.items()}
    rows = []
    share = values.get("gradient_accumulation_steps", 1)
    order = DataOrder(training_images(examples, reg=reg), values.get("train_batch_size", 1), values["seed"])
    for step in range(1, STEPS + 1):
        gradients, loss, others = [torch.zeros_like(v) for v in parameters.values()], 0.0, 0.0
        for number in range((step - 1) * share, step * share):
            draw = order.draw(number)
            terms = loss_terms(model, plain, examples, text, draw.train, draw.reg, number, values)
            found = torch.autograd.grad(total(terms, values), list(parameters.values()))
            gradients = [one + new / share for one, new in zip(gradients, found, strict=True)]
            loss += terms.train.item() / share
            others += (terms.prior + terms.preserved).item() / share
        learning_rate = rate(step, STEPS, values)
        rows.append({"step": step, "loss": loss, "lr": learning_rate, "reg_loss": others})
        gradients = clipped(gradients, values.get("max_grad_norm", 1.0))
        for gradient, (name, value) in zip(gradients, parameters.items(), strict=True):
            # AdamW: Loshchilov and Hutter 2019, algorithm 2.
            mean, square = moments[name]
            mean.mul_(beta1).add_((1 - beta1) * gradient)
            square.mul_(beta2).add_((1 - beta2) * gradient**2)
            root = (square / (1 - beta2**step)).sqrt() + values["adam_eps"]
            with torch.no_grad():
                value -= learning_rate * (mean / (1 - beta1**step) / root + values["weight_decay"] * value)
    return {name: value.detach() for name, value in parameters.items()}, rows


def training_images(examples, *, reg):
    sizes = [row[1:3] for row in IMAGES[:3]] + [row[1:3] for row in REG]
    kept = [(index, size) for index, size in enumerate(sizes) if index < 3 or reg]
    buckets = {size: assign_buckets(*size, (64,))[0] for size in sizes}
    return [
        TrainImage(Path(str(index)), Path(), "", index >= 3, 1, "", buckets[size]) for index, size in kept
    ]


# An epsilon of 1 makes AdamW's step follow the size of the gradient, and not its sign alone: a wrong share,
# weight or clip shows in the weights.
BASE = {"adam_eps": 1.0, "weight_decay": 0.1, "learning_rate": 1.0, "seed": 5}
RUNS = {
    "plain": {"max_grad_norm": 0.0},
    "clipped": {
        "network_qkv": "separate",
        "max_grad_norm": 0.02, "train_batch_size": 2, "adam_beta1": 0.5, "adam_beta2": 0.9,
    },
    "warm-up, accumulation": {
        "lr_scheduler": "cosine", "lr_warmup_steps": 2, "gradient_accumulation_steps": 3,
        "max_grad_norm": 0.05,
    },
    "linear, two sizes, adapter": {
        "lr_scheduler": "linear", "train_batch_size": 3, "region_weight": 6.0, "reg": True, "adapter": True,
    },
    "constant with warm-up": {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 3},
    "everything": {
        "network_qkv": "separate",
        "train_batch_size": 2, "gradient_accumulation_steps": 2, "reg": True, "adapter": True,
        "prior_loss_weight": 0.6, "prior_target": "base", "output_preservation_weight": 0.5,
        "other_trigger": "CLPrep", "region_weight": 4.0, "timestep_sampling": "shift",
        "discrete_flow_shift": 2.0, "sigmoid_scale": 1.2, "max_grad_norm": 0.1,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_five_steps_give_the_weights_of_the_plain_computation(workplace, encoded, tmp_path, name):
    values = {**BASE, **RUNS[name]}
    reg, adapter = values.pop("reg", False), values.pop("adapter", False)
    events = []
    settings = trainer_settings(
        pretrained_model_name_or_path=workplace / "flux",
        train_data_dir=workplace / "photos",
        reg_data_dir=workplace / "reg" if reg else None,
        training_adapter=workplace / "adapter.safetensors" if adapter else None,
        resolution=(64,),
        cache_dir=workplace / "cache",
        output_dir=tmp_path,
        max_train_steps=STEPS,
        **values,
    )
    train(settings, Events(events.append), Interruption())
    weights, rows = expected_run(workplace, encoded, values, reg=reg, adapter=adapter)

    found = [json.loads(line) for line in (tmp_path / "loss.jsonl").read_text().splitlines()]
    for row, expected in zip(found, rows, strict=True):
        if not (reg or "output_preservation_weight" in values):
            del expected["reg_loss"]
        assert row == pytest.approx(expected, rel=1e-5)
    state = load_file(tmp_path / "state" / f"step-{STEPS:06d}.safetensors")
    trained = {key.removeprefix("parameter/"): v for key, v in state.items() if key.startswith("parameter/")}
    assert trained.keys() == weights.keys()
    for key, expected in weights.items():
        assert (trained[key] - expected).norm() <= 1e-5 * expected.norm(), key
