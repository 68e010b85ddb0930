"""The phantom autoencoder's encoder, solved instead of trained.

The best linear code of 8 x 8 RGB patches in 16 numbers is their principal components, and FLUX's encoder
can compute just that: its strided convolutions gather each patch's pixels, its residual branches are
silent, and its last normalisation is made harmless by a constant beside every signal. Patches over eyes
and lips weigh more, since there lie the smallest things that matter.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

CHANNELS = (64, 64, 64, 128)
SHIFT, SCALE = 0.1159, 0.3611
_PATCH, _CODES = 8, 16
_ANCHOR = 64.0
"""The constant that sets the last normalisation's deviation; codes are of order 1."""


def new_vae() -> AutoencoderKL:
    """FLUX's autoencoder at a fraction of its width; 32 groups everywhere, as ComfyUI's copy expects."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=_CODES,
        norm_num_groups=32,
        sample_size=128,
        shift_factor=SHIFT,
        scaling_factor=SCALE,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def patch_code(pool: Path, n: int = 2500, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean [192], matrix [16, 192]): codes = matrix @ (patch - mean), patch as [8, 8, 3] in [-1, 1].

    Components are scaled to a deviation that falls with the fourth root of their variance and is 1 in the
    root mean square: half way between raw components and white ones, so that colours come before details.
    """
    images = np.load(pool / "images.npy", mmap_mode="r")
    marks = np.load(pool / "marks.npy")
    side = images.shape[1] // _PATCH
    chosen = np.sort(np.random.default_rng(seed).choice(len(images), min(n, len(images)), replace=False))
    patches, weights = [], []
    for i in chosen:
        pixels = images[i].astype(np.float32) / 127.5 - 1
        patches.append(pixels.reshape(side, 8, side, 8, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 192))
        weight = np.ones((side, side))
        x1, y1, x2, y2 = (int(v) for v in marks[i, 14:18] / _PATCH)
        weight[y1 : y2 + 1, x1 : x2 + 1] = 12
        for x, y in marks[i, :4].reshape(2, 2) / _PATCH:
            weight[int(y - 0.9) : int(y + 0.9) + 1, int(x - 1.1) : int(x + 1.1) + 1] = 5
        weights.append(weight.ravel())
    x, w = np.concatenate(patches).astype(np.float64), np.concatenate(weights)
    w /= w.sum()
    mean = w @ x
    values, vectors = np.linalg.eigh(((x - mean) * w[:, None]).T @ (x - mean))
    order = np.argsort(values)[::-1][:_CODES]
    basis = vectors[:, order].T
    spread = ((x - x.mean(0)) @ basis.T).std(0)
    wanted = np.sqrt(spread)
    wanted /= np.sqrt(np.mean(wanted**2))
    centre = x.mean(0)
    return centre, basis * (wanted / spread)[:, None]


def encode_patches(
    images: NDArray[np.uint8], mean: NDArray[np.float64], matrix: NDArray[np.float64]
) -> torch.Tensor:
    """What the encoder computes, without it: [B, S, S, 3] uint8 -> normalised latents [B, 16, S/8, S/8]."""
    b, size = images.shape[:2]
    side = size // _PATCH
    x = images.astype(np.float32) / 127.5 - 1
    x = x.reshape(b, side, 8, side, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(b, side, side, 192)
    codes = (x - mean.astype(np.float32)) @ matrix.T.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(codes.transpose(0, 3, 1, 2)))


