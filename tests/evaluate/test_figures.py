"""Published figures: the files, the experiment, what is said of the claims."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from massaccess.errors import ConfigError, FormatError, UnknownNameError
from massaccess.evaluate.figures import experiment
from massaccess.evaluate.figures.claims import AGREES, DISAGREES, NOT_REACHED, UNCHECKED, judge
from massaccess.evaluate.figures.definition import FOLDER, Claim, PublishedFigure, load, names, read
from massaccess.evaluate.figures.experiment import Extent, check_receivers, jobs, run, training_rows
from massaccess.evaluate.figures.picture import draw

PAPERS = {
    "p0": ("4", "5", "6-k", "6-m", "6-n"),
    "p1": ("6a", "6b", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"),
    "p2": ("2", "3", "4"),
    "p3": ("7", "8", "9", "10"),
    "p4": ("1a", "1b", "2a", "2b", "2c", "2-sparsity"),
}
ACTIVITY = ("p1-fig6a", "p1-fig6b", "p1-fig7", "p1-fig8", "p1-fig9")
ROOT = Path(__file__).resolve().parents[2]
LITTLE = Extent(device="cpu", only=("iterative-lmmse-ep",), frames=2)
TINY = """
id = "tiny"
paper = "P1"
figure = "Fig. 0"
title = "two receivers"
x = "snr_db"
y = ["nmse_db", "ber", "accuracy", "seconds_per_frame"]

[system]
users = 3
active_users = 3
rows = 2
columns = 2
pilot_len = 4
data_len = 6
channel = "rayleigh"

[quick]
points = [0, 8]
frames = 8
slow_frames = 4
note = "two rounds"

[full]
points = [0, 4, 8]
frames = 16

[[curve]]
key = "a"
label = "LMMSE"
receiver = "lmmse-lmmse"

[[curve]]
key = "b"
label = "EP"
receiver = "iterative-lmmse-ep"
options = { rounds = 9 }
slow = true
quick = { rounds = 2 }

[[curve]]
key = "c"
label = "bound"
receiver = "perfect-data-lmmse"
system = { data_len = 12 }
y = ["nmse_db"]
flat = true

[[curve]]
key = "d"
label = "left out of the quick run"
receiver = "ls-zf"
quick = false

[[claim]]
says = "EP needs less SNR than LMMSE."
kind = "gain"
curve = "b"
over = "a"
y = "ber"
at = 1e-9

