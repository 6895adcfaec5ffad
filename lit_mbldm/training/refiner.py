"""Training of the refiner."""

from pathlib import Path

from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.training.module import CodecModule
from lit_mbldm.zoo.load import load_pretrained


class Refiner(CodecModule):
    """Stub."""

    def refine(self, images: Tensor) -> Tensor:
        """Improve decoded images (B, 3, H, W) uint8."""
        raise NotImplementedError


def load_refiner(name: str | Path) -> Refiner:
    """Load a refiner as `load_pretrained` does.

    Raises:
        InputError: as `load_pretrained`, or another model in place of a refiner.
    """
    refiner = load_pretrained(name)
    if not isinstance(refiner, Refiner):
        raise InputError(f"{name} is a {type(refiner).__name__}, expected a Refiner.")
    return refiner
