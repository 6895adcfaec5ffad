"""Data: images of any source to shards, shards to batches. Names are imported when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_mbldm.data.loading.crops import CropDataModule
    from lit_mbldm.data.loading.datamodule import ShardDataModule
    from lit_mbldm.data.prepare.encode import encode_shards
    from lit_mbldm.data.prepare.write_shards import write_shards
    from lit_mbldm.data.shards.manifest import Manifest

__all__ = ["CropDataModule", "Manifest", "ShardDataModule", "encode_shards", "write_shards"]

_MODULES = {
    "CropDataModule": "loading.crops",
    "Manifest": "shards.manifest",
    "ShardDataModule": "loading.datamodule",
    "encode_shards": "prepare.encode",
    "write_shards": "prepare.write_shards",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
