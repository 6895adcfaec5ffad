import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
import threading
from typing import Any

import pytest
import tiny
import torch

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.denoisers import UNet
from lit_mbldm.entries.about import About
from lit_mbldm.entries.tree import MAX_TENSORS, build, describe
from lit_mbldm.entries.weights import assemble
from lit_mbldm.errors import InputError
from lit_mbldm.processes import CategoricalProcess, GaussianProcess
from lit_mbldm.training import CategoricalDiffusion, ContinuousDiffusion

CODEC = {"class_path": "lit_mbldm.codecs.PatchCodec"}


def unet(**changed: Any) -> dict[str, Any]:
    init_args = {"in_channels": 1, "out_channels": 1, "base_channels": 8, **changed}
    return {"class_path": "lit_mbldm.denoisers.UNet", "init_args": init_args}


def test_a_model_is_rebuilt_from_its_tree() -> None:
    model = CategoricalDiffusion(
        "opq-32-8-8",
        UNet(6, 1536, 16, (1, 2), blocks_per_level=1, dropout=0.1),
        CategoricalProcess(schedule="cosine", likelihood=True),
        image_size=32,
        betas=(0.8, 0.9),
    )
    again = assemble(build(describe(model), 1000), model.state_dict(), About())
    assert describe(again) == describe(model)
    assert describe(model)["class_path"] == "lit_mbldm.training.CategoricalDiffusion"
    assert not any(part.training for part in again.modules())
    assert torch.equal(again.sample(1, 2), model.sample(1, 2))
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert [name for name, value in again.named_parameters() if value.requires_grad] == trained


@pytest.mark.parametrize("make", tiny.MAKERS.values(), ids=tiny.MAKERS)
def test_a_tree_that_went_through_json_builds_the_same_without_memory(make: Any) -> None:
    module = make()
    tree = json.loads(json.dumps(describe(module)))
    hollow = build(tree, len(module.state_dict()))
    assert json.loads(json.dumps(describe(hollow))) == tree
    expected = {name: (v.shape, v.dtype) for name, v in module.state_dict().items()}
    found = hollow.state_dict()
    assert {name: (v.shape, v.dtype) for name, v in found.items()} == expected
    assert all(tensor.is_meta for tensor in found.values())


def test_every_class_keeps_its_arguments() -> None:
    for module in (GaussianProcess(10, "sigmoid", "v", 3.0, False, 16), UNet(3, 4, 8, (1,))):
        assert describe(build(describe(module), 100)) == describe(module)


