"""Image generators on a small budget: a codec turns images into codes, diffusion learns them."""

import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_mbldm.zoo import load_pretrained

    __version__: str

__all__ = ["__version__", "load_pretrained"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("lit-mbldm")
    if name != "load_pretrained":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lit_mbldm.zoo import load_pretrained  # with torch behind it

    return load_pretrained
