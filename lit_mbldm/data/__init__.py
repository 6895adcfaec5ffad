"""Data: images of any source to shards, shards to batches. Names are imported when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_mbldm.data.crops import CropDataModule
    from lit_mbldm.data.datamodule import ShardDataModule
    from lit_mbldm.data.encode import encode_shards
    from lit_mbldm.data.manifest import Manifest
    from lit_mbldm.data.shards import write_shards

__all__ = ["CropDataModule", "Manifest", "ShardDataModule", "encode_shards", "write_shards"]

_MODULES = {
    "CropDataModule": "crops",
    "Manifest": "manifest",
    "ShardDataModule": "datamodule",
    "encode_shards": "encode",
    "write_shards": "shards",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
