"""Fitting joint product quantisation: lapped transform, rotation and codebooks.

N vectors of D numbers, M sub-codebooks of K codewords of d numbers each.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from lit_mbldm.codecs.fitting.lapping import fit_lapping
from lit_mbldm.codecs.fitting.patches import draw_patches
from lit_mbldm.codecs.fitting.quantizers import product_codewords, sort_codebooks
from lit_mbldm.codecs.joint import JointCodec
from lit_mbldm.codecs.lapping import overlapped_basis
from lit_mbldm.codecs.patches import LEVEL, overlapping_patches
from lit_mbldm.codecs.vector_quantized import ProductCodebook, nearest_codewords

LAPPING_PATCHES = 20_000


def fit_joint_codec(
    images: Sequence[Tensor],
    quantizer: str = "JPQ-48",
    *,
    patch_size: int = 8,
    codebook_size: int = 256,
    sub_dim: int | None = None,
    lapped: bool = True,
    max_patches: int = 65_536,
    seed: int = 0,
    sort: bool = True,
    alternations: int = 20,
) -> JointCodec:
    """Fit a codec on overlapping patches of images and of their vertical flips.

    The principal directions of patches are dealt out to sub-codebooks of equal volume (Ge et al.
    2013, the parametric solution of OPQ); rotation and codewords then improve each other in turns
    (the non-parametric one). The same arguments give the same codec on the same machine.

    Args as for `fit_patch_codec`, and:
        sub_dim: numbers a codeword, as for `JointCodec`.
        lapped: whether patches overlap; images must then be 2s pixels large.
        alternations: turns of codewords and rotation.

    Raises:
        InputError: fewer patches than codewords, or arguments that `JointCodec` refuses.
    """
    codec = JointCodec(quantizer, patch_size, codebook_size, sub_dim, lapped)
    if codec.lapping is not None:
        windows = _windows(images, codec, min(max_patches, LAPPING_PATCHES), seed)
        covariance = torch.cov(_join(windows).t())
        bits = codec.bits_per_pixel * patch_size**2
        codec.lapping.copy_(fit_lapping(covariance, channels=3, bits=bits))
    x = _join(_vectors(images, codec, max_patches, seed))
    fit_rotated(codec.codebook, x, seed, alternations)
    if sort:
        sort_codebooks(codec.codebook.codewords)
    return codec


def fit_rotated(codebook: ProductCodebook, x: Tensor, seed: int, alternations: int) -> None:
    """Fit a product codebook with its rotation, from balanced principal directions.

    Args:
        codebook: to fill.
        x: (N, D) float32.
        seed: of k-means.
        alternations: turns of codewords and rotation.
    """
    M, K, d = codebook.codewords.shape
    R = balanced_directions(x, M, d)
    C = product_codewords(x @ R.t(), M, K, seed)
    for _ in tqdm(range(alternations), desc="codebooks", unit="turn"):
        C, products = _update(x, R, C)
        R = _nearest_rotation(products)
    assert codebook.rotation is not None
    codebook.rotation.copy_(R)
    codebook.codewords.copy_(_update(x, R, C)[0])


def balanced_directions(x: Tensor, num_codebooks: int, sub_dim: int) -> Tensor:
    """Deal the first M·d principal directions out, so that products of variances are equal.

    In descending order each goes to the sub-space of the smallest product that has room.

    Source: Ge, He, Ke, Sun, Optimized Product Quantization, CVPR 2013, section 3.2.

    Args:
        x: (N, D) float32.
        num_codebooks: M.
        sub_dim: d.

    Returns:
        (M·d, D) with orthonormal rows, sub-space by sub-space.
    """
    variances, directions = torch.linalg.eigh(torch.cov(x.t()).double())  # ascending
    kept = variances.flip(0)[: num_codebooks * sub_dim].clamp(min=1e-6).log()
    dealt: list[list[int]] = [[] for _ in range(num_codebooks)]
    products = [0.0] * num_codebooks  # as logarithms
    for i, size in enumerate((kept - kept[-1]).tolist()):  # none negative: products grow
        room = [m for m in range(num_codebooks) if len(dealt[m]) < sub_dim]
        smallest = min(room, key=products.__getitem__)
        dealt[smallest].append(i)
        products[smallest] += size
    return directions.t().flip(0)[[i for own in dealt for i in own]].to(x.dtype)


def _update(x: Tensor, R: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Move codewords to the means of their vectors; Σ ẑ xᵀ of what these then decode to."""
    M, K, d = C.shape
    z = (x @ R.t()).view(-1, M, d)
    codes = nearest_codewords(z, C).long()
    means, products = C.clone(), []
    for m in range(M):
        counts = codes[:, m].bincount(minlength=K)
        sums = torch.zeros_like(C[m]).index_add_(0, codes[:, m], z[:, m])
        means[m, counts > 0] = (sums / counts[:, None])[counts > 0]
        products.append(means[m][codes[:, m]].t() @ x)  # (d, D)
    return means, torch.cat(products)


def _nearest_rotation(products: Tensor) -> Tensor:
    """The R (M·d, D) of orthonormal rows with the least ‖x - Rᵀẑ‖², from Σ ẑ xᵀ."""
    left, _, right = torch.linalg.svd(products.double(), full_matrices=False)
    return (left @ right).to(products.dtype)


def _windows(
    images: Sequence[Tensor], codec: JointCodec, max_patches: int, seed: int
) -> Iterator[Tensor]:
    """What a patch is made of: pixels around zero, (3, n, side, side) of each image."""
    side = codec.patch_size * (2 if codec.lapped else 1)
    for image, own in draw_patches(images, side, max_patches, codec.codebook_size, seed):
        centred = image[None].to(torch.float32) - LEVEL
        yield overlapping_patches(centred, side, own).unflatten(2, (side, side))


def _vectors(
    images: Sequence[Tensor], codec: JointCodec, max_patches: int, seed: int
) -> Iterator[Tensor]:
    """The codec's vectors of patches inside images, (3, n, s, s) of each image."""
    basis = (
        torch.eye(codec.patch_size) if codec.lapping is None else overlapped_basis(codec.lapping)
    )
    for windows in _windows(images, codec, max_patches, seed):
        yield basis @ windows @ basis.t()


def _join(parts: Iterable[Tensor]) -> Tensor:
    """Vectors (N, 3·side²) of what was drawn from each image."""
    return torch.cat([part.transpose(0, 1).flatten(1) for part in parts])
