"""User processes of a virtual air: what each user sends, slot by slot, and the sockets that answer the broker's requests.

Users of one seed are those of `forward.simulate.Population`: who is awake in slot n, and what it sends, follows from (seed, n), so that a
user that was away, or is a new process, goes on where the others are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import numpy as np
import zmq

from ..core import SystemConfig
from ..errors import ConfigError
from ..forward.transmit import Sender
from .air_protocol import LARGEST_REQUEST, parse_request, reply
from .publisher import GRACE_SECONDS, require_local, terminate

POLL_MS = 100
MOST_SLOTS = 64  # of an answer


class Waves:
    """Samples of ``users`` of a population, all unless given, any stretch of them: zeros before slot 0 and, unless ``slots`` is 0, behind
    the last.

    >>> config = SystemConfig(users=4, pilot_len=4, data_len=4, samples_per_symbol=4, guard_len=8, channel="rayleigh", activity=1.0)
    >>> waves = Waves(config, users=(1, 3))
    >>> waves(60, 10, 3).shape, waves.slot_samples
    ((10,), 64)
    """

    def __init__(self, config: SystemConfig, seed: int = 0, users: Sequence[int] = (), *, slots: int = 0) -> None:
        for user in users:
            if not 0 <= user < config.users:
                raise ConfigError(f"user {user} is none of the system: pass 0 to {config.users - 1}")
        self.config, self.users, self.slots = config, tuple(users) or tuple(range(config.users)), slots
        self._sender = Sender(config, seed, self.users)
        self._column = {user: column for column, user in enumerate(self.users)}

    @property
    def slot_samples(self) -> int:
        return self._sender.burst.slot_samples

    def __call__(self, first: int, count: int, user: int) -> np.ndarray:
        """Samples ``first`` to ``first + count`` of a user [count] complex64."""
        column = self._column[user]
        out, done = np.zeros(count, np.complex64), 0
        stop = first + count if not self.slots else min(first + count, self.slots * self.slot_samples)
        while first + done < stop:
            slot, offset = divmod(first + done, self.slot_samples)
            part = self._sender.slot(slot).samples[offset : offset + stop - first - done, column]
            out[done : done + len(part)] = part
            done += len(part)
        return out


class Transmitters:
    """A REP socket for each user, bound at its endpoint, that gives ``waves(first, count, user)`` to whoever asks.

    Raises ConfigError for an address that cannot be bound, or that other machines can reach, unless ``allow_remote``.
    """

    def __init__(
        self, waves: Callable[[int, int, int], np.ndarray], endpoints: Mapping[int, str], *, most: int, allow_remote: bool = False
    ) -> None:
        for endpoint in endpoints.values() if not allow_remote else ():
            require_local(endpoint)
        self._waves, self._most = waves, most
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._users: dict[zmq.Socket, int] = {}
        self.endpoints: dict[int, str] = {}
        self._next = dict.fromkeys(endpoints, 0)
        self.answered = 0
        for user, endpoint in endpoints.items():
            self._bind(user, endpoint)

    def serve(self, seconds: float) -> int:
        """Answers what is asked within ``seconds``; returns how many requests that was."""
        before = self.answered
        for socket, _ in self._poller.poll(1000 * seconds):
            self._answer(socket, self._users[socket])
        return self.answered - before

    def close(self) -> None:
        if not self._context.closed:
            for socket in self._users:
                socket.close(linger=0)
            terminate(self._context, GRACE_SECONDS)

    def __enter__(self) -> Transmitters:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _bind(self, user: int, endpoint: str) -> None:
        socket = self._context.socket(zmq.REP)
        self._users[socket] = user
        socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_REQUEST)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"cannot bind {endpoint} for user {user} ({error}): pass another one, such as tcp://127.0.0.1:*") from None
        self.endpoints[user] = socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\x00").decode()
        self._poller.register(socket, zmq.POLLIN)

    def _answer(self, socket: zmq.Socket, user: int) -> None:
        wanted = parse_request(socket.recv_multipart()[-1], self._most)
        first = self._next[user] if wanted.index is None else wanted.index
        samples = self._waves(first, min(wanted.count, self._most), user)
        self._next[user] = first + len(samples)
        socket.send_multipart(reply(samples, None if wanted.index is None else first))
        self.answered += 1
