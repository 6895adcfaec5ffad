"""The controls of how samples are drawn: those that a model takes."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from lit_mbldm.demo.actions import Actions
from lit_mbldm.processes.samplers import read_temperature

_ANY = ""  # label
_MOST_STEPS = 250


class Controls:
    """Controls of one model, placed where they are made.

    Args:
        actions: of the model.

    Attributes:
        by_name: of settings of `SampleOptions`.
    """

    def __init__(self, actions: Actions) -> None:
        model = actions.model
        own, most = model.settle(model.sampling), min(_MOST_STEPS, model.process.num_timesteps)
        self.by_name: dict[str, Component] = {
            "seed": gr.Number(0, label="Seed", precision=0, minimum=0)
        }
        if model.class_names:
            choices = [("any", _ANY), *((name, name) for name in model.class_names)]
            self.by_name["label"] = gr.Dropdown(choices, value=_ANY, label="Label")
        self.by_name["steps"] = gr.Slider(1, most, min(own.steps or 1, most), step=1, label="Steps")
        samplers = model.process.samplers
        if len(samplers) > 1:
            self.by_name["sampler"] = gr.Dropdown([*samplers], value=own.sampler, label="Sampler")
        if model.process.has_temperature:
            value = 1.0 if own.temperature is None else read_temperature(own.temperature)
            self.by_name["temperature"] = gr.Slider(0, 2, value, step=0.05, label="Temperature")
        if actions.guided:
            scale = 1.0 if own.guidance is None else own.guidance
            self.by_name["guidance"] = gr.Slider(0, 5, scale, step=0.1, label="Guidance")

    def settings(self, values: Sequence[Any]) -> dict[str, Any]:
        """Settings of the controls' values in order, without any label and empty ones."""
        given = zip(self.by_name, values, strict=True)
        return {name: value for name, value in given if value not in (None, _ANY)}
