from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_mbldm.codecs import DecoderCodec, PatchCodec
from lit_mbldm.data.loading.encoding import ReferenceSet
from lit_mbldm.denoisers import RefinerUNet
from lit_mbldm.metrics.fidelity import FeatureSet
from lit_mbldm.training.callbacks.reference_features import Reference, measure_reference
from lit_mbldm.zoo import load_pretrained

CPU = torch.device("cpu")


class Blocks(nn.Module):
    num_features = 12

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float() * self.gain, 2).flatten(1)


class Batches(list[dict[str, Tensor]]):
    """Batches that count how often they are read."""

    passes = 0

    def __init__(self, key: str, values: Tensor) -> None:
        super().__init__({key: part} for part in values.split(3))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        self.passes += 1
        return super().__iter__()


@pytest.fixture(scope="module")
def codec() -> PatchCodec:
    return load_pretrained("opq-32-8-8")


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, (10, 3, 16, 16)).byte()


def same(a: FeatureSet | None, b: FeatureSet | None) -> bool:
    assert a is not None and b is not None  # noqa: PT018
    close = torch.allclose(a.total, b.total) and torch.allclose(a.outer, b.outer)
    return close and torch.equal(a.kept, b.kept) and a.count == b.count


@pytest.fixture
def measure(codec: PatchCodec, tmp_path: Path) -> Callable[..., Reference]:
    """Measures with the options' codec, features and folder."""

    def run(data: ReferenceSet, **options: Any) -> Reference:
        given = {"codec": codec, "features": Blocks(), "cache": tmp_path, "device": CPU, **options}
        found = measure_reference(data, **given)
        assert found is not None
        return found

    return run


def of_images(images: Tensor, count: int = 10) -> ReferenceSet:
    batches: Any = Batches("images", images)
    return ReferenceSet("images", "first", count, 0, batches, "held-out images")


def reconstructed(codec: Any, images: Tensor) -> FeatureSet:
    return FeatureSet.of(Blocks()(codec.decode(codec.encode(images))))


def test_images_and_their_reconstructions_are_measured_once(codec, images, measure) -> None:
    data = of_images(images)
    expected = replace(reconstructed(codec, images), kept=torch.zeros(0, 12))
    for _ in range(2):
        found = measure(data)
        assert same(found.real, FeatureSet.of(Blocks()(images)))
        assert same(found.reconstructed, expected)
        assert data.batches.passes == 1
    measure(replace(data, fingerprint="second"))
    assert data.batches.passes == 2
    measure(data, features=Blocks(2.0))
    assert data.batches.passes == 3


def test_another_codec_changes_the_reconstructions_alone(codec, images, tmp_path, measure) -> None:
    other = load_pretrained("opq-32-8-8")
    other.get_buffer("channels.0.codewords")[0, 0] += 1
    network = RefinerUNet(4, (1,), 1)
    nn.init.normal_(network.head.weight)
    for files, one in ((2, codec), (3, other), (4, DecoderCodec(codec, network))):
        found = measure(of_images(images), codec=one)
        assert found.reconstructed is not None
        assert torch.allclose(found.reconstructed.total, reconstructed(one, images).total)
        assert len(list(tmp_path.iterdir())) == files


@pytest.mark.parametrize("harm", ["cut", "empty"])
def test_codes_are_decoded_and_a_damaged_file_is_computed_again(
    harm: str, codec, images, tmp_path, measure
) -> None:
    codes = codec.encode(images)
    batches: Any = Batches("codes", codes)
    data = ReferenceSet("codes", "first", 10, 0, batches, "decoded held-out codes")
    first = measure(data)
    assert same(first.real, FeatureSet.of(Blocks()(codec.decode(codes))))
    assert first.reconstructed is None
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-9], "empty": b""}[harm])
    with pytest.warns(UserWarning, match="damaged"):
        again = measure(data)
    assert same(again.real, first.real)
    assert path.read_bytes() == whole
    assert data.batches.passes == 2


def test_what_could_not_be_read_whole_or_written_is_not_kept(images, tmp_path, measure) -> None:
    many = images.repeat(20, 1, 1, 1)
    with pytest.warns(UserWarning, match="1 of 201"):
        measure(of_images(many, 201), cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot be kept"):
        measure(of_images(many, 200), cache=tmp_path / "file")
