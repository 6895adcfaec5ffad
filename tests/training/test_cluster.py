"""The scripts of docs/scaling.md, run as they are: torchrun on loopback, SLURM with stand-ins."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "scaling.md"
CPU = ("--trainer.strategy=ddp", "--data.batch_size=2")

# Two tasks on two nodes, with what SLURM tells each, and signals that reach them and not srun.
# As srun does, it kills the others (at once, or so long after the first end) and returns the
# highest code.
SRUN = """#!{python}
import os, subprocess, sys, time
options = dict(word[2:].split("=") for word in sys.argv[1:3])
command = sys.argv[3:]
tasks, group = [], 0
for number in range(2):
    own = dict(SLURM_PROCID=str(number), SLURM_NODEID=str(number), SLURM_LOCALID="0")
    tasks.append(subprocess.Popen(command, env={{**os.environ, **own}}, process_group=group))
    group = tasks[0].pid
first_end = None
while None in (codes := [task.poll() for task in tasks]):
    first_end = first_end or (any(code is not None for code in codes) and time.monotonic())
    bad = any(codes) and options["kill-on-bad-exit"] == "1"
    if bad or (first_end and time.monotonic() - first_end > float(options["wait"])):
        for task in tasks:
            task.kill()
    time.sleep(0.001)
print("CPUs of a task:", os.environ.get("SRUN_CPUS_PER_TASK"))
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
SCONTROL = """#!/bin/sh
echo "$@" >> scontrol.log
"""


def script(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```bash\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def own_path(tmp_path: Path) -> str:
    """A PATH on which `python` is the interpreter of the tests."""
    write_program(tmp_path / "bin" / "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    return f"{tmp_path / 'bin'}:{os.environ['PATH']}"


def run_nodes(fit: Any, path: str, **environment: str) -> tuple[list[int], str]:
    """Exit codes of the script on two nodes, and what they printed."""
    (fit.folder / "train.sh").write_text(script("torchrun"))
    variables = {
        "CONFIG": "tiny.yaml",
        "RUN": "runs/tiny",
        "NNODES": "2",
        "DEVICES": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": fit.port(),
        "PATH": path,
        **environment,
    }
    nodes = [fit.start(["bash", "train.sh", *CPU], **variables) for _ in range(2)]
    printed = [node.communicate(timeout=240)[0] for node in nodes]
    return [node.returncode for node in nodes], "".join(printed)


@pytest.mark.slow
def test_torchrun_passes_sigterm_on_and_the_same_script_continues(
    new_fit: Any, unbroken_pair: Any, own_path: str
) -> None:
    fit = new_fit()
    codes, printed = run_nodes(fit, own_path, PROBE_SIGNAL="SIGTERM batch_end 12 1 parent")
    assert codes == [1, 1], printed
    assert printed.count("is in runs/tiny/version_0/checkpoints/last.ckpt") == 1
    codes, printed = run_nodes(fit, own_path)
    assert codes == [0, 0], printed
    fit.assert_same(unbroken_pair)


@pytest.mark.slow
def test_slurm_job_is_preempted_requeued_and_finishes(
    new_fit: Any, unbroken_pair: Any, own_path: str, tmp_path: Path
) -> None:
    write_program(tmp_path / "bin" / "srun", SRUN.format(python=sys.executable))
    write_program(tmp_path / "bin" / "scontrol", SCONTROL)
    fit = new_fit()
    (fit.folder / "train.sbatch").write_text(script("slurm"))
    variables = {
        "CONFIG": "tiny.yaml",
        "RUN": "runs/tiny",
        "VERSION": "0",
        "PATH": own_path,
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "church_cat",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_CPUS_PER_TASK": "3",
        "MASTER_PORT": fit.port(),
    }
    job = ["bash", "train.sbatch", *CPU]
    first = fit.start(job, PROBE_SIGNAL="SIGUSR1 step 12 1 group", **variables)
    printed, _ = first.communicate(timeout=240)
    assert first.returncode == os.EX_TEMPFAIL, printed
    assert printed.count("step 13 is in") == 1
    assert "CPUs of a task: 3" in printed
    assert (fit.folder / "scontrol.log").read_text() == "requeue 4711\n"
    again = fit.start(job, SLURM_RESTART_COUNT="1", **variables)
    printed, _ = again.communicate(timeout=240)
    assert again.returncode == 0, printed
    assert (fit.folder / "scontrol.log").read_text() == "requeue 4711\n"
    fit.assert_same(unbroken_pair)


@pytest.mark.parametrize("name", ["torchrun", "slurm"])
def test_scripts_are_bash(name: str) -> None:
    subprocess.run(["bash", "-n"], input=script(name), text=True, check=True)


def test_slurm_job_that_fails_is_not_requeued(own_path: str, tmp_path: Path) -> None:
    write_program(tmp_path / "bin" / "srun", "#!/bin/sh\nexit 1\n")
    write_program(tmp_path / "bin" / "scontrol", SCONTROL)
    (tmp_path / "train.sbatch").write_text(script("slurm"))
    job = {"SLURM_JOB_ID": "1", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "1"}
    ran = subprocess.run(
        ["bash", "train.sbatch"],
        cwd=tmp_path,
        env={**os.environ, **job, "PATH": own_path},
        check=False,
    )
    assert ran.returncode == 1
    assert not (tmp_path / "scontrol.log").exists()
