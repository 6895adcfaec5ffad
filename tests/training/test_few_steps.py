"""Consistency tuning as a run: its start, what it tells its process, and its samples."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
from labelled import NAMES, Labelled

from lit_mbldm.denoisers import UNet
from lit_mbldm.errors import InputError
from lit_mbldm.processes import ConsistencyProcess, GaussianProcess
from lit_mbldm.processes.base import Process
from lit_mbldm.training import ConsistencyDiffusion, ContinuousDiffusion, DiffusionModule
from lit_mbldm.zoo import load_pretrained


def model(kind: type[DiffusionModule], process: Process) -> DiffusionModule:
    return kind("opq-32-8-8", UNet(None, None, 8, (1,), 1), process, 32)


def test_a_run_starts_from_a_model_and_ends_with_one_of_few_steps(
    quiet: dict[str, Any], tmp_path: Path
) -> None:
    trained = model(ContinuousDiffusion, GaussianProcess(schedule="cosine", objective="v"))
    L.Trainer(default_root_dir=tmp_path, max_steps=1, **quiet).fit(trained, Labelled(NAMES))
    tuned, told = model(ConsistencyDiffusion, ConsistencyProcess()), []

    class Note(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            told.append(tuned.process.progress)

    with pytest.raises(InputError, match="Expected the process"):  # self-conditioning
        tuned.start_from(trained)
    process = GaussianProcess(schedule="cosine", objective="v", self_conditioning=False)
    trained.process = process
    tuned.start_from(trained)
    trainer = L.Trainer(default_root_dir=tmp_path, max_steps=4, callbacks=[Note()], **quiet)
    trainer.fit(tuned, Labelled(NAMES))
    assert told == [0, 0.25, 0.5, 0.75]
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    found = load_pretrained(tmp_path / "last.ckpt")
    assert found.sample(2, sampler="consistency", steps=2).shape == (2, 3, 32, 32)
    with pytest.raises(InputError, match="is sampled with one of"):
        trained.sample(1, sampler="consistency")


@pytest.mark.parametrize("kind", [ContinuousDiffusion, DiffusionModule])
def test_what_does_not_tell_a_process_how_far_it_is_does_not_take_it(kind: Any) -> None:
    with pytest.raises(InputError, match=f"a {kind.__name__} does not: .* ConsistencyDiffusion"):
        model(kind, ConsistencyProcess())


def test_a_run_without_an_end_is_refused(quiet: dict[str, Any], tmp_path: Path) -> None:
    endless = L.Trainer(default_root_dir=tmp_path, max_epochs=-1, **quiet)
    with pytest.raises(InputError, match="known length"):
        endless.fit(model(ConsistencyDiffusion, ConsistencyProcess()), Labelled(NAMES))
