"""Frames in, who is active out."""

from .receiver import receiver


class activity_detector(receiver):
    """Runs an activity detector, or the activity part of any receiver, on a stream of frames [pilot_len + data_len, rows * columns].

    Out: activity [users] float, in [0, 1] with 0.5 as the threshold, one item a frame. Message ports ``active`` and ``stats``, parameters,
    tags and errors are those of `receiver`.
    """

    ANSWERS = "activity"
    PORTS = ("active", "stats")

    def __init__(self, receiver="activity", **parameters):
        super().__init__(receiver, **parameters)
