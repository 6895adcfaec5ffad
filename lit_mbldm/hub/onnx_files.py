"""ONNX files of a model, for programs without torch: its denoiser, and what decodes its latents.

B samples, latents (B, C, h, w), S code channels.
"""

import copy
import json
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lit_mbldm.codecs import ImageCodec, JointCodec
from lit_mbldm.codecs.latents import Latent
from lit_mbldm.entries.tree import describe
from lit_mbldm.errors import InputError
from lit_mbldm.processes.gaussian import GaussianForward
from lit_mbldm.training.diffusion import DiffusionModule
from lit_mbldm.training.upscaler import Upscaler

DENOISER, DECODER = "onnx/denoiser.onnx", "onnx/decode.onnx"
_GRID = (5, 7)  # of the codes that a codec's graph is traced with


def onnx_files(module: nn.Module) -> dict[str, bytes]:
    """The contents of ONNX files by path, of any number of samples B.

    `onnx/decode.onnx` turns `z_0`, (B, C, h, w) float32, of a model into `images`, (B, 3, H, W)
    uint8 RGB; of a codec it takes `codes`, (B, S, h, w) uint8, of any h and w. A model has
    `onnx/denoiser.onnx` too, from `z_t`, `time` (t/T), `self_condition` and, where it has classes,
    `label` to `prediction`, as `lit_mbldm.denoisers.base.HeadedNetwork`. The denoiser's metadata
    hold what a loop around it has to know, JSON under `lit_mbldm`.

    Raises:
        InputError: packages are missing; the module is neither a codec nor a model whose latent
            keeps its shape; or torch cannot trace it.
    """
    if find_spec("onnxscript") is None:
        raise InputError("ONNX files need other packages: `pip install 'lit-mbldm[onnx]'`.")
    module = copy.deepcopy(module).cpu().eval()
    for part in module.modules():
        if isinstance(part, JointCodec):
            part.keep_inverses()  # no operator of ONNX inverts a matrix
    if isinstance(module, ImageCodec):
        codes = torch.zeros(2, module.num_codes, *_GRID, dtype=torch.uint8)
        return {DECODER: _graph(_CodeDecoder(module), {"codes": codes}, "images", (0, 2, 3))}
    if (
        not isinstance(module, DiffusionModule)
        or isinstance(module, Upscaler)
        or len(module.process.shapes(module.latent_shape)) > 1
    ):
        raise InputError(
            "ONNX files are made of codecs, and of diffusion models whose latent keeps its shape,"
            f" not of a {type(module).__name__}."
        )
    z = torch.zeros(2, *module.latent_shape)
    # a copy: one tensor given twice would be traced as one input
    told = {"z_t": z, "time": torch.ones(2), "self_condition": z.clone()}
    if module.class_names:
        told["label"] = torch.zeros(2, dtype=torch.int64)
    denoiser = _graph(module.denoiser, told, "prediction", (0,), _facts(module))
    decoder = _graph(_LatentDecoder(module.latent, module.codec), {"z_0": z}, "images", (0,))
    return {DENOISER: denoiser, DECODER: decoder}


class _CodeDecoder(nn.Module):
    def __init__(self, codec: ImageCodec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, codes: Tensor) -> Tensor:
        return self.codec.decode_vectors(self.codec.look_up(codes.long()))  # nothing checked


class _LatentDecoder(nn.Module):
    def __init__(self, latent: Latent, codec: ImageCodec) -> None:
        super().__init__()
        self.latent, self.codec = latent, codec  # the codec, for the latent has it not as a part

    def forward(self, z0: Tensor) -> Tensor:
        return self.latent.decode(z0)


def _facts(model: DiffusionModule) -> dict[str, Any]:
    """What a loop around the denoiser has to know."""
    process = model.process
    facts: dict[str, Any] = {"process": describe(process)}
    if isinstance(process, GaussianForward):
        facts["log_alpha_bar"] = process.log_alpha_bar.tolist()
    facts |= {"latent_shape": model.latent_shape, "limit": process.limit}
    return {**facts, "class_names": model.class_names or []}


def _graph(
    module: nn.Module,
    inputs: dict[str, Tensor],
    output: str,
    dynamic: Sequence[int],
    facts: dict[str, Any] | None = None,
) -> bytes:
    """Trace a module into an ONNX file with these inputs, of which some dimensions are dynamic."""
    shapes = tuple({dim: "Bchw"[dim] for dim in dynamic} for _ in inputs)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, tuple(inputs.values()), dynamo=True, dynamic_shapes=shapes, verbose=False,
                input_names=list(inputs), output_names=[output],
            )  # fmt: skip
    except Exception as error:  # of torch, onnxscript and onnx_ir, which share no class
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(
            f"torch cannot trace what makes the {output} for any number of samples, as of learned"
            f" decoders and binary codecs: {reason:.300}"
        ) from error
    assert program is not None
    if facts is not None:
        program.model.metadata_props["lit_mbldm"] = json.dumps(facts)
    return program.model_proto.SerializeToString()
