"""SIGTERM, SIGUSR1 and SIGINT: saved at the end of the step, exit code 75, resumed bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RESUME = "--ckpt_path=last"
AGAIN = os.EX_TEMPFAIL


@pytest.mark.parametrize(
    ("sent", "saved"),
    [
        ("SIGINT step 12 0 burst", 13),  # as `timeout -s INT` does
        pytest.param("SIGUSR1 step 12 0 self", 13, marks=pytest.mark.slow),
        pytest.param("SIGTERM step 12 0 self", 13, marks=pytest.mark.slow),
        pytest.param("SIGTERM validation 18 0 self", 18, marks=pytest.mark.slow),
        pytest.param("SIGUSR1 save 16 0 self", 16, marks=pytest.mark.slow),
        pytest.param("SIGUSR1 step 19 0 self", 20, marks=pytest.mark.slow),  # ends the epoch
    ],
)
def test_signal_saves_the_step_and_exits(
    new_fit: Callable[..., Any], unbroken: Any, same: Callable[..., None], sent: str, saved: int
) -> None:
    fit = new_fit()
    printed = fit.run(code=AGAIN, PROBE_SIGNAL=sent)
    name = sent.split()[0]
    assert f"{name}: step {saved} is in " in printed
    assert "Traceback" not in printed
    assert fit.last()["/global_step"] == saved
    # a kill may leave what was saved after last.ckpt
    (fit.version / "checkpoints" / "epoch=1-step=20.ckpt").touch()
    fit.run(RESUME)
    same(fit, unbroken)
    saved_files = [
        sorted(path.name for path in (one.version / "checkpoints").iterdir())
        for one in (fit, unbroken)
    ]
    assert saved_files[0] == saved_files[1]


def test_second_ctrl_c_leaves_at_once(new_fit: Callable[..., Any]) -> None:
    fit = new_fit()
    printed = fit.run(code=AGAIN, PROBE_SIGNAL="SIGINT step 12 0 twice")
    assert "Press Ctrl-C again" in printed
    assert "SIGINT: left without saving" in printed
    assert fit.last()["/global_step"] == 12


@pytest.mark.slow
def test_signals_to_both_of_two_processes(
    new_pair: Callable[[], Any], unbroken_pair: Any, same: Callable[..., None]
) -> None:
    fit = new_pair()
    # both processes get it, one of them in the middle of a step
    printed = fit.run(code=AGAIN, PROBE_SIGNAL="SIGUSR1 step 12 1 group")
    assert printed.count("step 13 is in ") == 1
    assert "Traceback" not in printed
    fit.run(RESUME)
    same(fit, unbroken_pair)


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["SIGTERM step 12 0 self", "SIGTERM validating 12 1 self"])
def test_signal_to_one_of_two_processes_is_agreed_on(
    new_pair: Callable[[], Any], unbroken_pair: Any, same: Callable[..., None], sent: str
) -> None:
    fit = new_pair()
    printed = fit.run(code=AGAIN, PROBE_SIGNAL=sent)
    assert "Traceback" not in printed
    fit.run(RESUME)
    same(fit, unbroken_pair)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_signal_to_the_reading_processes_too(
    new_fit: Callable[..., Any], same: Callable[..., None], name: str
) -> None:
    """As SLURM sends it: to every process of the job."""
    options = ["--data.num_workers=2"]
    whole, fit = new_fit(*options), new_fit(*options)
    whole.run()
    printed = fit.run(code=AGAIN, PROBE_SIGNAL=f"{name} step 12 0 group")
    assert "Traceback" not in printed
    fit.run(RESUME)
    same(fit, whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_signals_again_and_again_while_it_saves(
    new_fit: Callable[..., Any],
    same: Callable[..., None],
    wait_for: Callable[..., None],
    workers: int,
) -> None:
    options = [f"--data.num_workers={workers}"]
    whole, fit = new_fit(*options), new_fit(*options)
    whole.run()
    process = fit.start()
    wait_for(process, (fit.version / "checkpoints").exists)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    printed, _ = process.communicate(timeout=1)
    assert process.returncode == AGAIN, printed
    fit.run(RESUME)
    same(fit, whole)


@pytest.mark.slow
def test_checkpoint_due_at_the_step_is_written(new_fit: Callable[..., Any]) -> None:
    fit = new_fit("--trainer.callbacks.init_args.save_top_k=-1")
    fit.run(code=AGAIN, PROBE_SIGNAL="SIGUSR1 step 15 0 self")
    fit.run(RESUME)
    saved = (fit.version / "checkpoints").glob("epoch*")
    steps = sorted(int(path.stem.partition("step=")[2]) for path in saved)
    assert steps == [4, 8, 12, 16, 20, 24]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_processes_with_unequal_validation_batches(
    new_pair: Callable[[], Any], codes: Path, tmp_path: Path, workers: int
) -> None:
    shutil.copytree(codes, tmp_path / "val")
    last = sorted((tmp_path / "val").glob("*.tar"))[-1]
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 3])
    fit = new_pair()
    options = [
        f"--data.val={tmp_path / 'val' / 'codes-{000000..000003}.tar'}",
        "--data.max_skipped=0.5",
        f"--data.num_workers={workers}",
        "--trainer.limit_val_batches=1.0",
    ]
    assert "Skipped" in fit.run(*options)


def test_signal_while_it_encodes(
    new_fit: Callable[..., Any], wait_for: Callable[..., None], codes: Path, tmp_path: Path
) -> None:
    fit = new_fit(f"--data.cache_dir={tmp_path / 'cache'}", "--trainer.max_steps=2")
    images = [f"--data.{name}={codes.parent / 'images'}" for name in ("train", "val")]
    process = fit.start(fit.command(*images), PROBE_SLOW="1")
    wait_for(process, lambda: [*(tmp_path / "cache").glob("*/.unfinished/*.tar")])
    process.send_signal(signal.SIGUSR1)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == AGAIN, printed
    assert "SIGUSR1: left at once" in printed
    assert len([*(tmp_path / "cache").glob("*/.unfinished/*.tar")]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("target", ["first", "second", "both"])
def test_signal_while_two_processes_encode(
    new_pair: Callable[[], Any],
    wait_for: Callable[..., None],
    codes: Path,
    tmp_path: Path,
    target: str,
) -> None:
    fit = new_pair()
    images = [f"--data.{name}={codes.parent / 'images'}" for name in ("train", "val")]
    command = fit.command(*images, f"--data.cache_dir={tmp_path / 'cache'}")
    process = fit.start(command, PROBE_SLOW="1")
    wait_for(process, lambda: [*(tmp_path / "cache").glob("*/.unfinished/*.tar")])
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
import os, signal
del signal.sigwaitinfo, signal.SIGUSR1, os.EX_TEMPFAIL
from lit_mbldm.training.resume.preemption import EXIT_CODE, Preemption
from lit_mbldm.parallel.worker_signals import leave_signals_to_parent
Preemption().take_signals()
leave_signals_to_parent(0)
assert EXIT_CODE == 75
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_signal_before_the_first_step_saves_nothing(new_fit: Callable[..., Any]) -> None:
    fit = new_fit()
    printed = fit.run(code=AGAIN, PROBE_SIGNAL="SIGTERM validation 0 0 self")
    assert "nothing to save" in printed
    assert not (fit.version / "checkpoints").exists()
