"""What a card says of each kind of module: codecs, diffusion models, upscalers, refiners."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from lit_mbldm.codecs import (
    BitLatent,
    CoefficientLatent,
    DecoderCodec,
    ImageCodec,
    ImplicitCodec,
    IndexLatent,
    PixelCodec,
)
from lit_mbldm.codecs.learned import LearnedCodec
from lit_mbldm.codecs.network_codec import NetworkCodec
from lit_mbldm.entries.about import About
from lit_mbldm.entries.entry import indexed_codes
from lit_mbldm.entries.entry_config import INDEX
from lit_mbldm.errors import InputError
from lit_mbldm.processes import MultiStageProcess
from lit_mbldm.processes.base import Process
from lit_mbldm.training import GenerativeDecoder
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.refiner import RefinerModule
from lit_mbldm.training.upscaler import Upscaler

_LOAD = 'load_pretrained("org/repo")'  # in the card of an entry that has no repository yet
_COPIES = re.compile("copies", re.IGNORECASE)


@dataclass(frozen=True)
class Kind:
    """What a card says of a codec, a diffusion model or a refiner."""

    title: str
    summary: str
    caption: str
    task: str
    tag: str
    use: str
    facts: dict[str, str]
    quantised: bool = True


def kind_of(module: nn.Module, about: About) -> Kind:
    """The kind of a module, with its own facts; InputError on another module."""
    match module:
        case Upscaler():
            return _upscaler(module, about)
        case DiffusionModule():
            return _diffusion(module, about)
        case RefinerModule():
            return _refiner(module)
        case ImplicitCodec(codec=PixelCodec()):
            return _pixels(module)
        case ImageCodec():
            return _codec(module)
    raise InputError(
        f"Expected a codec, a diffusion model or a refiner, got a {type(module).__name__}."
    )


def _diffusion(model: DiffusionModule, about: About) -> Kind:
    size, codec, process = model.image_size, model.codec, model.process
    S, h, w = model.codes_shape
    latent = f"{S} codes of {codec.codebook_size} codewords at {h}×{w} positions"
    if not isinstance(model.latent, IndexLatent):
        latent += f", as {model.latent_shape[0]} numbers (`{type(model.latent).__name__}`)"
    classes = {"Classes": ", ".join(model.class_names)} if model.class_names else {}
    options = _options(about)
    if model.class_names:
        options = f", label={json.dumps(model.class_names[0], ensure_ascii=False)}{options}"
    learned = _learned(model)
    copies = [
        f"{f.metric}: {f.value:g} ({f.data})" for f in about.figures if _COPIES.match(f.metric)
    ]
    title = f"{size}×{size} images by diffusion on {codec.quantizer} {learned}"
    summary = f"A diffusion model learned the {learned} of a codec, which decodes its samples."
    caption = "Samples, not chosen; below them photographs, and the same after the codec alone"
    if learned == "pixels":
        caption = "Samples, not chosen, and below them photographs"
        title = f"{size}×{size} images by diffusion on pixels"
        summary = "A diffusion model learned pixels as they are, without a codec."
    return Kind(
        title=title,
        summary=summary,
        caption=caption,
        task="unconditional-image-generation",
        tag="diffusion",
        use=f"model = {_LOAD}\n"
        f"images = model.sample(16, seed=0{options})  # uint8 (16, 3, {size}, {size})",
        facts={
            "Images": f"{size}×{size}",
            "Latent": latent,
            **classes,
            "Codec": _rate(codec)
            + ("; its codebooks are among the weights" if codec.state_dict() else ""),
            "Process": f"`{type(process).__name__}`, {process.num_timesteps} steps,"
            f" {process.schedule} schedule",
            **_stages(process),
            "Parameters": _parameters(model),
            "Refiner": "in `refiner/`, applied to samples" if model.refiner else "none",
            **_index(model),
            "Copy check": "; ".join(copies) or "none was made",
        },
        quantised=not isinstance(codec, PixelCodec),
    )


def _stages(process: Process) -> dict[str, str]:
    if not isinstance(process, MultiStageProcess):
        return {}
    pairs = zip(process.stages, process.boundaries, strict=True)
    return {"Stages": ", ".join(f"`{stage}` at t/T = {tau:g}" for stage, tau in pairs)}


def _index(model: DiffusionModule) -> dict[str, str]:
    codes = indexed_codes(model)
    if codes is None:
        return {}
    return {"Training images": f"the codes of {len(codes):,} are in `{INDEX}`, to find copies by"}


def _upscaler(module: Upscaler, about: About) -> Kind:
    kind = _diffusion(module, about)
    return replace(
        kind,
        title=f"Super-resolution by diffusion on {module.codec.quantizer} codes",
        summary="A diffusion model draws the latent of a larger image, of which it is told"
        f" a smaller one, up to {module.max_scale:g} times as large; a classical codec"
        " decodes it, to any size.",
        caption="Photographs, of half the side by interpolation, and drawn by the model",
        task="image-to-image",
        tag="super-resolution",
        use=f"model = {_LOAD}\nH, W = images.shape[2:]  # uint8 (B, 3, H, W)\n"
        f"images = model.upscale(images, size=(2 * H, 2 * W), seed=0{_options(about)})",
    )


def _refiner(module: RefinerModule) -> Kind:
    summary = "A network that brings images decoded from codes closer to the originals."
    if isinstance(module, GenerativeDecoder):
        summary = (
            "A network that draws the details that quantisation took, in"
            f" {module.steps} steps of diffusion, told the decoded image."
        )
    return Kind(
        title=f"Refiner of {module.codec.quantizer} images",
        summary=summary,
        caption="Photographs, decoded from their codes, and refined",
        task="image-to-image",
        tag="image-restoration",
        use=f"refiner = {_LOAD}\nimages = refiner.refine(images)  # uint8 (B, 3, H, W)",
        facts={"Codec": _rate(module.codec), "Parameters": _parameters(module)},
    )


def _pixels(codec: ImplicitCodec) -> Kind:
    return Kind(
        title="Images at any size, drawn from their pixels",
        summary="A network that draws images larger, at any size, from their pixels: it corrects"
        " what interpolation makes of them. Nothing is quantised.",
        caption="Photographs, and the same made half as large and enlarged again by interpolation,"
        " and with the network",
        task="image-to-image",
        tag="super-resolution",
        use=f"codec = {_LOAD}\ncodes = codec.encode(images)  # the images, uint8 (B, 3, H, W)\n"
        "larger = codec.decode(codes, size=(384, 512))  # any",
        facts={
            "Codes": "red, green and blue of each pixel, as they are",
            "Fingerprint": f"`{codec.fingerprint[:16]}`",
            "Parameters": _total(codec.network.state_dict().values()),
        },
        quantised=False,
    )


def _options(about: About) -> str:
    """The model's own settings of sampling as arguments."""
    return "".join(f", {name}={json.dumps(value)}" for name, value in about.sampling.items())


