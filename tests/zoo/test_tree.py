import json
import subprocess
import sys
from typing import Any

import pytest
import tiny
import torch

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.denoisers import UNet
from lit_mbldm.entries.tree import build, describe
from lit_mbldm.errors import InputError
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import CategoricalDiffusion, ContinuousDiffusion

CODEC = {"class_path": "lit_mbldm.codecs.PatchCodec"}


def unet(**changed: Any) -> dict[str, Any]:
    init_args = {"in_channels": 1, "out_channels": 1, "base_channels": 8, **changed}
    return {"class_path": "lit_mbldm.denoisers.UNet", "init_args": init_args}


@pytest.mark.parametrize("make", tiny.MAKERS.values(), ids=tiny.MAKERS)
def test_a_tree_that_went_through_json_builds_the_same_without_memory(make: Any) -> None:
    module = make()
    tree = json.loads(json.dumps(describe(module)))
    hollow = build(tree)
    assert json.loads(json.dumps(describe(hollow))) == tree
    expected = {name: (v.shape, v.dtype) for name, v in module.state_dict().items()}
    found = hollow.state_dict()
    assert {name: (v.shape, v.dtype) for name, v in found.items()} == expected
    assert all(tensor.is_meta for tensor in found.values())


def test_an_argument_that_is_not_kept_is_named() -> None:
    class Forgetful(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()

    with pytest.raises(AttributeError, match="width"):
        describe(Forgetful(3))


def test_a_class_outside_any_package_is_described() -> None:
    class Own(torch.nn.Module):
        __module__ = "own"

    assert describe(Own()) == {"class_path": "own.Own", "init_args": {}}


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "torch.nn.Linear",
        "lit_mbldm.codecs.Nothing",
        "lit_mbldm.entries.tree.build",
        "lit_mbldm.training.module.LambdaLR",  # imported there from torch
        "lit_mbldm.metrics.inception.InceptionFeatures",
        "lit_mbldm.training.ScoreSamples",  # no module
        "lit_mbldm.codecs.channelwise.PatchCodec",
        "lit_mbldm.codecs.PatchCodec\n",
        "lit_mbldm.codecs.PatchCodec.parse",
        "",
        "x" * 100_000,
        ["lit_mbldm.codecs.PatchCodec"],
        None,
    ],
)
def test_class_paths_that_lead_elsewhere_are_refused(path: object) -> None:
    with pytest.raises(InputError, match="lit_mbldm") as caught:
        build({"class_path": path})
    assert len(str(caught.value)) < 400


def test_modules_of_other_rooms_are_not_even_imported() -> None:
    code = (
        "import sys\nfrom lit_mbldm.entries.tree import build\n"
        "for name in ('__main__', 'cli', 'metrics', 'doctor', 'data'):\n"
        "    try:\n        build({'class_path': f'lit_mbldm.{name}.Any'})\n"
        "    except ValueError:\n        pass\n"
        "    assert f'lit_mbldm.{name}' not in sys.modules, name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def process(name: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": f"lit_mbldm.processes.{name}", "init_args": init_args}


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {**CODEC, "init_args": ["OPQ-32-8-8"]},
        {**CODEC, "init_args": {"bits": 48}},
        {**CODEC, "init_args": {"quantizer": 48}},
        {**CODEC, "init_args": {"quantizer": "OPQ-" + "9" * 5000 + "-8-8"}},
        unet(base_channels="8"),
        unet(base_channels=-8),
        unet(channel_multipliers=3),
        unet(in_channels=CODEC),
        process("GaussianProcess", schedule=["x"]),
        unet(channel_multipliers={}),
        # numbers as a damaged file may hold: neither memory nor time runs out
        unet(blocks_per_level=10**9),
        unet(channel_multipliers=[1] * 100_000),
        {**CODEC, "init_args": {"patch_size": 10**6}},
        {**CODEC, "init_args": {"quantizer": "OPQ-800000000000-8-8"}},
        process("GaussianProcess", num_timesteps=2**24),
        process("GaussianProcess", num_timesteps=10**12, schedule="sigmoid"),
        process("CategoricalProcess", num_timesteps=10**12, schedule="cosine"),
        process("CategoricalProcess", codebook_size=10**12),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tree: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        build(tree)
    assert len(str(caught.value)) < 600


def test_parts_that_do_not_fit_are_refused() -> None:
    for codec, process, side, told in (
        ("opq-32-8-8", CategoricalProcess(), 32, "out_channels: 1536"),
        ("opq-32-8-8", GaussianProcess(codebook_size=16), 32, "codebook_size"),
        ("opq-32-8-8", GaussianProcess(), 33, "multiples of 8"),
    ):
        kind = CategoricalDiffusion if told.startswith("out") else ContinuousDiffusion
        with pytest.raises(InputError, match=told):
            kind(codec, UNet(6, 6, 8, (1,)), process, side)


def test_a_residual_codec_is_a_poor_latent() -> None:
    with pytest.warns(UserWarning, match="RQ codec is a poor latent"):
        model = ContinuousDiffusion(
            PatchCodec("RQ-32-8-8"), UNet(6, 6, 8, (1,)), GaussianProcess(), 32
        )
    tree = describe(model)
    tree["init_args"]["allow_residual"] = True  # as entries of former versions have it
    build(tree)


def test_a_module_where_a_number_was_expected_is_not_quoted_whole() -> None:
    tree = describe(tiny.categorical())
    tree["init_args"]["process"]["init_args"]["image_target"] = tree["init_args"]["denoiser"]
    with pytest.raises(InputError, match="image_target as one of") as error:
        build(tree)
    assert len(str(error.value)) < 1000
