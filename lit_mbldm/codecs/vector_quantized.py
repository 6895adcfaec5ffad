"""Vector quantisation: codebooks, and the codecs that have them.

B images, h×w patches, S code channels; N vectors of D numbers, M sub-codebooks of K codewords of d
numbers each.
"""

import torch
from torch import Tensor, nn

from lit_mbldm.codecs.base import ImageCodec
from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.errors import InputError

# Rows scored at once: a 1024 × 256 float32 table stays in a core's cache.
_ROWS_A_CORE = 1024
_ROWS_A_GPU = 1 << 17


def _rows_at_once(device: torch.device) -> int:
    return _ROWS_A_CORE * torch.get_num_threads() if device.type == "cpu" else _ROWS_A_GPU


def nearest_codewords(x: Tensor, codewords: Tensor) -> Tensor:
    """Find the nearest of K codewords for each vector in each of M spaces.

    The index of a codeword rides in the lowest bits of its squared distance's mantissa, so that
    one vectorised minimum finds both; two codewords whose distances agree to 2^-15 may swap.

    Args:
        x: (N, M, d) float32.
        codewords: (M, K, d) float32, K a power of two up to 256.

    Returns:
        (N, M) uint8 indices.
    """
    (N, M, _), K = x.shape, codewords.shape[1]
    rows = _rows_at_once(x.device)
    index = torch.arange(K, dtype=torch.int32, device=x.device)
    # ‖x-c‖²/2 = (x, ‖x‖²/2, 1)·(-c, 1, ‖c‖²/2), a matrix product alone
    x_norms = x.square().sum(2, keepdim=True) / 2  # (N, M, 1)
    norms = codewords.square().sum(2, keepdim=True) / 2  # (M, K, 1)
    x = torch.cat([x, x_norms, torch.ones_like(x_norms)], dim=2)  # (N, M, d+2)
    codewords = torch.cat([-codewords, torch.ones_like(norms), norms], dim=2).mT  # (M, d+2, K)
    table = x.new_empty(min(rows, N), K)
    best = x.new_empty(M, N)
    for m in range(M):
        for start in range(0, N, rows):
            part = slice(start, min(start + rows, N))
            distances = torch.mm(x[part, m], codewords[m], out=table[: part.stop - start])
            distances.view(torch.int32).bitwise_and_(-K).bitwise_or_(index)
            torch.amin(distances, 1, out=best[m, part])
    return best.view(torch.int32).bitwise_and_(K - 1).to(torch.uint8).t()


class Codebook(nn.Module):
    """What the channels of a codec have in common: M sub-codebooks of K codewords."""

    codewords: Tensor  # (M, K, d)

    def encode(self, x: Tensor) -> Tensor:
        """Quantise vectors (N, D) float32 to codes (N, M) uint8."""
        raise NotImplementedError

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Turn M (possibly soft) codewords (..., d) into vectors (..., D)."""
        raise NotImplementedError

    def split(self, x: Tensor) -> list[Tensor]:
        """Turn vectors (..., D) into M parts (..., d), each quantised by itself."""
        raise InputError("Codewords that add up (RQ) split no vector: use a PQ, OPQ or JPQ codec.")


class ProductCodebook(Codebook):
    """M sub-codebooks, one a slice of the vector, after an optional rotation (VQ, PQ, OPQ).

    Where M does not divide D, vectors are padded with zeros to M·d numbers.

    Args:
        dim: numbers D a vector.
        num_codebooks: sub-codebooks M.
        codebook_size: codewords K in each.
        rotated: whether a rotation comes first (OPQ; Ge et al. 2013).
        sub_dim: numbers d a codeword, by default D/M rounded up; with fewer, the rotation must
            bring what counts into the first M·d numbers, for the others are lost.
    """

    rotation: Tensor | None  # (M·d, D), orthonormal rows or columns, whichever are fewer

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int,
        rotated: bool,
        sub_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim
        sub_dim = sub_dim or -(-dim // num_codebooks)
        self.register_buffer("codewords", torch.zeros(num_codebooks, codebook_size, sub_dim))
        rotation = torch.eye(num_codebooks * sub_dim, dim) if rotated else None
        self.register_buffer("rotation", rotation)

    def encode(self, x: Tensor) -> Tensor:
        """Quantise vectors (N, D) float32 to codes (N, M) uint8."""
        M, _, d = self.codewords.shape
        return nearest_codewords(self._rotate(x).view(-1, M, d), self.codewords)

    def _rotate(self, x: Tensor) -> Tensor:
        """(..., D) to (..., M·d)."""
        M, _, d = self.codewords.shape
        if self.rotation is not None:
            return x @ self.rotation.t()
        return nn.functional.pad(x, (0, M * d - self.dim)) if M * d > self.dim else x

    def split(self, x: Tensor) -> list[Tensor]:
        """Cut rotated vectors (..., D) into M parts (..., d)."""
        return list(self._rotate(x).split(self.codewords.shape[2], dim=-1))

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Join M (possibly soft) codewords (..., d) into vectors (..., D)."""
        x = torch.cat(codewords, dim=-1)  # (..., M·d)
        return x[..., : self.dim] if self.rotation is None else x @ self.rotation


