"""How samples are drawn, wherever a config, a command or a caller says so."""

import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_info

from lit_mbldm.codecs.sizes import check_size
from lit_mbldm.errors import InputError
from lit_mbldm.processes.randomness import read_seed
from lit_mbldm.processes.samplers import Sampler, read_temperature
from lit_mbldm.training.module import CodecModule
from lit_mbldm.training.refiner import RefinerModule

_KEPT = ("steps", "sampler", "eta", "temperature", "guidance", "guidance_interval")


@dataclass(frozen=True)
class SampleOptions:
    """How samples are drawn; None leaves a setting to the model.

    Attributes:
        steps: reverse steps, at most T.
        seed: of the noise, any integer; sample i depends on (seed, i) alone.
        sampler: ddpm (the paper's), ddim, dpm++, or consistency of a model tuned for it.
        eta: of ddim, from 0 (no noise) to 1.
        temperature: of a model of codes or bits; 0 or argmax takes the most probable ones.
        refiner: a refiner, its name or its path, to pass the images through; `none` leaves out
            the one that came with the model.
        label: a class by name or number, or several that the samples take in turn; by default all
            classes in turn.
        guidance: scale of classifier-free guidance, or of the guide's; 1 is none.
        guidance_interval: of t/T, low and high, in which there is guidance; all by default.
        guide: for autoguidance, a poorer model of the same kind, its name or its path.
        canvas: (height, width) to draw at in pixels; by default those that the model learned.
        size: (height, width) of the images in pixels, at most 65,536 a side and 2^28 in all; by
            default the model's own.

    Raises:
        InputError: a seed, a temperature or a size that is none.
    """

    steps: int | None = None
    seed: int = 0
    sampler: Sampler | None = None
    eta: float | None = None
    temperature: float | Literal["argmax"] | None = None
    refiner: str | RefinerModule | None = None
    label: int | str | list[int | str] | None = None
    guidance: float | None = None
    guidance_interval: tuple[float, float] | None = None
    guide: str | CodecModule | None = None
    canvas: tuple[int, int] | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", read_seed(self.seed))
        if self.temperature is not None:
            object.__setattr__(self, "temperature", read_temperature(self.temperature))
        for name in ("guidance_interval", "canvas", "size"):  # a list where it comes from JSON
            if (pair := getattr(self, name)) is None:
                continue
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise InputError(f"Expected two numbers as {name}, got {pair!r}.")
            object.__setattr__(self, name, tuple(pair))
        if self.size is not None:
            check_size(self.size)

    @classmethod
    def read(cls, sampling: Mapping[str, Any]) -> "SampleOptions":
        """Take over what `given` returned; raises InputError for another setting."""
        try:
            return cls(**sampling)
        except TypeError as error:
            raise InputError(f"The model suggests unknown options of sampling: {error}.") from error

    def given(self) -> dict[str, Any]:
        """What suits a model and is kept with it: numbers and the sampler, but for the seed."""
        values = {name: getattr(self, name) for name in _KEPT}
        if self.guidance_interval is not None:
            values["guidance_interval"] = list(self.guidance_interval)
        return {name: value for name, value in values.items() if value is not None}

    def over(self, others: "SampleOptions") -> "SampleOptions":
        """These options, completed by others; eta goes with its sampler."""
        if self.sampler not in (None, others.sampler):
            others = replace(others, eta=None)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(others, **{k: v for k, v in values.items() if v is not None})

    def flags(self, seed: int) -> str:
        """These options as flags of `lit-mbldm sample`, but with another seed."""
        values = {**self.given(), "seed": seed}
        others = {name: getattr(self, name) for name in ("refiner", "label", "guide")}
        values |= {name: one for name, one in others.items() if isinstance(one, int | str | list)}
        words = []
        for name in ("canvas", "size"):
            if (pair := getattr(self, name)) is not None:
                values[name] = "x".join(map(str, pair))
        for name, value in values.items():
            several = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *(shlex.quote(str(one)) for one in several)]
        return " ".join(words)


def fresh_seed() -> int:
    """A random seed, which a log line tells."""
    seed = secrets.randbelow(2**32)
    rank_zero_info(f"Fresh seed: {seed}")
    return seed
