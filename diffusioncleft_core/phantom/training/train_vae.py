"""Train the phantom's 16-channel autoencoder on healthy phantoms and random shapes.

    python -m diffusioncleft.diffusioncleft_core.phantom.training.train_vae --pool POOL --out WORK/vae --minutes 20

Crops of 64 px make a step four times cheaper than whole pictures and the network is convolutional;
the last fifth of the time sees whole pictures. Before it, the latents are rescaled so that
FLUX's own shift and scale (0.1159, 0.3611) bring every channel to mean 0 and deviation 1.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from .doodles import doodle

CHANNELS = (32, 32, 64, 128)
SHIFT, SCALE = 0.1159, 0.3611
_CROP = 64


def new_vae() -> AutoencoderKL:
    """FLUX's autoencoder at a fraction of its width; 32 groups everywhere, as ComfyUI's copy expects."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=32,
        sample_size=128,
        shift_factor=SHIFT,
        scaling_factor=SCALE,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


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
            if self.rng.random() < 0.5:
                image = doodle(image, self.rng)
            weight = np.ones((size, size), np.float32)
            x1, y1, x2, y2 = self.marks[i, 14:18].round().astype(int)
            weight[y1:y2, x1:x2] = 2.5
            for ex, ey in self.marks[i, :4].reshape(2, 2).round().astype(int):
                weight[ey - 8 : ey + 9, ex - 10 : ex + 11] = 2.5
            y, x = self.rng.integers(0, size - side + 1, size=2)
            patch, part = image[y : y + side, x : x + side], weight[y : y + side, x : x + side]
            if self.rng.random() < 0.5:
                patch, part = patch[:, ::-1], part[:, ::-1]
            pictures.append(patch.copy())
            weights.append(part.copy())
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return images, torch.from_numpy(np.stack(weights))[:, None]


def loss_of(vae: AutoencoderKL, images: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Weighted L1 + squared error + gradient error, small latents; noise on the latents hardens the decoder."""
    mean = vae.encoder(images)[:, :16]
    output = vae.decoder(mean + 0.10 * mean.detach().std() * torch.randn_like(mean))
    error = output - images
    l1 = (weight * error.abs()).mean()
    l2 = (weight * error.square()).mean()
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (
        error[..., 1:, :] - error[..., :-1, :]
    ).abs().mean()
    size = 1e-4 * mean.square().mean()
    psnr = 10 * np.log10(4 / F.mse_loss(output, images).item())
    return l1 + 2 * l2 + 0.5 * edges + size, psnr


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Fold a per-channel affine map into encoder and decoder so that (z - shift) * scale is N(0, 1)-like."""
    mean = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(32)])
    centre = mean.mean((0, 2, 3))
    gain = 1 / (SCALE * mean.std((0, 2, 3)))
    out, back = vae.encoder.conv_out, vae.decoder.conv_in
    out.weight[:16] *= gain[:, None, None, None]
    out.bias[:16] = (out.bias[:16] - centre) * gain + SHIFT
    out.weight[16:] = 0
    out.bias[16:] = -20.0
    # z_old = (z - shift) / gain + centre, but for the zero padding at the border: training goes on after this
    kernel = back.weight.clone()
    back.weight.copy_(kernel / gain[None, :, None, None])
    back.bias.add_((kernel.sum((2, 3)) * (centre - SHIFT / gain)).sum(1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    vae = new_vae().to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M parameters", flush=True)
    data = Batches(args.pool, args.seed)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=args.lr, weight_decay=1e-4, betas=(0.9, 0.99))
    held, _ = Batches(args.pool, args.seed + 1).draw(256, 128)
    start, step, psnr, normalised = time.time(), 0, 0.0, False
    while (share := (time.time() - start) / (60 * args.minutes)) < 1:
        whole = share > 0.8
        if whole and not normalised:
            normalise_latents(vae, held)
            normalised = True
        images, weight = data.draw(max(2, args.batch // 4) if whole else args.batch, 128 if whole else _CROP)
        rate = args.lr * min(1, (step + 1) / 100) * max(0.02, 0.5 * (1 + np.cos(np.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, now = loss_of(vae, images.contiguous(memory_format=torch.channels_last), weight)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        psnr = 0.98 * psnr + 0.02 * now if step else now
        step += 1
        if step % 50 == 0:
            print(
                f"{time.time() - start:6.0f} s  step {step}  loss {loss.item():.4f}  PSNR {psnr:.2f} dB",
                flush=True,
            )
    vae = vae.to(memory_format=torch.contiguous_format).eval()
    vae.save_pretrained(args.out)
    with torch.no_grad():
        mean = torch.cat([vae.encode(p).latent_dist.mean for p in held.split(32)])
        back = torch.cat([vae.decode(p).sample for p in mean.split(32)])
    latents = (mean - SHIFT) * SCALE
    figures = {
        "steps": step,
        "minutes": args.minutes,
        "psnr_db": float(10 * np.log10(4 / F.mse_loss(back, held).item())),
        "latent_std": float(latents.std()),
    }
    (args.out / "training.json").write_text(json.dumps(figures, indent=2), encoding="utf-8")
    print(figures)


if __name__ == "__main__":
    main()
