"""SIGTERM, SIGUSR1 and SIGINT: saved at the end of the step, exit code 75, resumed bit for bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

RESUME = "--ckpt_path=last"
AGAIN, KILLED = 75, -signal.SIGKILL
READERS = "--data.num_workers=2"
PAIR = ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2")


@pytest.mark.parametrize(
    ("options", "signals"),
    [
        (
            (),
            [
                ("SIGTERM validation 0 0 self", 0),  # before the first step
                ("SIGINT step 4 0 burst", 5),  # as `timeout -s INT` does
                ("SIGTERM step 8 0 self", 9),
                ("SIGTERM validation 12 0 self", 12),
                ("SIGKILL step 13 0 self", 12),  # what was saved in validation serves twice
                ("SIGUSR1 save 16 0 self", 16),
                ("SIGUSR1 step 19 0 self", 20),  # ends the epoch
            ],
        ),
        pytest.param(  # as SLURM sends it: to the reading processes too
            (READERS,),
            [(f"{name} step {step} 0 group", step + 1) for name, step in
             (("SIGTERM", 4), ("SIGUSR1", 12), ("SIGINT", 17))],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            PAIR,
            [
                ("SIGUSR1 step 4 1 group", 5),  # both get it, one of them in the middle of a step
                ("SIGTERM step 8 0 self", None),
                ("SIGTERM validating 12 1 self", 12),
            ],
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_signals_save_the_step_and_exit(
    new_fit: Any, whole: Any, options: tuple[str, ...], signals: list[tuple[str, int | None]]
) -> None:
    fit, resume = new_fit(*options), []
    for sent, saved in signals:
        name = sent.split()[0]
        code = KILLED if name == "SIGKILL" else AGAIN
        printed = fit.run(*resume, code=code, PROBE_SIGNAL=sent)
        assert "Traceback" not in printed
        assert printed.count(" is in ") == (code == AGAIN)
        assert saved in (None, fit.last()["/global_step"])
        assert f"{name}: step {saved} is in " in printed or options == PAIR or code == KILLED
        resume = [RESUME]
    # a kill may leave what was saved after last.ckpt
    (fit.version / "checkpoints" / "epoch=1-step=20.ckpt").touch()
    fit.run(RESUME)
    expected = whole(*options)
    fit.assert_same(expected)
    files = [sorted(os.listdir(one.version / "checkpoints")) for one in (fit, expected)]
    assert files[0] == files[1]


def test_second_ctrl_c_leaves_at_once(new_fit: Any) -> None:
    fit = new_fit()
    printed = fit.run(code=AGAIN, PROBE_SIGNAL="SIGINT step 12 0 twice")
    assert "Press Ctrl-C again" in printed
    assert "SIGINT: left without saving" in printed
    assert fit.last()["/global_step"] == 12


@pytest.mark.slow
def test_signals_again_and_again_while_it_saves(new_fit: Any, whole: Any) -> None:
    fit = new_fit(READERS)
    process = fit.start()
    fit.wait_for(process, (fit.version / "checkpoints").exists)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    printed, _ = process.communicate(timeout=1)
    assert process.returncode == AGAIN, printed
    fit.run(RESUME)
    fit.assert_same(whole(READERS))


@pytest.mark.slow
def test_checkpoint_due_at_the_step_is_written(new_fit: Any) -> None:
    fit = new_fit("--trainer.callbacks.init_args.save_top_k=-1")
    fit.run(code=AGAIN, PROBE_SIGNAL="SIGUSR1 step 15 0 self")
    fit.run(RESUME)
    saved = (fit.version / "checkpoints").glob("epoch*")
    steps = sorted(int(path.stem.partition("step=")[2]) for path in saved)
    assert steps == [4, 8, 12, 16, 20, 24]


def test_signal_while_it_encodes(new_fit: Any, codes: Path, tmp_path: Path) -> None:
    fit = new_fit(f"--data.cache_dir={tmp_path / 'cache'}", "--trainer.max_steps=2")
    images = [f"--data.{name}={codes.parent / 'images'}" for name in ("train", "val")]
    process = fit.start(fit.command(*images), PROBE_SLOW="1")
    fit.wait_for(process, lambda: [*(tmp_path / "cache").glob("*/.unfinished/*.tar")])
    process.send_signal(signal.SIGUSR1)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == AGAIN, printed
    assert "SIGUSR1: left at once" in printed
    assert len([*(tmp_path / "cache").glob("*/.unfinished/*.tar")]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("target", ["first", "second", "both"])
def test_signal_while_two_processes_encode(
    new_fit: Any, codes: Path, tmp_path: Path, target: str
) -> None:
    fit = new_fit(*PAIR)
    images = [f"--data.{name}={codes.parent / 'images'}" for name in ("train", "val")]
    command = fit.command(*images, f"--data.cache_dir={tmp_path / 'cache'}")
    process = fit.start(command, PROBE_SLOW="1")
    fit.wait_for(process, lambda: [*(tmp_path / "cache").glob("*/.unfinished/*.tar")])
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    (second,) = map(int, children.read_text().split())
    if target == "both":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        os.kill(process.pid if target == "first" else second, signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)  # until both have closed their output
    assert process.returncode == AGAIN, printed


@pytest.mark.slow
def test_systems_without_such_signals() -> None:
    code = """
import signal
del signal.sigwaitinfo, signal.SIGUSR1
from lit_mbldm.training.resume.preemption import Preemption
from lit_mbldm.parallel.worker_signals import leave_signals_to_parent
Preemption()
leave_signals_to_parent(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
