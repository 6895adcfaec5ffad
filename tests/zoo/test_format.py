"""Entries of every format that ever was load for ever.

The folder `format_1` was written once, by this package's version 0.1.0, and never is again.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.entries.about import About, Figure
from lit_mbldm.entries.entry import entry_files, read_files, write_files
from lit_mbldm.entries.entry_config import FORMAT
from lit_mbldm.entries.tree import GONE, describe
from lit_mbldm.training import ContinuousDiffusion, Refiner
from lit_mbldm.zoo import load_pretrained

HERE = Path(__file__).parent
FROZEN = HERE / "format_1"
FINGERPRINT = "8eced35426d49cf59c51b3fb40f6a64f9a6f6fc430dea5b673cd43c9c5bd7d78"
# sha256 over the names and bytes of all tensors
TENSORS = {
    "codec": (4, "bee3d5a2046a971ffd55332b8be3c215b4db59f89daaa0d3ff52f8f7ed29ae60"),
    "refined": (78, "8e1dfb4614f84aa9a2ac5f52d8285c11deba9d2a94ac3bf31b4a0ae4ba334572"),
    "refined/refiner": (58, "b8c2a9ea963cb040ba4b83e3afbb6bac648b2bad44a4c5141778620b60d20891"),
}
# sha256 of the image of the codes 0 1 2 3 0 1 … in (1, 4, 2, 2), as (1, 3, 4, 4) uint8
DECODED = "5758be6f0f9ab9f22ad9252d75e96a48e6ba5e4593656ae4139a74fb62000d19"
ABOUT = About(
    license="cc0-1.0",
    data="noise, 8×8",
    terms="none",
    command="lightning fit --config tiny.yaml",
    steps=3,
    figures=(Figure("PSNR (dB)", 7.5, "noise", "lit-mbldm codec report"),),
    sampling={"steps": 2, "sampler": "ddim", "eta": 0.5},
)


def tensors_of(module: nn.Module) -> tuple[int, str]:
    state = sorted(module.state_dict().items())
    total = hashlib.sha256()
    for name, tensor in state:
        total.update(name.encode() + tensor.numpy().astype("<f4").tobytes())
    return len(state), total.hexdigest()


def holds(expected: object, found: object) -> bool:
    """Whether a tree says all that the expected one does, but for arguments that are no more."""
    if isinstance(expected, dict) and isinstance(found, dict):
        kept = {key: value for key, value in expected.items() if key not in GONE}
        return all(holds(value, found.get(key)) for key, value in kept.items())
    return expected == found


@pytest.mark.parametrize(
    ("name", "kind"),
    [("codec", PatchCodec), ("refined", ContinuousDiffusion), ("refined/refiner", Refiner)],
)
def test_an_entry_of_format_1_loads(name: str, kind: type[nn.Module], tmp_path: Path) -> None:
    module = load_pretrained(FROZEN / name)
    assert type(module) is kind
    assert tensors_of(module) == TENSORS[name]
    # all arguments that the frozen config names; others have defaults
    config = json.loads((FROZEN / name / "config.json").read_text())
    assert holds(config["model"], json.loads(json.dumps(describe(module))))
    assert module.about == (About() if kind is Refiner else ABOUT)
    codec = getattr(module, "codec", module)
    assert codec.fingerprint == FINGERPRINT
    image = codec.decode((torch.arange(16) % 4).view(1, 4, 2, 2))
    assert hashlib.sha256(image.numpy().tobytes()).hexdigest() == DECODED
    if name == "refined":
        assert tensors_of(module.refiner) == TENSORS["refined/refiner"]
        assert module.sample(2, steps=2, seed=0).shape == (2, 3, 8, 8)
    # every file is the one that was written, and what this version writes is whole as well
    assert read_files(FROZEN / name).keys() >= {"config.json", "model.safetensors"}
    write_files(tmp_path, entry_files(module, module.about))
    assert tensors_of(load_pretrained(tmp_path)) == TENSORS[name]


def test_there_is_a_frozen_entry_of_every_format() -> None:
    """A new format needs a folder and tests like those above, which stay."""
    for number in range(1, FORMAT + 1):
        config = json.loads((HERE / f"format_{number}" / "codec" / "config.json").read_text())
        assert config["format"] == number
