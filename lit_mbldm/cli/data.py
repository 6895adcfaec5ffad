"""The verbs that prepare data: `shards` and `encode`."""

import argparse
import shlex
from pathlib import Path

from lit_mbldm.cli.arguments import DEVICE, OUT, Verbs, add_verb, arg, fraction, positive
from lit_mbldm.cli.config_files import own_configs
from lit_mbldm.errors import InputError

_BATCH = 64  # of the configs for own images
_STEPS, _FEWEST_STEPS, _PASSES = 10_000, 1500, 200  # of them at most, and of few images
_PATCH = 4  # pixels, the smallest of the codecs that ship
_SKIPPED = "fail where more of the images than this share cannot be used"
_FETCH = "fetch LSUN's zip of a category, such as church_outdoor, to the folder of OUT"
MAX_SKIPPED = arg("--max-skipped", _SKIPPED, type=fraction, default=0.01)


def add_shards(verbs: Verbs) -> None:
    """`shards`: images to image shards."""
    parser = add_verb(
        verbs,
        shards,
        arg("source", "folder, zip or tar shards, LSUN's LMDB or its zip", metavar="SOURCE"),
        arg("--size", "height and width, a multiple of 4 pixels", type=side, required=True),
        arg("--val", "share of the images to keep apart in OUT/val", type=fraction, default=0.0),
        MAX_SKIPPED,
        arg("--download", f"{_FETCH}, leaving SOURCE out", metavar="CATEGORY"),
        arg("--no-labels", "ignore class folders and .cls members", action="store_true"),
        arg("--split", "split of LSUN (default: train)", choices=("train", "val")),
        arg("--base-url", "mirror of LSUN (default: http://dl.yf.io/lsun)"),
    )
    # nargs="?" would not find it behind an option
    parser.add_argument(OUT[0], **OUT[1]).required = False


def side(text: str) -> int:
    """A number of pixels that whole patches fill."""
    pixels = positive(text)
    if pixels % _PATCH:
        below = pixels // _PATCH * _PATCH
        fit = f"{below} or {below + _PATCH} fits" if below else f"{_PATCH} fits"
        raise argparse.ArgumentTypeError(f"expected a multiple of {_PATCH}, got {text}: {fit}")
    return pixels


def shards(options: argparse.Namespace) -> None:
    """Turn images, or LSUN, into image shards."""
    from lit_mbldm.data.prepare.write_shards import write_shards
    from lit_mbldm.data.shards.manifest import Manifest
    from lit_mbldm.data.shards.patterns import VAL
    from lit_mbldm.data.sources.lsun_archives import BASE_URL, fetch_lsun

    source, out, downloads = options.source, options.out, options.download is not None
    if (out is None) != downloads or ((options.split or options.base_url) and not downloads):
        raise InputError(
            "Expected SOURCE OUT --size N, or OUT --size N --download CATEGORY, which alone takes"
            f" --split and --base-url; got {source} {out or ''}."
        )
    if downloads:
        out, url = Path(source), options.base_url or BASE_URL
        source = fetch_lsun(options.download, options.split or "train", url, out.parent)
        print(f"LSUN's zip: {source}")
    skipped = options.max_skipped
    labels = not options.no_labels
    manifest = write_shards(
        source, out, options.size, val=options.val, max_skipped=skipped, labels=labels
    )
    print(f"{manifest.count} images in {len(manifest.shards)} shards: {out}")
    if manifest.classes is not None:
        names = ", ".join(manifest.classes[:20])
        more = ", …" if len(manifest.classes) > 20 else ""
        print(f"Labels of {len(manifest.classes)} classes: {names}{more}")
    if options.val:
        print(f"{Manifest.read(out / VAL).count} images for validation: {out / VAL}")
    if manifest.upsampled:
        print(
            f"{manifest.upsampled} of them were enlarged to {manifest.size}×{manifest.size}: the"
            f" shortest side was {manifest.shortest_side} pixels."
        )
    if options.size in own_configs():
        words = fit_words(str(out), options.size, manifest.count)
        print(f"Train on them: lightning {shlex.join(words)}")


def fit_words(shards: str, size: int, count: int) -> list[str]:
    """The command that trains on so many images of a size that has a config.

    It passes few images fewer times than the config does, as more passes make copies.
    """
    words = ["fit", "--config", own_configs()[size], "--data.train", shards]
    batch = min(count, _BATCH)
    if batch < _BATCH:
        words += ["--data.batch_size", str(batch)]
    steps = max(_FEWEST_STEPS, _PASSES * count // batch)
    return words if steps >= _STEPS else [*words, "--trainer.max_steps", str(steps)]


def add_encode(verbs: Verbs) -> None:
    """`encode`: image shards to code shards."""
    clusters = "label images without labels by N clusters of them"
    workers = "shards encoded at once (default: cores; 1 on a GPU)"
    add_verb(
        verbs,
        encode,
        arg("shards", "folder of image shards, or a pattern", metavar="SHARDS"),
        OUT,
        arg("--codec", "codec name or folder", required=True),
        DEVICE,
        arg("--workers", workers, type=positive),
        arg("--clusters", clusters, type=positive, metavar="N"),
        MAX_SKIPPED,
    )


def encode(options: argparse.Namespace) -> None:
    """Encode image shards as code shards."""
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
        clusters=options.clusters,
    )
    print(f"{manifest.count} images as codes in {len(manifest.shards)} shards: {options.out}")
