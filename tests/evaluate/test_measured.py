"""What lists tell of receivers."""

from __future__ import annotations

import json

from massaccess.evaluate.measured import PATH, in_words, measured
from massaccess.registry import RECEIVERS


def test_what_was_measured_is_of_receivers_that_there_are() -> None:
    assert set(measured()) <= set(RECEIVERS)
    assert {"covariance", "mmv-amp", "somp"} <= set(measured())
    for row in json.loads(PATH.read_text())["rows"]:
        assert row["aep_ci95"][0] <= row["aep"] <= row["aep_ci95"][1]
        assert row["frames"] >= 1000
        assert row["ms_per_frame"] > 0


def test_in_words() -> None:
    row = {"channel": "uma", "pilots": 14, "aep": 0.0, "aep_ci95": [0, 2e-5], "ms_per_frame": 3.0}
    assert (
        in_words([row, {**row, "aep": 1e-4, "ms_per_frame": 4.0}])
        == "AEP below 2e-05 (uma, 14 pilots), 1.0e-04 (uma, 14 pilots); 3 to 4 ms"
    )
    assert in_words([]) == ""
