"""What lies in the place of weights is named as what it is, wherever weights are read."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.analyzer import PHANTOM_FOLDER, find_pack
from diffusioncleft.diffusioncleft_core.flux.lora_file import read_lora
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource, phantom_source
from diffusioncleft.diffusioncleft_core.flux.transformer import check_transformer
from diffusioncleft.diffusioncleft_core.recipe.document import read_recipe
from diffusioncleft.diffusioncleft_core.weight_file import stand_in
from diffusioncleft.diffusioncleft_core.weights.networks import read_state
from diffusioncleft.trainer.checkpoint import read_checkpoint

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"
PAGE = b"\n<!DOCTYPE html><html><body>Access to model is restricted</body></html>\n" * 20
KINDS = {
    "pointer": (POINTER, "a Git LFS pointer, not the file itself"),
    "page": (PAGE, "a saved web page, not the file itself"),
    "marked page": (b"\xef\xbb\xbf<HTML>", "a saved web page, not the file itself"),
    "answer": (b'{"error": "Invalid username or password."}', "a text file that begins with"),
    "empty": (b"", "is empty"),
}


def pack(folder, data):
    shutil.copytree(PHANTOM_FOLDER, folder)
    (folder / "rec.onnx").write_bytes(data)
    return find_pack(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stand_in_is_named_by_every_reader_of_weights(tmp_path, kind):
    data, said = KINDS[kind]
    file = tmp_path / "x.safetensors"
    file.write_bytes(data)
    base = tmp_path / "base"
    shutil.copytree(phantom_source().folder, base)
    (base / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(data)
    for read in (
        lambda: read_lora(file),
        lambda: read_recipe(file),
        lambda: read_checkpoint(file),
        lambda: FluxSource.from_arguments(file),
        lambda: read_state(file, "Inception"),
        lambda: check_transformer(FluxSource.from_arguments(base)),
        lambda: pack(tmp_path / "pack", data),
    ):
        with pytest.raises(UserError, match=said):
            read()


def test_real_weights_are_no_stand_in(tmp_path):
    for path in [*PHANTOM_FOLDER.glob("*.onnx"), *phantom_source().files("vae")]:
        assert stand_in(path) is None
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {"note": json.dumps("<html>")})
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    assert stand_in(tmp_path / "x.safetensors") is None and stand_in(tmp_path / "x.pth") is None
