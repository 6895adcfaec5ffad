import pytest
import torch

from lit_mbldm.denoisers import UNet
from lit_mbldm.errors import InputError
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import CategoricalDiffusion, ContinuousDiffusion
from lit_mbldm.zoo.tree import build, describe


def test_a_model_is_rebuilt_from_its_tree() -> None:
    model = CategoricalDiffusion(
        "opq-32-8-8",
        UNet(6, 1536, 16, (1, 2), blocks_per_level=1, dropout=0.1),
        CategoricalProcess(schedule="cosine", likelihood=True),
        image_size=32,
        betas=(0.8, 0.9),
    )
    again = build(describe(model))
    again.load_state_dict(model.state_dict())
    assert describe(again) == describe(model)
    assert describe(model)["class_path"] == "lit_mbldm.training.CategoricalDiffusion"
    assert torch.equal(again.sample(1, 2), model.sample(1, 2))


def test_every_class_keeps_its_arguments() -> None:
    for module in (GaussianProcess(10, "sigmoid", "v", 3.0, False, 16), UNet(3, 4, 8, (1,))):
        assert describe(build(describe(module))) == describe(module)


@pytest.mark.parametrize(
    "tree",
    [
        {"class_path": "os.system", "init_args": {"command": "true"}},
        {"class_path": "lit_mbldm.nothing.Here"},
        {"class_path": "lit_mbldm.codecs.Nothing"},
        {"class_path": "lit_mbldm.zoo.tree.build"},
        {"class_path": "lit_mbldm.denoisers.UNet", "init_args": {"chanels": 1}},
        {},
    ],
)
def test_bad_trees_are_refused(tree: dict[str, object]) -> None:
    with pytest.raises(InputError):
        build(tree)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="out_channels: 1536"):
        CategoricalDiffusion("opq-32-8-8", UNet(6, 6, 8, (1,)), CategoricalProcess(), 32)
    with pytest.raises(InputError, match="codebook_size"):
        ContinuousDiffusion(
            "opq-32-8-8", UNet(6, 6, 8, (1,)), GaussianProcess(codebook_size=16), 32
        )
    with pytest.raises(InputError, match="multiples of 8"):
        ContinuousDiffusion("opq-32-8-8", UNet(6, 6, 8, (1,)), GaussianProcess(), 33)


def test_residual_codecs_are_refused_unless_forced() -> None:
    from lit_mbldm.codecs import PatchCodec

    codec = PatchCodec("RQ-32-8-8")
    with pytest.raises(InputError, match="allow_residual"):
        ContinuousDiffusion(codec, UNet(6, 6, 8, (1,)), GaussianProcess(), 32)
    ContinuousDiffusion(codec, UNet(6, 6, 8, (1,)), GaussianProcess(), 32, allow_residual=True)
