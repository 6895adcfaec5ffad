"""A run that is killed and started again is the run that was never killed."""

import os
import random
import secrets
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RESUME = "--ckpt_path=last"
KILLED = -signal.SIGKILL
POINTS = [(hook, step) for step in range(5, 24) for hook in ("step", "batch_end")]
# where Lightning leaves most undone: saves, with validation or the end of an epoch still to come
POINTS += [("save", 8), ("save", 20), ("validation", 12), ("validated", 12), ("epoch_end", 20)]

SAVED_AT = "--trainer.callbacks.init_args.every_n_train_steps"
DATA = {
    "streaming": (),
    "two readers": ("--data.num_workers=2",),
    "in memory": ("--data.in_memory=true",),
    "images": ("--data.train={images}",),
}
ACCUMULATED = "--trainer.accumulate_grad_batches"
KINDS = {
    **DATA,
    "accumulating": (f"{ACCUMULATED}=3",),
    "accumulating in memory": (f"{ACCUMULATED}=2", *DATA["in memory"]),
    "accumulating in validation": (
        f"{ACCUMULATED}=3",
        f"{SAVED_AT}=null",
        "--trainer.val_check_interval=7",
    ),
    "two processes": ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2"),
}


@pytest.fixture
def new_run(new_fit: Callable[..., Any], codes: Path) -> Callable[..., Any]:
    def make(*options: str) -> Any:
        return new_fit(*(option.format(images=codes.parent / "images") for option in options))

    return make


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in DATA if kind != "streaming"]


@pytest.mark.parametrize("kind", ["streaming", *SLOW])
@pytest.mark.parametrize(
    ("accumulated", "every", "steps"),
    [
        pytest.param(1, 5, 12, marks=pytest.mark.slow),
        pytest.param(2, 3, 11, marks=pytest.mark.slow),
        (3, 2, 9),
        pytest.param(3, None, 9, marks=pytest.mark.slow),
    ],
)
def test_every_checkpoint_goes_on_as_the_run_did(
    new_run: Callable[..., Any],
    differing: Callable[..., list[str]],
    kind: str,
    accumulated: int,
    every: int | None,
    steps: int,
) -> None:
    """And writes the same checkpoints, so that any number of kills changes nothing."""
    options = [
        *DATA[kind],
        f"{ACCUMULATED}={accumulated}",
        f"{SAVED_AT}={every or 'null'}",
        f"--trainer.max_steps={steps}",
        "--trainer.val_check_interval=7",
        "--trainer.callbacks.init_args.save_top_k=-1",
    ]
    whole = new_run(*options)
    whole.run()
    expected, scalars = whole.saved(), whole.scalars()
    assert len(expected) >= 3
    for name, start in expected.items():
        step = start["/global_step"]
        if step == steps:
            continue
        fit = new_run(*options)
        fit.run(f"--ckpt_path={whole.version / 'checkpoints' / name}")
        found = fit.saved()
        assert found.keys() == {n for n, state in expected.items() if state["/global_step"] > step}
        for file, state in found.items():
            assert differing(state, expected[file]) == []
        assert fit.scalars() == {key: value for key, value in scalars.items() if key[1] >= step}


@pytest.mark.parametrize("steps", [4, pytest.param(5, marks=pytest.mark.slow)])
def test_complete_run_goes_on_where_more_steps_are_asked_for(
    new_fit: Callable[..., Any], differing: Callable[..., list[str]], steps: int
) -> None:
    """At the end of an epoch of ten batches, and in the middle of one."""
    options = [f"{ACCUMULATED}=3", f"{SAVED_AT}=100"]
    whole, fit = new_fit(*options), new_fit(*options)
    whole.run("--trainer.max_steps=9")
    fit.run(f"--trainer.max_steps={steps}")
    fit.run(RESUME, "--trainer.max_steps=9")
    assert differing(fit.last(), whole.last()) == []
    found, expected = fit.scalars(), whole.scalars()
    later = {key for key in {*found, *expected} if key[1] >= steps}
    assert {key: found[key] for key in later} == {key: expected[key] for key in later}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twelve_kills(new_run: Callable[..., Any], same: Callable[..., None], kind: str) -> None:
    seed = secrets.randbits(32)
    print(f"{kind}: seed {seed}")
    draw = random.Random(seed)
    whole, fit = new_run(*KINDS[kind]), new_run(*KINDS[kind])
    whole.run()
    last = fit.version / "checkpoints" / "last.ckpt"
    for _ in range(12):
        resume = [RESUME] if last.exists() else []
        code = fit.fork(*resume, PROBE_KILL=str(draw.randint(1, 40)))
        assert code in (0, KILLED), (fit.folder / "log.txt").read_text()[-4000:]
        if code == 0:
            same(fit, whole)
        if code == 0 or not last.exists():
            shutil.rmtree(fit.folder / "runs", ignore_errors=True)
    fit.run(*[RESUME] if last.exists() else [])
    same(fit, whole)


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