[[claim]]
says = "Both are beautiful."
"""


@pytest.fixture
def tiny(tmp_path: Path) -> PublishedFigure:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return read(path)


def test_every_figure_of_the_papers_is_there_and_reads() -> None:
    wanted = {f"{paper}-fig{number}" for paper, numbers in PAPERS.items() for number in numbers}
    wanted |= {"p1-table2", "p1-table3", "p3-complexity"}
    assert set(names()) == wanted
    for name in names():
        figure = load(name)
        receivers = {curve.receiver.rpartition("+")[2] for curve in figure.curves}
        one_bit = {"advi", "onebit", "bussgang-lmmse"} if figure.paper == "P4" else set()
        ours = {"covariance", "activity", "activity-fast"} if name in ACTIVITY else one_bit or {"jcedd", "iterative-lmmse-ep"}
        ours = {"noncoherent", "noncoherent-covariance"} if figure.paper == "P3" else ours
        assert figure.claims
        assert ours <= receivers or figure.x in ("step", "row")


def test_they_are_listed_by_number() -> None:
    assert names()[5:12] == ("p1-fig6a", "p1-fig6b", "p1-fig7", "p1-fig8", "p1-fig9", "p1-fig10", "p1-fig11")


def test_the_registry_knows_every_receiver_and_option_of_the_figures() -> None:
    assert [line for name in names() for line in check_receivers(load(name))] == []


def test_claims_are_of_kinds_that_are_known() -> None:
    for name in names():
        for claim in load(name).claims:
            assert judge(claim, [])[0] in (NOT_REACHED, UNCHECKED)


def test_figures_that_are_alike_share_what_they_do_not_say() -> None:
    first, second = load("p1-fig10"), load("P1-Fig11")
    assert second.curves == first.curves
    assert second.claims != first.claims
    assert (second.system["channel"], second.system["users"]) == ("rayleigh", 12)


def test_settings_options_and_places(tiny: PublishedFigure) -> None:
    quick, full = jobs(tiny, Extent(device="cpu")), jobs(tiny, Extent(full=True, device="cpu"))
    assert [(job.curve.key, job.x, job.campaign.frames) for job in quick] == [
        ("a", 0, 8),
        ("a", 8, 8),
        ("b", 0, 4),
        ("b", 8, 4),
        ("c", None, 8),
    ]
    assert [job.campaign.options for job in (quick[2], full[3])] == [
        {"iterative-lmmse-ep": {"rounds": 2}},
        {"iterative-lmmse-ep": {"rounds": 9}},
    ]
    assert len(full) == 10
    assert quick[1].campaign.points[0].snr_db == 8
    assert quick[4].campaign.points[0].data_len == 12
    few = jobs(tiny, Extent(frames=5, points=(3.0,), only=("ls-zf", "a"), full=True, device="cpu"))
    assert [(job.curve.key, job.x, job.campaign.frames) for job in few] == [("a", 3, 5), ("d", 3, 5)]


def test_curves_that_need_a_weights_file_wait_for_one(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace('key = "b"', 'key = "b"\ntrained = true\nquick_frames = 3'))
    figure = read(path)
    assert {job.curve.key for job in jobs(figure, Extent(device="cpu", full=True))} == {"a", "c", "d"}
    campaign = experiment._campaign(figure, figure.curves[1], 0, Extent(device="cpu", weights={"": "x.safetensors"}))
    assert campaign.options["iterative-lmmse-ep"]["weights"] == "x.safetensors"
    assert campaign.frames == 3


def test_weights_may_be_each_curves_own_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    text = TINY.replace('key = "b"', 'key = "b"\ntrained = true').replace('receiver = "lmmse-lmmse"', 'receiver = "telepathy"')
    text = text.replace('"iterative-lmmse-ep"\noptions = { rounds = 9 }', '"learned-ep"')
    path.write_text(text.replace('key = "d"', 'key = "d"\ntrained = true'))
    figure = read(path)
    extent = Extent(device="cpu", full=True, weights={"b": "x.safetensors"})
    missing = experiment.left_out(figure, extent)
    assert missing["a"] == "this version has no receiver telepathy"
    assert "--weights d=FILE" in missing["d"]
    assert {job.curve.key for job in jobs(figure, extent)} == {"b", "c"}
    assert experiment.document(figure, extent, [])["left_out"] == missing
    with pytest.raises(ConfigError, match="no receiver telepathy"):
        jobs(figure, Extent(only=("a",)))


def test_one_run_of_a_curve_over_false_alarms_has_all_its_points(tmp_path: Path) -> None:
    path, out = tmp_path / "tiny.toml", tmp_path / "tiny.json"
    text = TINY.replace('x = "snr_db"', 'x = "p_fa"').replace('y = ["nmse_db", "ber", "accuracy", "seconds_per_frame"]', 'y = ["p_md"]')
    text = text.replace("points = [0, 8]", "points = [0.05, 0.2]\nbooks = 3").replace("points = [0, 4, 8]", "points = [0.1]")
    text = text.replace("active_users = 3", "activity = 0.3").replace("users = 3", "users = 12").replace("frames = 8", "frames = 60")
    text = text.replace('"lmmse-lmmse"', '"covariance"').replace('"iterative-lmmse-ep"\noptions = { rounds = 9 }', '"mmv-amp"')
    text = text.replace("quick = { rounds = 2 }", "").replace('y = ["nmse_db"]\nflat', "flat").replace('y = "ber"', 'y = "p_md"')
    path.write_text(text.replace("slow_frames = 4", "").replace('"gain"', '"difference"').replace("at = 1e-9", "least = -99"))
    figure = read(path)
    result = run(figure, Extent(device="cpu", only=("a", "b")), path=out)
    assert [(row["curve"], row["x"]) for row in result["results"]] == [("a", 0.05), ("a", 0.2), ("b", 0.05), ("b", 0.2)]
    assert all(row["p_fa"] == row["x"] and row["p_md_ci95"][0] <= row["p_md"] <= row["p_md_ci95"][1] for row in result["results"])
    assert result["claims"][0]["verdict"] == AGREES
    assert result["extent"] == "60 frames a point of 3 pilot books; two rounds"
    assert run(figure, Extent(device="cpu", only=("a", "b")), path=out, resume=True) == result
    assert draw(figure, result, tmp_path / "tiny.png").exists()
    (job, _) = jobs(figure, Extent(device="cpu", only=("a", "b"), books=1))
    assert job.campaign.books == 1
    path.write_text(path.read_text().replace("0.05", "0.06"))
    with pytest.raises(ConfigError, match=r"0\.06 is no rate of false alarms"):
        read(path)


def test_a_curve_may_keep_to_one_book(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace("slow = true", "books = 1"))
    found = jobs(read(path), Extent(device="cpu", books=4))
    assert [(job.curve.key, job.campaign.books) for job in found] == [("a", 4), ("a", 4), ("b", 1), ("b", 1), ("c", 4)]


def test_what_a_receiver_refuses_is_left_out_and_said(tiny: PublishedFigure, monkeypatch) -> None:
    def measure(job: experiment.Job) -> list[dict]:
        if job.curve.key == "b":
            raise ConfigError("receiver b: no weights ship: pass some")
        return [{"curve": job.curve.key, "x": job.x, "job": job.fingerprint}]

    monkeypatch.setattr(experiment, "_rows", measure)
    result = run(tiny, Extent(device="cpu"))
    assert [row["curve"] for row in result["results"]] == ["a", "a", "c"]
    assert result["left_out"] == {"b": "at 0, 8: receiver b: no weights ship"}
    with pytest.raises(ConfigError, match="no weights ship"):
        run(tiny, Extent(device="cpu", only=("b",)))


def test_equal_work_is_taken_over_by_whatever_name(tmp_path: Path, monkeypatch) -> None:
    """Points of P3's Fig. 7 are points of Fig. 9, where their curves have the same keys, and of Fig. 8, where x is another."""
    ran = []

    def measure(job: experiment.Job) -> list[dict]:
        ran.append(job.curve.key)
        return [{"curve": job.curve.key, "label": job.curve.label, "x": job.x, "job": job.fingerprint, "ser_devices": 0.1}]

    monkeypatch.setattr(experiment, "_rows", measure)
    (tmp_path / "p0-fig4.json").write_text('{"figure": "p0-fig4", "results": [{"curve": "loss", "x": 1, "loss": 0.1}]}')
    (tmp_path / "p1-fig10.json").write_text("{")
    figures = [load(name) for name in ("p3-fig7", "p3-fig8")]
    extents = [Extent(device="cpu", frames=4, points=(x,), only=("noncoherent-covariance",)) for x in (40, 16)]
    results = [run(*one, path=tmp_path / f"{one[0].id}.json", resume=True)["results"] for one in zip(figures, extents, strict=True)]
    assert ran == ["covariance-m8", "covariance-m16", "covariance-m32", "covariance-l20", "covariance-l70"]
    assert [(row["curve"], row["x"]) for row in results[1]] == [("covariance-l20", 16), ("covariance-l40", 16), ("covariance-l70", 16)]
    assert results[1][1]["label"].endswith("L = 40")


