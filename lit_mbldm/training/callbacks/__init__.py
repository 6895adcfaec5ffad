"""Callbacks: draw, score, write, anneal."""
