"""``massaccess evaluate``: the contract of every comparison."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from massaccess.cli import group, main
from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, MassaccessError, UnknownNameError
from massaccess.evaluate.montecarlo import Campaign

SMALL = ("--users", "12", "--antennas", "16", "--pilots", "8", "--data", "9", "--channel", "rayleigh", "--frames", "32", "--device", "cpu")


def run(*arguments: str, code: int = 0) -> str:
    answer = CliRunner().invoke(group, ["evaluate", *arguments], catch_exceptions=code == 0)
    assert answer.exit_code == code, answer.output
    return answer.output


def document(*arguments: str) -> dict:
    return json.loads(run(*arguments, "--json", "-"))


def test_json_keeps_the_contract() -> None:
    result = document(*SMALL, "--receivers", "jcedd,covariance", "--snr-db", "5,10", "--seed", "3")
    assert result["config"]["rows"] == result["config"]["columns"] == 4
    assert [(row["receiver"], row["snr_db"]) for row in result["results"]] == [
        ("jcedd", 5),
        ("covariance", 5),
        ("jcedd", 10),
        ("covariance", 10),
    ]
    for row in result["results"]:
        assert row["frames"] == 32
        assert row["pilots"] == 8
        for rate in ("aep", "p_fa", "p_md", "ser", "ber", "fer"):
            if row[rate] is not None:
                low, high = row[f"{rate}_ci95"]
                assert low <= row[rate] <= high
                assert isinstance(row[f"{rate}_errors"], int)
        assert {"nmse_db", "nmse_db_ci95", "nfe", "seconds_per_frame", "device", "threads"} <= set(row)
    assert result["results"][1]["ber"] is None
    assert result["results"][0]["aep"] == result["results"][1]["aep"]


def test_same_seed_same_numbers_whatever_the_batch() -> None:
    arguments = (*SMALL, "--receivers", "jcedd", "--snr-db", "0", "--seed", "4")
    first, second = document(*arguments), document(*arguments, "--batch", "7")
    for name in ("aep_errors", "ber_errors", "fer_errors"):
        assert first["results"][0][name] == second["results"][0][name]
    other = document(*arguments[:-1], "5")
    assert other["results"][0]["ber_errors"] != first["results"][0]["ber_errors"]


def test_table_and_options() -> None:
    shown = run(*SMALL, "--receivers", "mmv-amp", "--data", "0", "--option", "mmv-amp.iterations=3", "--calibrate", "16")
    assert "mmv-amp" in shown
    assert "ber" not in shown


def test_the_noise_may_be_unknown() -> None:
    arguments = (*SMALL, "--receivers", "lmmse-lmmse", "--active-users", "12", "--snr-db", "10", "--data", "40")
    told, found = document(*arguments), document(*arguments, "--noise", "estimated")
    assert (told["noise"], told["results"][0]["noise"], found["results"][0]["noise"]) == ("known", "known", "estimated")
    assert found["results"][0]["nmse_db"] != told["results"][0]["nmse_db"]
    assert found["results"][0]["nmse_db"] == pytest.approx(told["results"][0]["nmse_db"], abs=0.5)
    with pytest.raises(UnknownNameError, match="estimated, known"):
        Campaign([SystemConfig()], ["jcedd"], frames=1, noise="guessed")


def test_curves_and_lists_of_activities() -> None:
    arguments = (*SMALL, "--receivers", "covariance,somp", "--activity", "0.1,0.3", "--data", "0", "--pilots", "4,6")
    result = document(*arguments)["results"]
    assert [(row["receiver"], row["pilots"], row["activity"]) for row in result[::2]] == [
        ("covariance", pilots, activity) for pilots in (4, 6) for activity in (0.1, 0.3)
    ]
    assert result[0]["roc"]["p_md_at"][-1]["p_fa"] == 0.5
    assert result[0]["reliability"]
    shown = run(*arguments, "--roc")
    for text in ("P_fa 0.1", "1 - AUC", "slope", "activity"):
        assert text in shown
    assert "AUC" not in run(*arguments)


def test_receivers_may_be_told_another_covariance() -> None:
    arguments = ("--receivers", "lmmse-lmmse", "--users", "4", "--active-users", "4", "--pilots", "6", "--data", "8", "--frames", "8")
    own, other = document(*arguments), document(*arguments, "--channel-cov", "rayleigh")
    assert (own["covariance"], other["covariance"]) == ("", "rayleigh")
    assert own["results"][0]["nmse_db"] < other["results"][0]["nmse_db"]


def test_the_gains_may_be_unknown() -> None:
    arguments = (*SMALL, "--receivers", "covariance", "--channel", "pathloss", "--no-power-control", "--data", "0")
    known, hidden = document(*arguments), document(*arguments, "--gains", "unknown")
    assert (known["gains"], hidden["gains"], hidden["results"][0]["gains"]) == ("known", "unknown", "unknown")
    assert known["results"][0]["auc"] != hidden["results"][0]["auc"]
    with pytest.raises(UnknownNameError, match="known, learned, unknown"):
        Campaign([SystemConfig()], ["jcedd"], frames=1, gains="guessed")


def test_the_offsets_of_bursts_may_be_known() -> None:
    air = ("--samples-per-symbol", "4", "--preamble", "8", "--guard", "8", "--timing-offset", "0.5", "--cfo-hz", "30")
    arguments = (*SMALL, *air, "--sample-rate-hz", "60e3", "--receivers", "jcedd", "--snr-db", "3", "--active-users", "3")
    told, found = (document(*arguments, "--offsets", offsets) for offsets in ("known", "unknown"))
    assert told["offsets"] == told["results"][0]["offsets"] == "known"
    assert told["results"][0]["nmse_db"] < found["results"][0]["nmse_db"]
    with pytest.raises(ConfigError, match="--samples-per-symbol"):
        Campaign([SystemConfig()], ["jcedd"], frames=1, offsets="known")
    with pytest.raises(UnknownNameError, match="known, unknown"):
        Campaign([SystemConfig()], ["jcedd"], frames=1, offsets="guessed")


def test_config_file_and_overrides(tmp_path) -> None:
    path = tmp_path / "system.toml"
    path.write_text('[system]\nusers = 9\nrows = 2\ncolumns = 2\npilot_len = 7\ndata_len = 0\nchannel = "rayleigh"\n')
    result = document("--config", str(path), "--receivers", "covariance", "--frames", "4", "--adc-bits", "2")
    assert result["config"]["users"] == 9
    assert result["config"]["adc_bits"] == 2
    assert document("--config", str(path), "--receivers", "covariance", "--frames", "4", "--users", "5")["config"]["users"] == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--receivers", "jced"), "jcedd"),
        (("--receivers", "jcedd", "--channel", "umi"), "rayleigh"),
        (("--receivers", "jcedd", "--activity", "0"), "activity"),
        (("--receivers", "iterative-lmmse-ep"), "covariance+iterative-lmmse-ep"),
        (("--receivers", "jcedd", "--option", "rounds=3"), "RECEIVER.NAME=VALUE"),
        (("--receivers", "jcedd", "--option", "jcedd.colour=3"), "choose one of"),
        (("--receivers", "mmv-amp", "--option", "mmv-amp.damping=much"), "pass a number"),
        (("--receivers", "mmv-amp", "--option", "jcedd.rounds=3"), "mmv-amp"),
        (("--receivers", "jcedd", "--device", "abacus"), "auto, cpu, cuda"),
        (("--receivers", "jcedd", "--channel", "uma", "--antennas", "16"), "8x8"),
        (("--receivers", "jcedd", "--channel", "no/such.npz"), "no/such.npz"),
        (("--receivers", "jcedd", "--rows", "3"), "3 rows of 5"),
    ],
)
def test_what_is_wrong_is_said(monkeypatch, capsys, arguments: tuple[str, ...], says: str) -> None:
    monkeypatch.setattr("sys.argv", ["massaccess", "evaluate", *SMALL, *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert says in capsys.readouterr().err


def test_a_result_that_cannot_be_written_is_refused_before_the_work(tmp_path) -> None:
    assert "is no folder" in run(*SMALL, "--receivers", "jcedd", "--json", str(tmp_path / "none" / "x.json"), code=2)


def test_a_missing_gpu_is_said(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device"):
        Campaign([SystemConfig()], ["jcedd"], frames=1, device="cuda")


def test_bad_numbers_are_usage_errors() -> None:
    assert "0,5,10" in run(*SMALL, "--receivers", "jcedd", "--snr-db", "5;10", code=2)


def test_why_no_trained_prior_is_used_is_said_once_on_standard_error(monkeypatch, capsys) -> None:
    def evaluate(*arguments: str) -> tuple[str, str]:
        line = ["massaccess", "evaluate", *SMALL, "--channel", "kronecker", "--frames", "2", "--snr-db", "5,10", *arguments]
        monkeypatch.setattr("sys.argv", line)
        main()
        return capsys.readouterr()

    out, err = evaluate("--receivers", "jcedd,covariance+learned-ep", "--json", "-")
    assert err.count("massaccess: warning: no weights ship for ") == 1
    assert json.loads(out)
    for quiet in (("--receivers", "jcedd", "--option", "jcedd.weights=gaussian"), ("--receivers", "covariance+ls-zf")):
        assert "warning" not in evaluate(*quiet)[1]


def test_coded_frames_are_compared_behind_their_decoder() -> None:
    pytest.importorskip("gnuradio.fec", reason="GNU Radio is not installed")
    small = (*SMALL[:6], "--data", "32", *SMALL[8:], "--receivers", "covariance+lmmse-lmmse", "--snr-db", "-3")
    plain, coded = document(*small), document(*small, "--code", "conv")
    assert coded["results"][0]["code"] == "conv"
    assert coded["results"][0]["fer"] < 0.7 * plain["results"][0]["fer"]
    assert coded["results"][0]["ber"] > 0.01


def test_without_gnu_radio_the_frame_error_rate_is_left_out_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MassaccessError("GNU Radio cannot be imported")

    monkeypatch.setattr("massaccess.cli.evaluate.blocks", missing)
    shown = run(*SMALL[:6], "--data", "32", *SMALL[8:], "--receivers", "covariance+lmmse-lmmse", "--code", "polar")
    assert "no frame error rate, because GNU Radio cannot be imported" in shown
    assert "fer" not in shown
