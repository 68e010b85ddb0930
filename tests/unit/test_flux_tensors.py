"""Reading safetensors: float8 with and without scales, and the refusals by name."""

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux.tensors import check_file, open_tensors, safetensors_in

F8 = torch.float8_e4m3fn


def read(path, key="a.weight", dtype=torch.float32):
    with open_tensors([path], "the model", ["a.weight"], ["wrap.", ""]) as tensors:
        return tensors.get(key, dtype), tensors.names()


def weight() -> torch.Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(1)) * 0.02


def test_plain_float8_is_upcast(tmp_path):
    save_file({"a.weight": weight().to(F8)}, tmp_path / "m.safetensors")
    value, _ = read(tmp_path / "m.safetensors", dtype=torch.bfloat16)
    assert value.dtype == torch.bfloat16
    assert torch.equal(value.float(), weight().to(F8).float())


def test_scaled_float8_is_multiplied_by_its_scale(tmp_path):
    scale = weight().abs().max() / 448
    stored = (weight() / scale).to(F8)
    save_file(
        {
            "scaled_fp8": torch.zeros(2).to(F8),
            "a.weight": stored,
            "a.scale_weight": scale,
            "a.scale_input": torch.tensor(3.0),
            "b.weight": weight(),
        },
        tmp_path / "m.safetensors",
    )
    value, names = read(tmp_path / "m.safetensors")
    assert sorted(names) == ["a.weight", "b.weight"]
    assert torch.equal(value, stored.float() * scale)
    assert torch.allclose(value, weight(), atol=2e-3)


@pytest.mark.parametrize("rows", [False, True])
def test_comfy_quant_float8_is_multiplied_by_its_scale(tmp_path, rows):
    scale = weight().abs().amax(1) / 448 if rows else weight().abs().max() / 448
    stored = (weight() / (scale[:, None] if rows else scale)).to(F8)
    described = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
    save_file(
        {"wrap.a.weight": stored, "wrap.a.weight_scale": scale, "wrap.a.comfy_quant": described},
        tmp_path / "m.safetensors",
    )
    value, names = read(tmp_path / "m.safetensors")
    assert names == ["a.weight"]
    assert torch.allclose(value, weight(), atol=2e-3)


def blob(text: str) -> torch.Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({"a.weight.quant_state.bitsandbytes__nf4": blob("{}")}, "bitsandbytes"),
        ({"a.weight.absmax": torch.ones(4)}, "bitsandbytes"),
        ({"a.weight_scale_2": torch.ones(1)}, "nvfp4"),
        ({"a.qweight": torch.ones(4, dtype=torch.int32)}, "packed integer"),
        ({"a.wscales": torch.ones(4)}, "SVDQuant"),
        ({"a.comfy_quant": blob('{"format": "mxfp8"}')}, "mxfp8"),
        ({"a.comfy_quant": blob("nonsense")}, "unknown format"),
        ({"a.weight_scale": torch.ones(8, 3)}, "block-wise"),
        ({"b.weight": torch.ones(4, dtype=torch.int8)}, "I8"),
    ],
)
def test_other_quantisations_are_refused_by_name(tmp_path, extra, name):
    save_file({"a.weight": weight(), **extra}, tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=name):
        read(tmp_path / "m.safetensors")


def test_gguf_is_refused_by_its_ending_and_by_its_first_bytes(tmp_path):
    for name in ("flux1-schnell-Q4_0.gguf", "renamed.safetensors"):
        (tmp_path / name).write_bytes(b"GGUF" + bytes(64))
        with pytest.raises(UserError, match="GGUF"):
            check_file(tmp_path / name, "the transformer")


@pytest.mark.parametrize("length", [0x0280, 0x4B50])
def test_a_header_whose_length_begins_as_a_pickle_does_is_no_pickle(tmp_path, length):
    path = tmp_path / "model.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", length) + header.ljust(length) + bytes(4))
    assert path.read_bytes()[:2] in (b"\x80\x02", b"PK")
    check_file(path, "the transformer")
    assert load_file(path)["a"].shape == (1,)


def test_pickles_are_refused_and_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"a": Trap()}, tmp_path / "renamed.safetensors")
    for name in ("model.ckpt", "model.pt", "model.bin"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    for name in ("model.ckpt", "model.pt", "model.bin", "renamed.safetensors"):
        with pytest.raises(UserError, match="pickle"):
            check_file(tmp_path / name, "the transformer")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", struct.pack("<Q", 10**9) + b"{", struct.pack("<Q", 2) + b"[]", bytes(100)],
    ids=["empty", "short", "length", "header", "zeros"],
)
def test_damaged_files_are_named(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"m\.safetensors"):
        read(tmp_path / "m.safetensors")


def test_a_truncated_file_is_named(tmp_path):
    save_file({"a.weight": weight()}, tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(data[:-40])
    with pytest.raises(UserError, match=r"damaged.*download it again"):
        read(tmp_path / "m.safetensors")


def test_a_file_of_another_kind_is_described(tmp_path):
    save_file({"input_blocks.0.0.weight": weight()}, tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="Stable Diffusion"):
        read(tmp_path / "m.safetensors")


def test_shards_are_taken_from_the_index_and_stay_in_the_folder(tmp_path):
    index = {"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors", "c": "../../x-3.safetensors"}}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    files = safetensors_in(tmp_path, "the model")
    assert files == [tmp_path / f"x-{number}.safetensors" for number in (1, 2, 3)]


def test_a_folder_of_pickles_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="pickles"):
        safetensors_in(tmp_path, "the model")
