"""The verb `codec`: fit one, give it a learned decoder, or report on one."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lit_mbldm.cli.arguments import Verbs, natural, positive
from lit_mbldm.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def add_codec(verbs: Verbs) -> None:
    """`codec fit`, `codec decoder` and `codec report`."""
    codec = verbs.add_parser("codec", help="fit a codec, give it a learned decoder, report on one")
    actions = codec.add_subparsers(metavar="ACTION", required=True)
    fit = actions.add_parser("fit", help="fit a codec on images")
    fit.add_argument(
        "quantizer",
        help="JPQ-{bits a patch}, such as JPQ-48, or {VQ|PQ|OPQ|RQ}-{Y-Cb-Cr bits}",
    )
    fit.add_argument("images", help="folder of images, zip, or tar shards")
    fit.add_argument("out", type=Path, help="folder to write")
    fit.add_argument(
        "--max-patches", type=positive, default=65_536, help="patches to fit on, taken at random"
    )
    fit.add_argument("--seed", type=natural, default=0)
    fit.set_defaults(run=_codec_fit)
    decoder = actions.add_parser("decoder", help="give a codec the network of its refiner")
    decoder.add_argument("refiner", help="checkpoint, folder or name of the codec's refiner")
    decoder.add_argument("out", type=Path, help="folder to write")
    decoder.set_defaults(run=_codec_decoder)
    report = actions.add_parser("report", help="measure rate, quality and ordinality")
    report.add_argument("codec", help="codec name or folder")
    report.add_argument("images", help="folder of images, zip, or tar shards")
    report.add_argument("--picture", type=Path, help="PNG to write (default: none)")
    report.set_defaults(run=_codec_report)
    for action in (fit, report):
        action.add_argument(
            "--max-images", type=positive, default=1000, help="images taken at random"
        )


def _codec_fit(options: argparse.Namespace) -> None:
    from lit_mbldm.codecs.fitting.fit import fit_codec
    from lit_mbldm.entries.about import About
    from lit_mbldm.entries.entry import save_entry

    _check_out(options.out)
    images = _read_tensors(options)
    codec = fit_codec(images, options.quantizer, max_patches=options.max_patches, seed=options.seed)
    command = (
        f"lit-mbldm codec fit {codec.quantizer} IMAGES OUT --max-images {options.max_images}"
        f" --max-patches {options.max_patches} --seed {options.seed}"
    )
    save_entry(codec, options.out, About(command=command))
    print(f"{codec.quantizer}, {codec.bits_per_pixel:g} bits a pixel: {options.out}")


def _codec_decoder(options: argparse.Namespace) -> None:
    from lit_mbldm.codecs import DecoderCodec
    from lit_mbldm.entries.about import about_module
    from lit_mbldm.entries.entry import save_entry
    from lit_mbldm.training.refiner import load_refiner

    _check_out(options.out)
    refiner = load_refiner(options.refiner)
    if refiner.noise_range[1] > 0:
        raise InputError(
            "A decoder learns from codes without noise, but this refiner had"
            f" {tuple(refiner.noise_range)} index levels. Train one with --model.noise_range"
            " '[0, 0]', as configs/jpq48_decoder.yaml does."
        )
    codec = DecoderCodec(refiner.codec, refiner.network)
    save_entry(codec, options.out, about_module(refiner))
    print(f"{codec.quantizer}, the same codes as {refiner.codec.quantizer}: {options.out}")


def _codec_report(options: argparse.Namespace) -> None:
    from lit_mbldm.codecs.report import codec_report
    from lit_mbldm.entries.load import load_codec
    from lit_mbldm.pictures import check_path

    if options.picture is not None:
        check_path(options.picture)
    codec = load_codec(options.codec)
    print(codec_report(codec, _read_tensors(options), options.picture))
    if options.picture is not None:
        print(f"Picture: {options.picture}")


def _check_out(out: Path) -> None:
    from lit_mbldm.entries.entry import refuse_existing_entry
    from lit_mbldm.storage.atomic import check_writable

    refuse_existing_entry(out)
    check_writable(out)


def _read_tensors(options: argparse.Namespace) -> "list[Tensor]":
    import torch

    from lit_mbldm.data.sources.images import to_array
    from lit_mbldm.data.sources.read_images import read_images

    images = read_images(options.images, options.max_images)
    return [torch.from_numpy(to_array(image).copy()) for image in images.values()]
