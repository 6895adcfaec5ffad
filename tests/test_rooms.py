import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import lit_mbldm

PACKAGE = Path(lit_mbldm.__file__).parent
# imports run down this list only
ROOMS = [
    *("cli", "doctor", "zoo", "hub", "demo", "training", "entries", "data", "processes"),
    *("denoisers", "codecs", "metrics", "pictures", "images", "storage", "parallel", "errors"),
]


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                file = PACKAGE.parent / (module.replace(".", "/") + ".py")
                yield module if file.exists() or node.module == "lit_mbldm" else str(node.module)


def graph() -> dict[str, set[str]]:
    """The package's modules, and which of them each imports; packages stand for themselves."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        own = {module for module in imported(path) if module.startswith("lit_mbldm.")}
        found[name.removesuffix(".__init__")] = own
    return found


def test_imports_run_down_the_rooms_only() -> None:
    upward = [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in others
        if module.count(".") and module != "lit_mbldm.__main__"
        if ROOMS.index(other.split(".")[1]) < ROOMS.index(module.split(".")[1])
    ]
    assert not upward


def test_no_module_imports_itself_through_others() -> None:
    TopologicalSorter(graph()).prepare()
