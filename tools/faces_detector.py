"""Train the phantom detector: a small network with SCRFD's nine outputs.

python -m diffusioncleft.tools.faces_detector --out DIR
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from .faces_pictures import Library, render_library
from .faces_scenes import Scene, compose
from .faces_training import Schedule, Training, export, parser_of, save, schedule_from

STRIDES = (8, 16, 32)
ANCHORS = 2
FACE_SIZES = ((0.0, 44.0), (36.0, 100.0), (84.0, 1e9))
"""Longer side of the faces each stride answers for, px; neighbours overlap."""
MEAN, SPREAD = 127.5, 128.0


def _conv(into: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


class Detector(nn.Module):
    """Backbone, feature pyramid and one head a stride.

    forward: images [B, 3, H, W], RGB, (x - 127.5) / 128, H and W multiples of 32 -> for each stride s a
    tensor [B, H/s * W/s * 2, 15]: score logit, box (4) and landmarks (10) as distances in units of s.
    """

    def __init__(self, channels: tuple[int, ...] = (16, 32, 56, 80, 96), neck: int = 48) -> None:
        super().__init__()
        stem, *widths = channels
        self.stem = _conv(3, stem, 2)
        stages, width = [], stem
        for index, out in enumerate(widths):
            stages.append(
                nn.Sequential(_conv(width, out, 2), *[_conv(out, out) for _ in range(1 if index == 0 else 2)])
            )
            width = out
        self.stages = nn.ModuleList(stages)
        self.lateral = nn.ModuleList([nn.Conv2d(w, neck, 1) for w in widths[-3:]])
        self.smooth = nn.ModuleList([_conv(neck, neck) for _ in STRIDES])
        self.head = nn.ModuleList([_conv(neck, neck) for _ in STRIDES])
        self.predict = nn.ModuleList([nn.Conv2d(neck, ANCHORS * 15, 1) for _ in STRIDES])
        for layer in self.predict:
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
            layer.bias.data.view(ANCHORS, 15)[:, 0] = -3.0
            layer.bias.data.view(ANCHORS, 15)[:, 1:5] = 2.0

    def forward(self, images: Tensor) -> list[Tensor]:
        features, current = [], self.stem(images)
        for stage in self.stages:
            current = stage(current)
            features.append(current)
        pyramid = [lateral(feature) for lateral, feature in zip(self.lateral, features[-3:], strict=True)]
        for level in (1, 0):
            pyramid[level] = pyramid[level] + F.interpolate(
                pyramid[level + 1], scale_factor=2.0, mode="nearest"
            )
        answers = []
        for smooth, head, predict, feature in zip(self.smooth, self.head, self.predict, pyramid, strict=True):
            answer = predict(head(smooth(feature)))
            answers.append(answer.permute(0, 2, 3, 1).reshape(answer.shape[0], -1, 15))
        return answers


class Exported(nn.Module):
    """The nine outputs insightface reads: scores after the sigmoid, boxes, landmarks, each by stride."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        answers = [answer.reshape(-1, 15) for answer in self.detector(images)]
        scores = [answer[:, :1].sigmoid() for answer in answers]
        return (*scores, *[a[:, 1:5] for a in answers], *[a[:, 5:] for a in answers])


def anchor_points(size: int, stride: int) -> Tensor:
    """Anchor positions [N, 2] px (x, y), each repeated for the two anchors, as insightface lays them."""
    grid = torch.arange(size // stride, dtype=torch.float32) * stride
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2).repeat_interleave(ANCHORS, 0)


