"""Metrics: quality of codecs, fidelity of samples."""
