"""The embedded phantom model as native ComfyUI objects."""

from comfy_api.latest import io

from .common import CATEGORY, Node, node_schema
from .queued import QueuedNode


class PhantomLoader(Node):
    """MODEL, CLIP and VAE of the embedded phantom-flux."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="DiffusionCleft_PhantomLoader",
            display_name="Phantom Loader",
            category=CATEGORY,
            search_aliases=["tiny FLUX", "demo model", "model without download", "FLUX loader"],
            description=(
                "A tiny FLUX.1 schnell trained on rendered faces, in place of the loaders of the real model: "
                "every workflow of this pack runs with it, at 128 px, without a download. It has learned "
                "from no photograph."
            ),
            inputs=[],
            outputs=[
                io.Model.Output(
                    "model", display_name="MODEL", tooltip="The transformer, as UNETLoader gives it."
                ),
                io.Clip.Output(
                    "clip", display_name="CLIP", tooltip="Both text encoders, as DualCLIPLoader gives them."
                ),
                io.Vae.Output("vae", display_name="VAE", tooltip="The autoencoder, as VAELoader gives it."),
            ],
        )

    @classmethod
    def check_before_queue(cls, node: QueuedNode) -> None:
        from .phantom_objects import check_phantom

        check_phantom()

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from .phantom_objects import phantom_clip, phantom_model, phantom_vae

        return io.NodeOutput(phantom_model(), phantom_clip(), phantom_vae())
