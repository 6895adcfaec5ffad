"""Signals in the processes that read data."""

import os
import signal
import threading


def leave_signals_to_parent(worker_id: int) -> None:
    """Have a DataLoader's process end when its parent wants, and go on at signals from elsewhere.

    A cluster sends SIGTERM and SIGUSR1 to every process of a job, a terminal SIGINT. One that dies
    of it takes the process that trains along, before that has saved. For `worker_init_fn`; takes
    care of SIGINT alone on systems that do not tell who sent a signal.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS, Windows
        return
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def end_with_parent() -> None:
        # a handler is not told who sent the signal
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
