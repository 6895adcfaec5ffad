"""Shards to batches: data modules and what they read by."""