def _learned(model: DiffusionModule) -> str:
    """What the model's numbers are of a codec."""
    if isinstance(model.latent, CoefficientLatent):
        return "coefficients"
    if isinstance(model.latent, BitLatent):
        return "bits"
    return "pixels" if isinstance(model.codec, PixelCodec) else "codes"


def _codec(codec: ImageCodec) -> Kind:
    S, p = codec.num_codes, codec.patch_size
    kind = Kind(
        title=f"{codec.quantizer}, a codec of {p}×{p} patches",
        summary="A classical codec: vector quantisation, fitted without a network. It turns images"
        " into codes, the latent of diffusion models, and back.",
        caption="Photographs, and the same decoded from their codes",
        task="image-feature-extraction",
        tag="image-compression",
        use=f"codec = {_LOAD}\n"
        f"codes = codec.encode(images)  # uint8 (B, 3, H, W) -> (B, {S}, H/{p}, W/{p})\n"
        "images = codec.decode(codes)",
        facts={"Rate": _rate(codec), "Codes": f"{S} a patch, {codec.codebook_size} codewords each"},
    )
    if isinstance(codec, NetworkCodec | LearnedCodec):  # frozen networks, without parameters
        kind.facts["Parameters"] = _total(codec.network.state_dict().values())
    match codec:
        case DecoderCodec():
            return replace(
                kind,
                summary=f"{kind.summary} A small network improves the images that it decodes; the"
                " codes stay those of the codec alone, so that code shards serve both.",
                caption="Photographs, the same decoded plainly, and decoded with the network",
                use=f"{kind.use}\nplain = codec.decode(codes, plain=True)  # without the network",
            )
        case ImplicitCodec():
            return replace(
                kind,
                summary=f"A codec around {codec.codec.quantizer} with an implicit decoder, which"
                " draws one set of codes at any size. The codes stay those of the codec, so that"
                " code shards serve both.",
                caption="Photographs, their half-size codes decoded at twice the size by"
                " interpolation, and with the network",
                use=f"{kind.use}\nlarger = codec.decode(codes, size=(384, 512))  # any",
            )
        case LearnedCodec():
            return replace(
                kind,
                summary="A learned codec: a convolutional autoencoder whose numbers, or bits, are"
                " the codes. It turns images into codes, the latent of diffusion models, and back.",
            )
    return kind


def _rate(codec: ImageCodec) -> str:
    fingerprint = codec.fingerprint[:16]
    return f"{codec.quantizer}, {codec.bits_per_pixel:g} bits a pixel, fingerprint `{fingerprint}`"


def _parameters(module: nn.Module) -> str:
    return _total(p for p in module.parameters() if p.requires_grad)


def _total(tensors: Iterable[Tensor]) -> str:
    return f"{sum(tensor.numel() for tensor in tensors):,}"
