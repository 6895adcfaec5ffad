import json
from typing import Any

import pytest
from torch import nn

from lit_mbldm.entries.about import About, Figure, about_module
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


def test_a_module_without_facts_has_empty_ones() -> None:
    module = nn.Identity()
    assert about_module(module) == About()
    vars(module)["about"] = FULL
    assert about_module(module) == FULL
