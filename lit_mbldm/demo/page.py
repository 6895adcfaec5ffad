"""The page: for each model its controls, beside tabs of what it does."""

from collections.abc import Mapping

import gradio as gr

from lit_mbldm.demo.actions import Actions
from lit_mbldm.demo.controls import Controls
from lit_mbldm.demo.tabs import codec_tab, gallery_tab, grid_tab, inpaint_tab, path_tab, walk_tab
from lit_mbldm.demo.wiring import Wiring
from lit_mbldm.training.diffusion import DiffusionModule

TITLE = "Pictures by diffusion on model-based latents"
_KEPT = (600, 3600)  # seconds: how often old files of people's pictures are looked for, and how old


def demo_page(models: Mapping[str, DiffusionModule]) -> gr.Blocks:
    """The page of models by their names, a tab each."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=_KEPT) as page:
        gr.Markdown(f"# {TITLE}")
        with gr.Tabs():
            for name, model in models.items():
                with gr.Tab(name):
                    _part(Actions(model))
    return page


def _part(actions: Actions) -> None:
    """One model's part of the page."""
    chosen = gr.State()
    with gr.Row():
        with gr.Column(scale=1, min_width=240):
            wire = Wiring(Controls(actions))
        with gr.Column(scale=3, min_width=320), gr.Tabs():
            clicks = gallery_tab(actions, wire, chosen)
            inpaint_tab(actions, wire, chosen, clicks)
            path_tab(actions, wire)
            walk_tab(actions, wire)
            if actions.row:
                grid_tab(actions, wire)
            codec_tab(actions)
