"""Training for so many minutes of processor time, which other programs do not shorten."""

import time

import lightning as L


class ProcessorTime(L.Callback):
    """Stops training after minutes of processor time, over which the learning rate may decay.

    The decay is linear, to zero, from what the model's own schedule sets.
    """

    def __init__(self, minutes: float, decay: bool = False) -> None:
        self.minutes, self.decay = minutes, decay

    @property
    def left(self) -> float:
        """Share of the minutes that is left."""
        return max(0.0, 1 - (time.process_time() - self.start) / (60 * self.minutes))

    def on_train_start(  # noqa: D102
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> None:
        self.start = time.process_time()

    def on_train_batch_start(self, trainer: L.Trainer, *args: object) -> None:  # noqa: D102
        if self.decay:
            (schedule,) = (config.scheduler for config in trainer.lr_scheduler_configs)
            rates = schedule.get_last_lr()
            for group, rate in zip(trainer.optimizers[0].param_groups, rates, strict=True):
                group["lr"] = rate * self.left

    def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:  # noqa: D102
        trainer.should_stop = self.left == 0
