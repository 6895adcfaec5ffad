import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import lightning as L
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_mbldm.cli import main
from lit_mbldm.errors import InputError
from lit_mbldm.training.resume.last_checkpoint import (
    CONFIG_NAME,
    continue_version,
    find_last,
    keep_last,
    last_keeper,
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


def touch(path: Path, age: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (10_000 - age, 10_000 - age))
    return path


def test_newest_of_all_versions_whatever_the_clock_said(tmp_path: Path) -> None:
    runs = tmp_path / "church"
    touch(runs / "version_9" / "checkpoints" / "last.ckpt", age=3)
    newest = touch(runs / "version_10" / "checkpoints" / "last-v1.ckpt", age=5)
    touch(runs / "version_10" / "checkpoints" / "last.ckpt", age=4)
    touch(runs / "version_10" / "checkpoints" / "epoch=1-step=9.ckpt", age=0)
    touch(runs / "version_11" / "checkpoints" / ".last.ckpt.1.tmp", age=0)
    touch(tmp_path / "cat" / "version_12" / "checkpoints" / "last.ckpt", age=0)
    logger = TensorBoardLogger(tmp_path, "church")
    one = trainer(logger=logger)
    assert find_last(one) == str(newest)
    continue_version(one, str(newest))
    assert logger.version == 10


def test_newer_run_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    runs = tmp_path / "church"
    for number in (2, 9):
        touch(runs / f"version_{number}" / "checkpoints" / "last.ckpt", age=number)
        touch(runs / f"version_{number}" / CONFIG_NAME, age=number)
    one = trainer(logger=TensorBoardLogger(tmp_path, "church"))
    (runs / "version_11").mkdir()  # such as of a score
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_last(one)
    touch(runs / "version_10" / CONFIG_NAME, age=0)
    with pytest.warns(UserWarning, match=r"version_10 is newer than .*church/version_9,"):
        find_last(one)


def test_run_whose_config_is_given(tmp_path: Path) -> None:
    named, _ = (
        touch(tmp_path / "[a]" / f"version_{n}" / "checkpoints" / "last.ckpt", 0) for n in (0, 1)
    )
    logger = TensorBoardLogger(tmp_path, "[a]")
    one = trainer(logger=logger)
    run = named.parents[1]
    assert find_last(one, str(run)) == str(named)
    continue_version(one, str(named))
    assert logger.version == 0
    with pytest.raises(InputError, match=r"There is no last.ckpt in .*version_7/checkpoints"):
        find_last(one, str(run.with_name("version_7")))


def test_only_the_version_that_the_logger_names(tmp_path: Path) -> None:
    touch(tmp_path / "church" / "version_0" / "checkpoints" / "last.ckpt", age=0)
    older = touch(tmp_path / "church" / "version_4711" / "checkpoints" / "last.ckpt", age=1)
    logger = TensorBoardLogger(tmp_path, "church", version=4711)
    one = trainer(logger=logger)
    assert find_last(one) == str(older)
    continue_version(one, str(older))
    assert logger.version == 4711


def test_explicit_folder_wins_and_logs_go_on_in_the_newest_version(tmp_path: Path) -> None:
    touch(tmp_path / "church" / "version_5" / "checkpoints" / "last.ckpt", age=0)
    kept = touch(tmp_path / "kept" / "last.ckpt", age=1)
    logger = TensorBoardLogger(tmp_path, "church")
    one = trainer(ModelCheckpoint(tmp_path / "kept"), logger=logger)
    assert find_last(one) == str(kept)
    continue_version(one, str(kept))
    assert logger.version == 5


def test_without_a_logger_it_is_in_the_root_folder(tmp_path: Path) -> None:
    path = touch(tmp_path / "checkpoints" / "last.ckpt", age=0)
    assert find_last(trainer(default_root_dir=tmp_path)) == str(path)


def test_logger_that_would_delete_its_figures_starts_a_new_version(tmp_path: Path) -> None:
    path = touch(tmp_path / "church" / "version_0" / "checkpoints" / "last.ckpt", age=0)
    logger = CSVLogger(tmp_path, "church")
    one = trainer(logger=logger)
    assert find_last(one) == str(path)
    continue_version(one, str(path))
    assert logger.version == 1


def test_on_another_file_system() -> None:
    with fsspec.open("memory://runs/last.ckpt", "wb") as file:
        file.write(b"x")
    found = find_last(trainer(ModelCheckpoint("memory://runs")))
    with fsspec.open(found) as file:
        assert file.read() == b"x"


def test_dangling_link_is_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").symlink_to(tmp_path / "gone.ckpt")
    with pytest.raises(InputError, match="There is no last"):
        find_last(trainer(default_root_dir=tmp_path))


def test_unset_save_last_is_set_and_false_is_kept() -> None:
    unset, refused, weights = (
        ModelCheckpoint(),
        ModelCheckpoint(monitor="a", save_last=False),
        ModelCheckpoint(monitor="b", save_weights_only=True),
    )
    one = trainer(weights, refused, unset)
    keep_last(one)
    assert last_keeper(one) is unset
    assert [unset.save_last, refused.save_last, weights.save_last] == [True, False, None]
    two = trainer(refused)
    keep_last(two)
    assert last_keeper(two) is None
    assert last_keeper(trainer(unset, fast_dev_run=True)) is None
    second = ModelCheckpoint(monitor="c", save_last=True)
    keep_last(trainer(unset, second))
    assert [unset.save_last, second.save_last] == [True, False]


def test_link_is_refused() -> None:
    with pytest.raises(InputError, match="save_last: true"):
        keep_last(trainer(ModelCheckpoint(save_last="link")))


def test_missing_one_is_an_error_of_every_verb(
    new_fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = new_fit()
    monkeypatch.chdir(fit.folder)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    for verb in ("fit", "validate", "test", "predict"):
        monkeypatch.setattr(sys, "argv", ["lightning"])
        with pytest.raises(SystemExit) as left:
            main([verb, "--config", "tiny.yaml", "--ckpt_path", "last"])
        assert "no last.ckpt in runs/tiny/*/checkpoints" in str(left.value)
        assert "Start without --ckpt_path" in str(left.value)
    assert not (fit.folder / "runs").exists()


def test_validate_finds_it_and_a_damaged_one_is_named(
    unbroken: Any,
    new_fit: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit = new_fit()
    monkeypatch.chdir(fit.folder)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    whole = (unbroken.version / "checkpoints" / "last.ckpt").read_bytes()
    path = fit.version / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(whole)
    command = ["validate", "--config", "tiny.yaml", "--ckpt_path", "last"]
    monkeypatch.setattr(sys, "argv", ["lightning"])
    main(command)
    assert "val/loss" in capsys.readouterr().out
    path.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(sys, "argv", ["lightning"])
    with pytest.raises(SystemExit, match=r"version_0/checkpoints/last.ckpt is damaged"):
        main(command)


def test_no_folder_without_training_and_the_run_of_the_config_goes_on(
    unbroken: Any,
    new_fit: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fit = new_fit()
    monkeypatch.chdir(fit.folder)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    runs = fit.version.parent
    for name in ("version_0", "version_1"):
        shutil.copytree(unbroken.version, runs / name)
    untouched = sorted((runs / "version_1").rglob("*"))

    def run(verb: str, *options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lightning"])
        caplog.clear()
        main([verb, "--config", f"runs/tiny/version_0/{CONFIG_NAME}", *options])
        return caplog.text

    assert "version_0/checkpoints/last.ckpt" in run("fit", "--ckpt_path=last")  # already complete
    assert "version_0/checkpoints/last.ckpt" in run("validate", "--ckpt_path=last")
    samples = ["--samples.num_images=1", "--samples.options.steps=1"]
    assert "version_0/checkpoints/last.ckpt" in run("predict", "--ckpt_path=last", *samples)
    for failing in (["--data.train=nowhere"], ["--ckpt_path=nowhere.ckpt"]):
        with pytest.raises(SystemExit):
            run("fit", *failing)
    assert sorted(path.name for path in runs.iterdir()) == ["version_0", "version_1"]
    assert sorted((runs / "version_1").rglob("*")) == untouched