def test_an_argument_that_is_not_kept_is_named() -> None:
    class Forgetful(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()

    with pytest.raises(InputError, match="Forgetful must keep its argument width"):
        describe(Forgetful(3))


def test_a_class_outside_any_package_is_described() -> None:
    class Own(torch.nn.Module):
        __module__ = "own"

    assert describe(Own()) == {"class_path": "own.Own", "init_args": {}}


def test_several_threads_build_at_once() -> None:
    failures: list[Exception] = []

    def work(num_tensors: int) -> None:
        for _ in range(20):
            try:
                build(describe(module), num_tensors)
                PatchCodec("VQ-2-2-2", 2, 4).codebooks()[0].sum().item()  # not for `meta`
            except InputError:
                if num_tensors:
                    raise
            except Exception as error:
                failures.append(error)

    module = tiny.continuous()
    threads = [threading.Thread(target=work, args=(count,)) for count in (0, 200, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "torch.nn.Linear",
        "lit_mbldm.nothing.Here",
        "lit_mbldm.codecs.Nothing",
        "lit_mbldm.entries.tree.build",
        "lit_mbldm.entries.tree._Hollow",
        "lit_mbldm.training.module.LambdaLR",  # imported there from torch
        "lit_mbldm.training.callbacks.scores.InceptionFeatures",  # which reads TorchScript
        "lit_mbldm.training.module.L.LightningModule",
        "lit_mbldm.denoisers.unet.nn.Linear",
        "lit_mbldm.denoisers.layers.nn.Sequential",
        "lit_mbldm.codecs.channelwise.QuantizerName",  # no module
        "lit_mbldm.codecs.PatchCodec.parse",
        "lit_mbldm.training.ScoreSamples",
        "lit_mbldm.__main__.Main",
        "lit_mbldm.cli.Main",
        "lit_mbldm.codecs.__init__.PatchCodec",
        "lit_mbldm.codecs..PatchCodec",
        "lit_mbldm.codecs/../codecs.PatchCodec",
        "lit_mbldm.codecs.PatchCodec\n",
        "lit_mbldm.codecs.PatchCodec\0",
        "lit_mbldm",
        "lit_mbldm.",
        "",
        "x" * 100_000,
        ["lit_mbldm.codecs.PatchCodec"],
        {"class_path": "lit_mbldm.codecs.PatchCodec"},
        7,
        None,
    ],
)
def test_class_paths_that_lead_elsewhere_are_refused(path: object) -> None:
    with pytest.raises(InputError, match="lit_mbldm") as caught:
        build({"class_path": path}, 1000)
    assert len(str(caught.value)) < 400


def test_classes_that_read_files_or_the_network_are_refused() -> None:
    tree = {
        "class_path": "lit_mbldm.metrics.inception.InceptionFeatures",
        "init_args": {"weights": "torchmetrics"},
    }
    with pytest.raises(InputError, match="codecs, denoisers, processes and training"):
        build({"class_path": "lit_mbldm.training.Refiner", "init_args": {"network": tree}}, 1000)


def test_modules_of_other_rooms_are_not_even_imported() -> None:
    code = (
        "import sys\nfrom lit_mbldm.entries.tree import build\n"
        "for name in ('__main__', 'cli', 'features', 'doctor', 'data.encode'):\n"
        "    try:\n        build({'class_path': f'lit_mbldm.{name}.Any'}, 1)\n"
        "    except ValueError:\n        pass\n"
        "    assert f'lit_mbldm.{name}' not in sys.modules, name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {**CODEC, "init_args": ["OPQ-32-8-8"]},
        {**CODEC, "init_args": {"bits": 48}},
        {**CODEC, "init_args": {"quantizer": 48}},
        {**CODEC, "init_args": {"quantizer": "OPQ-" + "9" * 5000 + "-8-8"}},
        {**CODEC, "init_args": {"self": 1}},
        unet(chanels=1),
        unet(base_channels="8"),
        unet(base_channels=-8),
        unet(base_channels=8.5),
        unet(base_channels=[8]),
        unet(channel_multipliers=3),
        unet(channel_multipliers="12"),
        unet(channel_multipliers=[]),
        unet(channel_multipliers=[1, None]),
        unet(in_channels=CODEC),
        {"class_path": "lit_mbldm.processes.GaussianProcess", "init_args": {"schedule": ["x"]}},
    ],
)
def test_arguments_that_do_not_fit_are_refused(tree: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        build(tree, 1000)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["opq-32-8-8", "org/codec", "/tmp/codec", ""])
def test_a_codec_by_name_inside_a_tree_is_refused(name: str) -> None:
    tree = describe(tiny.refiner())
    tree["init_args"]["codec"] = name
    with pytest.raises(InputError, match="must hold its codec, not the name"):
        build(tree, 1000)


