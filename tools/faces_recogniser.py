"""Train the phantom recogniser: an aligned face, 112 x 112, to a 512-D embedding of the person.

python -m diffusioncleft.tools.faces_recogniser --out DIR
"""

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from ..diffusioncleft_core.progress import progress
from .faces_pictures import Image, Library, render_library, wear
from .faces_training import Schedule, Training, export, parser_of, save, schedule_from

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)
"""Where ArcFace's alignment puts the landmarks, px of 112 (Deng et al. 2019; insightface's `arcface_dst`)."""
SIDE, MARGIN, EMBEDDING = 112, 8, 512


class Block(nn.Module):
    """A residual block of two 3 x 3 convolutions (He et al. 2016)."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.short = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.first(x)), inplace=True)
        return F.relu(self.norm2(self.second(inner)) + self.short(x), inplace=True)


class Recogniser(nn.Module):
    """images [B, 3, 112, 112] RGB, (x - 127.5) / 127.5 -> embeddings [B, 512], not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        )
        self.body = nn.Sequential(Block(16, 32, 2), Block(32, 64, 2), Block(64, 96, 2))
        self.squeeze = nn.Sequential(
            nn.Conv2d(96, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True)
        )
        self.narrow = nn.Linear(24 * 49, 192, bias=False)
        self.norm = nn.BatchNorm1d(192)
        self.embed = nn.Linear(192, EMBEDDING, bias=False)
        self.embed_norm = nn.BatchNorm1d(EMBEDDING, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.squeeze(self.body(self.stem(images))).flatten(1)
        narrow = F.relu(self.norm(self.narrow(features)), inplace=True)
        embedding: Tensor = self.embed_norm(self.embed(narrow))
        return embedding


def similarity_transform(landmarks: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float64]:
    """Least-squares similarity [2, 3] that takes landmarks [5, 2] to target [5, 2] (Umeyama 1991)."""
    source_mean, target_mean = landmarks.mean(0), target.mean(0)
    source, wanted = landmarks - source_mean, target - target_mean
    energy = float((source**2).sum())
    a = float((source * wanted).sum()) / energy
    b = float((source[:, 0] * wanted[:, 1] - source[:, 1] * wanted[:, 0]).sum()) / energy
    turn = np.array([[a, -b], [b, a]])
    return np.concatenate([turn, (target_mean - turn @ source_mean)[:, None]], 1)


def aligned(library: Library, seed: int, error: float = 0.02) -> Image:
    """The library's faces aligned with a margin: [N, 128, 128, 3] RGB, worn as generated pictures are.

    The landmarks get an error as a detector's, `error` times the inter-ocular distance (standard deviation).
    """
    rng = np.random.default_rng(seed)
    side = SIDE + 2 * MARGIN
    crops = np.empty((len(library.images), side, side, 3), np.uint8)
    for row in progress(range(len(crops)), "aligning faces", unit="face"):
        picture = wear(library.images[row], rng, 0.7)
        marks = library.landmarks[row]
        eyes = float(np.linalg.norm(marks[1] - marks[0]))
        marks = marks + rng.normal(0, error * eyes, marks.shape).astype(np.float32)
        affine = similarity_transform(marks, TEMPLATE + MARGIN)
        crops[row] = cv2.warpAffine(picture, affine, (side, side))
    return crops


def augment(crops: Tensor, generator: torch.Generator) -> Tensor:
    """[B, 3, 128, 128] float 0..255 -> [B, 3, 112, 112] normalised: small similarity, colour, blur, noise."""
    count = len(crops)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    angle, zoom = 0.03 * normal(count), SIDE / crops.shape[-1] * torch.exp(0.02 * normal(count))
    shift = 0.012 * normal(count, 2)
    rows = [
        zoom * angle.cos(),
        -zoom * angle.sin(),
        shift[:, 0],
        zoom * angle.sin(),
        zoom * angle.cos(),
        shift[:, 1],
    ]
    grid = F.affine_grid(torch.stack(rows, 1).view(count, 2, 3), [count, 3, SIDE, SIDE], align_corners=False)
    faces = F.grid_sample(crops, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    faces = (faces - 127.5) * (1 + 0.08 * normal(count, 1, 1, 1)) / 127.5 + 0.05 * normal(count, 3, 1, 1)
    if torch.rand((), generator=generator) < 0.3:
        half = count // 2
        low = F.interpolate(faces[:half], size=56, mode="bilinear", align_corners=False, antialias=True)
        blurred = F.interpolate(low, size=SIDE, mode="bilinear", align_corners=False)
        faces = torch.cat([blurred, faces[half:]])
    return (faces + 0.02 * torch.rand((), generator=generator) * normal(*faces.shape)).clamp(-1, 1)


def large_margin_cosine(
    embeddings: Tensor, centres: Tensor, people: Tensor, scale: float, margin: float
) -> Tensor:
    """CosFace (Wang et al. 2018): softmax over cosines to the people's centres, the own less `margin`."""
    cosine = F.normalize(embeddings) @ F.normalize(centres).t()
    own = F.one_hot(people, len(centres)).to(cosine.dtype)
    return F.cross_entropy(scale * (cosine - margin * own), people)


def mean_embeddings(model: Recogniser, crops: Image, numbers: NDArray[np.int64], people: int) -> Tensor:
    """The mean embedding [people, 512] of each person's aligned faces (`numbers` says whose each is)."""
    sums, edge = torch.zeros(people, EMBEDDING), MARGIN
    model.eval()
    with torch.no_grad():
        for rows in np.array_split(np.arange(len(crops)), max(1, len(crops) // 64)):
            faces = torch.from_numpy(crops[rows][:, edge:-edge, edge:-edge]).permute(0, 3, 1, 2)
            embeddings = model((faces.float() - 127.5) / 127.5)
            sums.index_add_(0, torch.from_numpy(numbers[rows]), F.normalize(embeddings))
    model.train()
    heads: torch.Tensor = F.normalize(sums) * EMBEDDING**0.5
    return heads


def train(library: Library, crops: Image, schedule: Schedule) -> tuple[Recogniser, dict[str, float]]:
    """CosFace over the library's people plus, from the same embedding, regression of the identity vector.

    The second head is dropped afterwards; it makes the embedding follow the face's measures from the start.
    The learning rate follows the schedule. Returns the averaged model and its figures.
    """
    torch.manual_seed(schedule.seed)
    generator = torch.Generator().manual_seed(schedule.seed)
    rng = np.random.default_rng(schedule.seed)
    people = len(library.identities)
    model, measures = Recogniser(), nn.Linear(EMBEDDING, library.identities.shape[1])
    centres = nn.Parameter(torch.randn(people, EMBEDDING))
    if schedule.start:
        model.load_state_dict(load_file(schedule.start))
        centres.data = mean_embeddings(model, crops, library.people, people)
    optimizer = torch.optim.AdamW(
        [
            {"params": [*model.parameters(), *measures.parameters()], "weight_decay": 5e-4},
            {"params": [centres], "weight_decay": 0.0},
        ]
    )
    identities = torch.from_numpy(np.tanh(0.8 * library.identities))
    training, order = Training(model, optimizer, schedule), np.empty(0, np.int64)
    while (done := training.done) < 1:
        warm = min(1.0, (training.step + 1) / 60)
        rate = 3e-3 * warm * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done)))
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate, 10 * rate
        if len(order) < schedule.batch:
            order = rng.permutation(len(crops))
        rows, order = order[: schedule.batch], order[schedule.batch :]
        faces = torch.from_numpy(crops[rows]).permute(0, 3, 1, 2).float()
        faces = augment(faces, generator).contiguous(memory_format=torch.channels_last)
        numbers = torch.from_numpy(library.people[rows])
        embeddings = model(faces)
        margin = 0.3 * min(1.0, 2 * done)
        parts = {
            "person": large_margin_cosine(embeddings, centres, numbers, 24.0, margin),
            "measures": (measures(embeddings) - identities[numbers]).pow(2).mean(),
        }
        training.learn(parts["person"] + 4 * parts["measures"], parts)
    averaged = training.averaged.eval()
    assert isinstance(averaged, Recogniser)
    return averaged, training.figures()


def main() -> None:
    args = parser_of(
        __doc__, "rec", people=3500, views=6, steps=4000, batch=64, seconds=720, seed=12
    ).parse_args()
    torch.set_num_threads(1)
    library = render_library(args.people, args.views, 128, args.seed)
    crops = aligned(library, args.seed + 1)
    model, figures = train(library, crops, schedule_from(args))
    args.out.mkdir(parents=True, exist_ok=True)
    # One output, a dynamic batch; no early node may be called Sub or Mul.
    axes = {"input": {0: "batch"}, "embedding": {0: "batch"}}
    export(model, args.out / "rec.onnx", torch.zeros(2, 3, SIDE, SIDE), ["embedding"], axes)
    about = {"people": args.people, "views": args.views, "seed": args.seed}
    save(model, figures | about, args.out / "rec")


if __name__ == "__main__":
    main()
