import functools
import importlib
import math
import multiprocessing
import multiprocessing.forkserver
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_mbldm.codecs import PixelCodec
from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.denoisers import MultiStageUNet, UNet
from lit_mbldm.entries.load import load_codec
from lit_mbldm.processes import (
    BernoulliProcess,
    Blur,
    CategoricalProcess,
    GaussianProcess,
    MultiStageProcess,
    Pool,
)
from lit_mbldm.training import (
    BernoulliDiffusion,
    CategoricalDiffusion,
    ContinuousDiffusion,
    StageDiffusion,
)
from lit_mbldm.training.diffusion import DiffusionModule

PYTHON = [sys.executable, "-m", "lit_mbldm"]
sys.path.append(str(Path(__file__).parent))
forked = importlib.import_module("forked")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["forked", "pytest"])
# 24 steps: epochs end at 10 and 20, validation comes every 6, a checkpoint every 4
CONFIG = """
seed_everything: 3
model:
  class_path: lit_mbldm.training.CategoricalDiffusion
  init_args:
    codec: opq-32-8-8
    image_size: 32
    learning_rate: 2.0e-3
    warmup_steps: 16
    denoiser:
      class_path: lit_mbldm.denoisers.UNet
      init_args: {in_channels: 6, out_channels: 1536, base_channels: 16, channel_multipliers: [1],
                  blocks_per_level: 1, dropout: 0.2}
    process:
      class_path: lit_mbldm.processes.CategoricalProcess
      init_args: {latent_weight: 0.0, image_weight: 0.0, cross_entropy_weight: 1.0}
data:
  class_path: lit_mbldm.data.ShardDataModule
  init_args: {batch_size: 4}
trainer:
  accelerator: cpu
  max_steps: 24
  gradient_clip_val: 1.0
  log_every_n_steps: 2
  check_val_every_n_epoch: null
  val_check_interval: 6
  limit_val_batches: 2
  enable_model_summary: false
  enable_progress_bar: false
  logger:
    class_path: lightning.pytorch.loggers.TensorBoardLogger
    init_args: {save_dir: runs, name: tiny}
  callbacks:
    - class_path: lightning.pytorch.callbacks.EMAWeightAveraging
      init_args: {decay: 0.9, use_buffers: false}
    - class_path: probe.Probe
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {every_n_train_steps: 4}
"""


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@dataclass
class Fit:
    """`lightning fit` of a tiny model in a folder of its own."""

    folder: Path
    options: tuple[str, ...] = ()
    port = staticmethod(free_port)

    @property
    def version(self) -> Path:
        return self.folder / "runs" / "tiny" / "version_0"

    def command(self, *options: str) -> list[str]:
        return [*PYTHON, "fit", "--config", "tiny.yaml", *self.options, *options]

    def start(
        self, command: list[str] | None = None, **environment: str
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command or self.command(),
            cwd=self.folder,
            env=clean_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: str, code: int = 0, **environment: str) -> str:
        """What it printed; fails unless it exits with this code."""
        if self.pair and {"PROBE_SIGNAL", "PROBE_RECORD"} & {*environment}:  # as a user starts it
            process = self.start(self.command(*options), **environment)
            printed, _ = process.communicate(timeout=240)
            found: int | None = process.returncode
        else:
            found = self.fork(*options, **environment)
            printed = self.printed()
        assert found == code, printed[-4000:]
        return printed

    @property
    def pair(self) -> bool:
        return "--trainer.devices=2" in self.options

    def printed(self) -> str:
        """What the processes of the last fork printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("log*.txt")))

    def fork(self, *options: str, **environment: str) -> int | None:
        """The exit code of the same command in a fork, which has imported all already.

        Of two processes, the first's; that one may be killed, and takes the other along.
        """
        ranks = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
        forks = []
        for rank in range(2 if self.pair else 1):
            own = {**environment, **ranks, "LOCAL_RANK": str(rank)} if self.pair else environment
            arguments = self.command(*options)[len(PYTHON) :], clean_environment(**own)
            forks.append(FORKS.Process(target=forked.run, args=(self.folder, *arguments)))
            forks[-1].start()
        forks[0].join(240)
        for fork in forks:
            if forks[0].exitcode != 0:
                fork.kill()
            fork.join(60)
        return forks[0].exitcode

    def scalars(self) -> dict[tuple[str, int], set[float | None]]:
        """All values that TensorBoard's files hold, by tag and step; None for NaN."""
        values: dict[tuple[str, int], set[float | None]] = {}
        for file in sorted(self.version.glob("events*")):
            events = EventAccumulator(str(file))
            events.Reload()
            for tag in events.Tags()["scalars"]:
                for event in events.Scalars(tag):
                    value = None if math.isnan(event.value) else event.value
                    values.setdefault((tag, event.step), set()).add(value)
        return values

    def saved(self, name: str = "*.ckpt") -> dict[str, dict[str, Any]]:
        """All that checkpoints hold, flat, but for validation's counters, files and how it ran."""
        named = "val_loop|ModelCheckpoint|/command$|/config/trainer/(devices|num_nodes)$"
        states = {}
        for path in sorted((self.version / "checkpoints").glob(name)):
            state = dict(_flat(torch.load(path, map_location="cpu", weights_only=True)))
            states[path.name] = {k: v for k, v in state.items() if not re.search(named, k)}
        return states

    def last(self) -> dict[str, Any]:
        """What last.ckpt holds."""
        return self.saved("last.ckpt")["last.ckpt"]

    def assert_same(self, expected: "Fit") -> None:
        """Checkpoint and logged values are those of the other run, bit for bit."""
        assert self.differences(self.last(), expected.last()) == []
        assert self.scalars() == expected.scalars()

    @staticmethod
    def differences(state: dict[str, Any], other: dict[str, Any]) -> list[str]:
        """The entries of flat checkpoints that differ."""
        assert state.keys() == other.keys()
        return [k for k, v in state.items() if not _equal(v, other[k])]

    @staticmethod
    def wait_for(process: "subprocess.Popen[str]", true: Callable[[], Any]) -> None:
        """Wait until something is true while a process runs."""
        deadline = time.monotonic() + 60
        while not true():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.0005)


