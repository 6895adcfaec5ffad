"""Training of diffusion models: wiring of codec, latent, process and denoiser."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lit_mbldm.codecs import ImageCodec, IndexLatent
from lit_mbldm.codecs.latents import Latent
from lit_mbldm.entries.checkpoint import CHECKPOINT_KEY
from lit_mbldm.entries.load import load_pretrained, public_name
from lit_mbldm.errors import InputError, check_numbers
from lit_mbldm.processes.base import Condition, Process
from lit_mbldm.processes.guidance import NO_LABEL
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.training.editing import EditingModule
from lit_mbldm.training.fine_tuning import check_start, take_over
from lit_mbldm.training.fit_latent import check_latent, fit_new_latent, is_new_run
from lit_mbldm.training.labels import check_classes
from lit_mbldm.training.loss_by_time import LossByTime
from lit_mbldm.training.module import Decay, OptimizerName
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.settle import SettlingModule


class DiffusionModule(EditingModule):
    """A diffusion model of a codec's codes, with any process.

    Args:
        codec: a codec, or its name or path for `load_pretrained`.
        denoiser: the network (z_t, t/T, self-conditioning, condition) -> prediction.
        process: how the latent is noised and what the loss is.
        image_size: height and width of the images in pixels.
        learning_rate: of the optimiser.
        betas: of Adam and AdamW.
        warmup_steps: over which the learning rate rises linearly from zero.
        latent: codes as numbers; by default their indices, of a Bernoulli process their bits.
        optimizer: adam, adamw (its weight decay is torch's, 0.01) or muon.
        decay: of the learning rate, linear or cosine, to zero at the run's end; None keeps it.
        class_names: of the labels that it learns; None takes the data's, if any, an empty list
            ignores them.
        label_dropout: share of labels that training leaves out, for guidance.

    Raises:
        InputError: parts that do not fit each other.
    """

    process_class: ClassVar[type[Process]] = Process
    latent_class: ClassVar[type[Latent]] = Latent
    default_latent: ClassVar[type[Latent]] = IndexLatent
    tells_progress: ClassVar[bool] = False  # whether it tells its process how far training is
    _start: tuple[SettlingModule, ...] = ()  # whose weights a run starts from; no submodule

    def __init__(
        self,
        codec: str | ImageCodec,
        denoiser: nn.Module,
        process: Process,
        image_size: int,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 0,
        latent: Latent | None = None,
        optimizer: OptimizerName = "adam",
        decay: Decay | None = None,
        class_names: list[str] | None = None,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__(codec, learning_rate, betas, warmup_steps, optimizer, decay)
        self.denoiser = denoiser
        self.process = process
        self.image_size = image_size
        self.latent = self.default_latent() if latent is None else latent
        self._check_parts()
        self.process.use(self.codec)
        self.latent.use(self.codec)
        self.process.use_latent(self.latent)
        self.codes_shape = self.codec.latent_shape(image_size, image_size)
        channels = self.latent.num_channels(self.codec.num_codes)
        self.latent_shape = (channels, *self.codes_shape[1:])
        shapes = self.process.shapes(self.latent_shape)
        outputs = [self.process.output_channels(channels) for channels, *_ in shapes]
        if (set_shapes := getattr(denoiser, "set_shapes", None)) is not None:
            set_shapes(shapes, outputs, self.map_channels)
        check_numbers(0, 1, label_dropout=label_dropout)
        self.label_dropout = label_dropout
        self.class_names: list[str] | None = None
        self._use_classes(class_names, "the config")
        self.train_by_time, self.val_by_time = LossByTime(), LossByTime()
        self.train()

    @property
    def map_channels(self) -> int:
        """Channels of the map that the denoiser is told, where it is told one."""
        return 0

    def _check_parts(self) -> None:
        for part, needed in ((self.process, self.process_class), (self.latent, self.latent_class)):
            if not isinstance(part, needed):
                raise InputError(
                    f"A {type(self).__name__} needs a {needed.__name__}, got a"
                    f" {type(part).__name__}."
                )
        if self.process.follows_training and not self.tells_progress:
            raise InputError(
                f"A {type(self.process).__name__} has to be told how far training is, which a"
                f" {type(self).__name__} does not: train it as a ConsistencyDiffusion."
            )
        if self.codec.quantizer.startswith("RQ"):
            rank_zero_warn(
                "An RQ codec is a poor latent: several codes decode to nearly the same patch. Use"
                " an OPQ codec such as opq-32-8-8."
            )

    def start_from(self, trained: "str | Path | DiffusionModule") -> None:
        """Have the next run start from a trained model's weights, for fine-tuning.

        Labels may be other ones: what both know is kept. A model that others find, too, is named in
        the card.

        Args:
            trained: a diffusion model, or its name or path for `load_pretrained`.

        Raises:
            InputError: nothing of that name, or a model of another codec, latent or process.
        """
        if isinstance(trained, str | Path):
            self.base_model, trained = public_name(trained), load_pretrained(trained)
        self._start = (check_start(self, trained),)

    def configure_model(self) -> None:
        """Take over what depends on the trainer's data, which is set up by now.

        That is its classes, unless told otherwise, and in a new run the latent's scaling, or the
        weights that it starts from.

        Raises:
            InputError: other classes than the model's, or another network than what it starts from.
        """
        trainer = self._trainer
        data = getattr(trainer, "datamodule", None)
        # model and batches are still there, while Lightning has the trainer's as the default
        with torch.device("cpu"):
            self._use_classes(getattr(data, "class_names", None), "the data")
            if self._start and is_new_run(trainer):
                take_over(self, self._start[0])
                self._start = ()
        fit_new_latent(self.latent, trainer)

    def _use_classes(self, class_names: list[str] | None, where: str) -> None:
        """Take classes, or see that they are the model's; an empty list of its own means none."""
        if class_names is None or self.class_names == []:
            return
        if self.class_names is not None:
            check_classes(self.class_names, class_names, where)
            return
        if not isinstance(class_names, list):
            raise InputError(f"Expected class_names as a list, got {class_names!r:.80}.")
        self.class_names = class_names[:]
        set_classes = getattr(self.denoiser, "set_classes", None)
        if class_names and set_classes is not None:
            set_classes(len(class_names))

    def batch_condition(self, batch: dict[str, Tensor], streams: SampleStreams) -> Condition:
        """What the denoiser is told of a batch besides z_t and t, B rows; here its labels.

        While training, a share of them is left out: -1.
        """
        if not self.class_names:
            return None
        if "label" not in batch:
            raise InputError(
                f"The model learns {len(self.class_names)} classes, but the data has no labels."
                " Write shards of a folder with a subfolder a class, or set class_names: []."
            )
        if not (self.training and self.label_dropout):
            return batch["label"]
        # a branch: times and noise are those of a model without labels
        dropped = streams.branch(-1).uniform(()) < self.label_dropout
        return batch["label"].masked_fill(dropped, NO_LABEL)

    def loss(
        self,
        batch: dict[str, Tensor],
        key: tuple[int, ...],
        by_time: LossByTime,
        batch_idx: int = 0,
    ) -> Tensor:
        """Mean loss of a batch at random times.

        Of a batch of `codes`, (B, S, h, w) uint8, `index`, (B,) int64, and perhaps their `images`,
        (B, 3, H, W) uint8; `key` is of times and noise, with `batch_idx` of what all samples share;
        `by_time` notes each sample's loss.
        """
        codes = batch["codes"]
        if codes.shape[1:] != self.codes_shape:
            raise InputError(
                f"The model is for codes of shape {tuple(self.codes_shape)} (image_size"
                f" {self.image_size}), the data has {tuple(codes.shape[1:])}. Make the model's and"
                " the data's image sizes and codecs agree."
            )
        streams = self.streams(batch, key)
        t = self.process.draw_times(streams, (*key, -1, batch_idx))
        images = batch.get("images")
        z0 = self.latent.to_latent(codes, images)
        condition = self.batch_condition(batch, streams)
        losses = self.process.loss(self.denoiser, z0, t, streams, condition, images)
        by_time.update(losses, t / self.process.num_timesteps)
        return losses.mean()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One step on a batch as of `loss`."""
        loss = self.loss(batch, self.training_key(), self.train_by_time, batch_idx)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's losses by time."""
        self.log_dict(self.train_by_time.pop_means("train/loss_at", self.device), sync_dist=True)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss with the same times and noise every epoch."""
        loss = self.loss(batch, self.validation_key(), self.val_by_time, batch_idx)
        self.log("val/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch["codes"]))

    def on_validation_epoch_end(self) -> None:
        """Log the losses by time."""
        self.log_dict(self.val_by_time.pop_means("val/loss_at", self.device), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep also the sampling options, and what each process's means have taken in."""
        super().on_save_checkpoint(checkpoint)
        sums = self.train_by_time.gathered(self.device)
        checkpoint[CHECKPOINT_KEY] |= {"sampling": self.sampling.given(), "loss_by_time": sums}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them over, options that the config sets excepted, and the classes.

        Raises InputError for a checkpoint of another latent or other classes.
        """
        super().on_load_checkpoint(checkpoint)
        kept = checkpoint[CHECKPOINT_KEY]
        trained = kept["model"]["init_args"]
        check_latent(self.latent, trained.get("latent"))
        self._use_classes(trained.get("class_names"), "the checkpoint")
        self.sampling = self.sampling.over(SampleOptions.read(kept.get("sampling", {})))
        if "loss_by_time" in kept:
            world_size = self._trainer.world_size if self._trainer is not None else 1
            self.train_by_time.restore(kept["loss_by_time"], self.global_rank, world_size)
        self.settle(self.test_options)  # of which labels and guidance could not be checked before

    def test_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Generate the images, (B, 3, H, W) uint8, of sample numbers (B,) int64."""
        return self.generate(batch.tolist(), self.test_options)

    predict_step = test_step
