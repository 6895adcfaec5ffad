"""The verb `upscale`: an image larger, through a codec or drawn by a model."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lit_mbldm.cli.arguments import DEVICE, Verbs, add_verb, arg, positive, scale, size
from lit_mbldm.cli.sample import seed
from lit_mbldm.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def add_upscale(verbs: Verbs) -> None:
    """`upscale`: a larger image."""
    steps = "reverse steps of the model (default: its own, or 50)"
    parser = add_verb(
        verbs,
        upscale,
        arg("image", "file of any common format", metavar="IMAGE", type=Path),
        arg("--codec", "name or folder of a codec (default: pixels+scale)"),
        arg("--model", "checkpoint, folder, name or org/repo of an Upscaler, in place of a codec"),
        arg("--steps", steps, type=positive),
        arg("--sampler", "of the model, as of `sample` (default: its own, or ddpm)"),
        arg("--seed", "of the model: whole number, or random (default: 0)", type=seed, default=0),
        DEVICE,
        arg("--out", "PNG to write", type=Path, default=Path("upscaled.png")),
    )
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--scale", type=scale, help="times height and width, such as 2.7")
    limits = "HEIGHTxWIDTH in pixels, at most 65,536 a side and 268,435,456 in all"
    wanted.add_argument("--size", type=_sides, help=limits, metavar="HxW")


def _sides(text: str) -> tuple[int, int]:
    """A size of two sides: one alone would distort most images."""
    if re.fullmatch(r"\d+[x×]\d+", text, re.ASCII) is None:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH in pixels, got {text!r:.40}")
    return size(text)


def upscale(options: argparse.Namespace) -> None:
    """Make an image larger by a codec and its decoder, or by a diffusion model."""
    from lit_mbldm.codecs.sizes import check_enlarged
    from lit_mbldm.codecs.upscale import upscale as upscale_by_codec
    from lit_mbldm.entries.load import load_codec
    from lit_mbldm.pictures import check_path, save, to_batch

    if options.model and options.codec:
        raise InputError("A model brings its codec: leave --codec or --model out.")
    if not options.model and (options.steps or options.sampler or options.seed != 0):
        raise InputError("--steps, --sampler and --seed are a model's, not a codec's: add --model.")
    check_path(options.out)
    if options.out.exists() and options.out.samefile(options.image):
        raise InputError(f"{options.out} is the image itself: name another file as --out.")
    (image,) = to_batch(options.image)
    height, width = image.shape[1:]
    wanted = options.size or (round(options.scale * height), round(options.scale * width))
    check_enlarged((height, width), wanted)
    if options.model:
        larger = _drawn(options, image, wanted)
    else:
        codec = load_codec(options.codec or "pixels+scale", options.device)
        larger = upscale_by_codec(codec, image.to(options.device), wanted, progress=True)
    save(larger, options.out)
    print(f"{height}×{width} -> {wanted[0]}×{wanted[1]}: {options.out}")


def _drawn(options: argparse.Namespace, image: "Tensor", wanted: tuple[int, int]) -> "Tensor":
    """The larger image (3, H, W) as the model draws it."""
    from lit_mbldm.training import Upscaler
    from lit_mbldm.zoo import load_pretrained

    model = load_pretrained(options.model, device=options.device)
    if not isinstance(model, Upscaler):
        raise InputError(
            f"--model takes an Upscaler, as the config small64_upscaler trains one, got a"
            f" {type(model).__name__}."
        )
    settings = {"steps": options.steps, "sampler": options.sampler, "seed": options.seed}
    return model.upscale(image[None], wanted, progress=True, **settings)[0]
