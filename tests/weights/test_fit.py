"""What a stream is told of its weights before it starts. (Names, files and arrays: tests/blocks/test_receiver_weights.py.)"""

from __future__ import annotations

import pytest

from massaccess import weights
from massaccess.errors import ConfigError, UnknownNameError
from massaccess.networks import build
from massaccess.weights.fit import HASH_DIGITS, Fit, fit

REFINENET = {"width": 8, "multipliers": [1], "depth": 1}


@pytest.fixture
def matrix(tmp_path):
    header = weights.Header("refinenet", REFINENET, kind="matrix")
    return weights.save(tmp_path / "p0.safetensors", build("refinenet", REFINENET), header)


def of_matrices(name):
    return fit(str(name), rows=4, columns=4, covariance=None, kind="matrix")


def test_closed_forms_have_no_hash():
    assert fit("gaussian", rows=4, columns=4, covariance=None) == Fit("gaussian")
    assert fit("auto", rows=4, columns=4, covariance=None) == Fit("gaussian")
    assert of_matrices("auto") == of_matrices("bernoulli-gaussian") == Fit("bernoulli-gaussian")


def test_priors_of_matrices_fit_any_array_but_no_receiver_of_rows(matrix):
    assert of_matrices(matrix) == Fit("p0.safetensors", weights.load(matrix).sha256[:HASH_DIGITS])
    with pytest.raises(ConfigError, match="whole matrices"):
        fit(str(matrix), rows=4, columns=4, covariance=None)
    with pytest.raises(UnknownNameError):
        of_matrices("best")


def test_activity_detectors_fit_any_array_but_no_prior(tmp_path):
    config = {"stages": 1, "hidden": 4}
    header = weights.Header("unrolled-covariance", config, kind="activity", pilots={"book": "redrawn"})
    path = str(weights.save(tmp_path / "mine.safetensors", build("unrolled-covariance", config), header))
    known = {"rows": 3, "columns": 5, "covariance": None, "kind": "activity"}
    assert fit(path, **known, network="unrolled-covariance") == Fit("mine.safetensors", weights.load(path).sha256[:HASH_DIGITS])
    assert fit("auto", **known, network="vpl-audnet").weights == "vpl-audnet-physics"
    with pytest.raises(ConfigError, match="of the network unrolled-covariance"):
        fit(path, **known, network="vpl-audnet")
    with pytest.raises(ConfigError, match="an activity detector"):
        fit(path, rows=3, columns=5, covariance=None)
