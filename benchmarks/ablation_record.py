"""Scores of an ablation's rows and seeds in a JSON file, all of one setting, and their table."""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from lit_mbldm.storage.atomic import replacing

_COLUMNS = {
    "steps": ("training steps", 1, 0),
    "kid": ("KID × 10³", 1000, 1),
    "precision": ("precision", 1, 2),
    "recall": ("recall", 1, 2),
    "bits": ("bits a patch", 1, 2),
    "frequencies": ("by frequencies", 1, 2),
}  # title, factor and digits of a score
Rows = dict[str, dict[str, dict[str, float]]]  # scores by row and seed


class Record:
    """Scores in a file, which several processes may add to.

    Args:
        path: of the JSON file, made with the first scores.
        setting: all that scores of one table must share, of JSON's types.

    Raises:
        SystemExit: the file holds scores of another setting.
    """

    def __init__(self, path: Path, setting: dict[str, Any]) -> None:
        self.path = path
        self.setting = setting
        self._read()

    def _read(self) -> Rows:
        if not self.path.exists():
            return {}
        found = json.loads(self.path.read_text())
        for name, expected in self.setting.items():
            if (got := found["setting"].get(name)) != expected:
                raise SystemExit(
                    f"{self.path} holds scores with {name} {got}, expected {expected}. Give the"
                    " same options, or another --record."
                )
        return found["rows"]

    def has(self, row: str, seed: int) -> bool:
        """Whether the row is scored for this seed, by any process."""
        return str(seed) in self._read().get(row, {})

    def add(self, row: str, seed: int, scores: dict[str, float]) -> None:
        """Write the scores of a row and a seed."""
        rows = self._read()
        rows.setdefault(row, {})[str(seed)] = scores
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            found = {"setting": self.setting, "rows": rows}
            temporary.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")

    def table(self, order: Iterable[str]) -> str:
        """Mean and deviation over seeds in Markdown; rows of other names come last."""
        rows = self._read()
        names = [name for name in dict.fromkeys([*order, *rows]) if name in rows]
        lines = [f"{name} {value}" for name, value in self.setting.items()]
        titles = ["row", "seeds", *(title for title, _, _ in _COLUMNS.values())]
        lines += ["", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
        for name in names:
            seeds = list(rows[name].values())
            cells = [
                _cell([factor * scores[column] for scores in seeds if column in scores], digits)
                for column, (_, factor, digits) in _COLUMNS.items()
            ]
            lines.append(f"| {' | '.join([name, str(len(seeds)), *cells])} |")
        return "\n".join(lines)


def _cell(values: list[float], digits: int) -> str:
    if not values:
        return ""
    spread = f" ± {stdev(values):,.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):,.{digits}f}{spread}"
