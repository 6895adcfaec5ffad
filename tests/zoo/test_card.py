"""The card: what the Hub reads of it, and what people do."""

import re
import warnings
from dataclasses import replace
from typing import Any

import pytest
from entries import ABOUT, KINDS
from huggingface_hub import ModelCard
from torch import nn

from lit_mbldm.codecs import ImplicitCodec, PixelCodec
from lit_mbldm.denoisers import ImplicitNetwork
from lit_mbldm.entries.about import About, Figure
from lit_mbldm.errors import InputError
from lit_mbldm.hub.card import address_card, unstated, write_card

Modules = dict[str, nn.Module]


def metadata(card: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ModelCard(card).data.to_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_tells_all_that_is_known(modules: Modules, kind: str) -> None:
    module = modules[kind]
    card = write_card(module, ABOUT)
    for fact in (
        f"Class: `{type(module).__name__}`",
        "Data: org/photographs",
        "Terms of the data: CC0",
        "Licence of the weights: apache-2.0",
        "Training steps: 1,234",
        "```bash\nlightning fit --config small.yaml\n```",
        "By `lightning test`:\n\n| figure |",
        "| FID | 12.5 | 5000 samples |",
        "By `lit-mbldm codec report`:",
        "| PSNR (dB) | 27.25 | held-out photographs |",
        "(samples.png)",
        f"{getattr(module, 'codec', module).fingerprint[:16]}",
    ):
        assert fact in card, fact
    assert unstated(card) == ()
    assert ("`refiner/`" in card) == (kind == "refined")
    assert ("at 4×4 positions, as 8 numbers (`CoefficientLatent`)" in card) == (
        "coefficients" in kind or kind == "upscaler"
    )
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    if kind in ("decoder", "implicit", "binary", "scalar"):  # frozen
        trained = sum(v.numel() for v in module.network.state_dict().values())
    assert kind == "codec" or f"Parameters: {trained:,}" in card


def test_a_card_says_what_was_learned_and_whether_it_is_a_copy(modules: Modules) -> None:
    figure = Figure("Copies of training images (%)", 0.3, "1000 samples", "lightning test")
    for kind, learned in [("continuous", "codes"), ("coefficients", "coefficients")]:
        card = write_card(modules[kind], replace(ABOUT, figures=(figure,)))
        assert f"A diffusion model learned the {learned} of a codec" in card
        assert "- Copy check: Copies of training images (%): 0.3 (1000 samples)" in card
    staged = write_card(modules["stages"], ABOUT)
    assert "learned pixels as they are, without a codec" in staged
    assert "Stages: `Blur(0.5)` at t/T = 0.3, `Pool(2)` at t/T = 0.6" in staged
    assert "- Copy check: none was made" in staged


def test_a_card_of_pixels_speaks_of_no_codes_and_no_patches(modules: Modules) -> None:
    pixels = ImplicitCodec(PixelCodec(), ImplicitNetwork(None, 4, 1))
    for module in (pixels, modules["stages"]):
        card = write_card(module, ABOUT)
        assert not re.search("patch|RGB\\+|H/|vector-quantization", card)
        assert metadata(card)["tags"][0] == "lit-mbldm"
    assert "vector-quantization" in metadata(write_card(modules["implicit"], ABOUT))["tags"]


def test_figures_stand_below_the_command_that_printed_them(modules: Modules) -> None:
    facts = [("A", "one"), ("B", ""), ("C", "two"), ("D", " one\n")]
    figures = tuple(Figure(metric, 1.0, "data", command) for metric, command in facts)
    card = write_card(modules["codec"], replace(ABOUT, figures=figures))
    lines = [line for line in card.split("## Figures")[1].splitlines() if line]
    header = ["| figure | | measured on |", "|---|---|---|"]
    a, b, c, d = (f"| {metric} | 1 | data |" for metric, _ in facts)
    assert lines == ["By `one`:", *header, a, d, *header, b, "By `two`:", *header, c]


def test_a_card_names_what_training_started_from(modules: Modules) -> None:
    card = write_card(modules["continuous"], replace(ABOUT, base_model="org/first"))
    assert metadata(card)["base_model"] == "org/first"
    assert "started from the weights of `org/first`" in card
    assert "base_model" not in metadata(write_card(modules["continuous"], ABOUT))


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_of_a_model_of_which_nothing_is_known_says_so(modules: Modules, kind: str) -> None:
    card = write_card(modules[kind], About())
    assert unstated(card) == ("Data", "Terms of the data", "Licence of the weights")
    assert "Figures" not in card
    assert not {"license", "datasets", "metrics", "model-index"} & metadata(card).keys()
    assert metadata(card)["library_name"] == "lit_mbldm"


@pytest.mark.parametrize(
    ("data", "listed"),
    [
        ("org/photographs", ["org/photographs"]),
        ("cifar10", ["cifar10"]),
        ("18 photographs of flowers", None),
        ("https://example.org/photographs", None),
        ("org/photographs, and some of mine", None),
    ],
)
def test_only_data_of_the_hub_is_listed_as_such(
    modules: Modules, data: str, listed: list[str] | None
) -> None:
    card = write_card(modules["codec"], replace(ABOUT, data=data))
    assert metadata(card).get("datasets") == listed
    assert f"Data: {data}" in card


@pytest.mark.parametrize(
    "text",
    [
        "a: b # c",
        "'\"",
        "---",
        "- x",
        "{{ a }}",
        "first\n\nsecond\n---\nthird",
        "a | b",
        "Ω 写真 🖼",
    ],
)
def test_no_fact_breaks_the_header_or_the_table(modules: Modules, text: str) -> None:
    figure = Figure(f"FID {text}", 1.5, text, text)
    about = replace(ABOUT, license=text, data=text, terms=text, figures=(figure,))
    card = write_card(modules["continuous"], about)
    read = ModelCard(card)
    assert read.data.license == text
    (result,) = read.data.eval_results
    assert (result.metric_type, result.metric_name) == ("fid", figure.metric)
    assert result.dataset_name == text
    rows = [line for line in read.text.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [4, 4, 4]
    assert f"- Terms of the data: {' '.join(text.split())}\n" in read.text
    assert read.text.lstrip().startswith("# ")


def test_a_card_names_the_repository_that_it_lies_in(modules: Modules) -> None:
    card = write_card(modules["codec"], ABOUT)
    mine = address_card(card, "me/mine")
    assert 'load_pretrained("me/mine")' in mine
    assert "org/repo" not in mine
    assert address_card(mine, "you/yours") == mine.replace("me/mine", "you/yours")
    own = f'{mine}\nSee `load_pretrained("other/model")`.'
    assert address_card(own, "you/yours").endswith('load_pretrained("other/model")`.')


def test_another_module_has_no_card() -> None:
    with pytest.raises(InputError, match="got a Linear"):
        write_card(nn.Linear(1, 1), ABOUT)
