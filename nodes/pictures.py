"""Between ComfyUI's IMAGE (float, [B, H, W, C] in 0..1) and the core's pictures (uint8, [H, W, 3])."""

from collections.abc import Sequence
from typing import Any

from ..diffusioncleft_core.errors import UserError


def pixels_of(images: Any) -> list[Any]:
    """Pictures [H, W, 3] uint8 RGB from a batch [B, H, W, C], or from a list of batches of any sizes.

    Grey becomes RGB; of RGBA the transparent part becomes white. UserError when there is no picture, or a
    tensor is no picture.
    """
    batches = images if isinstance(images, (list, tuple)) else [images]
    found = [_pixels(picture) for batch in batches if batch is not None for picture in _batch(batch)]
    if not found:
        raise UserError("there is no picture to work on; connect a node that gives at least one")
    return found


def tensor_of(pixels: Any) -> Any:
    """One picture [H, W, 3] uint8 as an IMAGE [1, H, W, 3]."""
    import numpy as np
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels).astype(np.float32) / 255.0)[None]


def tensors_of(pictures: Sequence[Any]) -> list[Any]:
    """A list of IMAGEs of one picture each, which may differ in size."""
    return [tensor_of(pixels) for pixels in pictures]


def batch_of(pictures: Sequence[Any]) -> Any:
    """One IMAGE of all pictures, padded in white to the largest; a white 1 × 1 picture when there is none."""
    import numpy as np
    import torch

    if not pictures:
        return torch.ones(1, 1, 1, 3)
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    canvas = np.full((len(pictures), height, width, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        canvas[place, : picture.shape[0], : picture.shape[1]] = picture
    return torch.from_numpy(canvas.astype(np.float32) / 255.0)


def preview(images: Any) -> dict[str, Any]:
    """Show pictures on the node. `cls=None`: nothing of the graph is written into the temporary PNG."""
    from comfy_api.latest import ui

    return dict(ui.PreviewImage(images, cls=None).as_dict())


def preview_synthetic(pictures: Sequence[Any], description: str) -> dict[str, Any]:
    """Show generated pictures [H, W, 3] uint8 on the node; their temporary PNGs are marked as synthetic."""
    import secrets
    from pathlib import Path

    import folder_paths

    from ..diffusioncleft_core.files import write_bytes
    from ..diffusioncleft_core.imageset.synthetic import marked_png

    shown = []
    for pixels in pictures:
        name = f"diffusioncleft_{secrets.token_hex(8)}.png"
        write_bytes(Path(folder_paths.get_temp_directory()) / name, marked_png(pixels, description))
        shown.append({"filename": name, "subfolder": "", "type": "temp"})
    return {"images": shown}


def preview_each(pictures: Sequence[Any]) -> dict[str, Any]:
    """Show pictures [H, W, 3] uint8 of any sizes on the node, each in its own size."""
    return {"images": [shown for pixels in pictures for shown in preview(tensor_of(pixels))["images"]]}


def _batch(batch: Any) -> Any:
    if batch.ndim == 3:
        batch = batch[None]
    if batch.ndim != 4 or batch.shape[-1] not in (1, 3, 4) or 0 in batch.shape[1:]:
        raise UserError(f"a picture has the shape {tuple(batch.shape)}; an IMAGE [B, H, W, 3] is needed")
    return batch


def _pixels(picture: Any) -> Any:
    import torch

    picture = picture.detach().to("cpu", torch.float32)
    if picture.shape[-1] == 4:
        alpha = picture[..., 3:].clamp(0, 1)
        picture = picture[..., :3] * alpha + (1 - alpha)
    if picture.shape[-1] == 1:
        picture = picture.expand(-1, -1, 3)
    if not bool(torch.isfinite(picture).all()):
        raise UserError("a picture holds not-a-number pixels; check the model and the sampler before it")
    return (picture.clamp(0, 1) * 255.0).round().to(torch.uint8).numpy()
