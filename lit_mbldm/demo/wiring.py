"""How the page's buttons reach a model: one after another, and with messages for what cannot be."""

import html
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from lit_mbldm.demo.controls import Controls
from lit_mbldm.errors import InputError


class Wiring:
    """Connects events to actions, which take the values of inputs and the controls' settings.

    Args:
        controls: of the model.
    """

    def __init__(self, controls: Controls) -> None:
        self.controls = controls

    def __call__(
        self,
        event: Callable[..., Any],
        action: Callable[..., Any],
        inputs: Sequence[Component],
        outputs: Sequence[Component],
    ) -> None:
        """Have an event run an action with the controls' settings, `in_turn` with the others."""

        def run(*values: Any) -> Any:
            own, controls = values[: len(inputs)], values[len(inputs) :]
            return action(*own, **self.controls.settings(controls))

        in_turn(event, run, [*inputs, *self.controls.by_name.values()], outputs)


def in_turn(
    event: Callable[..., Any],
    action: Callable[..., Any],
    inputs: Sequence[Component],
    outputs: Sequence[Component],
) -> None:
    """Have an event run an action; all that wait share one queue, whose length they see."""
    event(told(action), inputs, outputs, concurrency_id="model", concurrency_limit=1)


def told(action: Callable[..., Any]) -> Callable[..., Any]:
    """An action whose InputError is a message on the page."""

    def run(*values: Any) -> Any:
        try:
            return action(*values)
        except InputError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error

    return run
