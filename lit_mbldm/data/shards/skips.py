"""The one policy for what cannot be read: skip it, count it, name it, fail where it is too much."""

import sys
from typing import Any

from tqdm import tqdm

from lit_mbldm.errors import InputError

SHOWN = 5


class SkipLog:
    """The samples skipped: `entries` of `{"name", "reason"}`, and `"count"` for several in one."""

    def __init__(self, entries: list[dict[str, Any]] | None = None) -> None:
        self.entries = [] if entries is None else entries

    @property
    def count(self) -> int:
        """Number of samples lost."""
        return sum(entry.get("count", 1) for entry in self.entries)

    def add(self, name: str, reason: object, count: int = 1) -> None:
        """Note that `name` is skipped, and with it `count` samples."""
        entry: dict[str, Any] = {"name": name, "reason": str(reason)}
        self.entries.append(entry if count == 1 else {**entry, "count": count})

    def summary(self) -> str:
        """The first few names with their reasons, on one line each."""
        lines = []
        for entry in self.entries[:SHOWN]:
            lost = f" ({entry['count']} samples)" if "count" in entry else ""
            lines.append(f"  {entry['name']}: {entry['reason']}{lost}")
        if len(self.entries) > SHOWN:
            lines.append(f"  and {len(self.entries) - SHOWN} more")
        return "\n".join(lines)

    def check(self, good: int, total: int, max_skipped: float, kept: str) -> None:
        """Raise InputError where none of `total` is good, or more than a fraction is not."""
        bad = total - good
        if not good or bad > max_skipped * total:
            raise InputError(
                f"{bad} of {total} could not be used, at most {max_skipped:.2%} may be skipped:\n"
                f"{self.summary()}\nRepair or remove them, or raise max_skipped. {kept}"
            )

    def close(
        self, good: int, what: str, max_skipped: float, kept: str, total: int = 0, told: bool = True
    ) -> None:
        """Fail as `check` does, of at least `total`; else print, if `told`, what was skipped."""
        self.check(good, max(total, good + self.count), max_skipped, kept)
        if self.entries and told:
            tqdm.write(f"Skipped {self.count} {what}:\n{self.summary()}", file=sys.stderr)
