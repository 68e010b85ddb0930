"""FID's and LPIPS' networks against the packages they come from, on the same weights and pictures."""

import numpy as np
import pytest
import torch
from torchvision.models import alexnet
from torchvision.transforms.functional import to_tensor

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.metrics import extractors as networks
from diffusioncleft.diffusioncleft_core.metrics.lpips import halved, squared_distance
from diffusioncleft.diffusioncleft_core.weights.networks import draw_from_seed

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (96, 80, 3), dtype=np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Files in the form of the real ones, with seeded-random weights."""
    folder = tmp_path_factory.mktemp("weights")
    network = networks._inception_network()
    draw_from_seed(network, 5)
    torch.save(network.state_dict(), folder / "inception.pth")
    trunk = alexnet(weights=None)
    draw_from_seed(trunk.features, 6)
    torch.save(trunk.state_dict(), folder / "alexnet.pth")
    return folder


def test_inceptions_features_are_pytorch_fids_and_no_batch_changes_a_bit(checkpoints, pictures, monkeypatch):
    import pytorch_fid.inception as peer

    state = torch.load(checkpoints / "inception.pth", weights_only=True)
    monkeypatch.setattr(peer, "load_state_dict_from_url", lambda *_, **__: state)
    theirs = peer.InceptionV3([3]).eval()
    ours = networks.inception(checkpoints / "inception.pth", CPU)
    with torch.inference_mode():
        expected = torch.cat([theirs(to_tensor(picture)[None])[0].flatten(1) for picture in pictures[:2]])
    found = torch.cat([ours(ours.prepare(picture)[None]) for picture in pictures[:2]])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))
    together = ours(torch.stack([ours.prepare(picture) for picture in pictures[:2]]))
    assert torch.equal(found, together)
    assert found.shape == (2, networks.INCEPTION_DIMENSIONS)
    assert not ours.info.phantom


def test_lpips_is_the_packages_own_on_every_pair(checkpoints, pictures):
    ours = networks.perceptual(checkpoints / "alexnet.pth", CPU)
    features = [ours(picture) for picture in pictures]
    scaled = [2 * to_tensor(picture)[None] - 1 for picture in pictures]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        with torch.inference_mode():
            expected = float(ours.network(scaled[i], scaled[j]))
        assert squared_distance(halved(features[i]), halved(features[j])) == pytest.approx(expected, rel=1e-5)


def test_lpips_has_the_packages_heads_and_the_given_trunk(checkpoints):
    ours = networks.perceptual(checkpoints / "alexnet.pth", CPU)
    heads = torch.load(networks.lpips_heads(), map_location="cpu", weights_only=True)
    trunk = torch.load(checkpoints / "alexnet.pth", weights_only=True)
    assert torch.equal(ours.network.lin3.model[-1].weight, heads["lin3.model.1.weight"])
    assert torch.equal(ours.network.net.slice5[0].weight, trunk["features.10.weight"])
    assert min(float(head.min()) for head in heads.values()) >= 0


def test_without_weights_the_networks_are_seeded_and_say_so(pictures):
    first, again = networks.perceptual(None, CPU), networks.perceptual(None, CPU)
    assert first.info == again.info
    assert first.info.phantom
    assert "seeded-random" in first.info.name
    assert torch.equal(first(pictures[0]), again(pictures[0]))
    assert networks.perceptual(None, CPU, seed=1).info.sha256 != first.info.sha256


def test_the_wrong_file_is_refused_in_one_sentence(checkpoints, tmp_path):
    with pytest.raises(UserError, match="its layers differ"):
        networks.inception(checkpoints / "alexnet.pth", CPU)
    with pytest.raises(UserError, match="is not torchvision's AlexNet"):
        networks.perceptual(checkpoints / "inception.pth", CPU)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(UserError, match="weights verify"):
        networks.perceptual(broken, CPU)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Code:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"weights": Code()}, tmp_path / "code.pth")
    with pytest.raises(UserError, match="can't be read"):
        networks.inception(tmp_path / "code.pth", CPU)
