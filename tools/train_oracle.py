"""Train the oracle on phantoms that went through the autoencoder, with the faults of samples added.

Half of the pictures are seen mirrored, their left findings as right ones.

    python -m diffusioncleft.tools.train_oracle \\
        --pools POOL POOL_PRE POOL_POST --vae WORK/vae --out OUT --minutes 6
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..diffusioncleft_core.phantom.oracle import HEADS, SIDES, OracleNet
from .encoder import code_of, encode_patches


def targets(words: dict[str, str]) -> list[int]:
    """Class index of every head for a phantom's attributes."""
    side = "bilateral" if words.get("cleft_type") == "bilateral" else words.get("side", "none")
    scarred = words.get("scar", "none") != "none"
    labels = words | {
        "cleft": side if "severity" in words else "none",
        "scar": side if scarred else "none",
    }
    return [values.index(labels[name]) for name, values in HEADS.items()]


@torch.no_grad()
def through_vae(vae: Any, images: NDArray[np.uint8], noise: float, seed: int) -> NDArray[np.uint8]:
    """Pictures encoded, disturbed by up to `noise` of a latent's deviation, decoded: like samples.

    The encoder's code stands for the encoder, at a fraction of the time.
    """
    matrix, offset = code_of(vae)
    mean = -np.linalg.pinv(matrix) @ offset
    generator = torch.Generator().manual_seed(seed)
    out = np.empty_like(images)
    spread = 1 / vae.config.scaling_factor
    for i in range(0, len(images), 32):
        part = np.asarray(images[i : i + 32])
        z = encode_patches(part, mean, matrix) * spread + vae.config.shift_factor
        amount = noise * spread * torch.rand(len(z), 1, 1, 1, generator=generator)
        z = z + amount * torch.randn(z.shape, generator=generator)
        y = vae.decode(z).sample.clamp(-1, 1)
        out[i : i + 32] = (y * 127.5 + 127.5).permute(0, 2, 3, 1).byte().numpy()
    return out


def through_code(images: NDArray[np.uint8], code: Any, noise: float, seed: int) -> NDArray[np.uint8]:
    """The same loss and noise as `through_vae`, without the decoder: cheap, with visible patches."""
    mean, matrix = code["mean"].astype(np.float32), code["matrix"].astype(np.float32)
    back = np.linalg.pinv(matrix).T
    rng = np.random.default_rng(seed)
    out = np.empty_like(images)
    side = images.shape[1] // 8
    for i in range(0, len(images), 500):
        z = encode_patches(np.asarray(images[i : i + 500]), mean, matrix).permute(0, 2, 3, 1).numpy()
        z = z + noise * rng.random((len(z), 1, 1, 1)) * rng.standard_normal(z.shape)
        x = (z.astype(np.float32) @ back + mean).reshape(-1, side, side, 8, 8, 3)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 8 * side, 8 * side, 3)
        out[i : i + 500] = np.clip(x * 127.5 + 127.5, 0, 255)
    return out


def mirrored(y: torch.Tensor) -> torch.Tensor:
    """Labels [N, heads] of the mirrored pictures: left and right change places in the first two heads."""
    other = torch.tensor([SIDES.index({"left": "right", "right": "left"}.get(side, side)) for side in SIDES])
    return torch.cat([other[y[:, :2]], y[:, 2:]], 1)


def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blur, shift, brightness and grain; [N, 3, 128, 128] in [-1, 1]."""
    n = len(x)
    if torch.rand(1, generator=generator) < 0.4:
        side = int(torch.randint(56, 112, (1,), generator=generator))
        x = F.interpolate(F.interpolate(x, size=side, mode="area"), size=128, mode="bilinear")
    dx, dy = (int(v) for v in torch.randint(-4, 5, (2,), generator=generator))
    x = torch.roll(F.pad(x, (4, 4, 4, 4), mode="replicate"), (dy, dx), (2, 3))[:, :, 4:-4, 4:-4]
    gain = 1 + 0.05 * torch.randn(n, 1, 1, 1, generator=generator)
    grain = 0.03 * torch.rand(n, 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
    return x * gain + grain


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pools", type=Path, nargs="+", required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=6000, help="pictures of each pool")
    parser.add_argument("--decoded", type=int, default=500, help="of these, decoded by the autoencoder")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--start", type=Path, help="go on from this oracle.safetensors")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from diffusers import AutoencoderKL
    from safetensors.torch import load_file, save_file

    torch.manual_seed(args.seed)
    vae = AutoencoderKL.from_pretrained(args.vae, torch_dtype=torch.float32).eval()
    code = np.load(args.vae / "code.npz")
    images, labels = [], []
    for number, pool in enumerate(args.pools):
        raw = np.load(pool / "images.npy", mmap_mode="r")[-args.each :]
        words = json.loads((pool / "attributes.json").read_text(encoding="utf-8"))[-args.each :]
        decoded = through_vae(vae, raw[: args.decoded], 0.35, args.seed + number)
        truth = np.array([targets(w) for w in words])
        rough = through_code(raw[: args.each // 2], code, 0.35, args.seed + number)
        images += [raw, rough, *[decoded] * 6]
        labels += [truth, truth[: args.each // 2], *[truth[: args.decoded]] * 6]
        print(f"{pool.name}: {len(raw)} pictures", flush=True)
    x_all = torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2)
    y_all = torch.from_numpy(np.concatenate(labels))
    net = OracleNet()
    print(f"{sum(p.numel() for p in net.parameters())} parameters", flush=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.02)
    if args.start:
        begun = {k: v.float() for k, v in load_file(args.start).items()}
        own = net.state_dict()
        fits = {k: v for k, v in begun.items() if k in own and own[k].shape == v.shape}
        net.load_state_dict(own | fits)
        print(f"{len(fits)} of {len(own)} tensors go on from {args.start}", flush=True)
    net = net.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(args.seed)
    sizes = [len(v) for v in HEADS.values()]
    start, step = time.time(), 0
    while (share := (time.time() - start) / (60 * args.minutes)) < 1:
        rate = 3e-3 * min(1, (step + 1) / 50) * max(0.01, 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        pick = torch.randint(len(x_all), (64,), generator=generator)
        x, y = x_all[pick].float() / 127.5 - 1, y_all[pick]
        x[:32], y[:32] = x[:32].flip(3), mirrored(y[:32])
        logits = net(augment(x, generator))
        loss = sum(
            (
                (3 if i < 2 else 1) * F.cross_entropy(part, y[:, i])
                for i, part in enumerate(logits.split(sizes, 1))
            ),
            start=torch.zeros(()),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 25 == 0:
            print(f"{time.time() - start:5.0f} s  step {step}  loss {loss.item():.4f}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    state = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, args.out / "oracle.safetensors")
    figures = {"steps": step, "minutes": args.minutes, "pictures": len(x_all), "loss": loss.item()}
    (args.out / "training.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
