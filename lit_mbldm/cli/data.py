"""The verbs that prepare data: `shards` and `encode`."""

import argparse
from pathlib import Path

from lit_mbldm.cli.arguments import Verbs, fraction, positive
from lit_mbldm.cli.config_files import own_configs
from lit_mbldm.errors import InputError

_PATCH = 8  # pixels, of every codec that `codec fit` makes


def add_shards(verbs: Verbs) -> None:
    """`shards`: images to image shards."""
    parser = verbs.add_parser("shards", help="turn images, or LSUN, into image shards")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder of images, zip, tar shards, LSUN's LMDB or its zip; leave it out with"
        " --download",
    )
    out = parser.add_argument("out", metavar="OUT", help="folder to write")
    out.required = False  # nargs="?" would not find it behind an option
    parser.add_argument(
        "--size",
        type=side,
        required=True,
        help=f"height and width in pixels, a multiple of {_PATCH}: {_which_config()}",
    )
    parser.add_argument(
        "--val",
        type=fraction,
        default=0,
        help="share of the images, chosen by their names, to keep apart in OUT/val, such as 0.05"
        " (default: 0)",
    )
    parser.add_argument(
        "--max-skipped",
        type=fraction,
        default=0.01,
        help="fail where more of the images than this share cannot be used (default: 0.01)",
    )
    parser.add_argument(
        "--download",
        metavar="CATEGORY",
        help="fetch LSUN's zip of a category, such as church_outdoor, and keep it beside OUT",
    )
    parser.add_argument("--split", choices=("train", "val"), help="split of LSUN (default: train)")
    parser.add_argument("--base-url", help="mirror of LSUN (default: http://dl.yf.io/lsun)")
    parser.set_defaults(run=_shards)


def _shards(options: argparse.Namespace) -> None:
    from lit_mbldm.data.prepare.write_shards import write_shards
    from lit_mbldm.data.shards.manifest import Manifest
    from lit_mbldm.data.shards.patterns import VAL
    from lit_mbldm.data.sources.lsun_archives import BASE_URL, fetch_lsun

    paths = [path for path in (options.source, options.out) if path is not None]
    out, downloads = Path(paths[-1]), options.download is not None
    mirrored = options.split or options.base_url
    if len(paths) != (1 if downloads else 2) or (mirrored and not downloads):
        raise InputError(
            "Expected SOURCE OUT --size N, or OUT --size N --download CATEGORY, which alone takes"
            f" --split and --base-url; got the paths {' '.join(paths)} with"
            f"{'' if downloads else 'out'} --download."
        )
    source = paths[0]
    if downloads:
        url = options.base_url or BASE_URL
        source = fetch_lsun(options.download, options.split or "train", url, out.parent)
        print(f"LSUN's zip: {source}")
    manifest = write_shards(
        source, out, options.size, val=options.val, max_skipped=options.max_skipped
    )
    print(f"{manifest.count} images in {len(manifest.shards)} shards: {out}")
    if options.val:
        print(f"{Manifest.read(out / VAL).count} images for validation: {out / VAL}")
    if manifest.upsampled:
        print(
            f"{manifest.upsampled} of them were enlarged to {manifest.size}×{manifest.size}: the"
            f" shortest side was {manifest.shortest_side} pixels."
        )


def side(text: str) -> int:
    """A number of pixels that whole patches fill."""
    pixels = positive(text)
    if pixels % _PATCH:
        down = pixels // _PATCH * _PATCH
        raise argparse.ArgumentTypeError(
            f"expected a multiple of {_PATCH}, the side of a codec's patch, got {text}."
            f" {f'{down} or ' if down else ''}{down + _PATCH} fits: {_which_config()}"
        )
    return pixels


def _which_config() -> str:
    sizes = ", ".join(f"{name} is for {size}" for size, name in own_configs().items())
    return f"{sizes}, and each config for any other size with --model.image_size"


def add_encode(verbs: Verbs) -> None:
    """`encode`: image shards to code shards."""
    parser = verbs.add_parser("encode", help="encode image shards as code shards")
    parser.add_argument("shards", help="folder of image shards, or a pattern")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--codec", required=True, help="codec name or folder")
    parser.add_argument("--device", default="cpu", help="where to encode (default: cpu)")
    parser.add_argument(
        "--workers", type=positive, help="shards encoded at once (default: cores; 1 on a GPU)"
    )
    parser.add_argument(
        "--max-skipped",
        type=fraction,
        default=0.01,
        help="fail where more of the images than this share are bad",
    )
    parser.set_defaults(run=_encode)


def _encode(options: argparse.Namespace) -> None:
    from lit_mbldm.data.prepare.encode import encode_shards
    from lit_mbldm.entries.load import load_codec
    from lit_mbldm.parallel.launcher import own_device, read_place

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
    print(f"{manifest.count} images as codes in {len(manifest.shards)} shards: {options.out}")
