"""A FLUX.1 of random weights and some 100,000 parameters in diffusers' folder layout, built in a second."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from diffusioncleft.tools.text import clip_encoder, t5_encoder

WORDS = """
a an the of with and no only one face faces whole girl boy baby kid man woman s cleft lip unrepaired
unilateral bilateral left right complete incomplete after repair scar scars slight nose asymmetry subtle skin
light pale medium fair dark olive hair straight wavy curly short long blonde brown black red eyes green blue
hazel text watermarks masks or occlusions clp clprep
"""


def word_tokenizer(
    words: Iterable[str], length: int, *, bos: str | None, eos: str, pad: str, unk: str
) -> Any:
    """A word-level tokenizer: lower case, punctuation dropped, `bos` and `eos` around the words.

    Token ids: the special tokens first in the order pad, eos, bos, unk, then the words.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys([pad, eos, *([bos] if bos else []), unk]))
    vocabulary = {word: index for index, word in enumerate([*special, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unk))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[^a-z0-9]+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(eos, vocabulary[eos]), *([(bos, vocabulary[bos])] if bos else [])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}" if bos else f"$A {eos}", special_tokens=ends
    )
    names = {"eos_token": eos, "pad_token": pad, "unk_token": unk, **({"bos_token": bos} if bos else {})}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **names)


def small_transformer(head: int, rope: tuple[int, int, int], *, text: int, pooled: int) -> Any:
    """FLUX's transformer with 2 double and 2 single blocks of 2 heads, its weights drawn by torch's seed.

    Args:
        head: width of a head; `rope` shares it out among the three axes.
        text, pooled: widths of the text and of the pooled text.
    """
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=head,
        num_attention_heads=2,
        joint_attention_dim=text,
        pooled_projection_dim=pooled,
        guidance_embeds=False,
        axes_dims_rope=rope,
    )


def build_tiny_flux(
    folder: Path, *, words: Iterable[str] = tuple(WORDS.split()), length: int = 32, seed: int = 0
) -> Path:
    """Write a tiny FLUX.1 schnell to `folder` and return it. `FluxPipeline.from_pretrained` opens it.

    Transformer: width 64 (2 heads of 32), 2 double and 2 single blocks; VAE 16 latent channels, f8, 32
    channels; CLIP and T5 width 64, 2 layers; text length `length` tokens.
    """
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline

    vocabulary = [word for word in words if re.fullmatch(r"[a-z0-9]+", word)]
    clip_tokenizer = word_tokenizer(
        vocabulary, length, bos="<|startoftext|>", eos="<|endoftext|>", pad="<pad>", unk="<unk>"
    )
    t5_tokenizer = word_tokenizer(vocabulary, length, bos=None, eos="</s>", pad="<pad>", unk="<unk>")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip, t5 = clip_encoder(clip_tokenizer, 64), t5_encoder(t5_tokenizer, 64)
        transformer = small_transformer(32, (4, 14, 14), text=64, pooled=64)
        for name, parameter in transformer.named_parameters():
            if ".norm_" in name and parameter.ndim == 1:
                torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
        vae = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            latent_channels=16,
            block_out_channels=(32, 32, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            norm_num_groups=32,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
    FluxPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def _state(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(next(folder.glob("*.safetensors")))


def single_file_states(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The folder's components in the keys of ComfyUI's single files: transformer, vae, clip_l, t5xxl."""
    from diffusioncleft.diffusioncleft_core.flux.encoder_keys import to_single_file
    from diffusioncleft.diffusioncleft_core.flux.transformer_keys import diffusers_to_bfl

    clip = _state(folder / "text_encoder")
    return {
        "transformer": diffusers_to_bfl(_state(folder / "transformer")),
        "vae": to_single_file(_state(folder / "vae")),
        "clip_l": {"text_model." + key.removeprefix("text_model."): value for key, value in clip.items()},
        "t5xxl": _state(folder / "text_encoder_2"),
    }


def save_single(path: Path, state: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    """Write tensors as one safetensors file; tensors that share memory are copied."""
    from safetensors.torch import save_file

    save_file({key: value.clone().contiguous() for key, value in state.items()}, str(path), metadata)
    return path


def build_single_files(folder: Path, out: Path) -> dict[str, Path]:
    """ComfyUI's four single files of the model in `folder`, with its tokenizers beside them."""
    import shutil

    out.mkdir(parents=True, exist_ok=True)
    names = {
        "transformer": "flux1-schnell.safetensors",
        "vae": "ae.safetensors",
        "clip_l": "clip_l.safetensors",
        "t5xxl": "t5xxl_fp16.safetensors",
    }
    files = {
        part: save_single(out / names[part], state) for part, state in single_file_states(folder).items()
    }
    shutil.copytree(folder / "tokenizer", out / "tokenizer_clip", dirs_exist_ok=True)
    shutil.copytree(folder / "tokenizer_2", out / "tokenizer_t5", dirs_exist_ok=True)
    assert json.loads((folder / "model_index.json").read_text("utf-8"))["_class_name"] == "FluxPipeline"
    return files


def save_fp8(path: Path, transformer: Path) -> Path:
    """The transformer's file with its matrices in fp8."""
    from safetensors.torch import load_file

    state = load_file(transformer)
    narrow = {
        key: value.to(torch.float8_e4m3fn) if value.ndim == 2 else value for key, value in state.items()
    }
    return save_single(path, narrow)
