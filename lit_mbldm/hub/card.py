"""`README.md`: what the Hub indexes of a model, and what people want to know of it."""

import json
import re
from dataclasses import dataclass, replace

import yaml
from huggingface_hub import EvalResult, ModelCardData
from torch import nn

from lit_mbldm.codecs import DecoderCodec, ImageCodec, IndexLatent
from lit_mbldm.entries.about import About
from lit_mbldm.entries.entry_config import LIBRARY, PICTURE
from lit_mbldm.errors import InputError
from lit_mbldm.training import Refiner
from lit_mbldm.training.diffusion import DiffusionModule

_ANY_REPOSITORY = "org/repo"  # in the card of an entry that has no repository yet
_NOT_STATED = "not stated"
_DATASET = re.compile(r"[\w.-]+(/[\w.-]+)?")  # as the Hub names them


def write_card(module: nn.Module, about: About) -> str:
    """Write the card of an entry that has no repository yet.

    Args:
        module: a codec, diffusion model or refiner.
        about: what is known of it.

    Raises:
        InputError: another kind of module.
    """
    kind = _kind_of(module, about)
    facts = {"Class": f"`{type(module).__name__}`", **kind.facts}
    origin = {
        "Data": about.data or _NOT_STATED,
        "Terms of the data": about.terms or _NOT_STATED,
        "Licence of the weights": about.license or _NOT_STATED,
    }
    if about.steps:
        origin["Training steps"] = f"{about.steps:,}"
    parts = [
        f"---\n{_metadata(kind, about)}\n---",
        f"# {kind.title}",
        kind.summary,
        f"![{kind.caption}]({PICTURE})",
        f"*{kind.caption}.*",
        "## Use",
        "`pip install lit-mbldm`, then",
        f"```python\nfrom lit_mbldm.zoo import load_pretrained\n\n{kind.use}\n```",
        "## What it is",
        _list(facts),
        "Weights are safetensors. `config.json` holds the sha256 of every file: pulling compares"
        " all of them, loading those that it reads.",
        "## Where it comes from",
        _list(origin),
    ]
    if about.command:
        parts.append(f"```bash\n{about.command}\n```")
    if about.config:
        text = yaml.safe_dump(dict(about.config), sort_keys=False)
        parts.append(f"Its config, without paths and loggers:\n\n```yaml\n{text}```")
    if about.figures:
        parts += ["## Figures", _table(about)]
    return "\n\n".join(parts) + "\n"


def address_card(card: str, name: str) -> str:
    """Say by which name the model is loaded, where the card first says it."""
    return re.sub(r'load_pretrained\("[^"]*"\)', f'load_pretrained("{name}")', card, count=1)


def unstated(card: str) -> tuple[str, ...]:
    """What a card says that it does not know."""
    return tuple(re.findall(rf"^- (.+): {_NOT_STATED}$", card, re.MULTILINE))


@dataclass(frozen=True)
class _Kind:
    """What a card says of a codec, a diffusion model or a refiner."""

    title: str
    summary: str
    caption: str
    task: str
    tags: list[str]
    use: str
    facts: dict[str, str]


def _kind_of(module: nn.Module, about: About) -> _Kind:
    match module:
        case DiffusionModule():
            return _diffusion(module, about)
        case Refiner():
            return _refiner(module)
        case DecoderCodec():
            return _decoder_codec(module)
        case ImageCodec():
            return _codec(module)
    raise InputError(
        f"Expected a codec, a diffusion model or a refiner, got a {type(module).__name__}."
    )


def _diffusion(model: DiffusionModule, about: About) -> _Kind:
    size, codec = model.image_size, model.codec
    options = "".join(f", {name}={json.dumps(value)}" for name, value in about.sampling.items())
    S, h, w = model.codes_shape
    latent = f"{S} codes of {codec.codebook_size} codewords at {h}×{w} positions"
    if not isinstance(model.latent, IndexLatent):
        latent += f", as {model.latent_shape[0]} numbers (`{type(model.latent).__name__}`)"
    facts = {
        "Images": f"{size}×{size}",
        "Latent": latent,
        "Codec": f"{_of_codec(codec)}; its codebooks are among the weights",
        "Process": f"`{type(model.process).__name__}`, {model.process.num_timesteps} steps,"
        f" {model.process.schedule} schedule",
        "Parameters": _parameters(model),
        "Refiner": "in `refiner/`, applied to samples" if model.refiner else "none",
    }
    return _Kind(
        f"{size}×{size} images by diffusion on {codec.quantizer} codes",
        "A diffusion model learned the codes of a classical codec, which decodes its samples to"
        " images.",
        "Samples, not chosen",
        "unconditional-image-generation",
        ["diffusion"],
        f'model = load_pretrained("{_ANY_REPOSITORY}")\n'
        f"images = model.sample(16, seed=0{options})  # uint8 (16, 3, {size}, {size})",
        facts,
    )


