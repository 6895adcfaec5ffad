import ast
from pathlib import Path

import lit_mbldm

PACKAGE = Path(lit_mbldm.__file__).parent
# imports run down this list only
ROOMS = [
    "cli",
    "doctor",
    "zoo",
    "hub",
    "demo",
    "training",
    "entries",
    "data",
    "processes",
    "denoisers",
    "codecs",
    "metrics",
    "pictures",
    "storage",
    "parallel",
    "errors",
]


def test_imports_run_down_the_rooms_only() -> None:
    upward = []
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lit_mbldm."):
                imported = str(node.module).split(".")[1]
                if room in ROOMS and ROOMS.index(imported) < ROOMS.index(room):
                    upward.append(f"{path.relative_to(PACKAGE)} imports {node.module}")
    assert not upward
