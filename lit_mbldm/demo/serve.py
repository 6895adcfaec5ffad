"""Serving the page: on this machine alone unless told otherwise, and without other addresses."""

from collections.abc import Sequence

import gradio as gr

from lit_mbldm.demo.page import demo_page
from lit_mbldm.entries.load import load_pretrained
from lit_mbldm.errors import InputError
from lit_mbldm.training.callbacks.samples import diffusion_model

_WAITING = 32  # in the queue at most
_LARGEST = "64mb"  # of an upload
# the browser's own fonts, instead of ones that are fetched; colours that are told apart by all
_THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
)
# labels above pictures, not on them; small pictures enlarged
_CSS = """
.pictures .grid-wrap {padding-top: 2.2rem; min-height: 0; max-height: none; overflow: visible}
.scrubbed img {width: 100%; height: 100%; object-fit: contain}
"""


def serve(
    names: Sequence[str],
    device: str = "cpu",
    port: int | None = None,
    share: bool = False,
    public: bool = False,
) -> None:
    """Serve a page of models until it is stopped.

    Args:
        names: of models, for `load_pretrained`.
        device: of the models.
        port: of the page; by default the first free one from 7860.
        share: tunnel the page through Gradio's servers to a public address for a week.
        public: listen to other machines too, not only to this one.

    Raises:
        InputError: a model that does not load, or a port in use.
    """
    models = {name: diffusion_model(load_pretrained(name, device=device)) for name in names}
    page = demo_page(models)
    print(f"The page: {start(page, port, share, public)} (Ctrl-C stops it)", flush=True)
    page.block_thread()


def start(
    page: gr.Blocks, port: int | None = None, share: bool = False, public: bool = False
) -> str:
    """Serve a page from a thread, as `serve` does, and return its address."""
    try:
        _, here, elsewhere = page.queue(max_size=_WAITING).launch(
            server_name="0.0.0.0" if public else "127.0.0.1",
            server_port=port,
            share=share,
            show_error=True,
            max_file_size=_LARGEST,
            ssr_mode=False,
            theme=_THEME,
            css=_CSS,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise InputError(
            f"Port {port or 'from 7860 on'} is in use: name another as --port."
        ) from error
    return str(elsewhere or here)
