"""The size of FLUX.1 schnell without its weights."""

from accelerate import init_empty_weights
from diffusers import FluxTransformer2DModel

from diffusioncleft.diffusioncleft_core.flux.components import shipped_config
from diffusioncleft.diffusioncleft_core.flux.model_size import ModelSize, model_size
from diffusioncleft.diffusioncleft_core.flux.tensors import Tensors

TRAINABLE = 85_917_696
"""Of a LoRA of rank 16 on every linear layer, counted by the trainer: experiments/full_size.json."""


class Header(Tensors):
    """Names and shapes alone, as of a bf16 file."""

    def __init__(self, shapes):
        self._shapes = shapes

    def names(self):
        return list(self._shapes)

    def shape(self, key):
        return self._shapes[key]

    def stored_dtype(self, key):
        return "BF16"


def schnell_size() -> ModelSize:
    """From its configuration, as of a diffusers folder in bf16."""
    with init_empty_weights():
        model = FluxTransformer2DModel.from_config(shipped_config("transformer"))
    return model_size(Header({key: tuple(value.shape) for key, value in model.state_dict().items()}))
