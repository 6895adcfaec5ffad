"""Options of sampling made complete: by the model's own, and by what they name, checked."""

from dataclasses import replace

from torch import nn

from lit_mbldm.codecs.latents import Latent
from lit_mbldm.entries.about import about_module
from lit_mbldm.entries.load import load_pretrained
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.inception import features_fingerprint
from lit_mbldm.processes.base import Process
from lit_mbldm.processes.samplers import check_sampler
from lit_mbldm.training.labels import check_guidance, label_numbers
from lit_mbldm.training.module import CodecModule
from lit_mbldm.training.options import SampleOptions
from lit_mbldm.training.refiner import RefinerModule, load_refiner

_STEPS = 50  # where nothing else is said
# what tells how a process reads its network, where it has it
_READING = (
    *("schedule", "objective", "target", "likelihood", "gaussian_head", "self_conditioning"),
    *("stages", "boundaries", "snr_power"),
)


class SettlingModule(CodecModule):
    """What options of sampling are for; the base of what samples."""

    denoiser: nn.Module
    process: Process
    latent: Latent
    latent_shape: tuple[int, ...]  # of z_0, (C, h, w)
    class_names: list[str] | None
    label_dropout: float
    test_options = SampleOptions()  # of test and predict; `set_test_options` sets it
    _refiner: tuple[RefinerModule, ...] = ()  # no submodule: neither trained nor saved with it

    @property
    def refiner(self) -> RefinerModule | None:
        """What samples pass through unless told otherwise."""
        return self._refiner[0] if self._refiner else None

    def use_refiner(self, refiner: RefinerModule) -> None:
        """Pass samples through a refiner unless told otherwise.

        Raises InputError for no refiner, or one of another codec's images.
        """
        self._check_refiner(refiner)
        self._refiner = (refiner,)

    @property
    def sampling(self) -> SampleOptions:
        """The model's own options, of its entry, its checkpoint or the config's `SampleImages`."""
        return SampleOptions.read(about_module(self).sampling)

    @sampling.setter
    def sampling(self, options: SampleOptions) -> None:
        if options.guide is not None:  # which is not kept
            options = replace(options, guidance=None, guidance_interval=None)
        vars(self)["about"] = replace(about_module(self), sampling=options.given())

    def set_test_options(self, options: SampleOptions) -> None:
        """Have test and predict draw by these options; raises InputError as `settle`.

        Refiner and guide are loaded now; what is left open may come with a checkpoint later, as
        may the classes, without which nothing is said of labels and guidance yet.
        """
        self.test_options = options = _load(options)
        if self.class_names is None:
            options = replace(
                options, label=None, guidance=1.0, guidance_interval=None, guide=None
            )  # not None, which is the model's own
        self.settle(options)

    def settle(self, options: SampleOptions) -> SampleOptions:
        """Complete options by the model's own, check them, and load the models they name.

        Raises InputError for an option that the model does not take or out of range, or a refiner
        or a guide that does not load or fit.
        """
        steps = min(_STEPS, self.process.num_timesteps)
        options = options.over(self.sampling).over(SampleOptions(steps, sampler="ddpm"))
        assert options.steps is not None and options.sampler is not None  # noqa: PT018
        check_sampler(self.process, options.sampler, options.eta or 0.0)
        self.process.time_grid(options.steps)
        self.shape_on(options.canvas)
        if options.temperature is not None and not self.process.has_temperature:
            raise InputError(f"A {type(self).__name__} takes no temperature: leave it out.")
        class_names = self.class_names or []
        label_numbers(class_names, options.label)
        check_guidance(options, class_names, self.label_dropout)
        options = _load(options)
        if isinstance(options.refiner, nn.Module):
            self._check_refiner(options.refiner)
        if options.guide is not None:
            self._check_guide(options.guide)
        return options

    def shape_on(self, canvas: tuple[int, int] | None) -> tuple[int, ...]:
        """Shape (C, h, w) of z_0 for a canvas of (H, W) pixels; None is the one learned.

        Raises InputError for a canvas that codec, process or denoiser are not for.
        """
        if canvas is None:
            return self.latent_shape
        shape = (self.latent_shape[0], *self.codec.latent_shape(*canvas)[1:])
        check_shapes = getattr(self.denoiser, "check_shapes", None)
        if check_shapes is not None:
            check_shapes(self.process.shapes(shape))
        return shape

    def _check_refiner(self, refiner: nn.Module) -> None:
        if not isinstance(refiner, RefinerModule):
            raise InputError(f"Expected a Refiner, got a {type(refiner).__name__}.")
        expected, found = self.codec.image_fingerprint, refiner.codec.image_fingerprint
        if found != expected:
            raise InputError(
                "The refiner was trained on images of another codec: expected fingerprint"
                f" {expected}, got {found}. Train one on images of {self.codec.quantizer}."
            )

    def _check_guide(self, guide: object) -> None:
        if not isinstance(guide, SettlingModule):
            raise InputError(f"Expected a diffusion model as guide, got a {type(guide).__name__}.")
        expected, found = self._kind(), guide._kind()
        for what in expected:
            if expected[what] != found[what]:
                raise InputError(
                    f"The guide has another {what}: expected {expected[what]!s:.200}, got"
                    f" {found[what]!s:.200}. Take an earlier or smaller checkpoint of this kind."
                )

    def _kind(self) -> dict[str, object]:
        """What must be equal for predictions to be of the same latent, by its name in messages."""
        return {
            "codec": self.codec.fingerprint,
            "shape of the latent": self.latent_shape,
            "latent": features_fingerprint(self.latent),
            "process": self.reading(),
            "list of classes": self.class_names or [],
        }

    def reading(self) -> tuple[str, dict[str, str]]:
        """The process, and what of it tells how it reads its network."""
        values = {name: getattr(self.process, name, None) for name in _READING}
        told = {name: str(value) for name, value in values.items() if value is not None}
        return type(self.process).__name__, told


def _load(options: SampleOptions) -> SampleOptions:
    """Put the models that options name into their places."""
    refiner, guide = options.refiner, options.guide
    if isinstance(refiner, str) and refiner != "none":
        refiner = load_refiner(refiner)
    if isinstance(guide, str):
        guide = load_pretrained(guide)
    return replace(options, refiner=refiner, guide=guide)
