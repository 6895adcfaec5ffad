"""The tutorial runs from its first cell to its last, at a small size."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

TUTORIAL = Path(__file__).parents[2] / "examples" / "tutorial.ipynb"
SMALL = 'PHOTOS = "photos"\nSIZE = 16\nSTEPS = 2\nBATCH = 4\nDRAWN = 2\n'


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(TUTORIAL, as_version=4)
    (parameters,) = (one for one in notebook.cells if "parameters" in one.metadata.get("tags", ()))
    assert {line.split()[0] for line in parameters.source.splitlines()} == {
        line.split()[0] for line in SMALL.splitlines()
    }
    parameters.source = SMALL
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
    # a command that fails says so, and the cell after it misses what it makes
    printed = [one.get("text", "") for cell in notebook.cells for one in cell.get("outputs", ())]
    assert not [text for text in printed if "lit-mbldm:" in text or "Traceback" in text]
    assert (tmp_path / "my-model" / "model.safetensors").exists()
