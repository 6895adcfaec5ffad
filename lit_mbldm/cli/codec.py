"""The verb `codec`: fit one, give it a learned decoder, or report on one."""

import argparse
from pathlib import Path

from lit_mbldm.cli.arguments import IMAGES, MAX_IMAGES, OUT, Verbs, add_verb, arg, natural, positive
from lit_mbldm.errors import InputError

_QUANTIZER = "JPQ-{bits a patch}, such as JPQ-48, or {VQ|PQ|OPQ|RQ}-{Y-Cb-Cr bits}"


def add_codec(verbs: Verbs) -> None:
    """`codec fit`, `codec decoder` and `codec report`."""
    codec = verbs.add_parser("codec", help="fit a codec, give it a learned decoder, report on one")
    actions = codec.add_subparsers(metavar="ACTION", required=True)
    add_verb(
        actions,
        fit,
        arg("quantizer", _QUANTIZER, metavar="QUANTIZER"),
        IMAGES,
        OUT,
        arg("--patch-size", "side of a patch in pixels", type=positive, default=8),
        MAX_IMAGES,
        arg("--max-patches", "patches taken at random", type=positive, default=65_536),
        arg("--seed", "of what is taken at random", type=natural, default=0),
    )
    refiner = arg("refiner", "checkpoint, folder or name of the codec's refiner", metavar="REFINER")
    add_verb(actions, decoder, refiner, OUT)
    name = arg("codec", "codec name or folder", metavar="CODEC")
    picture = arg("--picture", "PNG to write (default: none)", type=Path)
    add_verb(actions, report, name, IMAGES, picture, MAX_IMAGES)


def fit(options: argparse.Namespace) -> None:
    """Fit a codec on images."""
    from lit_mbldm.codecs.fitting.fit import fit_codec
    from lit_mbldm.data.sources.read_images import read_images
    from lit_mbldm.entries.about import About
    from lit_mbldm.entries.entry import check_new_entry, save_entry
    from lit_mbldm.pictures import to_tensor

    check_new_entry(options.out)
    images = [*map(to_tensor, read_images(options.images, options.max_images).values())]
    codec = fit_codec(
        images,
        options.quantizer,
        patch_size=options.patch_size,
        max_patches=options.max_patches,
        seed=options.seed,
    )
    command = (
        f"lit-mbldm codec fit {codec.quantizer} IMAGES OUT --patch-size {options.patch_size}"
        f" --max-images {options.max_images} --max-patches {options.max_patches}"
        f" --seed {options.seed}"
    )
    save_entry(codec, options.out, About(command=command))
    print(f"{codec.quantizer}, {codec.bits_per_pixel:g} bits a pixel: {options.out}")


def decoder(options: argparse.Namespace) -> None:
    """Give a codec the network of its refiner."""
    from lit_mbldm.codecs import DecoderCodec
    from lit_mbldm.entries.about import about_module
    from lit_mbldm.entries.entry import check_new_entry, save_entry
    from lit_mbldm.training.refiner import Refiner, load_refiner

    check_new_entry(options.out)
    refiner = load_refiner(options.refiner)
    if not isinstance(refiner, Refiner) or refiner.noise_range[1] > 0:
        noise = list(refiner.noise_range) if isinstance(refiner, Refiner) else "a drawing one"
        raise InputError(
            f"Expected a refiner of noise_range [0, 0], as the config jpq48_decoder trains, got"
            f" {noise}: a codec's decoder works without noise."
        )
    codec = DecoderCodec(refiner.codec, refiner.network)
    save_entry(codec, options.out, about_module(refiner))
    print(f"{codec.quantizer}, the same codes as {refiner.codec.quantizer}: {options.out}")


def report(options: argparse.Namespace) -> None:
    """Measure rate, quality and ordinality."""
    from lit_mbldm.codecs.report import codec_report
    from lit_mbldm.data.sources.read_images import read_images
    from lit_mbldm.entries.load import load_codec
    from lit_mbldm.pictures import check_path, to_tensor

    if options.picture is not None:
        check_path(options.picture)
    codec = load_codec(options.codec)
    images = map(to_tensor, read_images(options.images, options.max_images).values())
    print(codec_report(codec, images, options.picture))
    if options.picture is not None:
        print(f"Picture: {options.picture}")
