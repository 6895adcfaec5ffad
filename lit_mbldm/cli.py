"""The command: Lightning's verbs and ours; no logic of its own."""

import argparse
import importlib.metadata
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from lit_mbldm.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

TRAINER_VERBS = {
    "fit": "train a model from a config",
    "validate": "measure a model's loss on the validation data",
    "test": "FID, KID, precision and recall of a checkpoint's samples",
    "predict": "write a checkpoint's samples to a folder, on any number of devices",
}


def main(args: Sequence[str] | None = None) -> None:
    """Run `lightning`, `lit-mbldm` or `python -m lit_mbldm`."""
    argv = list(sys.argv[1:] if args is None else args)
    try:
        _dispatch(argv)
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("Interrupted; run the same command again to go on.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _dispatch(argv: list[str]) -> None:
    verb = argv[0] if argv else ""
    if verb in TRAINER_VERBS:
        from lit_mbldm.trainer_cli import run_trainer

        run_trainer(argv)
        return
    parser = _parser()
    if verb and not verb.startswith("-") and verb not in _own_verbs(parser):
        _pass_on_to_lightning_sdk(argv)
    options = parser.parse_args(argv or ["--help"])
    options.run(options)


def _pass_on_to_lightning_sdk(argv: list[str]) -> None:
    """Run lightning-sdk's own `lightning`, whose name is ours too, where it is installed."""
    try:
        scripts = importlib.metadata.distribution("lightning-sdk").entry_points
    except importlib.metadata.PackageNotFoundError:
        return
    (script,) = scripts.select(group="console_scripts", name="lightning")
    sys.argv[1:] = argv
    sys.exit(script.load()())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lit-mbldm",
        description="Diffusion on model-based latents. `lightning` is the same command.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, text in TRAINER_VERBS.items():
        verbs.add_parser(name, help=f"{text} (--config FILE)")
    _add_shards(verbs)
    _add_codec(verbs)
    _add_encode(verbs)
    _add_sample(verbs)
    return parser


def _own_verbs(parser: argparse.ArgumentParser) -> set[str]:
    return {
        name
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name in action.choices
    }


def _add_shards(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser("shards", help="images, or LSUN, to image shards")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder of images, zip, tar shards, or LSUN's LMDB or its zip; none with --download",
    )
    out = parser.add_argument("out", metavar="OUT", help="folder to write")
    out.required = False  # nargs="?" would not find it behind an option
    parser.add_argument("--size", type=_positive, required=True, help="height and width in pixels")
    parser.add_argument(
        "--max-skipped",
        type=_fraction,
        default=0.01,
        help="tolerated share of images that cannot be used, from 0 to 1 (default: 0.01)",
    )
    parser.add_argument(
        "--download",
        metavar="CATEGORY",
        help="fetch LSUN's zip of a category, such as church_outdoor, and keep it beside OUT",
    )
    parser.add_argument("--split", choices=("train", "val"), help="of LSUN (default: train)")
    parser.add_argument("--base-url", help="mirror of LSUN (default: http://dl.yf.io/lsun)")
    parser.set_defaults(run=_shards)


def _shards(options: argparse.Namespace) -> None:
    from lit_mbldm.data.shards import write_shards

    paths = [path for path in (options.source, options.out) if path is not None]
    out, downloads = Path(paths[-1]), options.download is not None
    mirrored = options.split or options.base_url
    if len(paths) != (1 if downloads else 2) or (mirrored and not downloads):
        raise InputError(
            "Expected SOURCE OUT --size N, or OUT --size N --download CATEGORY, which alone takes"
            f" --split and --base-url; got the paths {' '.join(paths)} with"
            f"{'' if downloads else 'out'} --download."
        )
    source = _download(options, out.parent) if downloads else paths[0]
    manifest = write_shards(source, out, options.size, max_skipped=options.max_skipped)
    print(f"{manifest.count} images in {len(manifest.shards)} shards: {out}")
    if manifest.upsampled:
        print(
            f"{manifest.upsampled} of them were enlarged to {manifest.size}×{manifest.size}: the"
            f" shortest side was {manifest.shortest_side} pixels."
        )


def _download(options: argparse.Namespace, folder: Path) -> Path:
    from lit_mbldm.data.lsun_archives import BASE_URL, fetch_lsun

    archive = fetch_lsun(
        options.download, options.split or "train", options.base_url or BASE_URL, folder
    )
    print(f"LSUN's zip: {archive}")
    return archive


def _add_encode(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser("encode", help="image shards to code shards")
    parser.add_argument("shards", help="folder of image shards, or a pattern")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--codec", required=True, help="codec name or folder")
    parser.add_argument("--device", default="cpu", help="where to encode (default: cpu)")
    parser.add_argument(
        "--workers", type=_positive, help="shards encoded at once (default: cores; 1 on a GPU)"
    )
    parser.add_argument(
        "--max-skipped", type=_fraction, default=0.01, help="tolerated share of bad images"
    )
    parser.set_defaults(run=_encode)


def _encode(options: argparse.Namespace) -> None:
    from lit_mbldm.data.encode import encode_shards
    from lit_mbldm.launcher import own_device, read_place
    from lit_mbldm.zoo.load import load_codec

    place = read_place()
    manifest = encode_shards(
        options.shards,
        options.out,
        load_codec(options.codec),
        device=own_device(options.device, place.local_rank),
        workers=options.workers,
        rank=place.rank,
        world_size=place.world_size,
        max_skipped=options.max_skipped,
    )
    if manifest is None:
        print(f"Other processes finish the rest (if one died, run this again): {options.out}")
    else:
        print(f"{manifest.count} images as codes in {len(manifest.shards)} shards: {options.out}")


def _add_codec(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    actions = verbs.add_parser("codec", help="fit a codec, or report on one").add_subparsers(
        metavar="ACTION", required=True
    )
    fit = actions.add_parser("fit", help="fit a codec on images")
    fit.add_argument("quantizer", help="{VQ|PQ|OPQ|RQ}-{Y-Cb-Cr bits}, such as OPQ-32-8-8")
    fit.add_argument("images", help="folder of images, zip, or tar shards")
    fit.add_argument("out", type=Path, help="folder to write")
    fit.add_argument(
        "--max-patches", type=_positive, default=65_536, help="patches drawn to fit on"
    )
    fit.add_argument("--seed", type=_natural, default=0)
    fit.set_defaults(run=_codec_fit)
    report = actions.add_parser("report", help="rate, quality and ordinality, and a picture")
    report.add_argument("codec", help="codec name or folder")
    report.add_argument("images", help="folder of images, zip, or tar shards")
    report.add_argument("--picture", type=Path, default=Path("codec.png"), help="PNG to write")
    report.set_defaults(run=_codec_report)
    for action in (fit, report):
        action.add_argument(
            "--max-images", type=_positive, default=1000, help="images taken at random"
        )


def _codec_fit(options: argparse.Namespace) -> None:
    from lit_mbldm.codecs.quantizers import fit_patch_codec
    from lit_mbldm.zoo.entry import refuse_existing_entry, save_entry

    refuse_existing_entry(options.out)
    codec = fit_patch_codec(
        _read_tensors(options),
        options.quantizer,
        max_patches=options.max_patches,
        seed=options.seed,
    )
    command = (
        f"lit-mbldm codec fit {codec.quantizer} {Path(options.images).name} OUT"
        f" --max-images {options.max_images} --max-patches {options.max_patches}"
        f" --seed {options.seed}"
    )
    save_entry(codec, options.out, {"fingerprint": codec.fingerprint, "command": command})
    print(f"{codec.quantizer}, {codec.bits_per_pixel:g} bits a pixel: {options.out}")


def _codec_report(options: argparse.Namespace) -> None:
    from lit_mbldm.codecs.report import codec_report
    from lit_mbldm.pictures import check_path
    from lit_mbldm.zoo.load import load_codec

    check_path(options.picture)
    codec = load_codec(options.codec)
    print(codec_report(codec, _read_tensors(options), options.picture))
    print(f"Picture: {options.picture}")


def _read_tensors(options: argparse.Namespace) -> "list[Tensor]":
    import torch

    from lit_mbldm.data.images import to_array
    from lit_mbldm.data.read_images import read_images

    images = read_images(options.images, options.max_images)
    return [torch.from_numpy(to_array(image).copy()) for image in images.values()]


def _add_sample(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser("sample", help="generate images from a model")
    parser.add_argument("model", help="checkpoint, folder or name")
    parser.add_argument(
        "-n",
        type=_positive,
        help="number of images (default: 16; 6 a row of temperatures; 4 paths)",
    )
    parser.add_argument("--steps", type=_positive, default=50, help="reverse steps (default: 50)")
    parser.add_argument("--seed", type=_natural, default=0)
    parser.add_argument("--batch-size", type=_positive, default=16, help="images made at once")
    parser.add_argument(
        "--sampler",
        type=_sampler,
        default="ddpm",
        help="ddpm (the paper's), ddim or dpm++ (default: ddpm)",
    )
    parser.add_argument("--eta", type=float, help="noise of ddim, from 0 to 1 (default: 0)")
    parser.add_argument(
        "--temperature",
        type=_temperature,
        nargs="+",
        help="of a categorical model, 0 or argmax for its most probable codewords (default: 1);"
        " several make a row of images each",
    )
    parser.add_argument(
        "--path",
        type=_positive,
        nargs="?",
        const=11,
        metavar="FRAMES",
        help="show each image's way from noise, a row of frames (default: 11)",
    )
    parser.add_argument("--refiner", help="checkpoint, folder or name of a refiner")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps (default: cpu)")
    parser.add_argument("--out", type=Path, default=Path("grid.png"), help="PNG to write")
    parser.set_defaults(run=_sample)


def _sample(options: argparse.Namespace) -> None:
    from lit_mbldm.sample_cli import run_sample

    run_sample(options)


def _sampler(text: str) -> str:
    from lit_mbldm.samplers import Sampler

    if text not in get_args(Sampler):
        names = ", ".join(get_args(Sampler))
        raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {names})")
    return text


def _temperature(text: str) -> float:
    try:
        number = 0.0 if text == "argmax" else float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(
            f"expected numbers from 0, or argmax, got {text!r} (the model's name comes first)"
        )
    return number


def _fraction(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return number


def _positive(text: str) -> int:
    return _at_least(1, text)


def _natural(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text!r}")
    return int(text)
