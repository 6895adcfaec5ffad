import shutil
import sys
from pathlib import Path
from typing import Any

import fsspec
import lightning as L
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_mbldm.cli import main
from lit_mbldm.training.resume.last_checkpoint import (
    CONFIG_NAME,
    keep_last,
    last_keeper,
    start_from,
)


def trainer(*callbacks: ModelCheckpoint, logger: Any = False, **options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        logger=logger,
        callbacks=[*callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


FILES = (
    "[a]/version_9/checkpoints/last.ckpt",
    "[a]/version_10/checkpoints/last.ckpt",
    "[a]/version_10/checkpoints/last-v1.ckpt",
    "[a]/version_10/checkpoints/epoch=1-step=99.ckpt",
    "[a]/version_10/checkpoints/last-good-20.ckpt",
    "[a]/version_11/checkpoints/.last.ckpt.1.tmp",
    "cat/version_12/checkpoints/last.ckpt",
    "checkpoints/last.ckpt",
)
NEWEST, NINTH, IN_ROOT = FILES[2], FILES[0], FILES[-1]


@pytest.mark.parametrize(
    ("logger", "named", "dirpath", "found", "logs"),
    [
        (TensorBoardLogger, {}, None, NEWEST, "version_10"),
        (TensorBoardLogger, {"config": ["[a]/version_9"]}, None, NINTH, "version_9"),
        (TensorBoardLogger, {"version": 9}, None, NINTH, "version_9"),
        (TensorBoardLogger, {}, "checkpoints", IN_ROOT, "version_11"),  # the newest version
        (CSVLogger, {}, None, NEWEST, "version_12"),  # which would delete logs that are there
        (None, {}, None, IN_ROOT, None),
    ],
)
def test_which_last_is_found_and_where_logs_go_on(
    logger: Any, named: dict[str, Any], dirpath: str | None, found: str, logs: str, tmp_path: Path
) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    configs = [str(tmp_path / folder / CONFIG_NAME) for folder in named.get("config", [])]
    callbacks = [ModelCheckpoint(tmp_path / dirpath)] if dirpath else []
    writer = logger and logger(tmp_path, "[a]", version=named.get("version"))
    one = trainer(*callbacks, logger=writer or False, default_root_dir=tmp_path)
    assert start_from(one, "fit", "last", configs) == str(tmp_path / found)
    if writer:
        assert Path(writer.log_dir).name == logs


def test_on_another_file_system() -> None:
    with fsspec.open("memory://runs/last.ckpt", "wb") as file:
        file.write(b"x")
    found = start_from(trainer(ModelCheckpoint("memory://runs")), "fit", "last")
    with fsspec.open(found) as file:
        assert file.read() == b"x"


def test_one_last_is_kept_unless_refused() -> None:
    unset, refused, weights = (
        ModelCheckpoint(),
        ModelCheckpoint(monitor="a", save_last=False),
        ModelCheckpoint(monitor="b", save_weights_only=True),
    )
    one = trainer(weights, refused, unset)
    keep_last(one)
    assert last_keeper(one) is unset
    assert [x.save_last for x in (unset, refused, weights)] == [True, False, False]
    two = trainer(refused)
    keep_last(two)
    assert last_keeper(two) is None
    assert last_keeper(trainer(unset, fast_dev_run=True)) is None
    link, second = (ModelCheckpoint(monitor=x, save_last="link") for x in "cd")
    keep_last(trainer(link, second))
    assert [link.save_last, second.save_last] == [True, False]


@pytest.fixture
def fit(new_fit: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fit that has not run, in whose folder commands run here."""
    fit = new_fit()
    monkeypatch.chdir(fit.folder)
    monkeypatch.setattr(sys, "argv", ["lightning"])
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return fit


def run(verb: str, *options: str, config: str = "tiny.yaml") -> None:
    del sys.argv[1:]
    main([verb, "--config", config, "--ckpt_path", "last", *options])


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_missing_one_is_an_error_of_every_verb(fit: Any, verb: str) -> None:
    with pytest.raises(SystemExit) as left:
        run(verb)
    assert "no last.ckpt in runs/tiny/*/checkpoints" in str(left.value)
    assert "Start without --ckpt_path" in str(left.value)
    assert not (fit.folder / "runs").exists()


def test_validate_finds_it_and_a_damaged_one_is_named(
    unbroken: Any, fit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (unbroken.version / "checkpoints" / "last.ckpt").read_bytes()
    path = fit.version / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(whole)
    run("validate")
    assert "val/loss" in capsys.readouterr().out
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit, match=r"version_0/checkpoints/last.ckpt is damaged"):
        run("validate")


def test_the_run_of_the_config_goes_on_and_no_other_is_touched(
    unbroken: Any, fit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runs = fit.version.parent
    for name in ("version_0", "version_1"):
        shutil.copytree(unbroken.version, runs / name)
    untouched = sorted((runs / "version_1").rglob("*"))
    samples = ("--samples.num_images=1", "--samples.options.steps=1")
    for verb, *options in (("fit",), ("validate",), ("predict", *samples)):  # all is trained
        caplog.clear()
        run(verb, *options, config=f"runs/tiny/version_0/{CONFIG_NAME}")
        assert "version_0/checkpoints/last.ckpt" in caplog.text
    assert sorted(path.name for path in runs.iterdir()) == ["version_0", "version_1"]
    assert sorted((runs / "version_1").rglob("*")) == untouched
