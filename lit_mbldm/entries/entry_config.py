"""`config.json` of a zoo entry: what to build, and the sha256 of every file."""

import hashlib
import importlib.metadata
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_mbldm.entries.about import About
from lit_mbldm.entries.integrity import DamagedError, read_checked, read_whole
from lit_mbldm.entries.tree import Tree
from lit_mbldm.errors import InputError

FORMAT = 1
LIBRARY = "lit_mbldm"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
CARD, PICTURE, REFINER = "README.md", "samples.png", "refiner"
# all that an entry may hold
FILES = {CONFIG, WEIGHTS, CARD, PICTURE, f"{REFINER}/{CONFIG}", f"{REFINER}/{WEIGHTS}"}
MAX_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class EntryConfig:
    """What `config.json` says.

    Attributes:
        model: the class_path tree.
        sha256: hex, of every other file by its path in the entry's folder.
        fingerprint: of the codec whose codes it makes or takes.
        about: for people.
        version: of the lit_mbldm that wrote it.
    """

    model: Tree
    sha256: dict[str, str]
    fingerprint: str
    about: About = field(default_factory=About)
    version: str = field(default_factory=lambda: importlib.metadata.version("lit-mbldm"))

    def text(self) -> str:
        """As JSON; `sha256` holds also that of `config.json` itself, taken without it.

        Raises:
            InputError: an infinite number or NaN, which JSON has not.
        """
        values = {
            "format": FORMAT,
            "library": LIBRARY,
            "version": self.version,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "about": self.about.written(),
            "sha256": dict(sorted(self.sha256.items())),
        }
        try:  # tuples become lists, as they will be read
            values = json.loads(json.dumps(values, allow_nan=False))
            values["sha256"][CONFIG] = _digest(values)
        except ValueError as error:
            raise InputError(
                f"The model's arguments or facts do not fit into JSON: {error}. Give finite"
                " numbers and whole characters."
            ) from error
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def read_config(path: Path, sha256: str | None = None) -> EntryConfig:
    """Read and check a `config.json`.

    Args:
        path: of the file.
        sha256: of the file (hex), where it is known.

    Raises:
        DamagedError: it is missing, no JSON, not as it was written, or has another sha256.
        InputError: it is another kind of file, of a newer format, or names paths that leave the
            folder.
    """
    if sha256 is None:
        return parse_config(path, read_whole(path, MAX_BYTES))
    return parse_config(path, read_checked(path, sha256, MAX_BYTES))


def parse_config(path: Path, data: bytes) -> EntryConfig:
    """Check the contents of a `config.json`; path and errors as for `read_config`."""
    try:
        values = json.loads(data)
        _canonical(values)  # refuses NaN and halves of characters
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"it is no JSON ({error!s:.200})") from error
    _check_kind(path, values)
    sha256 = _read_digests(path, values["sha256"])
    if sha256.pop(CONFIG, None) != _digest(values):
        raise DamagedError(path, "its contents do not fit the sha256 it holds of itself")
    if not isinstance(values["model"], dict):
        raise InputError(f"{path} must hold a class_path tree as its model.")
    try:
        about = About.read(values.get("about", {}))
    except InputError as error:
        raise InputError(f"{path} has unknown facts in `about`. {error}") from error
    fingerprint, version = (str(values.get(name, "")) for name in ("fingerprint", "version"))
    return EntryConfig(values["model"], sha256, fingerprint, about, version)


def _check_kind(path: Path, values: object) -> None:
    found = values.get("format") if isinstance(values, dict) else None
    if type(found) is int and found > FORMAT:
        raise InputError(
            f"{path} has format {found!r:.40}, this lit_mbldm reads formats up to {FORMAT}: update"
            " it with `pip install --upgrade lit-mbldm`."
        )
    needed = {"format", "library", "model", "sha256"}
    if not isinstance(values, dict) or not needed <= values.keys():
        raise InputError(
            f"{path} is no entry of lit_mbldm's zoo: it lacks some of {', '.join(sorted(needed))}."
            " Expected what `lit-mbldm export` and `lit-mbldm push` write."
        )
    if values["library"] != LIBRARY:
        raise DamagedError(path, f"its library is {values['library']!r:.40}, expected {LIBRARY}")
    if type(found) is not int or found != FORMAT:
        raise DamagedError(path, f"its format is {values['format']!r:.40}, expected {FORMAT}")


def _read_digests(path: Path, values: object) -> dict[str, str]:
    if not isinstance(values, dict) or WEIGHTS not in values:
        raise DamagedError(path, f"it lacks the sha256 of {WEIGHTS}")
    for name, digest in values.items():
        if name not in FILES:
            raise InputError(
                f"{path} names the file {name!r:.80}, which is no part of an entry; such may lie"
                " outside its folder or run code. Do not use this entry, or ask its owner for one"
                f" with {', '.join(sorted(FILES))} alone."
            )
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise DamagedError(path, f"the sha256 of {name} is {digest!r:.80}")
    return dict(values)


def _digest(values: dict[str, Any]) -> str:
    """sha256 (hex) of the JSON without its own sha256, whatever its layout."""
    others = {name: digest for name, digest in values["sha256"].items() if name != CONFIG}
    return hashlib.sha256(_canonical({**values, "sha256": others})).hexdigest()


def _canonical(values: object) -> bytes:
    text = json.dumps(
        values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()