@pytest.mark.parametrize(("x", "x_value"), [("pilot_len", 5), ("rounds", 3), ("steps", 4), ("snr_users_db", 10), ("antennas", 6)])
def test_kinds_of_axes(tmp_path: Path, x: str, x_value: float) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace('x = "snr_db"', f'x = "{x}"').replace("points = [0, 8]", f"points = [{x_value}]"))
    job = jobs(read(path), Extent(only=("b",), device="cpu"))[0]
    config = job.campaign.points[0]
    assert (config.pilot_len == 5) == (x == "pilot_len")
    assert config.antennas == (6 if x == "antennas" else 4)
    assert (job.campaign.options["iterative-lmmse-ep"]["rounds"] == 3) == (x == "rounds")
    assert (job.campaign.steps == 4) == (x == "steps")
    if x == "snr_users_db":
        assert config.noise_var == pytest.approx(config.users / 10)


def test_steps_of_receivers_with_two_samplers_are_those_of_the_channel() -> None:
    """Every n_update channel steps come with n_x data steps, each of which asks whether time is up."""
    figure = load("p1-fig15")
    curve = dataclasses.replace(figure.curves[0], receiver="iterative-lmmse-ep")
    job = experiment._campaign(figure, curve, 100, Extent(full=True, device="cpu"))
    assert job.steps == 100 + 2 * 1500


