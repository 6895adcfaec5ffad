"""Clusters of images, in place of labels: k-means on statistics of the codec's coefficients.

B images, h×w patches of D coefficients each.
"""

from typing import cast

import torch
from torch import Tensor
from tqdm import tqdm

from lit_mbldm.codecs.precision import full_float32
from lit_mbldm.codecs.vector_quantized import VectorQuantizedCodec
from lit_mbldm.data.prepare.shard_codes import EncodeSettings, image_batches
from lit_mbldm.data.shards.locate import ShardSet
from lit_mbldm.data.shards.reading import LostShardError
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.errors import InputError, check_numbers

MAX_IMAGES = 50_000
_FITS = 5  # of which the best is taken
_ITERATIONS = 25


class Clusters:
    """A set's `count` clusters, found when they are first needed; their numbers serve as labels.

    An image is the mean and the logarithm of the deviation of each coefficient over its patches,
    standardised. The same images and codec give the same clusters. Raises InputError for fewer than
    two clusters, or images that have labels.
    """

    def __init__(self, images: ShardSet, settings: EncodeSettings, count: int) -> None:
        check_numbers(2, clusters=count)
        if images.classes is not None:
            raise InputError(
                f"{images.name} has labels, which clusters would replace. Leave clusters out, or"
                " write the shards without labels (`lit-mbldm shards --no-labels`)."
            )
        self.names = [f"cluster {number}" for number in range(count)]
        self._images = images.first_of_each(MAX_IMAGES)
        self._settings = settings
        self._centres: Tensor | None = None  # (count, 2D)

    def fit(self) -> None:
        """Find the clusters, of 50,000 images at most.

        Raises InputError where they are too few, or a shard is out of reach or differs from its
        sha256.
        """
        if self._centres is not None:
            return
        import faiss

        x = self._all_statistics()
        if len(x) < len(self.names):
            raise InputError(
                f"Expected at least {len(self.names)} images, one a cluster, in"
                f" {self._images.name}, got {len(x)}."
            )
        self._mean, self._scale = x.mean(0), x.std(0).clamp_min(1e-6)
        x = (x - self._mean) / self._scale
        kmeans = faiss.Kmeans(
            x.shape[1],
            len(self.names),
            niter=_ITERATIONS,
            nredo=_FITS,
            seed=0,
            min_points_per_centroid=1,  # else faiss warns below 39
            max_points_per_centroid=MAX_IMAGES,
        )
        kmeans.train(x.numpy())
        self._centres = torch.from_numpy(kmeans.centroids)

    def assign(self, images: Tensor) -> list[int]:
        """Numbers of the clusters of images (B, 3, H, W) uint8, after `fit`."""
        assert self._centres is not None
        x = (self._statistics(images) - self._mean) / self._scale
        return torch.cdist(x, self._centres).argmin(1).tolist()

    def _all_statistics(self) -> Tensor:
        settings, found = self._settings, []
        with (
            full_float32(settings.device),
            tqdm(desc="cluster", total=self._images.count, unit="image") as progress,
        ):
            for shard in self._images.shards:
                try:
                    for _, images in image_batches(shard, settings, progress.update, SkipLog()):
                        found.append(self._statistics(images))
                except LostShardError as error:  # other clusters would come of the rest
                    raise InputError(f"{shard.name} cannot be clustered: {error}") from error
        return torch.cat([torch.empty(0), *found])

    def _statistics(self, images: Tensor) -> Tensor:
        """(B, 2D) float32 on the CPU."""
        codec = cast(VectorQuantizedCodec, self._settings.codec)
        with torch.no_grad():
            parts = codec.split(codec.to_vectors(images.to(self._settings.device)))
        x = torch.cat(parts, dim=-1).flatten(1, 2)  # (B, hw, D)
        return torch.cat([x.mean(1), x.std(1, correction=0).log1p()], dim=1).cpu()
