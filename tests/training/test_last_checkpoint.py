import shutil
import sys
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
from lit_mbldm.training.resume.checkpoints import (
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


def touch(folder: Path, name: str, version: int | None = None) -> Path:
    path = folder if version is None else folder / f"version_{version}"
    path = path / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_newest_of_all_versions_whatever_the_clock_said(tmp_path: Path) -> None:
    runs = tmp_path / "[a]"
    newest = touch(runs, "last-v1.ckpt", 10)
    for version, name in ((10, "last.ckpt"), (10, "epoch=1-step=9.ckpt"), (9, "last.ckpt")):
        touch(runs, name, version)
    touch(runs, ".last.ckpt.1.tmp", 11)
    touch(tmp_path / "cat", "last.ckpt", 12)
    logger = TensorBoardLogger(tmp_path, "[a]")
    one = trainer(logger=logger)
    assert find_last(one) == str(newest)
    continue_version(one, str(newest))
    assert logger.log_dir == str(newest.parents[1])


@pytest.mark.parametrize("by", ["config", "logger"])
def test_only_the_version_that_the_config_or_the_logger_names(tmp_path: Path, by: str) -> None:
    named, _ = (touch(tmp_path / "[a]", "last.ckpt", version) for version in (0, 1))
    logger = TensorBoardLogger(tmp_path, "[a]", version=None if by == "config" else 0)
    one, run = trainer(logger=logger), named.parents[1]
    assert find_last(one, str(run) if by == "config" else None) == str(named)
    continue_version(one, str(named))
    assert logger.log_dir == str(run)
    with pytest.raises(InputError, match=r"There is no last.ckpt in .*version_7/checkpoints"):
        find_last(one, str(run.with_name("version_7")))


def test_explicit_folder_wins_and_logs_go_on_in_the_newest_version(tmp_path: Path) -> None:
    touch(tmp_path / "church", "last.ckpt", 5)
    kept = touch(tmp_path, "last.ckpt")
    logger = TensorBoardLogger(tmp_path, "church")
    one = trainer(ModelCheckpoint(kept.parent), logger=logger)
    assert find_last(one) == str(kept)
    continue_version(one, str(kept))
    assert logger.version == 5


def test_without_a_logger_it_is_in_the_root_folder(tmp_path: Path) -> None:
    path = touch(tmp_path, "last.ckpt")
    assert find_last(trainer(default_root_dir=tmp_path)) == str(path)


def test_logger_that_would_delete_its_logs_starts_a_new_version(tmp_path: Path) -> None:
    path = touch(tmp_path / "church", "last.ckpt", 0)
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
def fit(new_fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
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
    path = touch(fit.version, "last.ckpt")
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
