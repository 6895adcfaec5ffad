import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lit_mbldm.entries.about import About, Figure, about_module, read_figures_file
from lit_mbldm.errors import InputError

FULL = About(
    license="cc0-1.0",
    data="3,500 photographs",
    terms="CC0",
    command="lightning fit --config ä.yaml",
    steps=1000,
    figures=(Figure("FID", 12.5, "5,000 samples", "lightning test"), Figure("PSNR (dB)", 27)),
    sampling={"steps": 50, "temperature": 0.9, "sampler": "ddim", "eta": 0.5},
)


def test_facts_survive_json_and_only_what_is_known_is_written() -> None:
    for about in (FULL, About(), About(steps=0), About(license="")):
        assert About.read(json.loads(json.dumps(about.written()))) == about
    assert About(steps=3).written() == {"steps": 3}


@pytest.mark.parametrize(
    "values",
    [
        None,
        "text",
        {"author": "x"},
        {"license": None},
        {"steps": "10"},
        {"steps": 1.5},
        {"steps": True},
        {"config": ["a"]},
        {"figures": {}},
        {"figures": ["FID 3"]},
        {"figures": [{"metric": "FID"}]},
        {"figures": [{"value": 3}]},
        {"figures": [{"metric": " ", "value": 1}]},
        {"figures": [{"metric": "FID", "value": "3"}]},
        {"figures": [{"metric": "FID", "value": float("nan")}]},
        {"figures": [{"metric": "FID", "value": 3, "note": "x"}]},
        {"sampling": []},
        {"sampling": {"steps": 2.5}},
        {"sampling": {"eta": "x"}},
        {"sampling": {"seed": 1}},
    ],
)
def test_other_facts_are_refused(values: Any) -> None:
    with pytest.raises(InputError, match="Expected"):
        About.read(values)


def test_figures_are_read_from_a_list(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text('[{"metric": "KID x 1000", "value": 3.5, "command": "lightning test"}]')
    assert read_figures_file(path) == (Figure("KID x 1000", 3.5, "", "lightning test"),)
    for text in ("[3]", '{"fid": 3}', "3", "no JSON"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"figures\.json is no JSON of figures or scores"):
            read_figures_file(path)


def test_a_module_without_facts_has_empty_ones() -> None:
    module = nn.Identity()
    assert about_module(module) == About()
    vars(module)["about"] = FULL
    assert about_module(module) == FULL
