"""The zoo: codecs and models by name, folder, checkpoint or repository on the Hub."""

from typing import TYPE_CHECKING, Any

from lit_mbldm.entries.entry_config import list_pretrained
from lit_mbldm.entries.load import load_pretrained

if TYPE_CHECKING:
    from lit_mbldm.hub.push import push_pretrained

__all__ = ["list_pretrained", "load_pretrained", "push_pretrained"]


def __getattr__(name: str) -> Any:
    if name != "push_pretrained":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # with Lightning and the Hub's client behind it, which loading a codec must not wait for
    from lit_mbldm.hub.push import push_pretrained

    return push_pretrained
