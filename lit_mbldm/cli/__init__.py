"""The command line: `main`, the trainer, one file a verb."""

from lit_mbldm.cli.main import main

__all__ = ["main"]
