"""SIGTERM and SIGUSR1: saved at the end of the step, exit code 75, resumed bit for bit."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

RESUME = "--ckpt_path=last"
AGAIN = os.EX_TEMPFAIL


@pytest.mark.parametrize(
    ("sent", "saved"),
    [
        ("SIGUSR1 step 12 0 self", 13),
        pytest.param("SIGTERM step 12 0 self", 13, marks=pytest.mark.slow),
        pytest.param("SIGTERM validation 18 0 self", 18, marks=pytest.mark.slow),
        pytest.param("SIGUSR1 save 16 0 self", 17, marks=pytest.mark.slow),
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
    fit.run(RESUME)
    same(fit, unbroken)


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
@pytest.mark.parametrize("sent", ["SIGTERM step 12 0 self", "SIGTERM validation 12 1 self"])
def test_signal_to_one_of_two_processes_is_agreed_on(
    new_pair: Callable[[], Any], unbroken_pair: Any, same: Callable[..., None], sent: str
) -> None:
    fit = new_pair()
    printed = fit.run(code=AGAIN, PROBE_SIGNAL=sent)
    assert "Traceback" not in printed
    fit.run(RESUME)
    same(fit, unbroken_pair)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
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
    new_fit: Callable[..., Any], same: Callable[..., None], workers: int
) -> None:
    options = [f"--data.num_workers={workers}"]
    whole, fit = new_fit(*options), new_fit(*options)
    whole.run()
    process = fit.start()
    while not (fit.version / "checkpoints").exists():
        time.sleep(0.001)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    assert process.returncode == AGAIN, process.stdout.read()
    process.stdout.close()
    fit.run(RESUME)
    same(fit, whole)


@pytest.mark.slow
def test_signal_before_the_first_step_saves_nothing(new_fit: Callable[..., Any]) -> None:
    fit = new_fit()
    printed = fit.run(code=AGAIN, PROBE_SIGNAL="SIGTERM validation 0 0 self")
    assert "nothing to save" in printed
    assert not (fit.version / "checkpoints").exists()
