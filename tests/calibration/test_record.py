"""Files of calibrations: what comes back, what is refused and why, and what is stale."""

from __future__ import annotations

import dataclasses
import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch

from massaccess.calibration import Book, Key, Response, measure
from massaccess.errors import ConfigError, FormatError, MassaccessWarning, ShapeError, UnknownNameError
from massaccess.rng import complex_normal

WHEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHANNELS = (("B1", 0), ("B1", 1), ("B2", 0), ("B2", 1))
SETTING = {"freq_hz": 3.5e9, "rate_hz": 1e6, "gain_db": 20.0}


def response(generator, spread=1e-3):
    gain = torch.exp(1j * torch.tensor([[0.0, 1.0, 2.0, -1.0]])) + spread * complex_normal(4, 4, generator=generator)
    return Response(gain, torch.zeros(4, 4), torch.full((4, 4), 0.01), torch.full((4,), 0.1, dtype=torch.float64), 1000)


@pytest.fixture
def measured(generator):
    return measure(response(generator), [Key(*channel, *SETTING.values()) for channel in CHANNELS], date=WHEN)


@pytest.fixture
def book(measured):
    return Book().update(measured.calibration.entries)


def test_a_measurement_says_how_good_it_is(measured):
    assert 0.002 < measured.residual_deg < 0.2
    assert measured.residual_ci95[0] < measured.residual_deg < measured.residual_ci95[1]
    assert 40 < measured.uncalibrated_deg < 110
    assert abs(measured.snr_db - 20) < 0.1
    assert measured.deaf == ()
    assert np.allclose(np.angle(measured.calibration.gain / measured.calibration.gain[0]), [0, 1, 2, -1], atol=0.01)


def test_what_is_saved_comes_back(book, tmp_path):
    book.save(tmp_path / "a.toml")
    again = Book.load(tmp_path / "a.toml")
    assert again == book
    assert again.select(CHANNELS, **SETTING).id == book.select(CHANNELS, **SETTING).id
    assert [path.name for path in tmp_path.iterdir()] == ["a.toml"]


def test_the_order_of_antennas_is_that_of_the_question(book):
    turned = book.select(CHANNELS[::-1], **SETTING)
    assert np.allclose(turned.gain[::-1], book.select(CHANNELS, **SETTING).gain)
    assert turned.id != book.select(CHANNELS, **SETTING).id


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"freq_hz": 2.4e9}, "for another frequency: 3500000000 Hz, but the array is at 2400000000 Hz"),
        ({"rate_hz": 2e6}, "for another rate: 1000000 samples/s, but the array runs at 2000000"),
        ({"gain_db": 25.0}, "for another gain: 20 dB, but the array is set to 25 dB"),
    ],
)
def test_a_foreign_setting_is_refused_with_the_reason(book, change, words):
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        book.select(CHANNELS, **{**SETTING, **change})


def test_foreign_devices_are_refused_with_the_reason(book):
    with pytest.raises(ConfigError, match="of other devices: X:0 is not in it, but B1, B2; run `massaccess calibrate estimate`"):
        book.select((("X", 0), *CHANNELS[1:]), **SETTING)


def test_a_tuner_may_be_off_by_a_fraction_of_a_hertz(book):
    assert len(book.select(CHANNELS, **{**SETTING, "freq_hz": 3.5e9 + 0.2})) == 4


def test_each_channel_may_have_a_gain_of_its_own(book):
    entries = [dataclasses.replace(entry, gain_db=20.0 + entry.channel) for entry in book.entries]
    mixed = Book().update(entries)
    assert len(mixed.select(CHANNELS, **{**SETTING, "gain_db": (20.0, 21.0, 20.0, 21.0)})) == 4
    with pytest.raises(ConfigError, match="another gain"):
        mixed.select(CHANNELS, **SETTING)


def test_a_new_measurement_replaces_the_old_one_and_others_stay(book, generator):
    fresh = measure(response(generator), [Key(*channel, *SETTING.values()) for channel in CHANNELS[:4]], date=WHEN + timedelta(hours=1))
    both = book.update([*fresh.calibration.entries[:2], dataclasses.replace(book.entries[0], freq_hz=2.4e9)])
    assert len(both.entries) == 5
    dates = {entry.date for entry in both.entries if entry.serial == "B1" and entry.freq_hz == 3.5e9}
    assert dates == {(WHEN + timedelta(hours=1)).isoformat()}
    with pytest.raises(ConfigError, match="2 settings"):
        both.only()


def test_the_oldest_entry_decides_whether_it_is_stale(book):
    chosen = book.select(CHANNELS, **SETTING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not chosen.warn_if_stale(12, now=WHEN + timedelta(hours=11))
    with pytest.warns(MassaccessWarning, match="13.0 hours old and 12 are allowed: phases drift"):
        assert chosen.warn_if_stale(12, now=WHEN + timedelta(hours=13))
    with pytest.warns(MassaccessWarning, match="from the future"):
        chosen.warn_if_stale(12, now=WHEN - timedelta(hours=1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not toml [", "is not a calibration file"),
        ("a = 1", "lacks format"),
        ("format = 'massaccess-calibration'\nversion = 9", "version 9"),
        ("format = 'massaccess-calibration'\nversion = 1\nhash = '0'\n[[entry]]\nserial = 'x'", "every .*entry.* needs"),
    ],
)
def test_other_files_are_refused(tmp_path, text, words):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(FormatError, match=words):
        Book.load(tmp_path / "a.toml")


def test_a_changed_file_is_refused(book, tmp_path):
    book.save(tmp_path / "a.toml")
    text = (tmp_path / "a.toml").read_text()
    (tmp_path / "a.toml").write_text(text.replace("amplitude = ", "amplitude = 1", 1))
    with pytest.raises(FormatError, match="changed or damaged"):
        Book.load(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("name", "value"), [("serial", 3), ("channel", 1.5), ("phase_deg", float("nan")), ("date", "yesterday"), ("date", "2026-01-01")]
)
def test_an_entry_that_cannot_be_is_refused(book, name, value):
    with pytest.raises(FormatError, match=name):
        dataclasses.replace(book.entries[0], **{name: value})


def test_files_that_cannot_be_read_or_written_are_told(book, tmp_path):
    with pytest.raises(ConfigError, match="massaccess calibrate estimate"):
        Book.load(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="cannot write"):
        book.save(tmp_path / "nowhere" / "a.toml")


def test_a_measurement_says_what_it_lacks(generator):
    keys = [Key(*channel, *SETTING.values()) for channel in CHANNELS]
    with pytest.raises(ShapeError, match="3 channels are named and 4 measured"):
        measure(response(generator), keys[:3])
    with pytest.raises(ConfigError, match="2 or more"):
        measure(response(generator).take(slice(0, 1)), keys)
    with pytest.raises(UnknownNameError, match="method"):
        measure(response(generator), keys, method="guess")


def test_deaf_channels_are_stored_as_such(generator):
    heard = response(generator)
    heard.gain[:, 2] = 1e-4
    found = measure(heard, [Key(*channel, *SETTING.values()) for channel in CHANNELS], date=WHEN)
    assert found.deaf == (2,)
    assert list(found.calibration.correction().mask) == [True, True, False, True]
