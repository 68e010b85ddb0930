"""Train the decoder of the phantom's 16-channel autoencoder on healthy phantoms and random shapes.

    python -m diffusioncleft.tools.train_vae \\
        --pool POOL --out WORK/vae --minutes 20

The lips count most, since the smallest things that matter lie there: their patches in the code, their pixels
in the loss, and every other crop shows them, half of the time under soft lines of any colour. Crops of 64 px
make a step four times cheaper than whole pictures and the network is convolutional; the last part of the time
sees whole pictures. The encoder is solved, not trained (`encoder`), so the transformer can be trained at the
same time.
"""

import json
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from .encoder import (
    SCALE,
    SHIFT,
    encode_patches,
    new_vae,
    patch_code,
    prepare_decoder,
    solve_encoder,
    take_decoder,
)
from .pool import training_parser
from .strokes import line

Codes = NDArray[np.float64]

_CROP = 64
_LINES = ((255, 238, 230), (200, 75, 75), (60, 20, 22), (110, 40, 45), (20, 10, 10))
"""sRGB of pale and pink skin, mucosa, its depth, and shadow."""


def doodle(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A copy of `image` [H, W, 3] uint8 with 1 to 5 random strokes and spots of any colour on it.

    Shapes that are no face keep the autoencoder general although it sees healthy phantoms only.
    """
    picture = image.copy()
    side = picture.shape[0]
    for _ in range(int(rng.integers(1, 6))):
        colour = tuple(int(c) for c in rng.integers(0, 256, size=3))
        if rng.random() < 0.4:
            colour = tuple(int(c * 0.5) for c in colour)
        centre = rng.uniform(0.1, 0.9, size=2) * side
        radius = rng.uniform(0.015, 0.09) * side
        corners = centre + radius * rng.standard_normal((int(rng.integers(2, 7)), 2))
        fixed = np.round(corners * 16).astype(np.int32)
        if rng.random() < 0.5:
            cv2.fillPoly(picture, [cv2.convexHull(fixed)], colour, cv2.LINE_AA, 4)
        else:
            cv2.polylines(picture, [fixed], False, colour, int(rng.integers(1, 4)), cv2.LINE_AA, 4)
    return picture


def lined(image: NDArray[np.uint8], lips: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A copy of `image` with 1 to 3 soft lines in and around `lips` [4] px, lighter, darker or redder."""
    picture = image.astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):
        share = line(len(image), rng.uniform(lips[[1, 0]] - 6, lips[[3, 2]] + 6), rng)[..., None]
        colour = np.array(_LINES[int(rng.integers(len(_LINES)))], np.float32) + rng.normal(0, 15, 3)
        picture += share * (colour.astype(np.float32) - picture)
    return np.asarray(np.clip(picture + 0.5, 0, 255), np.uint8)


