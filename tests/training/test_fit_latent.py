"""What a model takes over from its training data before the first step."""

from contextlib import AbstractContextManager
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from lit_mbldm.codecs import CoefficientLatent
from lit_mbldm.data import ShardDataModule
from lit_mbldm.denoisers import UNet
from lit_mbldm.processes import GaussianProcess
from lit_mbldm.training import ContinuousDiffusion


class Elsewhere(SingleDeviceStrategy):
    """Makes new tensors on another device than the data's, as on a GPU."""

    def tensor_init_context(
        self, empty_init: bool | None = None
    ) -> AbstractContextManager[Any, None]:
        return torch.device("meta")


@pytest.mark.parametrize("strategy", ["auto", Elsewhere("cpu")], ids=["cpu", "elsewhere"])
def test_scaling_and_classes_are_those_of_the_training_data(strategy: Any) -> None:
    network = UNet(base_channels=16, channel_multipliers=(1,), blocks_per_level=1)
    latent = CoefficientLatent(8)
    model = ContinuousDiffusion("jpq-32-4x4", network, GaussianProcess(), 64, latent=latent)
    data = ShardDataModule("fruits", batch_size=128)
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing"), False)
    L.Trainer(max_steps=1, accelerator="cpu", strategy=strategy, **quiet).fit(model, data)
    assert model.class_names == data.class_names
    assert network.labels is not None
    assert len(network.labels.weight) == len(data.class_names or ()) + 1
    images = next(iter(data.train_dataloader()))["images"]
    z0 = latent.to_latent(model.codec.encode(images), images)
    assert z0.square().mean() == pytest.approx(1, abs=0.1)
    assert z0.mean((0, 2, 3)).abs().max() < 0.2