def _refiner(refiner: Refiner) -> _Kind:
    codec = refiner.codec
    return _Kind(
        f"Refiner of {codec.quantizer} images",
        "A network that brings images decoded from codes closer to the originals.",
        "Photographs, decoded from their codes, and refined",
        "image-to-image",
        ["image-restoration"],
        f'refiner = load_pretrained("{_ANY_REPOSITORY}")\n'
        "images = refiner.refine(images)  # uint8 (B, 3, H, W)",
        {"Codec": _of_codec(codec), "Parameters": _parameters(refiner)},
    )


def _codec(codec: ImageCodec) -> _Kind:
    S = codec.num_codes
    return _Kind(
        f"{codec.quantizer}, a codec of {codec.patch_size}×{codec.patch_size} patches",
        "A classical codec: vector quantisation, fitted without a network. It turns images into"
        " codes, the latent of diffusion models, and back.",
        "Photographs, and the same decoded from their codes",
        "image-feature-extraction",
        ["image-compression"],
        f'codec = load_pretrained("{_ANY_REPOSITORY}")\n'
        f"codes = codec.encode(images)  # uint8 (B, 3, H, W) -> (B, {S}, H/{codec.patch_size},"
        f" W/{codec.patch_size})\n"
        "images = codec.decode(codes)",
        {"Rate": _of_codec(codec), "Codes": f"{S} a patch, {codec.codebook_size} codewords each"},
    )


def _decoder_codec(codec: DecoderCodec) -> _Kind:
    kind = _codec(codec)
    return replace(
        kind,
        summary="A classical codec, vector quantisation without a network, and a small network that"
        " improves the images it decodes. Its codes are those of the codec alone, so that"
        " code shards serve both.",
        caption="Photographs, the same decoded plainly, and decoded with the network",
        use=f"{kind.use}\nplain = codec.decode(codes, plain=True)  # without the network",
        facts={
            **kind.facts,
            "Parameters": f"{sum(t.numel() for t in codec.network.state_dict().values()):,}",
        },
    )


def _of_codec(codec: ImageCodec) -> str:
    return (
        f"{codec.quantizer}, {codec.bits_per_pixel:g} bits a pixel, fingerprint"
        f" `{codec.fingerprint[:16]}`"
    )


def _parameters(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters() if p.requires_grad):,}"


def _metadata(kind: _Kind, about: About) -> str:
    results = [
        EvalResult(
            task_type=kind.task,
            dataset_type=figure.data or _NOT_STATED,
            dataset_name=figure.data or _NOT_STATED,
            metric_type=_metric(figure.metric),
            metric_name=figure.metric,
            metric_value=figure.value,
        )
        for figure in about.figures
    ]
    return ModelCardData(
        license=about.license,
        library_name=LIBRARY,
        tags=[LIBRARY.replace("_", "-"), "vector-quantization", *kind.tags],
        pipeline_tag=kind.task,
        datasets=[about.data] if about.data and _DATASET.fullmatch(about.data) else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=kind.title if results else None,
        eval_results=results or None,
    ).to_yaml()


def _metric(name: str) -> str:
    """The metric as the Hub indexes it: `psnr` of `PSNR (dB)`."""
    return name.split()[0].lower()


def _list(facts: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {_line(fact)}" for name, fact in facts.items())


def _table(about: About) -> str:
    rows = ["| figure | | measured on | by |", "|---|---|---|---|"]
    for figure in about.figures:
        metric, data, command = (
            _line(text).replace("|", "\\|") for text in (figure.metric, figure.data, figure.command)
        )
        rows.append(f"| {metric} | {figure.value:g} | {data} | `{command}` |")
    return "\n".join(rows)


def _line(text: str) -> str:
    return " ".join(text.split())
