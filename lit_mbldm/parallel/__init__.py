"""Processes beside this one: ranks, launchers, workers."""