class ResidualCodebook(Codebook):
    """M codebooks whose codewords add up, searched with a beam (RQ; Chen et al. 2010).

    Args:
        dim: numbers D a vector.
        num_codebooks: codebooks M.
        codebook_size: codewords K in each.
        beam_size: partial sums kept at each stage; 1 is the greedy search.
    """

    def __init__(
        self, dim: int, num_codebooks: int, codebook_size: int, beam_size: int = 5
    ) -> None:
        super().__init__()
        self.beam_size = beam_size
        self.register_buffer("codewords", torch.zeros(num_codebooks, codebook_size, dim))

    def encode(self, x: Tensor) -> Tensor:
        """Quantise vectors (N, D) float32 to codes (N, M) uint8."""
        rows = max(_rows_at_once(x.device) // self.beam_size, 1)
        return torch.cat([self._encode_rows(part) for part in x.split(rows)])

    def _encode_rows(self, x: Tensor) -> Tensor:
        N, K = len(x), self.codewords.shape[1]
        residuals = x[:, None]  # (N, beam, D)
        codes = x.new_zeros(N, 1, 0, dtype=torch.int64)
        for codewords in self.codewords:
            scores = residuals.square().sum(-1, keepdim=True) + codewords.square().sum(-1)
            scores = (scores - 2 * residuals @ codewords.t()).flatten(1)  # (N, beam·K)
            kept = scores.topk(min(self.beam_size, scores.shape[1]), dim=1, largest=False).indices
            parent, code = kept // K, kept % K  # (N, beam)
            take = parent[..., None]
            codes = torch.cat(
                [codes.gather(1, take.expand(-1, -1, codes.shape[2])), code[..., None]], dim=2
            )
            residuals = residuals.gather(1, take.expand(-1, -1, x.shape[1])) - codewords[code]
        return codes[:, 0].to(torch.uint8)  # topk sorts, so the first is the best

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Add M (possibly soft) codewords (..., D) up to vectors (..., D)."""
        return torch.stack(codewords).sum(0)


class VectorQuantizedCodec(ImageCodec):
    """A codec with a codebook for each code channel; what decodes codewords is affine.

    Args as for `ImageCodec`. Codebooks are buffers.
    """

    def codebooks(self) -> list[Tensor]:
        """The S codebooks (K, d) in the order of the code channels."""
        raise NotImplementedError

    def assemble(self, codewords: list[Tensor]) -> Tensor:
        """Turn S (possibly soft) codewords (B, h, w, d) into vectors; linear."""
        raise NotImplementedError

    def split(self, vectors: Tensor) -> list[Tensor]:
        """Turn vectors into S tensors (B, h, w, d), what the codewords stand for; linear.

        Undoes `assemble`. Raises InputError for a codec whose codewords add up.
        """
        raise NotImplementedError

    def codeword_error(
        self, codewords: list[Tensor], codes: Tensor, images: Tensor | None = None
    ) -> Tensor:
        """Mean squared RGB error of images of soft codewords as of `restore`, x in [-1, 1].

        Args:
            codewords: S soft codewords (B, h, w, d).
            codes: (B, S, h, w) int64, whose decoded images they are compared with.
            images: (B, 3, H, W) uint8 RGB, to compare with in their place.

        Returns:
            (B,) float32.
        """
        target = self.restore(self.look_up(codes)) if images is None else images
        difference = self.restore(self.assemble(codewords)) - target
        return (difference / 127.5).square().mean(dim=(1, 2, 3))

    def decode_soft(self, weights: Tensor) -> Tensor:
        """Decode mixtures of codewords, as `ImageCodec.decode_soft`.

        Source: Scribano et al. 2023, equation 21.
        """
        with full_float32(weights.device):
            return self.to_images(self.assemble(self.soft_codewords(weights)))

    def soft_codewords(self, weights: Tensor) -> list[Tensor]:
        """Expected codewords: S tensors (B, h, w, d) from weights (B, S, K, h, w)."""
        sizes = weights.shape[3:]
        mixtures = [
            codebook.t() @ part.flatten(2).to(codebook.dtype)  # (B, d, hw)
            for part, codebook in zip(weights.unbind(1), self.codebooks(), strict=True)
        ]
        return [mixture.unflatten(2, sizes).permute(0, 2, 3, 1) for mixture in mixtures]

    def look_up(self, codes: Tensor) -> Tensor:
        """Turn codes (B, S, h, w) int64 into vectors."""
        return self.assemble([book[codes[:, code]] for code, book in enumerate(self.codebooks())])
