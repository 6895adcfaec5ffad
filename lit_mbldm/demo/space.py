"""A folder to upload to the Hub as a space, which serves the page there."""

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from lit_mbldm.demo.page import TITLE
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.entries.load import load_pretrained, public_name
from lit_mbldm.errors import InputError
from lit_mbldm.storage.atomic import check_writable, write_whole
from lit_mbldm.training.callbacks.samples import diffusion_model

_APP = """import os

from lit_mbldm.demo.serve import serve

os.chdir(os.path.dirname(os.path.abspath(__file__)))
serve({names!r}, public=True)
"""
_README = """---
title: {title}
sdk: gradio
sdk_version: {version}
python_version: "3.11"
app_file: app.py
---
Made by `lit-mbldm demo --space`.
"""


def write_space(names: Sequence[str], folder: Path) -> None:
    """Write `app.py`, `requirements.txt`, `README.md` and the models that are on this machine.

    Models that ship or are on the Hub are named only.

    Args:
        names: of models, for `load_pretrained`.
        folder: to write, new or empty.

    Raises:
        InputError: a folder that holds something or cannot be written, or a model that does not
            load.
    """
    check_writable(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} already holds files. Name a new or an empty folder as --space.")
    listed = []
    # all, or nothing is written
    models = [diffusion_model(load_pretrained(name)) for name in names]
    for number, (name, model) in enumerate(zip(names, models, strict=True)):
        if public_name(name) is None:
            name = f"models/{number}-{Path(name).stem}"
            save_entry(model, folder / name)
        listed.append(name)
    files = {
        "requirements.txt": "lit-mbldm[demo]\n",
        "README.md": _README.format(title=TITLE, version=gr.__version__),
        "app.py": _APP.format(names=listed),
    }
    for file, text in files.items():
        write_whole(folder / file, text)
