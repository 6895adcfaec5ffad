"""What a large file must be."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from lit_mbldm.errors import InputError

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Checksum:
    """A file's sha256 (hex), and its size in bytes where that is known."""

    sha256: str
    size: int | None = None

    def check(self, path: Path, otherwise: str) -> None:
        """Read a file, and raise InputError, beginning with `otherwise`, where it is another."""
        size = path.stat().st_size
        if self.size not in (None, size):
            raise InputError(f"{otherwise}: it has {size} bytes, expected {self.size}.")
        digest = hashlib.sha256()
        progress = tqdm(total=size, desc="sha256", unit="B", unit_scale=True)
        with path.open("rb") as stream, progress:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
                progress.update(len(block))
        if digest.hexdigest() != self.sha256:
            raise InputError(
                f"{otherwise}: its sha256 is {digest.hexdigest()}, expected {self.sha256}."
            )
