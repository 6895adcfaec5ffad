import json
from pathlib import Path

import pytest
import torch

from lit_mbldm.cli import main
from lit_mbldm.entries.about import About
from lit_mbldm.entries.entry import read_files
from lit_mbldm.entries.entry_config import ASSETS, CARD, CONFIG, PICTURE
from lit_mbldm.zoo import list_pretrained, load_pretrained

ZOO = Path(__file__).parents[2] / "zoo"
TRAINED = [
    path.parent.name for path in ZOO.glob(f"*/{CARD}") if "```yaml" in path.read_text("utf-8")
]


def test_every_shipped_entry_is_published() -> None:
    assert list_pretrained() == sorted(path.name for path in ZOO.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", list_pretrained())
def test_an_entry_is_whole_and_its_folder_in_the_zoo_is_its_own(name: str) -> None:
    files = read_files(ASSETS / name)
    for file in (CARD, CONFIG, PICTURE):
        assert (ZOO / name / file).read_bytes() == files[file]
    about: About = load_pretrained(name).about
    assert about.license
    assert about.data
    assert about.terms
    assert about.command
    assert about.written()["figures"] == tuple(
        json.loads((ZOO / name / "figures.json").read_text(encoding="utf-8"))
    )
    assert f'load_pretrained("{name}")' in files[CARD].decode()


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_the_config_in_a_card_is_one_of_today(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (ZOO / name / CARD).read_text(encoding="utf-8")
    (tmp_path / "card.yaml").write_text(card.split("```yaml\n")[1].split("```")[0])
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", str(tmp_path / "card.yaml"), "--print_config"])
    assert not ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize("name", list_pretrained())
def test_the_command_that_made_an_entry_is_kept(name: str) -> None:
    script = ZOO / name / "make.sh"
    assert script.stat().st_mode & 0o100
    text = script.read_text(encoding="utf-8")
    assert f"--name {name}" in text
    assert "lit-mbldm export" in text


def test_the_shipped_model_draws_a_class_with_guidance() -> None:
    model = load_pretrained("eurosat-64")
    plain, guided = (
        model.sample(2, seed=0, steps=4, label="River", guidance=scale) for scale in (1.0, 1.5)
    )
    assert guided.shape == (2, 3, 64, 64)
    assert not torch.equal(plain, guided)
