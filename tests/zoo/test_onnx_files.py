"""ONNX files by onnxruntime return what torch returns, at any batch size."""

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.hub import onnx_files as module
from lit_mbldm.hub.onnx_files import DECODER, DENOISER, onnx_files
from lit_mbldm.zoo import load_pretrained

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def run(file: bytes, *given: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(file)
    pairs = zip(session.get_inputs(), given, strict=True)
    return session.run(None, {one.name: value.numpy() for one, value in pairs})[0]


@pytest.mark.parametrize("kind", ["tokens", "bits"])
def test_a_models_graphs_return_its_numbers(kind: str) -> None:
    model = tiny.MAKERS[kind]()
    files = onnx_files(model)
    for size in (1, 3):
        z, estimate = torch.randn(2, size, *model.latent_shape)
        given = [z, torch.rand(size), estimate]
        given += [torch.arange(size) - 1] if model.class_names else []
        with torch.no_grad():
            expected = model.denoiser(*given).numpy()
        np.testing.assert_allclose(run(files[DENOISER], *given), expected, atol=1e-5)
        drawn = model.latent.decode(z).numpy().astype(int)
        assert np.abs(run(files[DECODER], z) - drawn).max() <= 1


def test_a_codecs_graph_decodes_codes_of_any_size() -> None:
    codec = load_pretrained("jpq-48")
    (file,) = onnx_files(codec).values()
    for shape in ((1, 6, 3, 2), (2, 6, 5, 9)):
        codes = torch.randint(256, shape, dtype=torch.uint8)
        expected = codec.decode(codes).numpy().astype(int)
        assert np.abs(run(file, codes) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["stages", "upscaler", "decoder"])
def test_what_no_graph_can_be_made_of_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match=r"ONNX files are made|torch cannot trace"):
        onnx_files(tiny.MAKERS[kind]())


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"lit-mbldm\[onnx\]"):
        onnx_files(tiny.codec())
