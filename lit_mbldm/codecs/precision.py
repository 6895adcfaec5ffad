"""Full precision where mixed precision would change codes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Turn autocast, TF32 and bfloat16 matrix products and convolutions off inside the block.

    A codec subtracts large norms from each other: with the 10 or 7 bits of TF32 or bfloat16
    products (`torch.set_float32_matmul_precision("high")`, `"medium"`, or mixed precision) it
    would return other codes. The block computes on `device`.
    """
    backends = (
        torch.backends.cuda.matmul,
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
        torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
    )
    previous = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, previous, strict=True):
            backend.fp32_precision = precision
