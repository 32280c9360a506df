"""Frames of index-modulated pilots in; who is active, and which of its sequences each device sent, out."""

from ._receiver_block import ReceiverBlock


class noncoherent_receiver(ReceiverBlock):
    """Runs a receiver of kind noncoherent on a stream of frames [pilot_len, rows * columns], whose devices have 2 ** index_bits sequences
    each (P3, section II-B) and no data symbols. It finds who sent which of them, and no channels.

    Out, one item a frame, numbered by tag ``frame``: activity [users] float, the probability that a device is active; odds
    [users, 2 ** index_bits] float, natural log odds of each sequence against silence; llrs [users, index_bits] float,
    log p(0) / p(1) of each bit if the device is active. A device is found active when one of its odds is above 0, the decision of fewest
    symbol errors, and its bits are the number of its likeliest sequence, most significant first. Gaps in the numbers are lost frames.
    Message ports: ``packets``, a PDU for each device found (dictionary with frame, user, activity, receiver and llrs, f32vector; u8vector
    of index_bits bits, which no CRC protects); ``active`` and ``stats`` as of `receiver`.

    Mean powers of the users come by tag ``user_gain`` where they are known. All other parameters, tags and errors are those of `receiver`.
    """

    ANSWERS = "sequences"

    def __init__(
        self,
        receiver="noncoherent",
        options=None,
        users=100,
        rows=4,
        columns=4,
        pilot_len=40,
        index_bits=1,
        activity=0.1,
        active_users=0,
        pilot_kind="gaussian",
        pilot_seed=0,
        pilot_energy="sequence",
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
    ):
        super().__init__(
            receiver,
            options,
            {
                "users": users,
                "rows": rows,
                "columns": columns,
                "pilot_len": pilot_len,
                "data_len": 0,
                "index_bits": index_bits,
                "activity": activity,
                "active_users": active_users,
                "pilot_kind": pilot_kind,
                "pilot_seed": pilot_seed,
                "pilot_energy": pilot_energy,
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
