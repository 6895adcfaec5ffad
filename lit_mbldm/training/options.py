"""How samples are drawn, wherever a config or a command says so."""

import inspect
import shlex
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from lit_mbldm.errors import InputError
from lit_mbldm.samplers import Sampler, check_sampler, time_grid
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.refiner import Refiner, load_refiner
from lit_mbldm.zoo.about import about_module


@dataclass(frozen=True)
class SampleOptions:
    """Settings of `DiffusionModule.sample`; None leaves a model's default.

    Attributes:
        steps: reverse steps, at most T.
        seed: of the noise; sample i depends on (seed, i) alone.
        sampler: ddpm (the paper's), ddim or dpm++.
        eta: of ddim, from 0 (no noise) to 1.
        temperature: γ of a categorical model; 0 takes the most probable codeword.
        refiner: name or path of a refiner to pass the images through; `none` leaves out the one
            that came with the model.
    """

    steps: int = 50
    seed: int = 0
    sampler: Sampler = "ddpm"
    eta: float | None = None
    temperature: float | None = None
    refiner: str | None = None

    @classmethod
    def suiting(cls, model: nn.Module, **given: Any) -> "SampleOptions":
        """Options that are given, else what the model was published with, else the defaults.

        Args:
            model: of `load_pretrained`.
            given: attributes; None where they are not given.

        Raises:
            InputError: it was published with other options than these.
        """
        chosen = {name: value for name, value in given.items() if value is not None}
        default: dict[str, Any] = {}
        if isinstance(model, DiffusionModule):
            default["steps"] = min(cls.steps, model.process.num_timesteps)
        try:
            return cls(**{**default, **about_module(model).sampling, **chosen})
        except TypeError as error:
            raise InputError(f"The model suggests unknown options of sampling: {error}.") from error

    def arguments(self, model: DiffusionModule) -> dict[str, Any]:
        """Keyword arguments for the model's `sample` and `generate`.

        Raises:
            InputError: no diffusion model, an option that it does not take or out of range, or a
                refiner that does not load or is another codec's.
        """
        if not isinstance(model, DiffusionModule):
            raise InputError(f"Samples need a diffusion model, got a {type(model).__name__}.")
        check_sampler(self.sampler, self.eta or 0.0)
        time_grid(model.process.num_timesteps, self.steps)
        if self.temperature is not None and not self.temperature >= 0:
            raise InputError(
                f"The sampling temperature must be at least 0, not {self.temperature}."
            )
        given = {name: value for name, value in asdict(self).items() if value is not None}
        for name in given.keys() - inspect.signature(model.sample).parameters.keys():
            raise InputError(f"A {type(model).__name__} takes no {name}: leave it out.")
        if self.refiner is not None:
            given["refiner"] = self._chosen_refiner(model, self.refiner)
        return given

    def flags(self, seed: int) -> str:
        """These options as flags of `lit-mbldm sample`, but with another seed."""
        given = {k: v for k, v in asdict(replace(self, seed=seed)).items() if v is not None}
        return " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in given.items())

    @staticmethod
    def _chosen_refiner(model: DiffusionModule, name: str) -> Refiner | bool:
        if name == "none":
            return False
        refiner = load_refiner(name)
        model.check_refiner(refiner)
        return refiner