HOSTILE = {
    "blocks": unet(blocks_per_level=10**9),
    "levels": unet(channel_multipliers=[1] * 100_000),
    "wide levels": unet(channel_multipliers=[10**6] * 100_000),
    "empty levels": unet(channel_multipliers=[1] * 100_000, blocks_per_level=0),
    "width": unet(base_channels=2**24),
    "broad": unet(base_channels=10**12),
    "float width": unet(base_channels=1e12),
    "outputs": unet(out_channels=10**15),
    "patch": {**CODEC, "init_args": {"patch_size": 10**6}},
    "huge patch": {**CODEC, "init_args": {"patch_size": 10**300}},
    "float patch": {**CODEC, "init_args": {"patch_size": 1e300}},
    "bits": {**CODEC, "init_args": {"quantizer": "OPQ-800000000000-8-8"}},
    "codebook": {**CODEC, "init_args": {"codebook_size": 2**62}},
    **{
        f"{name}, {T} {schedule} steps": {
            "class_path": f"lit_mbldm.processes.{name}",
            "init_args": {"num_timesteps": T, "schedule": schedule},
        }
        for name in ("GaussianProcess", "CategoricalProcess")
        for T, schedule in (
            (2**24, "linear"),
            (2**24, "cosine"),
            (10**12, "linear"),
            (10**12, "sigmoid"),
            (10**30, "linear"),
            (1e12, "linear"),
        )
    },
    "levels of an index": {
        "class_path": "lit_mbldm.processes.CategoricalProcess",
        "init_args": {"codebook_size": 10**12},
    },
    **{
        name: {"class_path": "lit_mbldm.codecs.PatchCodec", "init_args": {"quantizer": name}}
        for name in ("OPQ-2000000000-8-8", "RQ-8000000000-8-8", f"PQ-{8 * 10**18}-8-8")
    },
    "many tables": {
        "class_path": "lit_mbldm.training.Refiner",
        "init_args": {
            "codec": CODEC,
            **{
                f"process{i}": {
                    "class_path": "lit_mbldm.processes.GaussianProcess",
                    "init_args": {"num_timesteps": 2**18},
                }
                for i in range(50)
            },
        },
    },
    "many parts": {
        "class_path": "lit_mbldm.training.Refiner",
        "init_args": {
            f"metric{i}": {"class_path": "lit_mbldm.training.loss_by_time.LossByTime"}
            for i in range(10_000)
        },
    },
}
CHILD = """
import json, resource, sys, time
import lit_mbldm.training
from lit_mbldm.errors import InputError
from lit_mbldm.entries.tree import build
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
build({"class_path": "lit_mbldm.codecs.PatchCodec"}, 1000)
deep = {"class_path": "lit_mbldm.training.Refiner"}
for _ in range(5000):
    deep = {"class_path": "lit_mbldm.training.Refiner", "init_args": {"network": deep}}
trees = {**json.load(sys.stdin), "deep": deep}
for name, tree in trees.items():
    before, start = peak(), time.process_time()
    try:
        module = build(tree, 1000)
        outcome = max((value.numel() for value in module.state_dict().values()), default=0)
    except InputError as error:
        outcome = str(error)
    spent = time.process_time() - start
    print(json.dumps([name, outcome, (peak() - before) / 1024, spent]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="measures memory by getrusage")
def test_nothing_that_a_tree_says_takes_long_or_gigabytes() -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(HOSTILE),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    assert [line[0] for line in lines] == [*HOSTILE, "deep"]
    for name, outcome, megabytes, seconds in lines:
        # wide weights cost nothing before they are compared with those in the file
        refused = isinstance(outcome, str) or outcome > 10**6
        assert refused, name
        assert megabytes < 200, (name, megabytes, outcome)
        assert seconds < 10, (name, seconds, outcome)


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
    codec = PatchCodec("RQ-32-8-8")
    with pytest.raises(InputError, match="allow_residual"):
        ContinuousDiffusion(codec, UNet(6, 6, 8, (1,)), GaussianProcess(), 32)
    ContinuousDiffusion(codec, UNet(6, 6, 8, (1,)), GaussianProcess(), 32, allow_residual=True)


def test_no_class_that_is_merely_imported_into_a_room_can_be_built() -> None:
    rooms = ("codecs", "denoisers", "processes", "training")
    own = tuple(f"lit_mbldm.{room}." for room in rooms)
    seen = 0
    for room in rooms:
        package = importlib.import_module(f"lit_mbldm.{room}")
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            for name, cls in inspect.getmembers(module, inspect.isclass):
                if issubclass(cls, torch.nn.Module) and not cls.__module__.startswith(own):
                    seen += 1
                    with pytest.raises(InputError, match="no module class"):
                        build({"class_path": f"{info.name}.{name}"}, 100)
    assert seen


def test_a_module_where_a_number_was_expected_is_not_quoted_whole() -> None:
    tree = describe(tiny.categorical())
    tree["init_args"]["process"]["init_args"]["image_target"] = tree["init_args"]["denoiser"]
    with pytest.raises(InputError, match="image_target is one of") as error:
        build(tree, 1000)
    assert len(str(error.value)) < 1000
    assert str(error.value).endswith("…")


def test_a_file_of_too_many_tensors_is_refused() -> None:
    with pytest.raises(InputError, match="Expected at most"):
        build({"class_path": "lit_mbldm.codecs.PatchCodec"}, MAX_TENSORS + 1)
