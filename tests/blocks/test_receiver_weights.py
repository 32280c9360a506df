"""Trained priors behind the receiver block: taken by name, refused when they do not fit, told in tags and counters."""

from __future__ import annotations

import functools
import hashlib

import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

import numpy as np
import pmt
import torch
from gnuradio import blocks, gr, massaccess
from gnuradio.massaccess._base import BlockFailure

from massaccess import weights
from massaccess.errors import ConfigError, FormatError, ShapeError, UnknownNameError
from massaccess.forward.channels import make_channel
from massaccess.link.metadata import Metadata
from massaccess.networks import build
from massaccess.weights import fit

NETWORK = {"rows": 4, "columns": 4, "width": 8, "multipliers": [1, 2], "attention": []}


@pytest.fixture
def config(config):
    return config.replace(channel="kronecker")


@pytest.fixture
def file(tmp_path, config):
    """A network that was never trained: it shrinks what it sees."""
    torch.manual_seed(1)
    header = weights.Header("ncsnpp", NETWORK, rows=4, columns=4, channel="kronecker")
    table = torch.cat([torch.tensor([[0.01], [1.0]]), torch.tensor([[0.01], [0.5]]).expand(2, 16)], 1)
    return weights.save(
        tmp_path / "toy.safetensors", build("ncsnpp", NETWORK), header, covariance=make_channel(config).covariance, calibration=table
    )


@pytest.fixture
def shipped(file, monkeypatch):
    """The file above as the only weights that ship, under the name "toy"."""
    index = file.with_name("index.toml")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    index.write_text(f'[[weights]]\nname = "toy"\nfile = "{file.name}"\nsha256 = "{digest}"\nsummary = "toy"\n')
    for module, name in ((weights, "available"), (weights, "load"), (fit, "available"), (fit, "load")):
        monkeypatch.setattr(module, name, with_index(getattr(module, name), index))
    return file


def with_index(function, index):
    @functools.wraps(function)
    def call(*arguments, **known):
        return function(*(item for item in arguments if item != weights.shipped.INDEX), **{**known, "index": index})

    return call


def uplink(config, **options):
    return massaccess.uplink(config, options.pop("receiver", "jcedd"), seed=5, frames=8, threads=1, **options)


def tags(tb):
    sink = blocks.tag_debug(gr.sizeof_float * tb.config.users, "", "")
    sink.set_display(False)
    tb.connect(tb.receiver, sink)
    massaccess.run(tb)
    return {str(tag.key): pmt.to_python(tag.value) for tag in sink.current_tags()}


def test_a_file_is_used_and_told(config, file):
    tb = uplink(config, weights=str(file), options={"rounds": 2})
    told = tags(tb)
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    assert (told["receiver"], told["weights"], told["weights_hash"]) == ("jcedd", "toy.safetensors", digits)
    assert Metadata.from_dict({name: told[name] for name in ("weights", "weights_hash")})
    assert (tb.receiver.stats()["weights"], tb.receiver.stats()["weights_hash"]) == ("toy.safetensors", digits)
    assert tb.receiver.stats()["frames"] == 8


def test_the_closed_form_is_told_without_a_hash(config):
    tb = uplink(config, weights="gaussian")
    told = tags(tb)
    assert told["weights"] == "gaussian" and "weights_hash" not in told


def test_receivers_without_weights_tell_none(config):
    tb = uplink(config, receiver="covariance+iterative-lmmse-ep")
    assert "weights" not in tags(tb)
    assert tb.receiver.stats()["weights"] == ""


def test_auto_takes_what_ships_and_fits(config, shipped, capfd):
    tb = uplink(config)
    assert tb.receiver.stats()["weights"] == "toy"
    massaccess.run(tb)
    assert "weights" not in "".join(capfd.readouterr())


def test_auto_without_a_fit_says_why_once(config, shipped, capfd):
    tb = uplink(config.replace(rows=8, columns=2))
    for _ in range(2):
        massaccess.run(tb)
    said = "".join(capfd.readouterr())
    assert said.count("the nearest covariance is") == 1
    assert "using the Gaussian prior" in said
    assert tb.receiver.stats()["weights"] == "gaussian"


def test_auto_without_a_covariance_is_gaussian_and_silent(config, shipped, cell):
    block = cell(massaccess.receiver, receiver="jcedd")
    assert block.stats()["weights"] == "gaussian"
    assert block._decoder._engine.fit.note == ""


def test_a_name_must_fit_the_covariance_and_a_file_insists(shipped, cell, config):
    near, far = {"channel_cov": "kronecker"}, {"channel_cov": str(bank(shipped.parent))}
    assert cell(massaccess.receiver, receiver="jcedd", weights="toy", **near).stats()["weights"] == "toy"
    with pytest.raises(ConfigError, match=r"toy were trained on channels .* the file to insist: .*toy.safetensors"):
        cell(massaccess.receiver, receiver="jcedd", weights="toy", **far)
    assert cell(massaccess.receiver, receiver="jcedd", weights="toy").stats()["weights"] == "toy"  # nothing to compare with
    block = cell(massaccess.receiver, receiver="jcedd", weights=str(shipped.rename(shipped.with_name("mine.safetensors"))), **far)
    assert "because the file was named" in block._decoder._engine.fit.note


def bank(folder):
    """Channels of power in one antenna."""
    from massaccess.forward.banks import save_bank

    channel = np.zeros((64, 16), np.complex64)
    channel[:, 3] = 4
    return save_bank(folder / "one.npz", channel, np.zeros(64, np.float32), 32, {"rows": 4, "columns": 4})


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"weights": "toi"}, UnknownNameError, "unknown weights 'toi'"),
        ({"weights": "gone.safetensors"}, ConfigError, "no weights file at .*gone.safetensors"),
        ({"receiver": "covariance+ls-zf", "weights": "gaussian"}, ConfigError, "has no weights to choose"),
        ({"weights": "gaussian", "options": {"weights": "toy"}}, ConfigError, "say it once"),
    ],
)
def test_names_are_checked_at_once(cell, changes, error, words):
    with pytest.raises(error, match=words):
        cell(massaccess.receiver, **{"receiver": "jcedd", **changes})


def test_options_of_the_receiver_may_name_them(cell, file):
    block = cell(massaccess.receiver, receiver="jcedd", options={"weights": str(file)})
    assert block.stats()["weights"] == "toy.safetensors"


def test_the_array_is_checked_at_once(cell, file):
    for rows, columns in ((2, 8), (4, 8)):
        with pytest.raises(ShapeError, match="4x4"):
            cell(massaccess.receiver, receiver="jcedd", rows=rows, columns=columns, weights=str(file))


def test_a_damaged_file_is_named_at_once(cell, file):
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        cell(massaccess.receiver, receiver="jcedd", weights=str(file))


def test_a_file_that_goes_bad_ends_the_flowgraph_with_a_reason(config, file):
    tb = uplink(config, weights=str(file))
    file.write_bytes(b"nothing")
    with pytest.raises(BlockFailure, match="not a whole safetensors file"):
        massaccess.run(tb)


def test_a_detector_that_is_given_the_whole_receiver_takes_weights(cell, file):
    block = cell(massaccess.activity_detector, receiver="jcedd", weights=str(file))
    assert block.stats()["weights"] == "toy.safetensors"
