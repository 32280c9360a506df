"""What a receiver of the stream is told of its users' mean powers. Knows nothing of GNU Radio."""

import copy
import threading
from dataclasses import replace


class Gains:
    """``known``: what tags say, 1 without one; ``unknown``: limits [dB] alone; ``learned``: limits, and what earlier frames told.

    Frames whose number // ``block`` is the same are told the same, what frames of earlier blocks say: then neither how the queue has split
    a block, nor when, changes an answer. ``remember`` counts the frames after which what was learned has faded; 0: it never does.
    """

    def __init__(self, mode="known", *, users, range_db=(0.0, 0.0), remember=0, block=1):
        from massaccess.core import MAX_SNR_DB
        from massaccess.errors import ConfigError, unknown
        from massaccess.priors.gain_memory import GAINS, GainMemory

        low, high = range_db
        if mode not in GAINS:
            raise unknown("gains", mode, GAINS)
        if not -MAX_SNR_DB <= low <= high <= MAX_SNR_DB:
            raise ConfigError(f"gain_low_db is {low}, gain_high_db is {high}: pass two levels [dB], low first, of {MAX_SNR_DB:g} at most")
        if remember < 0 or remember == 1:
            raise ConfigError(f"remember is {remember}: pass 2 frames or more, or 0 to forget none")
        self.mode, self._range, self._block = mode, (float(low), float(high)), block
        forget = 1 - 1 / remember if remember else 1.0
        self._memory = GainMemory(users=users, range_db=self._range, forget=forget) if mode == "learned" else None
        self._waiting, self._at = [], 0  # estimates of the frames of block ``_at``, which later blocks learn from
        self._lock = threading.Lock()

    def tell(self, obs, frame):
        """``obs``, whose first frame has number ``frame``, with what is known."""
        if self.mode == "unknown":
            return replace(obs, gain_range_db=self._range)
        if self.mode == "known":
            return obs
        with self._lock:
            if self._waiting and (frame // self._block != self._at or self._frames_waiting() >= self._block):
                self._memory.learn(*self._waiting)
                self._waiting = []
            return self._memory.tell(obs)

    def learn(self, frame, estimate):
        """Takes in an estimate, once: of frames from number ``frame`` on, that `tell` told last."""
        if self._memory:
            with self._lock:
                self._waiting.append(estimate)
                self._at = frame // self._block

    @property
    def frames(self):
        """How many frames were learned from."""
        with self._lock:
            return self._memory.frames + self._frames_waiting() if self._memory else 0

    @property
    def gain_db(self):
        """Posterior mean of the gains [users], in dB, after all frames so far; ConfigError where none are learned."""
        from massaccess.errors import ConfigError

        if not self._memory:
            raise ConfigError(f"gains are {self.mode}, and nothing is learned of them: pass gains='learned'")
        with self._lock:
            memory = copy.copy(self._memory)
            if self._waiting:
                memory.learn(*self._waiting)
        return 10 * memory.gain.log10().numpy()

    def _frames_waiting(self):
        return sum(len(estimate.activity) for estimate in self._waiting)