def test_end_to_end_with_picture_and_resume(tiny: PublishedFigure, tmp_path: Path, monkeypatch) -> None:
    path, seen = tmp_path / "tiny.json", []
    extent = Extent(device="cpu", seed=2)
    whole = run(tiny, extent, path=path, on_job=lambda done, count, job: seen.append((done, count)))
    assert seen == [(index, 5) for index in range(5)]
    assert json.loads(path.read_text()) == whole
    assert [row["curve"] for row in whole["results"]] == ["a", "a", "b", "b", "c"]
    assert whole["results"][0]["accuracy"] == 1
    assert whole["extent"] == "8 frames a point, 4 for the slow receivers; two rounds"
    assert [claim["verdict"] for claim in whole["claims"]] == [NOT_REACHED, UNCHECKED]
    picture = draw(tiny, whole, tmp_path / "tiny.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000

    path.write_text(json.dumps({**whole, "results": whole["results"][:3]}))
    ran = []
    monkeypatch.setattr(experiment, "_rows", lambda job: ran.append((job.curve.key, job.x)) or [whole["results"][len(ran) + 2]])
    again = run(tiny, extent, path=path, resume=True)
    assert ran == [("b", 8), ("c", None)]
    assert again["results"] == whole["results"]
    ran.clear()
    run(tiny, Extent(device="cpu", seed=2, frames=4, only=("a", "b")), path=path, resume=True)
    assert [key for key, _ in ran] == ["a", "a"], "points of other settings are run again"


def test_figures_with_the_same_curves_in_one_folder_cost_one_run(tmp_path: Path, monkeypatch) -> None:
    """P4's Fig. 1 (a) and (b) show two measures of one experiment."""
    pair = load("p4-fig1a"), load("p4-fig1b")
    assert pair[0].curves == pair[1].curves
    assert {job.fingerprint for job in jobs(pair[0], LITTLE)} == {job.fingerprint for job in jobs(pair[1], LITTLE)}
    ran = []

    def measure(job: experiment.Job) -> list[dict]:
        ran.append(job.curve.key)
        place = {"curve": job.curve.key, "label": job.curve.label, "x": job.x, "job": job.fingerprint}
        return [{**place, "ber": 0.1, "nmse_rows_db": -3.0, "nmse_scaled_db": -4.0}]

    monkeypatch.setattr(experiment, "_rows", measure)
    first, second = (run(figure, LITTLE, path=tmp_path / f"{figure.id}.json", resume=True) for figure in pair)
    assert len(ran) == len(first["results"]) > 0
    assert second["results"] == first["results"]
    assert second["figure"] == "p4-fig1b"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(pair[1], LITTLE, path=elsewhere / "p4-fig1b.json", resume=True)
    assert len(ran) == 2 * len(first["results"])


def test_points_of_results_from_before_offsets_are_still_theirs() -> None:
    """Their fields are left out of what tells one point from another where they are 0."""
    figure = load("p0-fig5")
    stored = json.loads((ROOT / "benchmarks/papers/p0-fig5/p0-fig5.json").read_text())
    known = {row["job"] for row in stored["results"]}
    assert {job.fingerprint for job in jobs(figure, Extent(device="cpu"))} <= known
    dithered = dataclasses.replace(figure, system={**figure.system, "adc_bits": 1, "adc_dither": 0.1})
    assert not {job.fingerprint for job in jobs(dithered, Extent(device="cpu"))} & known


def test_a_rate_that_falls_to_nothing_falls() -> None:
    claim = Claim("falls", "falls", {"curve": "a", "y": "aep"})
    lines = [{"curve": "a", "x": x, "aep": y} for x, y in enumerate((0.1, 0.01, 0.0, 0.0))]
    assert judge(claim, lines) == (AGREES, "-10.00")


def test_axes_say_which_snr_they_mean() -> None:
    assert load("p1-fig10").axis == "received SNR [dB]"
    assert load("p4-fig1a").axis == "SNR of a user, 1 / noise variance [dB]"
    assert load("p4-fig2-sparsity").axis == "active users"


def test_what_goes_wrong_is_said(tiny: PublishedFigure, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="p1-fig10"):
        load("p9-fig1")
    with pytest.raises(ConfigError, match="choose among a"):
        jobs(tiny, Extent(only=("nobody",)))
    with pytest.raises(ConfigError, match="massaccess train"):
        run(load("p0-fig4"), Extent())
    other = tmp_path / "other.json"
    for text, says in (("{", "leave out --resume"), ('{"figure": "p1-fig10", "results": []}', "holds p1-fig10")):
        other.write_text(text)
        with pytest.raises(FormatError, match=says):
            run(tiny, Extent(), path=other, resume=True)
    with pytest.raises(FormatError, match="no training curves"):
        training_rows(load("p0-fig4").curves[0], other)
    for old, new in (
        ('over = "a"', 'over = "z"'),
        ('y = ["nmse_db"]', 'y = ["beauty"]'),
        ("users = 3", "people = 3"),
        ("frames = 8", "frame = 8"),
        ('key = "b"', 'key = "a"'),
    ):
        path = tmp_path / "tiny.toml"
        path.write_text(TINY.replace(old, new))
        with pytest.raises((ConfigError, UnknownNameError)):
            read(path)


def test_a_training_is_drawn_from_its_curves(tmp_path: Path) -> None:
    figure, path = load("p0-fig4"), tmp_path / "x.curves.json"
    path.write_text(json.dumps({"loss": [{"step": step, "loss": 0.1 + math.exp(-step / 5)} for step in range(0, 100, 2)]}))
    rows = training_rows(figure.curves[0], path)
    result = experiment.document(figure, Extent(), rows)
    assert [claim["verdict"] for claim in result["claims"]] == [AGREES, UNCHECKED]
    assert draw(figure, result, tmp_path / "x.png").exists()


def rows(**curves: dict[float, float]) -> list[dict]:
    return [{"curve": key, "x": x, "ber": y, "nmse_db": y} for key, points in curves.items() for x, y in points.items()]


@pytest.mark.parametrize(
    ("kind", "terms", "curves", "verdict", "measured"),
    [
        ("gain", {"y": "ber", "at": 1e-3, "least": 3}, {"a": {0: 1e-2, 4: 1e-4}, "b": {4: 1e-2, 8: 1e-4}}, AGREES, "4.00"),
        ("gain", {"y": "ber", "at": 1e-3, "least": 5}, {"a": {0: 1e-2, 4: 1e-4}, "b": {4: 1e-2, 8: 1e-4}}, DISAGREES, "4.00"),
        ("gain", {"y": "ber", "at": 1e-6}, {"a": {0: 1e-2, 4: 0}, "b": {4: 1e-2, 8: 1e-4}}, NOT_REACHED, ""),
        ("difference", {"y": "nmse_db", "least": 1}, {"a": {0: -3, 4: -9}, "b": {0: -1, 4: -7.5}}, AGREES, "1.50 to 2.00"),
        ("difference", {"y": "nmse_db", "from": 4, "least": 1.6}, {"a": {0: -3, 4: -9}, "b": {0: -1, 4: -7.5}}, DISAGREES, "1.50"),
        ("difference", {"y": "ber", "least": 9}, {"a": {0: 1e-3}, "b": {None: 1e-2}}, AGREES, "10.00"),
        ("difference", {"y": "ber", "from": 9}, {"a": {0: 1e-3}, "b": {0: 1e-2}}, NOT_REACHED, ""),
        ("value", {"y": "nmse_db", "most": -3}, {"a": {0: -3, 4: -9}, "b": {}}, AGREES, "-9.00 to -3.00"),
        ("shift", {"y": "ber", "at": 0, "by": 4, "least": 0}, {"a": {0: 1e-3}, "b": {0: 1, 4: 1e-2}}, AGREES, "10.00"),
        ("shift", {"y": "ber", "at": 0, "by": 2, "least": 0}, {"a": {0: 1e-3}, "b": {0: 1, 4: 1e-2}}, NOT_REACHED, ""),
        ("rise", {"y": "ber", "over": "b", "least": 9}, {"a": {0: 1e-4, 4: 1e-2}, "b": {0: 1e-3, 2: 1, 4: 1e-2}}, AGREES, "10.00"),
        ("above", {"y": "ber"}, {"a": {0: 0.5, 1: 0.4}, "b": {0: 0.5, 1: 0.6}}, DISAGREES, "-0.20 to 0.00"),
        ("settles", {"y": "nmse_db", "within": 0.5, "last": 9, "most": 5}, {"a": {1: 0, 3: -5, 5: -9.8, 9: -10}}, AGREES, "5.00"),
        ("settles", {"y": "nmse_db", "within": 0.5, "last": 99}, {"a": {1: 0, 3: -5, 5: -9.8, 9: -10}}, NOT_REACHED, ""),
        ("falls", {"y": "nmse_db"}, {"a": {1: 0, 3: -5, 5: -4}}, DISAGREES, "-5.00 to 1.00"),
        ("value", {"y": "ber", "full": True}, {"a": {0: 0.5}}, NOT_REACHED, ""),
        ("swing", {"y": "nmse_db", "most": 6}, {"a": {1: 0, 3: -5, 5: -4}}, AGREES, "5.00"),
        ("early", {"y": "ber", "share": 0.25, "least": 0.5}, {"a": {0: 9, 1: 3, 2: 2, 3: 1.5, 4: 1}}, AGREES, "0.75"),
    ],
)
def test_verdicts(kind: str, terms: dict, curves: dict, verdict: str, measured: str) -> None:
    claim = Claim("says", kind, {"curve": "a", "over": "b", **terms})
    assert judge(claim, rows(**curves), full=False) == (verdict, measured)


def test_figure_files_are_all_of_the_folder() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(names())


def test_contrasts_are_gains_beyond_others() -> None:
    lines = rows(a={0: 1e-4, 1: 1e-4}, b={0: 1e-2, 1: 1e-3}, c={0: 1e-2}, d={0: 1e-1, 1: 1e-1})
    claim = Claim("a gains more over b than c over d", "contrast", {"curve": "a", "over": "b", "than": "c", "than_over": "d", "y": "ber"})
    assert judge(claim, lines) == (AGREES, "10.00")
    assert judge(claim, lines[:-2]) == (NOT_REACHED, "")


def test_inside_a_network(tmp_path: Path) -> None:
    """Fig. 10 of P3: five matrices of one frame, each over its largest entry, and a picture of them."""
    figure = load("p3-fig10")
    result = run(figure, Extent(device="cpu"), path=tmp_path / "p3-fig10.json")
    panels = {curve.key: [row["values"] for row in result["results"] if row["curve"] == curve.key] for curve in figure.curves}
    assert {key: (len(values), len(values[0])) for key, values in panels.items()} == {
        "estimate": (40, 2),
        "truth": (40, 2),
        "pooled": (40, 1),
        "decided": (20, 1),
        "active": (20, 1),
    }
    assert all(max(max(row) for row in values) == 1 for values in panels.values())
    sent = [index for index, row in enumerate(panels["active"]) if row[0]]
    assert len(sent) == 2 and sent == [index for index, row in enumerate(panels["truth"][:20]) if row[0]]
    kept = [index for index in range(20) if panels["pooled"][index][0] or panels["pooled"][20 + index][0]]
    assert len({index // 2 for index in kept}) == len(kept)
    assert panels["decided"] == panels["active"]
    assert [claim["verdict"] for claim in result["claims"]] == [UNCHECKED, UNCHECKED, DISAGREES]
    assert all(row["wrong"] < 0.2 for row in result["results"] if row["curve"] == "decided")
    assert json.loads((tmp_path / "p3-fig10.json").read_text()) == result
    assert draw(figure, result, tmp_path / "x.png").stat().st_size > 10_000
