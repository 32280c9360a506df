"""One table of metadata: the document, the dataclass and the recordings all say the same."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, MassaccessError, UnknownNameError
from massaccess.forward.simulate import Simulation
from massaccess.link.metadata import FIELDS, NAMES, Metadata, converter_of, markdown, metadata_of
from massaccess.link.recording_format import ANNOTATED, CAPTURED

EVERYTHING = Metadata(
    frame=2**63,
    rx_time=(1_700_000_000, 0.1),
    rx_rate=15e3,
    rx_freq=3.5e9,
    pilot_book="c6f9cf71",
    noise_var=0.1,
    adc_bits=1,
    adc_scale=0.7,
    adc_offset=-0.1,
    adc_dither=0.5,
    user_gain=(0.25, 1.5),
    calibration="roof-3",
    receiver="jcedd",
    version="0.1.0",
    weights="uma-gate",
    weights_hash="ab" * 8,
)


def test_the_page_is_made_from_the_table():
    page = Path(__file__).parents[2] / "docs" / "metadata.md"
    assert page.read_text() == markdown(), "write massaccess.link.metadata.markdown() into docs/metadata.md"


def test_the_dataclass_has_the_fields_of_the_table():
    assert tuple(item.name for item in dataclasses.fields(Metadata)) == NAMES


def test_recordings_keep_every_field_where_the_table_says():
    keys = {**ANNOTATED, **CAPTURED, "rx_rate": "core:sample_rate"}
    assert set(keys) == set(NAMES)
    for row in FIELDS:
        assert f"`{keys[row.name]}`" in row.sigmf


def test_round_trip_through_json():
    assert None not in EVERYTHING.to_dict().values()
    assert Metadata.from_dict(json.loads(json.dumps(EVERYTHING.to_dict()))) == EVERYTHING


def test_what_nobody_said_is_left_out():
    assert Metadata().to_dict() == {} and Metadata.from_dict({}) == Metadata()


def test_update_says_anew_and_forgets():
    assert EVERYTHING.update({"noise_var": 2, "rx_time": None}) == dataclasses.replace(EVERYTHING, noise_var=2.0, rx_time=None)
    assert EVERYTHING.update({}) is EVERYTHING


def test_numpy_numbers_are_numbers():
    known = Metadata(frame=np.uint64(3), noise_var=np.float32(0.5), adc_bits=np.int8(2))
    assert known == Metadata(frame=3, noise_var=0.5, adc_bits=2) and type(known.noise_var) is float


def test_powers_are_kept_to_the_last_bit_and_written_short():
    powers = np.random.default_rng(0).lognormal(0, 5, 500).astype(np.float32)
    told = json.dumps(Metadata(user_gain=powers).to_dict())
    kept = Metadata.from_dict(json.loads(told)).user_gain
    assert np.array_equal(np.array(kept, np.float32), powers)
    assert len(told) < 16 * len(powers)  # a ZMQ header has to hold them


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frame", -1),
        ("frame", 2**64),
        ("frame", 1.0),
        ("frame", True),
        ("frame", "1"),
        ("rx_time", 5.0),
        ("rx_time", (5,)),
        ("rx_time", (5, 1.0)),
        ("rx_time", (-5, 0.5)),
        ("rx_time", (5, float("nan"))),
        ("rx_rate", 0),
        ("rx_rate", float("inf")),
        ("rx_freq", "3.5 GHz"),
        ("rx_freq", 10**400),
        ("noise_var", -0.1),
        ("noise_var", None.__class__),
        ("adc_bits", 17),
        ("adc_scale", 0.0),
        ("adc_offset", float("nan")),
        ("adc_dither", -0.1),
        ("user_gain", ()),
        ("user_gain", (1.0, 0.0)),
        ("user_gain", (1.0, float("inf"))),
        ("user_gain", 1.0),
        ("user_gain", "12"),
        ("pilot_book", "xyz"),
        ("pilot_book", 7),
        ("receiver", "a\x00b"),
        ("receiver", "a" * 257),
        ("weights", b"ab"),
        ("weights_hash", "ab" * 32),
        ("weights_hash", "no hash of these"),
    ],
)
def test_what_cannot_be_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"{field} .*: pass "):
        Metadata(**{field: value})


def test_an_unknown_field_shows_the_known_ones():
    with pytest.raises(UnknownNameError, match="choose one of adc_bits"):
        Metadata.from_dict({"snr": 3})
    with pytest.raises(MassaccessError):
        Metadata().update({"snr": 3})


@pytest.mark.parametrize("bits", [None, 1, 4])
def test_a_configuration_tells_what_its_simulation_knows(bits):
    config = SystemConfig(users=8, rows=2, columns=2, adc_bits=bits, channel="rayleigh")
    _, obs = Simulation(config).frames(0, 1)
    known = metadata_of(config)
    found = converter_of(known, (config.frame_len, config.antennas))
    assert (found.bits, found.scale, found.offset) == (bits, obs.front_end.scale, None)
    assert found.distortion_var == pytest.approx(obs.front_end.distortion_var)
    assert (known.noise_var, known.adc_bits, known.adc_scale) == (obs.noise_var, bits or 0, obs.front_end.scale)


def test_dither_and_threshold_are_told_as_well():
    config = SystemConfig(users=8, rows=2, columns=2, adc_bits=1, adc_offset=0.2, adc_dither=0.4, channel="rayleigh")
    known, converter = metadata_of(config), Simulation(config).front_end
    assert (known.adc_offset, known.adc_dither) == (0.2, 0.4)
    found = converter_of(known, (config.frame_len, config.antennas))
    assert np.array_equal(found.offset, converter.offset)
    assert (found.scale, found.distortion_var) == pytest.approx((converter.scale, converter.distortion_var))
