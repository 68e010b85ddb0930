"""What a training shows on its node while it runs: the bar, a line of text, the last preview."""

from pathlib import Path
from typing import Any


class NodeView:
    """The progress of one executing node."""

    def __init__(self, node_id: str | None) -> None:
        import comfy.utils

        self._bar = comfy.utils.ProgressBar(1)
        self._node_id = node_id
        self._done, self._total = 0, 1
        self._pressed = False

    def stop_pressed(self) -> bool:
        """Whether the user pressed the stop button."""
        import comfy.model_management

        self._pressed = self._pressed or comfy.model_management.processing_interrupted()
        return self._pressed

    def step(self, done: int, total: int, text: str) -> None:
        """Set the bar and the text."""
        self._done, self._total = done, max(1, total)
        self._draw(None)
        self._say(text)

    def picture(self, path: Path) -> None:
        """Show a preview, which the base model with the LoRA drew, in the browser that queued the graph."""
        from PIL import Image

        from ..diffusioncleft_core.imageset.decode import Rejected, read_image

        try:
            shown: Any = ("JPEG", Image.fromarray(read_image(path)), 512)
        except Rejected:
            return
        self._draw(shown)

    def _draw(self, picture: Any) -> None:
        """Move the bar. ComfyUI's bar itself raises when stop was pressed, in the middle of an event; that is
        kept for `stop_pressed`, so that the trainer is asked to stop and not cut off.
        """
        import comfy.model_management

        try:
            self._bar.update_absolute(self._done, self._total, picture)
        except comfy.model_management.InterruptProcessingException:
            self._pressed = True

    def _say(self, text: str) -> None:
        from server import PromptServer

        if self._node_id is not None and PromptServer.instance is not None:
            PromptServer.instance.send_progress_text(text, self._node_id, PromptServer.instance.client_id)
