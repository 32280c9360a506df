"""Frames in; who is active, what they sent and over which channels out."""

from ._receiver_block import ReceiverBlock


class receiver(ReceiverBlock):
    """Runs a receiver of `massaccess.registry` on a stream of frames [pilot_len + data_len, rows * columns].

    With ``samples_per_symbol`` of 2 or more, frames are bursts as `synchronizer` gives them, [2 * slot_len, rows * columns], whose
    ``preamble_len``, ``guard_len`` and ``roll_off`` have to be told too; users are out of step by up to ``timing_offset`` symbols and
    ``cfo_hz`` [Hz], at ``sample_rate_hz``, either way.

    Out, one item a decoded frame, numbered by tag ``frame``: activity [users] float, symbols [data_len, users], channel
    [users, rows * columns]. A frame that is rejected (NaN, infinity) or dropped leaves a gap in the numbers.
    Other tags of the frames are handed on; the first answer is tagged with ``receiver`` and ``version``, that of a receiver with a trained
    prior also with ``weights`` and ``weights_hash``.
    Message ports: ``packets``, a PDU for each payload whose CRC holds (dictionary with frame, user, activity, receiver); ``active``, a PDU
    for each frame (dictionary with frame, receiver; s32vector of users); ``llrs``, a PDU for each active user of a frame (dictionary with
    frame, user, activity, receiver, symbol_var, snr_db of its symbols; f32vector of log p(0)/p(1), in nats, of the bits on the air, in
    their order, at most 1,000 either way); ``stats``, a dictionary of counters twice a second.

    ``code`` names the code of the payloads; with one, payloads come from a `payload_decoder` on port ``llrs``, and none on ``packets``.

    ``noise_var``, ``adc_bits``, ``adc_scale``, ``adc_offset`` (threshold of the comparators) and ``adc_dither`` (both as a fraction of
    ``adc_scale``) of 0 follow the tags of the stream; ``noise_var=-1`` estimates the noise variance from the frames of each batch, whatever
    the tags say (best with 8 frames or more a batch). ``channel_cov`` names the channel model or bank whose covariance the receiver may
    know.

    ``weights``, for receivers that have such an option: "auto", "gaussian", a name that `massaccess weights` lists, or the path of a
    weights file. "auto" takes what fits the array and ``channel_cov``, otherwise the Gaussian prior, and logs the reason; without
    ``channel_cov`` it is the Gaussian prior of independent antennas. A name must fit ``channel_cov``, where that is given; a file is taken
    at its user's word, with a warning.

    ``overflow="block"`` loses nothing, and batches are the frames with one frame // max_batch, so that a
    replay gives the very same answers; ``"drop_oldest"`` decodes what is at hand and drops the oldest frames beyond ``queue_frames``.
    ``deadline_ms`` is what a frame of a batch may cost (0: no limit): iterative receivers then make fewer steps and answer with the best
    they have, and ``cut`` counts the frames. The answers then depend on the machine and its load.
    Latency: at most ``max_batch`` frames with ``block``, ``queue_frames`` with ``drop_oldest``, and the time to decode a batch.

    Raises UnknownNameError, ConfigError, FormatError or ShapeError when the parameters, or the weights, do not fit; genies are refused.
    """

    ANSWERS = "all"
    PORTS = ("packets", "active", "llrs", "stats")

    def __init__(
        self,
        receiver="jcedd",
        options=None,
        users=128,
        rows=8,
        columns=8,
        pilot_len=28,
        data_len=37,
        activity=0.1,
        active_users=0,
        modulation="qpsk",
        pilot_kind="qpsk",
        pilot_seed=0,
        pilot_energy="symbol",
        noise_var=0.0,
        adc_bits=0,
        adc_scale=0.0,
        adc_offset=0.0,
        adc_dither=0.0,
        channel_cov="",
        weights="auto",
        max_batch=32,
        overflow="block",
        queue_frames=64,
        deadline_ms=0.0,
        seed=0,
        threads=0,
        device="auto",
        code="none",
        samples_per_symbol=1,
        preamble_len=0,
        guard_len=0,
        roll_off=0.25,
        timing_offset=0.0,
        cfo_hz=0.0,
        sample_rate_hz=1e6,
    ):
        super().__init__(
            receiver,
            options,
            {
                "users": users,
                "rows": rows,
                "columns": columns,
                "pilot_len": pilot_len,
                "data_len": data_len,
                "activity": activity,
                "active_users": active_users,
                "modulation": modulation,
                "pilot_kind": pilot_kind,
                "pilot_seed": pilot_seed,
                "pilot_energy": pilot_energy,
                "code": code,
                "samples_per_symbol": samples_per_symbol,
                "preamble_len": preamble_len,
                "guard_len": guard_len,
                "roll_off": roll_off,
                "timing_offset": timing_offset,
                "cfo_hz": cfo_hz,
                "sample_rate_hz": sample_rate_hz,
            },
            noise_var=noise_var,
            adc_bits=adc_bits,
            adc_scale=adc_scale,
            adc_offset=adc_offset,
            adc_dither=adc_dither,
            channel_cov=channel_cov,
            weights=weights,
            max_batch=max_batch,
            overflow=overflow,
            queue_frames=queue_frames,
            deadline_ms=deadline_ms,
            seed=seed,
            threads=threads,
            device=device,
        )
