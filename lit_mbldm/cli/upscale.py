"""The verb `upscale`: an image larger, through a codec."""

import argparse
from pathlib import Path

from lit_mbldm.cli.arguments import DEVICE, Verbs, add_verb, arg, scale, size


def add_upscale(verbs: Verbs) -> None:
    """`upscale`: a larger image."""
    parser = add_verb(
        verbs,
        upscale,
        arg("image", "file of any common format", metavar="IMAGE", type=Path),
        arg("--codec", "name or folder of a codec", default="jpq-48+decoder"),
        DEVICE,
        arg("--out", "PNG to write", type=Path, default=Path("upscaled.png")),
    )
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--scale", type=scale, help="times height and width, such as 2.7")
    wanted.add_argument("--size", type=size, help="HEIGHTxWIDTH in pixels", metavar="HxW")


def upscale(options: argparse.Namespace) -> None:
    """Make an image larger by a codec and its decoder."""
    from lit_mbldm.codecs.upscale import upscale
    from lit_mbldm.entries.load import load_codec
    from lit_mbldm.images import load_rgb
    from lit_mbldm.pictures import check_path, save, to_tensor

    check_path(options.out)
    image = to_tensor(load_rgb(options.image.read_bytes()))
    height, width = image.shape[1:]
    wanted = options.size or (round(options.scale * height), round(options.scale * width))
    codec = load_codec(options.codec).to(options.device)
    larger = upscale(codec, image.to(options.device), wanted, progress=True)
    save(larger, options.out)
    print(f"{height}×{width} -> {wanted[0]}×{wanted[1]}: {options.out}")
