"""Entries of a few kilobytes, and what it takes to change one behind its sha256."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lit_mbldm.codecs import (
    BinaryCodec,
    BitLatent,
    CoefficientLatent,
    DecoderCodec,
    ImplicitCodec,
    PatchCodec,
    PixelCodec,
    ScalarCodec,
)
from lit_mbldm.denoisers import (
    ConvAutoencoder,
    ImplicitAutoencoder,
    ImplicitNetwork,
    MultiStageUNet,
    RefinerUNet,
    TokenTransformer,
    UNet,
)
from lit_mbldm.processes import (
    BernoulliProcess,
    Blur,
    CategoricalProcess,
    GaussianProcess,
    JointBernoulliProcess,
    MultiStageProcess,
    Pool,
    Truncate,
)
from lit_mbldm.training import (
    BernoulliDiffusion,
    CategoricalDiffusion,
    ContinuousDiffusion,
    GenerativeDecoder,
    Refiner,
    StageDiffusion,
    Upscaler,
)

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def codec(seed: int = 1) -> PatchCodec:
    """4 codewords in each of 4 codebooks, patches of 2×2 pixels, one channel rotated."""
    made = PatchCodec("OPQ-4-2-2", patch_size=2, codebook_size=4)
    generator = torch.Generator().manual_seed(seed)
    for book in made.codebooks():  # around grey
        book.copy_((30 * 64 * torch.randn(book.shape, generator=generator)).round() / 64)
    rotation = made.channels[0].rotation
    rotation.copy_(rotation.roll(1, 0))
    return made.eval()


def _finished(module: nn.Module, seed: int = 2) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                # few bits, so that no machine rounds them in another way
                numbers = torch.randint(-32, 33, parameter.shape, generator=generator)
                parameter.copy_(numbers / 64)
    return module.eval()


def continuous() -> ContinuousDiffusion:
    unet = UNet(4, 4, 4, (1,), 1)
    process = GaussianProcess(10, codebook_size=4)
    return _finished(ContinuousDiffusion(codec(), unet, process, 8))


def categorical() -> CategoricalDiffusion:
    unet = UNet(4, 24, 4, (1, 2), 1, dropout=0.1)
    process = CategoricalProcess(10, "cosine", likelihood=True, gaussian_head=True, codebook_size=4)
    return _finished(CategoricalDiffusion(codec(), unet, process, 8, betas=(0.8, 0.9)))


def refiner(codec_seed: int = 1) -> Refiner:
    network = RefinerUNet(4, (1,), 1)
    return _finished(Refiner(codec(codec_seed), network, noise_range=(0.0, 0.0)))


def generative() -> GenerativeDecoder:
    """A refiner that draws, in two steps."""
    network = UNet(None, None, 4, (1, 1, 1), 1)  # attention is over a 16th of the positions
    return _finished(GenerativeDecoder(codec(), network, steps=2))


def decoder() -> DecoderCodec:
    return DecoderCodec(codec(), _finished(RefinerUNet(4, (1,), 1))).eval()


def implicit() -> ImplicitCodec:
    network = ImplicitNetwork(None, 4, 1)
    return ImplicitCodec(codec(), _finished(network)).eval()


def binary() -> BinaryCodec:
    return BinaryCodec(_finished(ConvAutoencoder(8, 2, 4, (1,), 1))).eval()


def scalar() -> ScalarCodec:
    return ScalarCodec(_finished(ImplicitAutoencoder(1, 2, 4, (1,), 1, 8, 1))).eval()


def coefficients() -> ContinuousDiffusion:
    """A continuous model of eight coefficients."""
    unet = UNet(8, 8, 4, (1,), 1)
    process = GaussianProcess(10, codebook_size=4)
    latent = CoefficientLatent(8, quantized=True)
    made = _finished(ContinuousDiffusion(codec(), unet, process, 8, latent=latent))
    latent.fit(latent.moments(torch.arange(64, dtype=torch.uint8).view(1, 4, 4, 4) % 4))
    return made


def upscaler() -> Upscaler:
    """It draws eight coefficients of 8×8 pixels."""
    unet, latent = UNet(None, None, 4, (1,), 1), CoefficientLatent(8)
    made = _finished(Upscaler(codec(), unet, GaussianProcess(10), 8, latent=latent))
    latent.fit(latent.moments(torch.arange(64, dtype=torch.uint8).view(1, 4, 4, 4) % 4))
    return made


def bits() -> BernoulliDiffusion:
    unet, latent = UNet(None, None, 4, (1,), 1), BitLatent("gray")
    return _finished(BernoulliDiffusion(codec(), unet, BernoulliProcess(10), 8, latent=latent))


def joint_bits() -> BernoulliDiffusion:
    unet, process = UNet(None, None, 4, (1,), 1), JointBernoulliProcess(10, "cosine")
    return _finished(BernoulliDiffusion(codec(), unet, process, 8))


def tokens() -> CategoricalDiffusion:
    """A transformer of two classes, which takes channels and grid from its model."""
    network = TokenTransformer(width=8, depth=1, num_heads=2)
    process = CategoricalProcess(10, codebook_size=4)
    return _finished(CategoricalDiffusion(codec(), network, process, 8, class_names=["a", "b"]))


def stages() -> StageDiffusion:
    """A model of pixels in three stages."""
    unet = MultiStageUNet(None, None, 4, (1, 1), 1)
    process = MultiStageProcess([Blur(0.5), Pool(2)], [0.3, 0.6], 10)
    return _finished(StageDiffusion(PixelCodec(), unet, process, 8))


def staged_coefficients() -> StageDiffusion:
    """A model of eight coefficients, of which three come first."""
    unet, process = MultiStageUNet(None, None, 4, (1,), 1), MultiStageProcess([Truncate(3)], [0.5])
    latent = CoefficientLatent(8)
    made = _finished(StageDiffusion(codec(), unet, process, 8, latent=latent))
    latent.fit(latent.moments(torch.arange(64, dtype=torch.uint8).view(1, 4, 4, 4) % 4))
    return made


def refined() -> ContinuousDiffusion:
    """A continuous model that brings a refiner."""
    made = continuous()
    made.use_refiner(refiner())
    return made


CODECS = codec, decoder, implicit, binary, scalar
STAGED = stages, staged_coefficients
MODELS = continuous, coefficients, categorical, tokens, bits, joint_bits, *STAGED, refined
REFINERS = refiner, generative
MAKERS: dict[str, Callable[[], Any]] = {
    made.__name__: made for made in (*CODECS, *MODELS, upscaler, *REFINERS)
}


def read(folder: Path) -> dict[str, Any]:
    """The JSON of an entry's config."""
    return json.loads((folder / CONFIG).read_text())


def change(folder: Path, **changed: Any) -> None:
    """Set top keys of a config, and all sha256 of the entry right again."""
    values = {**read(folder), **changed}
    (folder / CONFIG).write_text(json.dumps(values))
    rehash(folder)


def rehash(folder: Path) -> None:
    """Set all sha256 of an entry right again."""
    inner = folder / "refiner"
    if inner.exists():
        rehash(inner)
    values = read(folder)
    for name in values["sha256"]:
        if (folder / name).is_file():
            values["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / CONFIG).write_text(json.dumps(values))


def names(folder: Path) -> list[str]:
    """Paths of an entry's files, in order."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    """What is in an entry's files, by path."""
    return {name: (folder / name).read_bytes() for name in names(folder)}
