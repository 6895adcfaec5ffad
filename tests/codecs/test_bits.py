from typing import Any

import pytest
import torch

from lit_mbldm.codecs import BitLatent, PatchCodec
from lit_mbldm.codecs.bits import from_signs, to_signs
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained

EVERY_ORDER = pytest.mark.parametrize("order", ["natural", "gray"])


@EVERY_ORDER
@pytest.mark.parametrize("codebook_size", [4, 32, 256])
def test_codes_survive_their_bits(order: Any, codebook_size: int) -> None:
    bits = codebook_size.bit_length() - 1
    latent = BitLatent(order)
    latent.use(PatchCodec(f"VQ-{bits}-{bits}-{bits}", codebook_size=codebook_size))
    numbers = torch.arange(codebook_size)
    codes = torch.stack([numbers, numbers.flip(0)]).view(1, 2, 1, -1).to(torch.uint8)
    z0 = latent.to_latent(codes)
    assert z0.dtype == torch.float32
    assert z0.shape[1] == latent.num_channels(2) == 2 * bits
    assert z0.unique().tolist() == [-1, 1]
    assert torch.equal(latent.to_codes(z0), codes)
    assert torch.equal(latent.to_codes(0.01 * z0), codes)  # of any values


def test_neighbours_in_gray_order_differ_in_one_bit() -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256)
    differing = {}
    for order in ("natural", "gray"):
        latent = BitLatent(order)
        latent.use(load_pretrained("jpq-48"))
        z0 = latent.to_latent(codes)[0, :, 0]  # (8, 256)
        differing[order] = (z0[:, 1:] != z0[:, :-1]).sum(0).unique().tolist()
    assert differing == {"natural": [1, 2, 3, 4, 5, 6, 7, 8], "gray": [1]}


def test_images_are_decoded_by_the_codec() -> None:
    codec, latent = load_pretrained("jpq-48"), BitLatent()
    latent.use(codec)
    codes = torch.randint(0, 256, (2, 6, 3, 4), dtype=torch.uint8)
    assert torch.equal(latent.decode(latent.to_latent(codes)), codec.decode(codes))


def test_numbers_are_their_bits_highest_first() -> None:
    assert to_signs(torch.tensor([4, 3]), 3).tolist() == [[1, -1, -1], [-1, 1, 1]]
    assert from_signs(torch.tensor([[0.2, -3.0, -0.1]])).tolist() == [4]


def test_another_order_and_codes_of_no_whole_bits_are_told() -> None:
    with pytest.raises(InputError, match=r"'natural', 'gray'.*'binary'"):
        BitLatent("binary")  # type: ignore[arg-type]
    codec = load_pretrained("opq-32-8-8")
    codec.codebook_size = 100
    with pytest.raises(InputError, match="power of two from 2 to 256, not 100"):
        BitLatent().use(codec)
