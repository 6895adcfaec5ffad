"""Counting and naming what had to be skipped."""

from lit_mbldm.errors import InputError

SHOWN = 5


class SkipLog:
    """The samples a command skipped, with the reasons.

    Attributes:
        entries: `{"name", "reason"}` of each.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []

    def add(self, name: str, reason: object) -> None:
        """Note that `name` is skipped."""
        self.entries.append({"name": name, "reason": str(reason)})

    def summary(self) -> str:
        """The first few names with their reasons, on one line each."""
        lines = [f"  {entry['name']}: {entry['reason']}" for entry in self.entries[:SHOWN]]
        if len(self.entries) > SHOWN:
            lines.append(f"  and {len(self.entries) - SHOWN} more")
        return "\n".join(lines)

    def check(self, good: int, total: int, max_skipped: float, kept: str) -> None:
        """Fail where too many were skipped.

        Args:
            good: how many could be used.
            total: of how many.
            max_skipped: largest tolerated fraction.
            kept: what the message says about what is already there.

        Raises:
            InputError: none is good, or more than the fraction was skipped.
        """
        bad = total - good
        if good and bad <= max_skipped * total:
            return
        raise InputError(
            f"{bad} of {total} could not be used, at most {max_skipped:.2%} may be skipped:\n"
            f"{self.summary()}\nRepair or remove them, or raise max_skipped. {kept}"
        )
