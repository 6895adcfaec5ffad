"""Shards: manifest, names, reading, writing."""
