"""A run that is killed and started again is the run that was never killed."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from typing import Any

import pytest

RESUME = "--ckpt_path=last"
KILLED = -signal.SIGKILL
POINTS = [(hook, step) for step in range(5, 24) for hook in ("step", "batch_end")]
# where Lightning leaves most undone: saves, with validation or the end of an epoch still to come
POINTS += [("save", 8), ("save", 20), ("validation", 12), ("validated", 12), ("epoch_end", 20)]


def test_run_killed_at_a_random_point_resumes_bit_for_bit(
    new_fit: Callable[..., Any], unbroken: Any, same: Callable[..., None]
) -> None:
    fit = new_fit()
    hook, step = random.Random(1).choice(POINTS)
    fit.run(code=KILLED, PROBE_SIGNAL=f"SIGKILL {hook} {step} 0 self")
    printed = fit.run(RESUME)
    assert "version_0/checkpoints/last.ckpt" in printed
    same(fit, unbroken)
    assert os.listdir(fit.version.parent) == ["version_0"]
    assert sorted(path.name for path in (fit.version / "checkpoints").iterdir()) == [
        "epoch=2-step=24.ckpt",
        "last.ckpt",
    ]


@pytest.mark.slow
def test_run_killed_in_validation_resumes_bit_for_bit(
    new_fit: Callable[..., Any], unbroken: Any, same: Callable[..., None]
) -> None:
    fit = new_fit()
    # the checkpoint at step 12 is saved before validation, in the middle of which it is killed
    fit.run(code=KILLED, PROBE_SIGNAL="SIGKILL validation 12 0 self")
    assert ("val/loss", 11) not in fit.scalars()
    fit.run(RESUME)
    same(fit, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("seed", range(4))
def test_run_killed_at_random_points_again_and_again(
    new_fit: Callable[..., Any], same: Callable[..., None], workers: int, seed: int
) -> None:
    options = [f"--data.num_workers={workers}"]
    whole, fit = new_fit(*options), new_fit(*options)
    whole.run()
    points = sorted(random.Random(seed).sample(POINTS, 4), key=lambda point: point[1])
    resume: list[str] = []
    for hook, step in points:
        printed = fit.run(*resume, code=KILLED, PROBE_SIGNAL=f"SIGKILL {hook} {step} 0 self")
        resume = [RESUME] if (fit.version / "checkpoints" / "last.ckpt").exists() else []
        assert "Traceback" not in printed
    fit.run(*resume)
    same(fit, whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_run_killed_while_it_writes_a_checkpoint(
    new_fit: Callable[..., Any],
    same: Callable[..., None],
    wait_for: Callable[..., None],
    workers: int,
) -> None:
    options = [f"--data.num_workers={workers}"]
    whole, fit = new_fit(*options), new_fit(*options)
    whole.run()
    folder = fit.version / "checkpoints"
    process = fit.start()
    for _ in range(4):  # top-k and last of step 4, then of step 8
        wait_for(process, lambda: not list(folder.glob(".*.tmp")))
        wait_for(process, lambda: list(folder.glob(".*.tmp")))
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == KILLED
    process.stdout.close()
    assert (folder / "last.ckpt").exists()
    fit.run(RESUME)
    same(fit, whole)
    assert not list(folder.glob(".*"))


@pytest.mark.slow
def test_run_with_checkpoints_at_epoch_ends_resumes_bit_for_bit(
    new_fit: Callable[..., Any], same: Callable[..., None]
) -> None:
    options = [
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.val_check_interval=1.0",
        "--trainer.callbacks.init_args.every_n_train_steps=null",
    ]
    whole, fit = new_fit(*options), new_fit(*options)
    whole.run()
    fit.run(code=KILLED, PROBE_SIGNAL="SIGKILL step 13 0 self")
    fit.run(RESUME, code=KILLED, PROBE_SIGNAL="SIGKILL epoch_end 20 0 self")
    fit.run(RESUME)
    same(fit, whole)


@pytest.mark.slow
def test_complete_run_stays_as_it_is(
    new_fit: Callable[..., Any], unbroken: Any, same: Callable[..., None]
) -> None:
    fit = new_fit()
    shutil.copytree(unbroken.folder / "runs", fit.folder / "runs")
    printed = fit.run(RESUME)
    assert "`max_steps=24` reached" in printed
    same(fit, unbroken)
