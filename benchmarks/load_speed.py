"""How long a codec and a model take to load, and what is imported for it.

    python benchmarks/load_speed.py [--repetitions 9]

A codec that ships is loaded in fresh processes, timed from behind `import torch`. The paper's model
of 52 M parameters is loaded from the Hub's cache, offline, in turns with reading and hashing its
bytes, which any check of them costs.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from timing import medians

from lit_mbldm.denoisers import UNet
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.processes import GaussianProcess
from lit_mbldm.training import ContinuousDiffusion
from lit_mbldm.zoo import load_pretrained

CODEC, IMAGE_SIZE, REPO = "opq-32-8-8", 512, "org/model"
CODEC_CHILD = f"""
import json, sys, time
import torch
before, start = set(sys.modules), time.perf_counter()
from lit_mbldm.zoo import load_pretrained
imported = time.perf_counter()
load_pretrained({CODEC!r})
end = time.perf_counter()
print(json.dumps([imported - start, end - imported, sorted(set(sys.modules) - before)]))
"""
PACKAGE_CHILD = """
import json, sys
before = set(sys.modules)
import lit_mbldm
print(json.dumps(sorted(set(sys.modules) - before)))
"""
SLOW = ("faiss", "huggingface_hub", "lightning", "torchmetrics", "torchvision", "webdataset")


def fresh(code: str) -> list[object]:
    """What a new process prints."""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said: list[object] = json.loads(child.stdout)
    return said


def packages(modules: object) -> str:
    """How many modules there are, their packages, and which of these are slow to import."""
    assert isinstance(modules, list)
    tops = sorted({name.partition(".")[0] for name in modules} - sys.stdlib_module_names)
    slow = [name for name in SLOW if name in tops]
    return f"{len(modules)} modules ({', '.join(tops)}), slow ones: {', '.join(slow) or 'none'}"


def hash_files(folder: Path) -> list[str]:
    """Read and hash an entry's files."""
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]


def cached(cache: str, model: torch.nn.Module) -> Path:
    """Put a model's entry where the Hub's client keeps what it has fetched."""
    repository = Path(cache) / f"models--{REPO.replace('/', '--')}"
    commit = "0" * 40
    save_entry(model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return repository / "snapshots" / commit


def codec_table(repetitions: int) -> None:
    """Print how long a codec takes in fresh processes, and what was imported."""
    runs = [fresh(CODEC_CHILD) for _ in range(repetitions)]
    imports, loads = ([float(str(run[i])) for run in runs] for i in (0, 1))
    total = median(a + b for a, b in zip(imports, loads, strict=True))
    print(f"| import of lit_mbldm.zoo | {median(imports):.3f} s |")
    print(f"| load of {CODEC} | {median(loads):.3f} s |")
    print(f"| both, after `import torch` | {total:.3f} s |")
    print(f"| imported for it | {packages(runs[0][2])} |")
    print(f"| imported by `import lit_mbldm` | {packages(fresh(PACKAGE_CHILD))} |")


def model_table(repetitions: int) -> None:
    """Print how long a model takes, and reading and hashing its bytes."""
    model = ContinuousDiffusion(CODEC, UNet(6, 6), GaussianProcess(), IMAGE_SIZE)
    count = sum(parameter.numel() for parameter in model.parameters())
    with tempfile.TemporaryDirectory() as cache:
        folder = cached(cache, model)
        size = sum(path.stat().st_size for path in folder.iterdir())
        times = medians(
            {
                "read": lambda: hash_files(folder),
                "load": lambda: load_pretrained(REPO, cache_dir=cache, local_files_only=True),
            },
            repetitions,
        )
    ratio = times["load"] / times["read"]
    print(f"| read and hash {size / 1e6:.0f} MB | {times['read']:.3f} s |")
    print(f"| load the model, {count / 1e6:.1f} M parameters | {times['load']:.3f} s |")
    print(f"| ratio | {ratio:.2f} |")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    print(f"Medians of {options.repetitions}, torch {torch.__version__}\n")
    print("| | |\n|---|---|")
    codec_table(options.repetitions)
    model_table(options.repetitions)


if __name__ == "__main__":
    main()
