"""What the denoisers share: what a model tells them, labels or a map, and a 1×1 head."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mbldm.denoisers.layers import zero_init
from lit_mbldm.errors import InputError


class HeadedNetwork(nn.Module):
    """A denoiser whose last layer, `head`, is a 1×1 convolution that starts at zero.

    The prediction at a position depends on the `features` at that position alone. A subclass
    calls `start`, and has `build`, which makes its layers, and `body`.
    """

    head: nn.Conv2d
    time: nn.Module | None  # embeds t/T and a label
    map_channels: int  # of a spatial condition
    labels: nn.Embedding | None

    def start(self, in_channels: int | None, out_channels: int | None, width: int) -> None:
        """Note the channels, of which None waits for `set_shapes`, and those of the features."""
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.feature_channels = width
        self.map_channels, self.labels = 0, None
        if in_channels is not None and out_channels is not None:
            self.set_channels(in_channels, out_channels)

    def build(self, stem_channels: int) -> None:
        """Make the layers before the head, `time` among them, for an input of so many channels."""
        raise NotImplementedError

    def body(self, x: Tensor, emb: Tensor | None) -> Tensor:
        """Map what `join` gives and the embedded time to features (B, feature_channels, h, w)."""
        raise NotImplementedError

    def set_channels(self, in_channels: int, out_channels: int, map_channels: int = 0) -> None:
        """Make the layers for a latent, a prediction and a map of so many channels, unless made.

        Raises InputError for other channels than the constructor was told, or another map than the
        layers are made for.
        """
        for name, needed in (("in_channels", in_channels), ("out_channels", out_channels)):
            told = getattr(self, name)
            if told not in (None, needed):
                raise InputError(
                    f"The model needs a denoiser with {name}: {needed}, got {told}. Leave {name}"
                    " out: it follows from latent and process."
                )
        if not hasattr(self, "head"):
            self.map_channels = map_channels
            self.build(2 * in_channels + map_channels)
            self.head = zero_init(nn.Conv2d(self.feature_channels, out_channels, 1))
        elif map_channels != self.map_channels:
            raise InputError(
                f"The denoiser has layers for a map of {self.map_channels} channels, the model"
                f" tells it {map_channels}: leave in_channels and out_channels out."
            )

    def set_shapes(
        self,
        shapes: Sequence[Sequence[int]],
        out_channels: Sequence[int],
        map_channels: int = 0,
    ) -> None:
        """Make the layers for the signals that a model shows it, unless they are made.

        Args:
            shapes: (C, h, w) of each, the latent first.
            out_channels: channels of the prediction for each.
            map_channels: of the spatial condition, if any.

        Raises:
            InputError: channels that change from signal to signal, or as of `set_channels`.
        """
        if len({*out_channels}) > 1:
            raise InputError(
                f"The signal's shape changes from stage to stage, {shapes}, its channels too, which"
                f" a {type(self).__name__} cannot follow: use a MultiStageUNet."
            )
        self.set_channels(shapes[0][0], out_channels[0], map_channels)

    def set_classes(self, num_classes: int) -> None:
        """Embed so many labels, and none in the last row, unless that is done."""
        if self.labels is None:
            self.labels = nn.Embedding(num_classes + 1, self.feature_channels)

    def join(self, z_t: Tensor, self_condition: Tensor, condition: Tensor | None) -> Tensor:
        """What the first layer sees of `forward`'s arguments, (B, stem_channels, h, w)."""
        parts = [z_t, self_condition]
        if self.map_channels:
            assert condition is not None
            parts.append(condition)
        return torch.cat(parts, dim=1)

    def embed_labels(self, condition: Tensor | None, time: Tensor) -> Tensor | None:
        """Embed the labels of B samples as (B, feature_channels), if the network has classes."""
        if self.labels is None:
            return None
        given = time.new_full(time.shape, -1).long() if condition is None else condition
        return self.labels(given % self.labels.num_embeddings)  # -1 is the last row

    def forward(
        self,
        z_t: Tensor,
        time: Tensor,
        self_condition: Tensor,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Predict (B, out_channels, h, w): `head(features(...))`.

        Args:
            z_t: (B, in_channels, h, w) float.
            time: (B,) t/T in [0, 1].
            self_condition: (B, in_channels, h, w), an earlier estimate of z_0 or zeros.
            condition: labels (B,) int64, -1 for none; None is -1 for all, and all that a network
                without classes takes. Where there are `map_channels` it is a map
                (B, map_channels, h, w) float.
        """
        return self.head(self.features(z_t, time, self_condition, condition))

    def features(
        self,
        z_t: Tensor,
        time: Tensor,
        self_condition: Tensor,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Everything before `head`, (B, feature_channels, h, w); arguments as `forward`."""
        assert self.time is not None
        emb = self.time(time, self.embed_labels(condition, time))
        return self.body(self.join(z_t, self_condition, condition), emb)
