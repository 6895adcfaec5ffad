"""Modules of every kind with facts to tell, and what shows whether two are the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import tiny
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_mbldm.entries.about import About, Figure
from lit_mbldm.entries.tree import describe
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.refiner import RefinerModule
from lit_mbldm.training.upscaler import Upscaler
from lit_mbldm.zoo import load_pretrained

KINDS = tuple(tiny.MAKERS)
REPO = "org/model"
FILES = {"config.json", "model.safetensors", "README.md", "samples.png"}
REFINED = FILES | {f"refiner/{name}" for name in ("config.json", "model.safetensors")}
ABOUT = About(
    license="apache-2.0",
    data="org/photographs",
    terms="CC0",
    command="lightning fit --config small.yaml",
    steps=1234,
    figures=(
        Figure("FID", 12.5, "5000 samples", "lightning test"),
        Figure("PSNR (dB)", 27.25, "held-out photographs", "lit-mbldm codec report"),
    ),
)


def make(kind: str) -> nn.Module:
    """A module of `tiny` with facts to tell."""
    module = tiny.MAKERS[kind]()
    sampling = {"steps": 2} if isinstance(module, DiffusionModule) else {}
    vars(module)["about"] = replace(ABOUT, sampling=sampling)
    if kind == "refined":
        vars(module.refiner)["about"] = ABOUT
    return module


def train(model: DiffusionModule, path: Path) -> None:
    """Two steps of training, and the checkpoint."""
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=path.parent,
    )
    highest = model.codec.codebook_size
    codes = torch.randint(highest, (4, *model.codes_shape), dtype=torch.uint8)
    batches: list[Any] = [{"codes": code, "index": i} for i, code in enumerate(codes)]
    trainer.fit(model, DataLoader(batches, batch_size=2))
    trainer.save_checkpoint(path)


def outcome(module: nn.Module) -> Tensor:
    """Samples from a seed, or what a codec or refiner makes of some images."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    if isinstance(module, Upscaler):
        return module.upscale(images, (40, 40), steps=3, seed=11)
    if isinstance(module, DiffusionModule):
        return module.sample(3, steps=3, seed=11)
    if isinstance(module, RefinerModule):
        return module.refine(images)
    return module.decode(module.encode(images))


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    """The same class, arguments, tensors, facts and outcome, ready for use."""
    assert type(found) is type(expected)
    assert written(found) == written(expected)
    state, other = found.state_dict(), expected.state_dict()
    assert state.keys() == other.keys()
    assert [name for name in state if not torch.equal(state[name], other[name])] == []
    assert not any(part.training for part in found.modules())
    assert torch.equal(outcome(found), outcome(expected))


def written(module: nn.Module) -> Any:
    """The class_path tree as JSON keeps it, which knows no tuples."""
    return json.loads(json.dumps(describe(module)))


def loads(name: str | Path, expected: nn.Module, **options: Any) -> None:
    """Fail unless this loads, and is the same."""
    assert_same(load_pretrained(name, **options), expected)
