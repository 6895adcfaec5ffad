"""The main module of a worker process of `convert`."""

import signal
import sys

from lit_mbldm.data.convert import serve

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    serve(sys.stdin.buffer, sys.stdout.buffer)
