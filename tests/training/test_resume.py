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
SAVED_AT = "--trainer.callbacks.init_args.every_n_train_steps"
ACCUMULATED = "--trainer.accumulate_grad_batches"
DATA = {
    "streaming": (),
    "two readers": ("--data.num_workers=2",),
    "in memory": ("--data.in_memory=true",),
    "images": ("--data.train={images}",),
}
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
AT_EPOCH_ENDS = (
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.val_check_interval=1.0",
    f"{SAVED_AT}=null",
)


@pytest.fixture
def of_kind(codes: Path) -> Callable[[str], list[str]]:
    """The options of a kind of run."""
    return lambda kind: [one.format(images=codes.parent / "images") for one in KINDS[kind]]


@pytest.mark.parametrize(
    ("kind", "accumulated", "every", "steps"),
    [
        ("streaming", 3, 2, 9),
        pytest.param("streaming", 1, 5, 12, marks=pytest.mark.slow),
        pytest.param("streaming", 3, None, 9, marks=pytest.mark.slow),
        pytest.param("two readers", 3, None, 9, marks=pytest.mark.slow),
        pytest.param("in memory", 2, 3, 11, marks=pytest.mark.slow),
        pytest.param("images", 3, 2, 9, marks=pytest.mark.slow),
    ],
)
def test_every_checkpoint_goes_on_as_the_run_did(
    new_fit: Any, of_kind: Any, kind: str, accumulated: int, every: int | None, steps: int
) -> None:
    """And writes the same checkpoints, so that any number of kills changes nothing."""
    options = [
        *of_kind(kind),
        f"{ACCUMULATED}={accumulated}",
        f"{SAVED_AT}={every or 'null'}",
        f"--trainer.max_steps={steps}",
        "--trainer.val_check_interval=7",
        "--trainer.callbacks.init_args.save_top_k=-1",
    ]
    whole = new_fit(*options)
    whole.run()
    expected, scalars = whole.saved(), whole.scalars()
    assert len(expected) >= 3
    for name, start in expected.items():
        step = start["/global_step"]
        if step == steps:
            continue
        fit = new_fit(*options)
        fit.run(f"--ckpt_path={whole.version / 'checkpoints' / name}")
        found = fit.saved()
        assert found.keys() == {n for n, state in expected.items() if state["/global_step"] > step}
        for file, state in found.items():
            assert fit.differences(state, expected[file]) == []
        assert fit.scalars() == {key: value for key, value in scalars.items() if key[1] >= step}


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("streaming", 2), *(pytest.param(kind, 6, marks=pytest.mark.slow) for kind in KINDS)],
)
def test_kills_at_random_hooks_change_nothing(
    new_fit: Any, whole: Any, of_kind: Any, kind: str, kills: int
) -> None:
    seed = secrets.randbits(32)
    print(f"{kind}: seed {seed}")
    generator = random.Random(seed)
    expected, fit = whole(*of_kind(kind)), new_fit(*of_kind(kind))
    last = fit.version / "checkpoints" / "last.ckpt"
    for _ in range(kills):
        resume = [RESUME] if last.exists() else []
        code = fit.fork(*resume, PROBE_KILL=str(generator.randint(1, 40)))
        assert code in (0, KILLED), fit.printed()[-4000:]
        if code == 0:
            fit.assert_same(expected)
        if code == 0 or not last.exists():
            shutil.rmtree(fit.folder / "runs", ignore_errors=True)
    fit.run(*[RESUME] if last.exists() else [])
    fit.assert_same(expected)


@pytest.mark.parametrize(
    ("options", "kills"),
    [
        # saves, with validation or the end of an epoch still to come
        ((), ["save 8", "validation 12", "validated 12", "save 20", "epoch_end 20"]),
        pytest.param(AT_EPOCH_ENDS, ["step 13", "epoch_end 20"], marks=pytest.mark.slow),
    ],
)
def test_kills_where_lightning_leaves_most_undone_change_nothing(
    new_fit: Any, whole: Any, options: tuple[str, ...], kills: list[str]
) -> None:
    fit, resume = new_fit(*options), []
    for kill in kills:
        printed = fit.run(*resume, code=KILLED, PROBE_SIGNAL=f"SIGKILL {kill} 0 self")
        assert "Traceback" not in printed
        if (fit.version / "checkpoints" / "last.ckpt").exists():
            resume = [RESUME]
    printed = fit.run(RESUME)
    assert "version_0/checkpoints/last.ckpt" in printed
    fit.assert_same(whole(*options))
    assert os.listdir(fit.version.parent) == ["version_0"]
    saved = sorted(path.name for path in (fit.version / "checkpoints").iterdir())
    assert saved == ["epoch=2-step=24.ckpt", "last.ckpt"]
    printed = fit.run(RESUME)  # a complete run stays as it is
    assert "`max_steps=24` reached" in printed
    fit.assert_same(whole(*options))


def test_complete_run_goes_on_where_more_steps_are_asked_for(new_fit: Any) -> None:
    """Bit for bit at the end of an epoch of four steps, with a new epoch in the middle of one."""
    options = [f"{ACCUMULATED}=3", f"{SAVED_AT}=100"]
    whole, fit = new_fit(*options), new_fit(*options)
    whole.run("--trainer.max_steps=9")
    fit.run("--trainer.max_steps=4")
    fit.run(RESUME, "--trainer.max_steps=9")
    assert fit.differences(fit.last(), whole.last()) == []
    found, expected = fit.scalars(), whole.scalars()
    later = {key for key in {*found, *expected} if key[1] >= 4}
    assert {key: found[key] for key in later} == {key: expected[key] for key in later}
    fit.run(RESUME, "--trainer.max_steps=10")
    assert [fit.last()["/global_step"], fit.last()["/epoch"]] == [10, 4]
