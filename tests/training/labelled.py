"""Small models and data of three classes."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lit_mbldm.denoisers import UNet
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import (
    CategoricalDiffusion,
    ContinuousDiffusion,
    DiffusionModule,
    SampleImages,
    SampleOptions,
)

NAMES = ["Crop", "Forest", "River"]
EVERY_KIND = pytest.mark.parametrize("kind", ["continuous", "categorical"])


def make(
    kind: str = "continuous",
    class_names: list[str] | None = NAMES,
    awake: bool = True,
    seed: int = 0,
    image_size: int = 32,
    **options: Any,
) -> DiffusionModule:
    """A small model of 32×32 images; an awake one's samples follow label and guidance."""
    torch.manual_seed(seed)
    network = UNet(base_channels=16, channel_multipliers=(1,), blocks_per_level=1)
    options |= {"class_names": class_names}
    made: DiffusionModule
    if kind == "continuous":
        made = ContinuousDiffusion("opq-32-8-8", network, GaussianProcess(), image_size, **options)
    else:
        process = CategoricalProcess(latent_weight=0, image_weight=0, cross_entropy_weight=1)
        made = CategoricalDiffusion("opq-32-8-8", network, process, image_size, **options)
    for name, parameter in made.denoiser.named_parameters() if awake else ():
        torch.nn.init.normal_(parameter, std=0.5 if name in ("labels", "head.weight") else 0.1)
    return made


class Labelled(L.LightningDataModule):
    """Eight images of random codes, of these classes in turn."""

    def __init__(self, class_names: list[str] | None) -> None:
        super().__init__()
        self.class_names: list[str] | None = None
        self._found = class_names

    def setup(self, stage: str) -> None:
        self.class_names = self._found

    def train_dataloader(self) -> Any:
        return DataLoader(samples(len(self.class_names or ())), batch_size=4)

    val_dataloader = train_dataloader


def samples(num_classes: int, count: int = 8) -> Any:
    codes = torch.randint(0, 256, (count, 6, 4, 4), generator=torch.manual_seed(0)).byte()
    label = {"label": torch.arange(count) % num_classes} if num_classes else {}
    return [
        {"codes": codes[i], "index": i, **{name: one[i] for name, one in label.items()}}
        for i in range(count)
    ]


def batch(*numbers: int) -> dict[str, Tensor]:
    rows = [samples(3)[number] for number in numbers]
    return {name: torch.stack([torch.as_tensor(row[name]) for row in rows]) for name in rows[0]}


def fit(
    model: DiffusionModule,
    folder: Path,
    quiet: dict[str, Any],
    class_names: list[str] | None = NAMES,
    **options: Any,
) -> Path:
    """The checkpoint of one more step."""
    callbacks = [SampleImages(7, SampleOptions(steps=2, guidance=1.5, guidance_interval=(0, 0.7)))]
    trainer = L.Trainer(default_root_dir=folder, callbacks=callbacks, **quiet, **options)
    trainer.fit(model, Labelled(class_names))
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"
