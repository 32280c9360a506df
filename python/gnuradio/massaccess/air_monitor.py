"""What people want to see of a receiver that runs, for displays and publishers."""

import time

import numpy as np
import pmt

from ._base import FrameBlock, guarded, item, to_dict_pmt

PORTS = ("payload", "health", "sync", "receiver", "decoder")
MESSAGE_SECONDS = 0.25
NOTHING = -60.0  # dB: shown for users and antennas of which nothing is known


class air_monitor(FrameBlock):
    """Watches a receiver: activity [users] and symbols [data_len, users] in, and what other blocks say on their message ports.

    Message ports in: ``payload`` of a `payload_decoder` with keep_failed, ``health`` of an `array_health`, and the ``stats`` of
    `synchronizer` (port ``sync``), `receiver` (``receiver``) and `payload_decoder` (``decoder``); any may stay unconnected.
    Out, one item a frame, for displays: error of the users' symbols [users] in dB, how far their phases turn over the data [users] in
    degrees, the share of their payloads that failed [users], and power [antennas] in dB and phase [antennas] in degrees of the antennas;
    -60 dB, and 0, where nothing is known. Port ``monitor``: a dictionary of vectors four times a second, the arrays of
    `massaccess.link.monitor.FIELDS`, for a `zmq_publisher` with a monitor. `text` says it in words.

    It ends with its streams; messages that come later are not seen.
    """

    def __init__(self, users=128, antennas=16, data_len=96, modulation="qpsk"):
        from massaccess.link.monitor import COUNTERS, UserTrack, blank

        inputs = [item(np.float32, users), item(np.complex64, data_len, users)]
        outputs = [item(np.float32, users)] * 3 + [item(np.float32, antennas)] * 2
        super().__init__("massaccess_air_monitor", inputs, outputs, required_outputs=0)
        self._users, self._data_len = users, data_len
        self._track = UserTrack(users, modulation)
        self._state = blank(users, antennas)
        self._counters = dict.fromkeys(COUNTERS, np.nan)
        self._published = time.monotonic()
        self.malformed = 0
        for port in PORTS:
            self.message_port_register_in(pmt.intern(port))
            self.set_msg_handler(pmt.intern(port), getattr(self, f"take_{port}"))
        self.message_port_register_out(pmt.intern("monitor"))

    # --- messages ---

    @guarded
    def take_payload(self, message):
        """Handler of port ``payload``."""
        known = pmt.to_python(pmt.car(message)) if pmt.is_pair(message) else {}
        user = known.get("user")
        if not isinstance(user, int) or not 0 <= user < self._users or "crc_ok" not in known:
            self.malformed += 1
            return
        self._track.check(user, bool(known["crc_ok"]))

    @guarded
    def take_health(self, message):
        """Handler of port ``health``."""
        from massaccess.calibration.health import VERDICTS

        known = pmt.to_python(message) if pmt.is_dict(message) else {}
        size = len(self._state["antenna_verdict"])
        verdicts = str(known.get("verdicts", "")).split()
        if len(verdicts) != size or not set(verdicts) <= set(VERDICTS):
            self.malformed += 1
            return
        self._state["antenna_verdict"][:] = [VERDICTS.index(word) for word in verdicts]
        for name in ("power_db", "phase_deg"):
            if name in known:
                self._state[f"antenna_{name}"][:] = np.asarray(known[name], np.float32)

    @guarded
    def take_sync(self, message):
        """Handler of port ``sync``."""
        self._count(message, ("frames", "missing", "gaps", "locks", "cfo_hz", "noise_var"))

    @guarded
    def take_receiver(self, message):
        """Handler of port ``receiver``."""
        known = self._count(message, ("dropped",))
        if np.isnan(self._counters["locks"]) and "frames" in known:  # no synchronizer: the receiver knows best
            self._counters["frames"] = float(known["frames"])

    @guarded
    def take_decoder(self, message):
        """Handler of port ``decoder``."""
        self._count(message, ("codewords", "payloads", "failed_crc"))

    def _count(self, message, names):
        known = pmt.to_python(message) if pmt.is_dict(message) else {}
        self._counters.update({name: float(known[name]) for name in names if name in known})
        return known

    # --- streams ---

    @guarded
    def general_work(self, input_items, output_items):
        count = min(map(len, [*input_items, *output_items]))
        active = input_items[0][:count].reshape(count, self._users) > 0.5
        symbols = input_items[1][:count].reshape(count, self._data_len, self._users)
        indices = self.frame_indices(0, count)
        for row in range(count):
            self._track.hear(active[row : row + 1], symbols[row : row + 1])
            for port, values in enumerate(self._shown()):
                if port < len(output_items):
                    output_items[port][row] = values
        for port in range(len(output_items)):
            self.tag_frames(port, indices)
        for port in range(2):
            self.consume(port, count)
        if time.monotonic() - self._published > MESSAGE_SECONDS:
            self._published = time.monotonic()
            self._publish()
        return count

    def _shown(self):
        track, state = self._track, self._state
        powers = (np.nan_to_num(values, nan=NOTHING) for values in (track.error_db, state["antenna_power_db"]))
        error, power = powers
        return error, np.nan_to_num(track.drift_deg), np.nan_to_num(track.failed), power, np.nan_to_num(state["antenna_phase_deg"])

    def state(self):
        """The arrays of `massaccess.link.monitor.FIELDS` [size]."""
        users = {"user_error_db": self._track.error_db, "user_drift_deg": self._track.drift_deg, "user_fer": self._track.failed}
        counters = {"counters": np.array(list(self._counters.values()))}
        return {name: {**self._state, **users, **counters}[name].astype(values.dtype) for name, values in self._state.items()}

    def text(self):
        """Array and counters, a line each, for a label."""
        from massaccess.link.monitor import array_line, counter_line

        state = self.state()
        return "\n".join([array_line(state["antenna_verdict"]), *counter_line(state["counters"]).split(", ")])

    def _publish(self):
        if self.heard("monitor"):
            vectors = {name: _vector(values) for name, values in self.state().items()}
            self.message_port_pub(pmt.intern("monitor"), to_dict_pmt(vectors))


def _vector(values):
    makers = {"float32": pmt.init_f32vector, "float64": pmt.init_f64vector, "uint8": pmt.init_u8vector}
    return makers[values.dtype.name](len(values), values.tolist())
