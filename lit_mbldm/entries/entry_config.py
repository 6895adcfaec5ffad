"""`config.json` of a zoo entry: what to build, and the sha256 of every other file.

Imports no torch, so that `lit-mbldm zoo` answers at once.
"""

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_mbldm.entries.about import About
from lit_mbldm.errors import InputError

ASSETS = Path(__file__).parents[1] / "zoo" / "assets"
FORMAT = 1
LIBRARY = "lit_mbldm"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
CARD, PICTURE, REFINER = "README.md", "samples.png", "refiner"
INDEX = "training.safetensors"  # codes of training images
# all that an entry may hold
FILES = {CONFIG, WEIGHTS, CARD, PICTURE, INDEX, f"{REFINER}/{CONFIG}", f"{REFINER}/{WEIGHTS}"}


class DamagedError(InputError):
    """A file of an entry cannot be read, or is not the one that was published."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}. Fetch or write the entry again.")
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class EntryConfig:
    """What `config.json` says: sha256 by path, and the fingerprint of the codec."""

    model: dict[str, Any]  # a class_path tree
    sha256: dict[str, str]
    fingerprint: str
    about: About

    def text(self) -> str:
        """As JSON; ValueError on an infinite number or NaN, which JSON does not have."""
        values = {
            "format": FORMAT,
            "library": LIBRARY,
            "version": importlib.metadata.version("lit-mbldm"),
            "model": self.model,
            "fingerprint": self.fingerprint,
            "about": self.about.written(),
            "sha256": dict(sorted(self.sha256.items())),
        }
        return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def list_pretrained() -> list[str]:
    """Names of the entries that ship with the package.

    Example:
        >>> list_pretrained()[:4]
        ['eurosat-64', 'fruit-96', 'jpq-32-4x4', 'jpq-48']
    """
    return sorted(path.parent.name for path in ASSETS.glob(f"*/{CONFIG}"))


def read_bytes(path: Path, sha256: str | None = None) -> bytes:
    """Read a file and compare its sha256 where that is known; DamagedError where it is another."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedError(path, f"it cannot be read ({error.strerror})") from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 not in (None, found):
        raise DamagedError(path, f"its sha256 is {found}, expected {sha256!s:.80}")
    return data


def read_config(path: Path) -> EntryConfig:
    """Read and check a `config.json`; DamagedError where it cannot be read or is no JSON."""
    data = read_bytes(path)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"it is no JSON ({error!s:.200})") from error
    if not isinstance(values, dict) or values.get("library") != LIBRARY:
        raise InputError(
            f"{path} is no entry of lit_mbldm's zoo: expected what `lit-mbldm export` writes, with"
            f' the library "{LIBRARY}".'
        )
    if values.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {values.get('format')!r:.40}, this lit_mbldm reads format {FORMAT}:"
            " update it with `pip install --upgrade lit-mbldm`."
        )
    model, sha256 = values.get("model"), values.get("sha256")
    if not isinstance(model, dict) or not isinstance(sha256, dict) or WEIGHTS not in sha256:
        raise InputError(f"{path} must hold a class_path tree as `model`, and sha256 of files.")
    if strange := sorted(sha256.keys() - FILES):
        raise InputError(
            f"{path} names the file {strange[0]!r:.80}, which is no part of an entry; such may lie"
            " outside its folder or run code. Do not use this entry."
        )
    # that of its own contents, which earlier versions wrote, says nothing
    sha256 = {name: str(value) for name, value in sha256.items() if name != CONFIG}
    try:
        about = About.read(values.get("about", {}))
    except InputError as error:
        raise InputError(f"{path} has unknown facts in `about`. {error}") from error
    return EntryConfig(model, sha256, str(values.get("fingerprint", "")), about)
