"""Processes that do work for this one: questions and answers are pickled on their pipes."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any, cast

from lit_mbldm.errors import InputError


class WorkerDiedError(InputError):
    """A worker process ended without an answer.

    Attributes:
        signal: name of the signal it ended by, None where it ended otherwise.
    """

    def __init__(self, returncode: int) -> None:
        super().__init__(
            "A process that works on the images was killed, perhaps for want of memory. What is"
            " finished stays: run the same command again."
        )
        self.signal = signal.Signals(-returncode).name if returncode < 0 else None


class WorkerProcess:
    """A process that answers questions one by one; it ends when this one does.

    It is no fork, since a copy of a process with threads may hang, nor does it import the user's
    script again, as multiprocessing's other processes do. Ctrl-C does not reach it: that is for
    its parent to handle.

    Args:
        module: whose main part calls `serve`.
    """

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            process_group=0,
        )

    def ask(self, question: object) -> Any:
        """Its answer.

        Raises:
            WorkerDiedError: it ends before it answers.
        """
        try:
            _send(cast(IO[bytes], self._process.stdin), question)
            return pickle.load(cast(IO[bytes], self._process.stdout))
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            self._process.communicate()
            raise WorkerDiedError(self._process.returncode) from error

    def close(self) -> None:
        """End it."""
        if self._process.returncode is None:
            self._process.communicate()


def serve(answer: Callable[[Any], object]) -> None:
    """Answer the questions that come on the standard input until it ends."""
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            _send(answers, answer(pickle.load(questions)))
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            return


def _send(stream: IO[bytes], message: object) -> None:
    pickle.dump(message, stream, pickle.HIGHEST_PROTOCOL)
    stream.flush()
