"""Fitting codebooks with faiss, and the pseudo-ordinal sort.

N vectors of D numbers, M sub-codebooks of K codewords of d numbers each.
"""

from collections.abc import Sequence
from typing import cast

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.channelwise import PatchCodec
from lit_mbldm.codecs.fitting.patches import draw_patches
from lit_mbldm.codecs.joint import JointCodec
from lit_mbldm.codecs.patches import overlapping_patches, rgb_to_ycbcr
from lit_mbldm.codecs.vector_quantized import ProductCodebook, ResidualCodebook

Array = NDArray[np.float32]
OPQ_ITERATIONS = 50
# The search widens to `beam_size` at encoding; training with it gains 0.1 dB in ten times the time.
RQ_TRAINING_BEAM = 1


def fit_patch_codec(
    images: Sequence[Tensor],
    quantizer: str = "OPQ-32-8-8",
    *,
    patch_size: int = 8,
    codebook_size: int = 256,
    max_patches: int = 65_536,
    seed: int = 0,
    sort: bool = True,
) -> PatchCodec:
    """Fit a codec on overlapping patches of images and of their vertical flips.

    The same arguments give the same codec on the same machine.

    Args:
        images: uint8 RGB tensors (3, H, W), sizes may differ.
        quantizer: `{VQ|PQ|OPQ|RQ}-{Y-Cb-Cr}`.
        patch_size: side of a patch in pixels.
        codebook_size: codewords a codebook.
        max_patches: patches drawn at random, without repetition, from all of them; every one is
            used in every iteration of k-means and of OPQ. The default is what faiss draws.
        seed: of the draw and of k-means.
        sort: put codewords in pseudo-ordinal order.

    Raises:
        InputError: fewer patches than codewords, or a bad quantiser name.
    """
    codec = PatchCodec(quantizer, patch_size, codebook_size)
    draws = draw_patches(images, patch_size, max_patches, codebook_size, seed)
    patches = torch.cat(
        [overlapping_patches(rgb_to_ycbcr(image[None]), patch_size, own) for image, own in draws],
        dim=1,
    )  # (3, N, s²)
    for channel, x in zip(codec.channels, patches.numpy(), strict=True):
        if isinstance(channel, ResidualCodebook):
            _fit_residual(channel, x, seed)
        else:
            assert isinstance(channel, ProductCodebook)
            _fit_product(channel, x, seed)
        if sort:
            sort_codebooks(channel.codewords)
    return codec


def pseudo_ordinal_order(codewords: Tensor) -> Tensor:
    """Order codewords by their projection on their first principal direction, descending.

    Source: Scribano et al. 2023, section 3.2.1. The direction's sign makes its largest
    component positive.

    Args:
        codewords: (K, d) float.

    Returns:
        (K,) int64 permutation.
    """
    centred = (codewords - codewords.mean(0)).double()
    direction = torch.linalg.eigh(centred.t() @ centred).eigenvectors[:, -1]
    direction = direction * direction[direction.abs().argmax()].sign()
    return torch.argsort(centred @ direction, descending=True, stable=True)


def sort_codebooks(codewords: Tensor) -> None:
    """Bring each of M codebooks (M, K, d) into pseudo-ordinal order, in place."""
    for codebook in codewords:
        codebook.copy_(codebook[pseudo_ordinal_order(codebook)])


def product_codewords(x: Tensor, num_codebooks: int, codebook_size: int, seed: int) -> Tensor:
    """k-means in each of M slices of the vectors, on all of them.

    Args:
        x: (N, M·d) float32.
        num_codebooks: M.
        codebook_size: K.
        seed: of k-means.

    Returns:
        (M, K, d) codewords.
    """
    array = x.numpy()
    return _train(_untrained(array, num_codebooks, codebook_size, seed), array)


def to_faiss(codec: ImageCodec) -> list[faiss.Index]:
    """Build the trained faiss indexes that compute the same codes.

    One for each of the channels Y, Cb and Cr of a `PatchCodec`, one for a `JointCodec`.
    """
    if isinstance(codec, JointCodec):
        return [_product_to_faiss(codec.codebook)]
    assert isinstance(codec, PatchCodec)
    return [
        _residual_to_faiss(channel)
        if isinstance(channel, ResidualCodebook)
        else _product_to_faiss(cast(ProductCodebook, channel))
        for channel in codec.channels
    ]


def _use_all_points(clustering: faiss.ClusteringParameters, num_points: int, seed: int) -> None:
    clustering.seed = seed + 1
    clustering.max_points_per_centroid = num_points
    clustering.min_points_per_centroid = 1  # else faiss warns below 39


def _untrained(x: Array, M: int, K: int, seed: int) -> faiss.ProductQuantizer:
    pq = faiss.ProductQuantizer(x.shape[1], M, K.bit_length() - 1)
    _use_all_points(pq.cp, len(x), seed)
    return pq


def _train(pq: faiss.ProductQuantizer, x: Array) -> Tensor:
    pq.train(x)
    return torch.from_numpy(faiss.vector_to_array(pq.centroids).reshape(pq.M, pq.ksub, pq.dsub))


def _fit_product(channel: ProductCodebook, x: Array, seed: int) -> None:
    M, K, d = channel.codewords.shape
    x = np.pad(x, ((0, 0), (0, M * d - x.shape[1])))
    pq = _untrained(x, M, K, seed)
    if channel.rotation is not None:
        opq = faiss.OPQMatrix(M * d, M)
        opq.max_train_points, opq.niter = len(x), OPQ_ITERATIONS
        opq.pq = pq
        opq.train(x)
        rotation = faiss.vector_to_array(opq.A).reshape(M * d, M * d)
        channel.rotation.copy_(torch.from_numpy(rotation[:, : channel.dim].copy()))
        x = opq.apply(x)
    channel.codewords.copy_(_train(pq, x))


def _fit_residual(channel: ResidualCodebook, x: Array, seed: int) -> None:
    M, K, D = channel.codewords.shape
    rq = faiss.ResidualQuantizer(D, M, K.bit_length() - 1)
    _use_all_points(rq.cp, len(x), seed)
    rq.max_beam_size = RQ_TRAINING_BEAM
    rq.train(x)
    centroids = faiss.vector_to_array(rq.codebooks).reshape(M, K, D)
    channel.codewords.copy_(torch.from_numpy(centroids))


def _residual_to_faiss(channel: ResidualCodebook) -> faiss.Index:
    M, K, D = channel.codewords.shape
    index = faiss.IndexResidualQuantizer(D, M, K.bit_length() - 1)
    faiss.copy_array_to_vector(channel.codewords.numpy().ravel(), index.rq.codebooks)
    index.rq.max_beam_size = channel.beam_size
    index.rq.is_trained = index.is_trained = True
    return index


def _product_to_faiss(channel: ProductCodebook) -> faiss.Index:
    M, K, d = channel.codewords.shape
    index = faiss.IndexPQ(M * d, M, K.bit_length() - 1)
    faiss.copy_array_to_vector(channel.codewords.numpy().ravel(), index.pq.centroids)
    index.is_trained = True
    if channel.rotation is None and M * d == channel.dim:
        return index
    transform = faiss.LinearTransform(channel.dim, M * d, False)
    matrix = torch.eye(M * d, channel.dim) if channel.rotation is None else channel.rotation
    faiss.copy_array_to_vector(matrix.contiguous().numpy().ravel(), transform.A)
    transform.is_trained = True
    transform.is_orthonormal = True  # in its columns, which is what decoding needs
    return faiss.IndexPreTransform(transform, index)