def clean_environment(**added: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "PROBE_", "PL_"))}
    probe = str(Path(__file__).parent)
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": probe, **added}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, dict | list | tuple):
            yield from _flat(item, f"{name}/{key}")
        else:
            yield f"{name}/{key}", item


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return bool(a == b) or (a != a and b != b)  # NaN of a range of times that no sample had


@pytest.fixture(scope="session", autouse=True)
def server_of_forks() -> None:
    """Starts it with one thread a fork, and where it finds our modules."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "PYTHONPATH"):
            patch.setenv(name, clean_environment()[name])
        multiprocessing.forkserver.ensure_running()


@pytest.fixture(scope="session")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Code shards of 40 images of 32×32."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(40):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((32, 32)).save(folder / "photos" / f"{i:02d}.png")
    write_shards(folder / "photos", folder / "images", 32, shard_size=10, workers=1)
    encode_shards(folder / "images", folder / "codes", load_codec("opq-32-8-8"), workers=1)
    return folder / "codes"


@pytest.fixture(scope="session")
def new_fit(codes: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Fit]:
    def make(*options: str) -> Fit:
        folder = tmp_path_factory.mktemp("fit")
        config = yaml.safe_load(CONFIG)
        config["data"]["init_args"].update(train=str(codes), val=str(codes))
        (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
        return Fit(folder, options)

    return make


TWO_PROCESSES = ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2")


@pytest.fixture(scope="session")
def whole(new_fit: Callable[..., Fit]) -> Callable[..., Fit]:
    """A run with these options that nothing disturbed."""

    @functools.cache
    def make(*options: str) -> Fit:
        fit = new_fit(*options)
        fit.run(**({"PROBE_RECORD": str(fit.folder)} if options == TWO_PROCESSES else {}))
        return fit

    return make


@pytest.fixture(scope="session")
def unbroken(whole: Callable[..., Fit]) -> Fit:
    return whole()


@pytest.fixture(scope="session")
def unbroken_pair(whole: Callable[..., Fit]) -> Fit:
    """A run of two processes that nothing disturbed."""
    return whole(*TWO_PROCESSES)


@pytest.fixture
def small() -> Callable[..., Any]:
    """Makes a small model of 32×32 images; an awake one's samples follow every option."""

    def make(kind: str, awake: bool = False) -> DiffusionModule:
        torch.manual_seed(0)
        parts: Any = "opq-32-8-8", UNet(None, None, 16, (1, 2), 1)
        if kind == "continuous":
            made: Any = ContinuousDiffusion(*parts, GaussianProcess(), 32, warmup_steps=2)
        elif kind == "bits":
            made = BernoulliDiffusion(*parts, BernoulliProcess(), 32)
        elif kind == "stages":
            process = MultiStageProcess([Blur(0.5), Pool(2)], [0.3, 0.6])
            made = StageDiffusion(
                PixelCodec(), MultiStageUNet(None, None, 8, (1, 2), 1), process, 32
            )
        else:
            made = CategoricalDiffusion(*parts, CategoricalProcess(cross_entropy_weight=0.1), 32)
        for parameter in made.denoiser.parameters() if awake else ():
            torch.nn.init.normal_(parameter, std=0.05)
        return made

    return make


@pytest.fixture
def quiet() -> dict[str, Any]:
    """Options of a trainer in Python that prints and writes nothing."""
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return {"accelerator": "cpu", **dict.fromkeys(names, False)}