class Batches:
    """Random crops around faces: images [B, 3, s, s] in [-1, 1] and weights [B, 1, s, s]."""

    def __init__(self, pool: Path, seed: int) -> None:
        self.images: NDArray[np.uint8] = np.load(pool / "images.npy", mmap_mode="r")
        self.marks: NDArray[np.float32] = np.load(pool / "marks.npy")
        self.rng = np.random.default_rng(seed)

    def draw(self, n: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        pictures, weights = [], []
        size = self.images.shape[1]
        for i in self.rng.integers(len(self.images), size=n):
            image = np.asarray(self.images[i])
            lips = self.marks[i, 14:18]
            if self.rng.random() < 0.35:
                image = doodle(image, self.rng)
            if self.rng.random() < 0.5:
                image = lined(image, lips, self.rng)
            weight = np.ones((size, size), np.float32)
            x1, y1, x2, y2 = lips.round().astype(int)
            weight[y1:y2, x1:x2] = 5
            for ex, ey in self.marks[i, :4].reshape(2, 2).round().astype(int):
                weight[max(ey - 8, 0) : ey + 9, max(ex - 10, 0) : ex + 11] = 2.5
            y, x = self.rng.integers(0, size - side + 1, size=2)
            if self.rng.random() < 0.5:
                middle = np.array([y1 + y2, x1 + x2]) / 2 + self.rng.normal(0, 6, 2)
                y, x = np.clip(middle - side / 2, 0, size - side).astype(int)
            patch, part = image[y : y + side, x : x + side], weight[y : y + side, x : x + side]
            if self.rng.random() < 0.5:
                patch, part = patch[:, ::-1], part[:, ::-1]
            pictures.append(patch.copy())
            weights.append(part.copy())
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return images, torch.from_numpy(np.stack(weights))[:, None]


def loss_of(
    vae: AutoencoderKL, images: torch.Tensor, weight: torch.Tensor, code: tuple[Codes, Codes]
) -> tuple[torch.Tensor, float]:
    """Weighted L1 + squared + gradient error; noise on the latents hardens the decoder for samples."""
    pixels = ((images.permute(0, 2, 3, 1) + 1) * 127.5).round().byte().numpy()
    latents = encode_patches(pixels, *code)
    latents = latents + 0.10 * torch.rand(len(latents), 1, 1, 1) * torch.randn_like(latents)
    output = vae.decoder((latents / SCALE + SHIFT).contiguous(memory_format=torch.channels_last))
    error = output - images
    l1 = (weight * error.abs()).mean()
    l2 = (weight * error.square()).mean()
    edges = (weight[..., 1:] * (error[..., 1:] - error[..., :-1]).abs()).mean()
    edges = edges + (weight[..., 1:, :] * (error[..., 1:, :] - error[..., :-1, :]).abs()).mean()
    psnr = 10 * np.log10(4 / F.mse_loss(output, images).item())
    return l1 + 2 * l2 + 0.5 * edges, psnr


def main() -> None:
    parser = training_parser(__doc__, minutes=20, batch=16, lr=1.5e-3)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="go on from this autoencoder's decoder, whatever its code")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    code = patch_code(args.pool)
    np.savez(args.out / "code.npz", mean=code[0], matrix=code[1])
    vae = new_vae()
    solve_encoder(vae, *code)
    prepare_decoder(vae)
    if args.start:
        take_decoder(vae, AutoencoderKL.from_pretrained(args.start, torch_dtype=torch.float32), *code)
    vae.save_pretrained(args.out)
    vae = vae.to(memory_format=torch.channels_last)
    trained = list(vae.decoder.parameters())
    print(f"{sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M parameters", flush=True)
    data = Batches(args.pool, args.seed)
    held, weights = Batches(args.pool, args.seed + 1).draw(128, 128)
    optimizer = torch.optim.AdamW(trained, lr=args.lr, weight_decay=1e-4, betas=(0.9, 0.99))
    start, step, psnr, saved = time.time(), 0, 0.0, time.time()
    while (share := (time.time() - start) / (60 * args.minutes)) < 1:
        whole = share > 0.85
        images, weight = data.draw(max(2, args.batch // 4) if whole else args.batch, 128 if whole else _CROP)
        rate = args.lr * min(1, (step + 1) / 100) * max(0.02, 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, now = loss_of(vae, images.contiguous(memory_format=torch.channels_last), weight, code)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        psnr = 0.98 * psnr + 0.02 * now if step else now
        step += 1
        if step % 25 == 0:
            print(
                f"{time.time() - start:6.0f} s  step {step}  loss {loss.item():.4f}  PSNR {psnr:.2f} dB",
                flush=True,
            )
        if time.time() - saved > 240:
            saved = time.time()
            vae.save_pretrained(args.out)
    vae = vae.to(memory_format=torch.contiguous_format).eval()
    vae.save_pretrained(args.out)
    with torch.no_grad():
        figures = {
            "steps": step,
            "minutes": args.minutes,
            "psnr_db": float(
                np.mean(
                    [
                        loss_of(vae, *pair, code)[1]
                        for pair in zip(held.split(32), weights.split(32), strict=True)
                    ]
                )
            ),
        }
    (args.out / "training.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(figures)


if __name__ == "__main__":
    main()