def loss(
    answers: list[Tensor], boxes: Tensor, landmarks: Tensor, present: Tensor, size: int
) -> dict[str, Tensor]:
    """Focal loss on scores (gamma 2, Lin et al. 2017), L1 on boxes and landmarks in shares of the face.

    boxes [B, F, 4], landmarks [B, F, 5, 2] px, present [B, F] as in Scene.
    A score's target is 1 at the up to four anchor positions around the centre of a face of the stride's size,
    undecided within a quarter of the face, 0 elsewhere; boxes and landmarks are learnt wherever it is not 0.
    """
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    longer = (boxes[..., 2:] - boxes[..., :2]).amax(-1)
    between_eyes = (landmarks[..., 1, :] - landmarks[..., 0, :]).norm(dim=-1).clamp(min=1)
    totals = {name: boxes.new_zeros(()) for name in ("score", "box", "landmark")}
    found, taught = boxes.new_zeros(()), boxes.new_zeros(())
    for stride, (low, high), answer in zip(STRIDES, FACE_SIZES, answers, strict=True):
        points = anchor_points(size, stride)
        away = (points[None, :, None] - centre[:, None]).abs().amax(-1)  # [B, N, F]
        fits = ((longer >= low) & (longer < high) & (present > 0))[:, None]
        hit = fits & (away < stride)
        near = fits & (away < stride + 0.2 * longer[:, None])
        unsure = (present < 0)[:, None] & (away < 0.6 * longer[:, None])
        target = hit.any(-1).float()
        counted = (hit.any(-1) | ~(near | unsure).any(-1)).float()
        logit = answer[..., 0]
        chance = logit.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
        focus = (target - chance).abs().pow(2) * (0.4 * target + 0.6 * (1 - target))
        totals["score"] = totals["score"] + (focus * entropy * counted).sum()
        found = found + target.sum()
        which = away.masked_fill(~near, 1e9).argmin(-1)  # [B, N]
        batch, row = torch.nonzero(near.any(-1), as_tuple=True)
        face = which[batch, row]
        weight = torch.where(hit[batch, row, face], 1.0, 0.3)
        scale = longer[batch, face]
        at, box, marks = points[row], boxes[batch, face], landmarks[batch, face]
        predicted = answer[batch, row, 1:] * stride
        wanted = torch.cat([at - box[:, :2], box[:, 2:] - at], 1)
        off = (predicted[:, :4] - wanted).abs().sum(1) / scale
        totals["box"] = totals["box"] + (weight * off).sum()
        shift = (marks - at[:, None]).flatten(1)
        off = (predicted[:, 4:] - shift).abs().sum(1) / between_eyes[batch, face]
        totals["landmark"] = totals["landmark"] + (weight * off).sum()
        taught = taught + weight.sum()
    return {
        "score": 4 * totals["score"] / found.clamp(min=1),
        "box": totals["box"] / taught.clamp(min=1),
        "landmark": totals["landmark"] / taught.clamp(min=1),
    }


class Scenes:
    """Batches of fresh scenes, the frame's size changing from batch to batch."""

    def __init__(self, library: Library, schedule: Schedule) -> None:
        self.library, self.schedule = library, schedule

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        rng = np.random.default_rng(self.schedule.seed)
        for _ in range(self.schedule.steps):
            size = int(rng.choice([128, 160, 192], p=[0.4, 0.5, 0.1]))
            scenes = [compose(self.library, size, rng) for _ in range(self.schedule.batch)]
            yield stack(scenes)


def stack(scenes: list[Scene]) -> tuple[Tensor, ...]:
    """Scenes to tensors: images [B, 3, S, S] normalised, boxes, landmarks, present."""
    images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
    parts: list[list[NDArray[np.float32]]] = [
        [scene.boxes for scene in scenes],
        [scene.landmarks for scene in scenes],
        [scene.present for scene in scenes],
    ]
    return ((images.float() - MEAN) / SPREAD, *[torch.from_numpy(np.stack(part)) for part in parts])


def train(library: Library, schedule: Schedule) -> tuple[Detector, dict[str, float]]:
    """The averaged model and its figures; the learning rate follows the schedule."""
    torch.manual_seed(schedule.seed)
    model = Detector()
    if schedule.start:
        model.load_state_dict(load_file(schedule.start))
    peak = 1.5e-3 if schedule.start else 3e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    training = Training(model, optimizer, schedule)
    for images, boxes, landmarks, present in Scenes(library, schedule):
        done = training.done
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, (training.step + 1) / 60) * (0.51 + 0.49 * math.cos(math.pi * done))
        answers = model(images.contiguous(memory_format=torch.channels_last))
        parts = loss(answers, boxes, landmarks, present, images.shape[-1])
        training.learn(parts["score"] + 2 * parts["box"] + 2 * parts["landmark"], parts)
    averaged = training.averaged.eval()
    assert isinstance(averaged, Detector)
    return averaged, training.figures()


def main() -> None:
    args = parser_of(__doc__, "det", people=2500, steps=2500, batch=24, seconds=600, seed=11).parse_args()
    torch.set_num_threads(1)
    library = render_library(args.people, 1, 160, args.seed)
    model, figures = train(library, schedule_from(args))
    args.out.mkdir(parents=True, exist_ok=True)
    # Outputs in insightface's order.
    names = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in STRIDES]
    axes = {"input": {2: "height", 3: "width"}} | {name: {0: f"rows_{name}"} for name in names}
    export(Exported(model), args.out / "det.onnx", torch.zeros(1, 3, 160, 160), names, axes)
    save(model, figures | {"people": args.people, "seed": args.seed}, args.out / "det")


if __name__ == "__main__":
    main()
