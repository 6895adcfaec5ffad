"""What goes wrong between a client and a loopback Hub."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from loopback_http import Action, Exchange, Response


@dataclass
class Fault:
    """What happens to the next `times` requests (None: all) whose line holds the pattern `match`.

    The line is `METHOD http://host:port/path?query`.
    """

    match: str
    action: Action
    times: int | None = 1


class Faults(list[Fault]):
    """The faults to come, first match first; each method adds one."""

    lock = Lock()

    def answer(self, exchange: Exchange) -> Response:
        with self.lock:
            hits = (one for one in self if one.times != 0 and re.search(one.match, exchange.line))
            fault = next(hits, None)
            if fault and fault.times:
                fault.times -= 1
        return fault.action(exchange) if fault else exchange.respond()

    def add(self, match: str, action: Action, times: int | None = 1) -> Fault:
        self.append(Fault(match, action, times))
        return self[-1]

    def change(self, match: str, times: int | None, change: Callable[[Response], object]) -> Fault:
        """The request takes effect, and `change` sees its answer."""
        return self.add(match, lambda one: (answer := one.respond(), change(answer))[0], times)

    def hook(self, match: str, act: Callable[[], object], times: int | None = 1) -> Fault:
        """`act` is called before the request is handled as ever."""
        return self.add(match, lambda exchange: (act(), exchange.respond())[1], times)

    def drop_before(self, match: str, times: int | None = 1) -> Fault:
        """The connection is closed; nothing took effect."""
        return self.hook(match, drop, times)

    def drop_after(self, match: str, times: int | None = 1) -> Fault:
        """The request takes effect and the connection is closed without an answer."""
        return self.change(match, times, lambda _: drop())

    def status(
        self, match: str, status: int, times: int | None = 1, after: bool = False, **headers: str
    ) -> Fault:
        """An answer of this status; with `after` the request takes effect all the same."""
        injected = Response.of_json({"error": f"injected {status}"}, status, **headers)
        return self.add(match, lambda one: (after and one.respond(), injected)[1], times)

    def corrupt(self, match: str, times: int | None = 1) -> Fault:
        """A body of the right size with its middle byte changed."""

        def change(answer: Response) -> None:
            body = bytearray(answer.body)
            body[len(body) // 2] ^= 1
            answer.body = bytes(body)

        return self.change(match, times, change)

    def truncate(self, match: str, times: int | None = 1) -> Fault:
        """The right Content-Length, half of the body, and the connection is closed."""
        return self.change(match, times, lambda one: setattr(one, "sent", len(one.body) // 2))


def drop() -> None:
    raise ConnectionAbortedError
