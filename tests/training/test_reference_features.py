from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_mbldm.codecs import DecoderCodec, PatchCodec
from lit_mbldm.data.loading.reference import ReferenceSet
from lit_mbldm.denoisers import RefinerUNet
from lit_mbldm.metrics.fidelity import FeatureSet
from lit_mbldm.training.callbacks import reference_features
from lit_mbldm.training.callbacks.reference_features import (
    Reference,
    default_cache,
    measure_reference,
)
from lit_mbldm.zoo import load_pretrained

CPU = torch.device("cpu")


class Blocks(nn.Module):
    num_features = 12

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float() * self.gain, 2).flatten(1)


class Batches:
    """Batches that count how often they are read."""

    num_workers = 0

    def __init__(self, key: str, values: Tensor) -> None:
        self.key, self.values, self.passes = key, values, 0

    def __len__(self) -> int:
        return -(-len(self.values) // 3)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        self.passes += 1
        for part in self.values.split(3):
            yield {self.key: part}


@pytest.fixture(scope="module")
def codec() -> PatchCodec:
    return load_pretrained("opq-32-8-8")


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, (10, 3, 16, 16)).byte()


def same(a: FeatureSet | None, b: FeatureSet | None) -> bool:
    assert a is not None
    assert b is not None
    return (
        torch.allclose(a.total, b.total)
        and torch.allclose(a.outer, b.outer)
        and torch.equal(a.kept, b.kept)
        and a.count == b.count
    )


def test_images_and_their_reconstructions_are_measured_once(
    codec: PatchCodec, images: Tensor, tmp_path: Path
) -> None:
    batches = Batches("images", images)
    data = ReferenceSet("images", "first", 10, 0, batches)

    def measure(data: ReferenceSet = data, features: nn.Module | None = None) -> Reference:
        found = measure_reference(data, codec, features or Blocks(), tmp_path, CPU)
        assert found is not None
        return found

    found = measure()
    assert same(found.real, FeatureSet.of(Blocks()(images)))
    reconstructed = FeatureSet.of(Blocks()(codec.decode(codec.encode(images))))
    assert same(found.reconstructed, replace(reconstructed, kept=torch.zeros(0, 12)))
    again = measure()
    assert batches.passes == 1
    assert same(again.real, found.real)
    assert same(again.reconstructed, found.reconstructed)
    measure(replace(data, fingerprint="second"))
    assert batches.passes == 2
    measure(features=Blocks(2.0))
    assert batches.passes == 3


def test_another_codec_changes_the_reconstructions_alone(
    codec: PatchCodec, images: Tensor, tmp_path: Path
) -> None:
    data = ReferenceSet("images", "first", 10, 0, Batches("images", images))
    measure_reference(data, codec, Blocks(), tmp_path, CPU)
    assert len(list(tmp_path.iterdir())) == 2
    other = load_pretrained("opq-32-8-8")
    other.get_buffer("channels.0.codewords")[0, 0] += 1
    found = measure_reference(data, other, Blocks(), tmp_path, CPU)
    assert found is not None
    assert found.reconstructed is not None
    assert len(list(tmp_path.iterdir())) == 3
    expected = FeatureSet.of(Blocks()(other.decode(other.encode(images))))
    assert torch.allclose(found.reconstructed.total, expected.total)


def test_a_learned_decoder_has_reconstructions_of_its_own(
    codec: PatchCodec, images: Tensor, tmp_path: Path
) -> None:
    data = ReferenceSet("images", "first", 10, 0, Batches("images", images))
    network = RefinerUNet(4, (1,), 1)
    nn.init.normal_(network.head.weight)
    other = DecoderCodec(codec, network)
    for one in (codec, other):
        found = measure_reference(data, one, Blocks(), tmp_path, CPU)
        assert found is not None
        assert found.reconstructed is not None
        expected = FeatureSet.of(Blocks()(one.decode(one.encode(images))))
        assert torch.allclose(found.reconstructed.total, expected.total)


def test_codes_are_decoded_and_have_no_reconstructions(
    codec: PatchCodec, images: Tensor, tmp_path: Path
) -> None:
    codes = codec.encode(images)
    data = ReferenceSet("codes", "first", 10, 0, Batches("codes", codes))
    found = measure_reference(data, codec, Blocks(), tmp_path, CPU)
    assert found is not None
    assert same(found.real, FeatureSet.of(Blocks()(codec.decode(codes))))
    assert found.reconstructed is None


@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_a_damaged_file_is_computed_again_with_a_warning(
    harm: str, codec: PatchCodec, images: Tensor, tmp_path: Path
) -> None:
    batches = Batches("codes", codec.encode(images))
    data = ReferenceSet("codes", "first", 10, 0, batches)
    first = measure_reference(data, codec, Blocks(), tmp_path, CPU)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    harmed = {"cut": whole[:-9], "flip": whole[:-9] + b"\x01" + whole[-8:], "empty": b""}
    path.write_bytes(harmed[harm])
    with pytest.warns(UserWarning, match="damaged"):
        again = measure_reference(data, codec, Blocks(), tmp_path, CPU)
    assert first is not None
    assert again is not None
    assert same(again.real, first.real)
    assert path.read_bytes() == whole
    assert batches.passes == 2


def test_what_could_not_be_read_whole_or_written_is_not_kept(
    codec: PatchCodec, images: Tensor, tmp_path: Path
) -> None:
    many = images.repeat(20, 1, 1, 1)
    data = ReferenceSet("images", "first", 201, 0, Batches("images", many))
    with pytest.warns(UserWarning, match="1 of 201"):
        measure_reference(data, codec, Blocks(), tmp_path / "cache", CPU)
    assert not (tmp_path / "cache").exists()
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot be kept"):
        measure_reference(replace(data, count=200), codec, Blocks(), tmp_path / "file", CPU)


def test_the_cache_is_where_the_desktop_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/lit_mbldm/reference")


class Killed(Batches):
    """Batches that end with the process before the third."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        yield from islice(super().__iter__(), 2)
        raise KeyboardInterrupt


def test_a_killed_computation_goes_on(
    codec: PatchCodec, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_features, "_PART_SECONDS", 0)
    data = ReferenceSet("images", "first", 10, 0, Killed("images", images))
    with pytest.raises(KeyboardInterrupt):
        measure_reference(data, codec, Blocks(), tmp_path, CPU)
    network, seen = Blocks(), []
    network.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    data = replace(data, batches=Batches("images", images))
    found = measure_reference(data, codec, network, tmp_path, CPU)
    assert sum(seen) == 2 * 4  # of the last two batches, and of their reconstructions
    assert found is not None
    assert found.reconstructed is not None
    assert same(found.real, FeatureSet.of(Blocks()(images)))
    expected = FeatureSet.of(Blocks()(codec.decode(codec.encode(images))))
    assert torch.allclose(found.reconstructed.outer, expected.outer)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}
