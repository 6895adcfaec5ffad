"""Resume: checkpoints, pre-emption, the same step again."""
