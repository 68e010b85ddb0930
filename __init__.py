"""DiffusionCleft: synthetic faces with cleft lip, for research and teaching.

This file is ComfyUI's door to the pack. It imports neither ComfyUI nor torch, so that the headless
package `diffusioncleft` and tools that only look at the folder can load it too.
"""

from typing import Any

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint() -> Any:
    """Return the pack's `ComfyExtension`; ComfyUI awaits this once, when it loads the pack."""
    from .nodes.extension import DiffusionCleftExtension

    return DiffusionCleftExtension()
