"""The command: Lightning's verbs and ours; no logic of its own."""

import argparse
import contextlib
import ctypes
import importlib.metadata
import io
import signal
import sys
from collections.abc import Sequence

from lit_mbldm.cli.codec import add_codec
from lit_mbldm.cli.data import add_encode, add_shards
from lit_mbldm.cli.demo import add_demo
from lit_mbldm.cli.edit import add_edit
from lit_mbldm.cli.sample import add_sample
from lit_mbldm.cli.train import add_train
from lit_mbldm.cli.trainer_help import TRAINER_VERBS, add_trainer
from lit_mbldm.cli.upscale import add_upscale
from lit_mbldm.cli.zoo import add_zoo
from lit_mbldm.errors import InputError

# of glibc's mallopt
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# these keep what is done when they are interrupted, and continue
_RESUMED = ("train", "shards", "encode", "test", "predict", "pull")


def main(args: Sequence[str] | None = None) -> None:
    """Run `lightning`, `lit-mbldm` or `python -m lit_mbldm`."""
    argv = list(sys.argv[1:] if args is None else args)
    if args is None:  # the process is the command's own
        keep_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # ? for what the locale cannot write
    try:
        try:
            dispatch(argv)
        finally:
            # end the lines of progress bars, so that a message begins its own
            for bar in [*getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())]:
                bar.close()
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        again = "; run the same command again to go on" if argv and argv[0] in _RESUMED else ""
        print(f"Interrupted{again}.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def keep_memory() -> None:
    """Let glibc keep the large blocks that a step frees for the next step.

    It would give them back to the system, and meet a page fault for each 4 KiB when it takes them
    again: about a tenth of the processor time (docs/speed.md).
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            # older versions refuse more than 32 MiB
            if mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_THRESHOLD, 1 << 25):
                mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def dispatch(argv: list[str]) -> None:
    """Run a verb with its arguments."""
    parser = argparse.ArgumentParser(
        prog="lit-mbldm",
        description="Diffusion on the codes of classical codecs. `lightning` is the same command.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    data = (add_shards, add_codec, add_encode)
    made = (add_sample, add_edit, add_upscale, add_demo)
    for add in (add_train, add_trainer, *data, *made, add_zoo):
        add(verbs)
    verb = argv[0] if argv else "--help"
    if verb in TRAINER_VERBS and not {"--help", "-h"} & {*argv}:
        from lit_mbldm.cli.trainer import run_trainer

        run_trainer(["--help" if word == "--help-all" else word for word in argv])
        return
    if not verb.startswith("-") and verb not in verbs.choices:
        _pass_on_to_lightning_sdk(argv)
    options = parser.parse_args(argv or ["--help"])
    options.dispatch = dispatch  # for the verb that runs others
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