@torch.no_grad()
def solve_encoder(vae: AutoencoderKL, mean: NDArray[np.float64], matrix: NDArray[np.float64]) -> None:
    """Write the patch code into `vae.encoder`; its output is then (mean, constant log variance)."""
    encoder: Any = vae.encoder
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.zero_()
            torch.nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    for block in encoder.mid_block.attentions:
        block.to_out[0].weight.zero_()
        block.to_out[0].bias.zero_()
    for colour in range(3):
        encoder.conv_in.weight[colour, colour, 1, 1] = 1
    gather = [encoder.down_blocks[i].downsamplers[0].conv for i in range(3)]
    for conv, channels in zip(gather[:2], (3, 12), strict=True):
        for channel in range(channels):
            for dy in range(2):
                for dx in range(2):
                    conv.weight[4 * channel + 2 * dy + dx, channel, dy, dx] = 1
    code = torch.from_numpy(matrix).float().reshape(_CODES, 8, 8, 3)
    for y in range(8):
        for x in range(8):
            top, middle, low = (y & 1, x & 1), (y >> 1 & 1, x >> 1 & 1), (y >> 2, x >> 2)
            for colour in range(3):
                first = 4 * colour + 2 * top[0] + top[1]
                second = 4 * first + 2 * middle[0] + middle[1]
                gather[2].weight[:_CODES, second, low[0], low[1]] = code[:, y, x, colour]
    gather[2].bias[:_CODES] = torch.from_numpy(-matrix @ mean).float()
    widen = encoder.down_blocks[3].resnets[0].conv_shortcut
    norm, out = encoder.conv_norm_out, encoder.conv_out
    norm.weight.zero_()
    norm.bias.zero_()
    for k in range(_CODES):
        widen.weight[4 * k, k, 0, 0], widen.weight[4 * k + 1, k, 0, 0] = 1, -1
        widen.bias[4 * k + 2], widen.bias[4 * k + 3] = _ANCHOR, -_ANCHOR
        norm.weight[4 * k : 4 * k + 2] = _ANCHOR / 2**0.5
        # silu(x) - silu(-x) = x
        out.weight[k, 4 * k, 1, 1], out.weight[k, 4 * k + 1, 1, 1] = 1 / SCALE, -1 / SCALE
        out.bias[k] = SHIFT
    out.bias[_CODES:] = -20.0


def code_of(vae: AutoencoderKL) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(matrix [16, 192], offset [16]) of a solved encoder: codes = matrix @ patch + offset."""
    conv: Any = vae.encoder.down_blocks[2].downsamplers[0].conv
    weight = conv.weight.detach().double().numpy()
    matrix = np.zeros((_CODES, 8, 8, 3))
    for y in range(8):
        for x in range(8):
            for colour in range(3):
                first = 4 * colour + 2 * (y & 1) + (x & 1)
                second = 4 * first + 2 * (y >> 1 & 1) + (x >> 1 & 1)
                matrix[:, y, x, colour] = weight[:_CODES, second, y >> 2, x >> 2]
    return matrix.reshape(_CODES, 192), conv.bias.detach().double().numpy()[:_CODES]


def other_code(
    old: AutoencoderKL, mean: NDArray[np.float64], matrix: NDArray[np.float64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(A [16, 16], c [16]): `A @ z + c` is `old`'s code of what the code (mean, matrix) holds as z."""
    theirs, offset = code_of(old)
    a = theirs @ np.linalg.pinv(matrix)
    return torch.from_numpy(a).float(), torch.from_numpy(theirs @ mean + offset).float()


def from_other_code(
    old: AutoencoderKL, mean: NDArray[np.float64], matrix: NDArray[np.float64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(A [16, 16], c [16]): `A @ z + c` is the code (mean, matrix) of what `old`'s code holds as z."""
    theirs, offset = code_of(old)
    back = np.linalg.pinv(theirs)
    return torch.from_numpy(matrix @ back).float(), torch.from_numpy(-matrix @ (back @ offset + mean)).float()


@torch.no_grad()
def take_decoder(
    vae: AutoencoderKL, old: AutoencoderKL, mean: NDArray[np.float64], matrix: NDArray[np.float64]
) -> None:
    """Start the decoder as `old`'s, whose code may be another: the first layer translates."""
    a, c = other_code(old, mean, matrix)
    state = old.decoder.state_dict()
    weight = state["conv_in.weight"].float()
    shifted = c / SCALE + SHIFT - a.sum(1) * SHIFT
    state["conv_in.bias"] = state["conv_in.bias"].float() + torch.einsum("ojhw,j->o", weight, shifted)
    state["conv_in.weight"] = torch.einsum("ojhw,ji->oihw", weight, a)
    vae.decoder.load_state_dict(state)


@torch.no_grad()
def prepare_decoder(vae: AutoencoderKL) -> None:
    """Start the decoder as a nearly linear map: silent residual branches, a constant in every last group.

    With two channels a group, normalisation would take away each picture's own brightness; a constant beside
    each signal keeps it.
    """
    decoder: Any = vae.decoder
    for block in [decoder.mid_block, *decoder.up_blocks]:
        for resnet in block.resnets:
            resnet.conv2.weight.mul_(0.1)
            resnet.conv2.bias.zero_()
    for attention in decoder.mid_block.attentions:
        attention.to_out[0].weight.mul_(0.1)
    anchor = 4.0
    last = decoder.up_blocks[2].upsamplers[0].conv
    last.weight[1::2] = 0
    last.bias[1::2] = anchor
    norm = decoder.conv_norm_out
    norm.weight[0::2] = anchor / 2
    norm.bias[0::2] = anchor / 2 + 1
