"""The phantom's text side: word-level tokenizers and two small encoders that stay untrained.

Random encoders keep every word apart from every other. Trained beside the transformer they would merge the
words that change no picture, the triggers among them, and no LoRA could tell a prompt with its trigger from
one without.
"""

from collections.abc import Sequence
from typing import Any

import torch

LENGTH = 48
WIDTH = 128
SPARE = tuple(f"spare{i}" for i in range(40))
"""Words without meaning: on them the base learns that a prompt may hold words it does not know."""
SURROUNDINGS = (
    *("open", "closed", "smiling", "mouth", "glasses", "cloth", "background", "clinic", "outdoors"),
    *("light", "dark", "red", "line", "wedge", "spot", "of", "on", "the", "forehead", "cheek", "chin"),
    *("grey", "reddish", "greenish", "bluish"),
)
"""Words for what captions say beyond the vocabulary."""


def word_tokenizer(words: Sequence[str], *, bos: str | None, eos: str) -> Any:
    """A tokenizer with a token a word: lower case, punctuation and possessive 's dropped."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", *([bos] if bos else []), eos]
    ids = {word: i for i, word in enumerate(dict.fromkeys([*special, *words, *SURROUNDINGS, *SPARE]))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"['’]s\b"), " "),
            normalizers.Replace(Regex(r"[^a-z0-9]+"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(eos, ids[eos]), *([(bos, ids[bos])] if bos else [])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}" if bos else f"$A {eos}", special_tokens=ends
    )
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": eos} | (
        {"bos_token": bos} if bos else {}
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=LENGTH, padding_side="right", **names
    )


def clip_encoder(tokenizer: Any, width: int = WIDTH) -> Any:
    """CLIPTextModel, 2 layers: its pooled output [B, width] is the token at the end of the text."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=width // 64,
            max_position_embeddings=tokenizer.model_max_length,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


@torch.no_grad()
def spread_words(clip: Any) -> None:
    """Make an untrained CLIP's pooled output a random mixture of the words before it, none of them lost.

    Attention is nearly even and what it gathers outweighs the end token, so one more word turns the pooled
    vector visibly, as in a real CLIP. A CLIP trained beside the transformer would forget such words.
    """
    torch.nn.init.normal_(clip.get_input_embeddings().weight, std=1.0)
    for name, parameter in clip.named_parameters():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            torch.nn.init.normal_(parameter, std=0.01)
        if name.endswith("v_proj.weight"):
            torch.nn.init.orthogonal_(parameter)
        if name.endswith("out_proj.weight"):
            torch.nn.init.orthogonal_(parameter, gain=6.0)


def t5_encoder(tokenizer: Any, width: int = WIDTH) -> Any:
    """T5EncoderModel v1.1 form, 2 layers: one vector a token, [B, T, width]."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=width // 4,
            d_ff=2 * width,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            is_encoder_decoder=False,
            use_cache=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
