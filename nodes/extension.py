"""The list of nodes that ComfyUI loads.

The headless pipeline came first; this release registers no node.
"""

from comfy_api.latest import ComfyExtension, io


class DiffusionCleftExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return []
