"""The verb `demo`: a page in the browser."""

import argparse
import importlib.util
from pathlib import Path

from lit_mbldm.cli.arguments import DEVICE, Verbs, add_verb, arg, positive
from lit_mbldm.errors import InputError


def add_demo(verbs: Verbs) -> None:
    """`demo`: a page to use models on."""
    share = "also at a public address for a week, through a tunnel of Gradio's servers"
    public = "also to other machines that reach this one, instead of to this one alone"
    space = "write a folder to upload to the Hub as a space, instead of serving"
    add_verb(
        verbs,
        demo,
        arg("models", "names, folders or checkpoints", nargs="+", metavar="MODEL"),
        arg("--port", "of the page (default: the first free one from 7860)", type=positive),
        arg("--share", share, action="store_true"),
        arg("--public", public, action="store_true"),
        arg("--space", space, type=Path, metavar="DIR"),
        DEVICE,
    )


def demo(arguments: argparse.Namespace) -> None:
    """Serve a page in the browser, to draw and edit pictures with models."""
    if importlib.util.find_spec("gradio") is None:
        raise InputError("The page needs Gradio: `pip install 'lit-mbldm[demo]'`.")
    if arguments.space:
        from lit_mbldm.demo.space import write_space

        write_space(arguments.models, arguments.space)
        print(f"{arguments.space}: try `python {arguments.space}/app.py`, then upload it")
        return
    from lit_mbldm.demo.serve import serve

    serve(arguments.models, arguments.device, arguments.port, arguments.share, arguments.public)
