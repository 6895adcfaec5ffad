"""What made a picture, kept in its file: enough to make it again."""

import importlib.metadata
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_mbldm.entries.entry_config import list_pretrained
from lit_mbldm.entries.load import load_pretrained
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.inception import features_fingerprint
from lit_mbldm.pictures import text_of
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.sampling import SamplingModule


@dataclass(frozen=True)
class Recipe:
    """How one sample was made.

    Attributes:
        model: its name, or its absolute path.
        weights: the model's fingerprint.
        number: of the sample.
        options: the settings of `SampleOptions`, complete, the label that of this sample.
        device: kind of device, which the random numbers depend on.
        version: of this package.
    """

    model: str
    weights: str
    number: int
    options: dict[str, Any]
    device: str
    version: str

    @classmethod
    def of(cls, model: SamplingModule, name: str, options: SampleOptions) -> "Recipe":
        """That of sample 0, for options whose refiner and guide are still names."""
        settled = model.settle(options)
        kept = {**settled.given(), "seed": settled.seed, "label": settled.label}
        kept |= {one: getattr(options, one) for one in ("refiner", "guide", "canvas", "size")}
        places = {key: _place(kept[key]) for key in ("refiner", "guide")}
        options_kept = {key: one for key, one in (kept | places).items() if one is not None}
        version = importlib.metadata.version("lit-mbldm")
        weights = features_fingerprint(model)
        return cls(_place(name) or "", weights, 0, options_kept, model.device.type, version)

    def numbered(self, model: SamplingModule, number: int) -> "Recipe":
        """That of another sample."""
        labels = model.sample_condition([number], SampleOptions.read(self.options))
        if labels is None or not model.class_names:
            return replace(self, number=number)
        name = model.class_names[int(labels[0])]
        return replace(self, number=number, options={**self.options, "label": name})

    def text(self) -> str:
        """The recipe as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """The recipe in a PNG; raises InputError where there is none."""
        if not path.is_file():
            raise InputError(f"There is no picture {path}.")
        try:
            recipe = cls(**json.loads(text_of(path) or ""))
            SampleOptions.read(recipe.options)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path} does not tell how it was made. Expected a PNG as `lit-mbldm sample --out"
                " DIR/` writes it."
            ) from error
        return recipe

    def make(self, device: str, model: str | None = None) -> Tensor:
        """Make the picture again, (3, H, W) uint8, by the model, here perhaps of another name.

        Raises InputError for a model that does not load or has other weights, or another kind of
        device.
        """
        loaded = load_pretrained(model or self.model, device=device)
        if features_fingerprint(loaded) != self.weights:
            raise InputError(
                f"{model or self.model} has other weights than the model that made the picture:"
                " name that one as MODEL."
            )
        if loaded.device.type != self.device:
            raise InputError(
                f"The picture was made on another kind of device, whose random numbers differ: add"
                f" --device {self.device}."
            )
        return loaded.generate([self.number], SampleOptions.read(self.options)).cpu()[0]


def _place(name: Any) -> str | None:
    """A name that holds from any folder: the absolute path of what is a path."""
    if name and name not in list_pretrained() and Path(name).exists():
        return str(Path(name).resolve())
    return name
