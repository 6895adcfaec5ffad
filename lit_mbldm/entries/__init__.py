"""Entries on disk: config, weights, about; fetched, checked and loaded."""
