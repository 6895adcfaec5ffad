"""The page's tabs, one for each thing that a model does."""

from typing import Any

import gradio as gr
from gradio.events import Dependency
from PIL import Image

from lit_mbldm.demo.actions import Actions
from lit_mbldm.demo.wiring import Wiring, in_turn, told

_MOST = 16  # pictures at once
_EDITOR = 320  # side of a picture to paint on, about; a phone shows it whole
_BRUSH = gr.Brush(default_size=32, colors=["#ff2d6f"], color_mode="fixed")

_BUTTONS: list[Any] = ["download"]  # of pictures; sharing would send them elsewhere


def gallery_tab(actions: Actions, wire: Wiring, chosen: gr.State) -> list[Dependency]:
    """Samples, and variations of the one that is clicked; returns what clicks start.

    The picture clicked is the chosen one from now on.
    """
    with gr.Tab("Gallery"):
        count = _count(8)
        draw = gr.Button("Draw", variant="primary")
        drawn, facts = _pictures("Pictures: click one for variations of it"), gr.Markdown()
        strength = gr.Slider(0, 1, 0.5, step=0.05, label="Strength of variations")
        varied, more_facts = _pictures("Variations: click one to go on from it"), gr.Markdown()
        if actions.indexed:
            near = "The picture clicked, and the nearest training image"
            pair, nearness = _pictures(near, 2), gr.Markdown()
    wire(draw.click, actions.draw, [count], [drawn, facts])
    clicks = [one.select(_clicked, one, chosen, queue=False) for one in (drawn, varied)]
    for click in clicks:
        wire(click.then, actions.vary, [chosen, strength, count], [varied, more_facts])
        if actions.indexed:
            in_turn(click.then, actions.nearest, [chosen], [pair, nearness])
    return clicks


def path_tab(actions: Actions, wire: Wiring) -> None:
    """The way from noise to image."""
    with gr.Tab("From noise"):
        draw = gr.Button("Draw the way", variant="primary")
        wire(draw.click, _frames(actions.path), [], _scrubber("From noise, 0, to the picture"))


def walk_tab(actions: Actions, wire: Wiring) -> None:
    """Walks between two seeds, and between two labels where there are such."""
    names = actions.model.class_names or []
    with gr.Tab("Walk"):
        count = gr.Slider(2, _MOST, 8, step=1, label="Pictures of the walk")
        with gr.Row():
            seeds = [gr.Number(n, label=f"Seed {n}", precision=0, minimum=0) for n in (1, 2)]
        between_seeds = gr.Button("Walk between seeds", variant="primary")
        if names:
            with gr.Row():
                labels = [
                    gr.Dropdown(names, value=names[n % len(names)], label=f"Label {n + 1}")
                    for n in (0, 1)
                ]
            between_labels = gr.Button("Walk between labels", variant="primary")
        frames = _scrubber("From the first, 0, to the second")
    wire(between_seeds.click, _frames(actions.walk, between="seeds"), [*seeds, count], frames)
    if names:
        walk = _frames(actions.walk, between="labels")
        wire(between_labels.click, walk, [*labels, count], frames)


def grid_tab(actions: Actions, wire: Wiring) -> None:
    """A sample after fewer and more steps, by temperature or guidance."""
    with gr.Tab("Grid"):
        draw = gr.Button(f"Draw {actions.row} × steps", variant="primary")
        sheet, facts = _pictures(f"{str(actions.row).capitalize()} × steps", 1), gr.Markdown()
    wire(draw.click, actions.grid, [], [sheet, facts])


def inpaint_tab(actions: Actions, wire: Wiring, chosen: gr.State, clicks: list[Dependency]) -> None:
    """A brush over the chosen picture, one that was clicked or is uploaded here."""
    enlarged = (max(_EDITOR // actions.side, 1) * actions.side,) * 2

    def to_paint(picture: Image.Image) -> Image.Image:
        return picture.resize(enlarged, Image.Resampling.BICUBIC)

    with gr.Tab("Inpaint"):
        upload = gr.UploadButton("Upload a photograph", file_types=["image"])
        gr.Markdown("Paint over what is to be drawn again.")
        editor = gr.ImageEditor(
            height=_EDITOR + 80,
            label="Paint",
            type="numpy",
            format="png",
            canvas_size=enlarged,
            placeholder="A picture clicked in Gallery, or uploaded here, is painted on.",
            sources=(),
            transforms=(),
            layers=False,
            brush=_BRUSH,
        )
        count = _count(4)
        resamplings = gr.Slider(1, 10, 1, step=1, label="Times each step is taken, to fit better")
        draw = gr.Button("Draw again", variant="primary")
        drawn, facts = _pictures("Drawn again"), gr.Markdown()
    uploaded = upload.upload(told(actions.fit), upload, chosen, queue=False)
    for event in (*clicks, uploaded):
        event.success(to_paint, chosen, editor, queue=False)
    wire(draw.click, actions.inpaint, [chosen, editor, resamplings, count], [drawn, facts])


def codec_tab(actions: Actions) -> None:
    """An uploaded photograph beside what codec, decoder and refiner return."""
    with gr.Tab("Codec"):
        upload = gr.UploadButton("Upload a photograph", file_types=["image"])
        which = gr.Radio(["codec"], value="codec", label="At the right of the original")
        slider = gr.ImageSlider(
            label="Original and decoded", format="png", buttons=_BUTTONS, interactive=False
        )
        facts, shown = gr.Markdown(), gr.State()

    def compress(path: str | None) -> Any:
        pictures, told_of = actions.compress(path)
        others = [name for name in pictures if name != "original"]
        pair = pictures["original"], pictures[others[-1]]
        return pictures, gr.Radio(others, value=others[-1]), pair, told_of

    in_turn(upload.upload, compress, [upload], [shown, which, slider, facts])
    which.input(lambda of, name: (of["original"], of[name]), [shown, which], slider, queue=False)


def _count(value: int) -> gr.Slider:
    return gr.Slider(1, _MOST, value, step=1, label="Number of pictures")


def _pictures(label: str, columns: int = 4) -> gr.Gallery:
    return gr.Gallery(
        label=label,
        columns=columns,
        type="pil",
        format="png",
        allow_preview=False,
        height="auto",
        buttons=_BUTTONS,
        elem_classes="pictures",
        interactive=False,
    )


def _clicked(pictures: list[tuple[Image.Image, str | None]], event: gr.SelectData) -> Image.Image:
    return pictures[event.index][0]


def _scrubber(label: str) -> list[gr.components.Component]:
    """Frames, a slider over them, the one shown, and facts."""
    frames = gr.State()
    slider = gr.Slider(0, 1, 0, step=1, label=label)
    shown = gr.Image(
        label="Picture",
        alt_text="The picture where the slider stands",
        format="png",
        height=_EDITOR,
        buttons=_BUTTONS,
        elem_classes="scrubbed",
        interactive=False,
    )
    slider.input(
        lambda pictures, number: pictures and pictures[number],
        [frames, slider],
        shown,
        queue=False,
        show_progress="hidden",
    )
    return [frames, slider, shown, gr.Markdown()]


def _frames(action: Any, **fixed: Any) -> Any:
    """An action whose answer goes to a scrubber, which shows the last frame."""

    def run(*values: Any, **settings: Any) -> Any:
        pictures, facts = action(*values, **fixed, **settings)
        last = len(pictures) - 1
        return pictures, gr.Slider(maximum=last, value=last), pictures[-1], facts

    return run
