"""Tables, figures, kernels and progress of a run."""

import csv
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slth import Best, Source, Target, construct, nn, report
from slth.construction import LayerRecord, Node, Stats
from slth.construction.state import Solved
from slth.evaluate import LayerError, compare
from slth.report.bounds import LAYER_BOUNDS, comparison_metrics
from slth.report.metrics import activation, depth
from slth.report.progress import LayerProgress
from slth.report.tables import verify_table
from slth.source import source_network

LAYER_COLUMNS = (
    *("layer", "problems", "unsolved", "deviating", "mean_size", "mean_error", "max_error"),
    *("gain", "weights_lost", "biases_lost", "kept", "parameters", "density", "unread", "seconds"),
    *("copy_error_calibration", "mean_error_calibration", "copy_error_test", "mean_error_test"),
    *LAYER_BOUNDS,
)


def built(kind: str):
    layers = (
        nn.Conv("c", 3, (3, 3), padding=nn.same_padding((3, 3))),
        nn.Activation(kind, 0.2),
        nn.GlobalMean(),
        nn.Dense("d", 2),
    )
    network = nn.Network((5, 5, 2), layers)
    target = Target(network, nn.init(network, jax.random.key(0)))
    wide = source_network(network, 8, copies_per_sign=16, constants=4)
    made = construct(target, Source(wide.network, 0, 8, scale=1.0), Best())
    return made, made.ticket.params


@pytest.mark.parametrize("kind", ["relu", "leaky_relu"])
def test_realised_kernels_are_impulse_responses(kind: str):
    made, weights = built(kind)
    found = report.realised_kernels(made, weights)
    assert found is not None
    assert found.path == "c"
    front = nn.Network((5, 5, 2), made.source.network.layers[:3])
    front_weights = {name: weights[name] for name in ("univariate", "c")}
    nothing = nn.apply(front, front_weights, jnp.zeros((1, 5, 5, 2)))
    for sign, kernels in ((1, found.positive), (-1, found.negative)):
        for i in range(2):
            x = jnp.zeros((1, 5, 5, 2)).at[0, 2, 2, i].set(sign)
            response = sign * np.asarray(nn.apply(front, front_weights, x) - nothing)[0, 1:4, 1:4]
            for j, column in enumerate(made.columns["c"][:, 0]):
                np.testing.assert_allclose(response[::-1, ::-1, column], kernels[j, i], atol=1e-5)
    wanted = np.asarray(made.params["c"]["kernel"]).transpose(3, 2, 0, 1)
    np.testing.assert_allclose(found.target, wanted)


@pytest.mark.parametrize("depth", ["L+1", "2L"])
def test_realised_kernels_of_groups_are_near_the_targets(depth: str):
    network = nn.Network(
        (4, 4, 2), (nn.Conv("d", 4, (2, 2), groups=2), nn.Activation("relu"), nn.GlobalMean())
    )
    network = nn.Network(network.input_shape, (*network.layers, nn.Dense("o", 2)))
    target = Target(network, nn.init(network, jax.random.key(0)))
    made = construct(target, Source.of(target, copies=15, depth=depth), Best())
    found = report.realised_kernels(made, made.ticket.params)
    assert found is not None
    for output, reads in enumerate((0, 0, 1, 1)):
        kernel = np.asarray(made.params["d"]["kernel"])[:, :, 0, output]
        np.testing.assert_allclose(found.target[output, reads], kernel, rtol=1e-6)
        assert not found.target[output, 1 - reads].any()
    for kernels in (found.positive, found.negative):
        np.testing.assert_allclose(kernels, found.target, atol=0.05)


def test_kernels_of_no_image_are_none():
    flat = (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2))
    for network in (
        nn.Network((4,), flat),
        nn.Network((4, 4, 2), (nn.Pool("mean", (2, 2)), nn.Flatten(), *flat)),  # reads no pixels
    ):
        target = Target(network, nn.init(network, jax.random.key(0)))
        made = construct(target, Source.of(target, copies=4), Best())
        assert report.realised_kernels(made, made.ticket.params) is None


def test_layer_rows_and_their_file(tmp_path: Path):
    made, _ = built("relu")
    errors = {"c": LayerError(0.25, 0.125, 3)}
    rows = report.layer_rows(made, None, errors)
    assert all(tuple(row) == LAYER_COLUMNS for row in rows)
    assert rows[0]["copy_error_test"] == 0.25
    assert rows[0]["unread"] == 3
    assert rows[0]["copy_error_calibration"] is rows[1]["copy_error_test"] is None
    stats = made.records[0].stats
    assert rows[0]["gain"] == pytest.approx((stats.source_power / stats.target_power) ** 0.5)
    report.write_csv(tmp_path / "layers.csv", rows)
    with open(tmp_path / "layers.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["layer"] for row in read] == ["c", "d"]
    assert float(read[0]["density"]) == pytest.approx(rows[0]["density"], rel=1e-5)
    assert read[1]["copy_error_test"] == ""


def test_figures_are_written_and_equal_for_equal_runs(tmp_path: Path):
    made, weights = built("relu")
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(20, 4))
    rows = report.layer_rows(made, None, {path: LayerError(0.1, 0.05, 0) for path in made.columns})
    kernels = report.realised_kernels(made, weights)
    assert kernels is not None
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        report.draw_logits(folder / "logits.png", logits, logits + 0.1)
        report.draw_layer_errors(folder / "layers.png", rows)
        report.draw_sizes(folder / "sizes.png", (1, 5, 7, 2))
        report.draw_kernels(folder / "kernels.png", kernels)
        curve = {"one": ([1, 2, 3], [0.1, 0.2, 0.3])}
        labels = {"x_label": "x", "y_label": "y", "title": "t"}
        report.draw_curves(folder / "curves.png", curve, **labels, level=("target", 0.3), log=True)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_depth_and_activation():
    inner = nn.Residual("r", (nn.Conv("a", 3, (1,)), nn.Activation("tanh"), nn.Conv("b", 3, (1,))))
    network = nn.Network((4, 3), (nn.Pool("max", (2,)), inner, nn.Flatten(), nn.Dense("d", 2)))
    assert depth(network) == 3
    assert activation(network) == "tanh"
    assert activation(nn.Network((3,), (nn.Dense("d", 2),))) is None


def test_progress_says_what_is_unsolved(caplog: pytest.LogCaptureFixture):
    progress = LayerProgress(2)
    with caplog.at_level(logging.INFO):
        progress.finish(node("a", Stats(problems=1000, unsolved=3)))
        progress.finish(node("b", Stats(problems=500, unsolved=4), resumed=True))
    assert "1/2 a: 1,000 problems, 2,000 problems/s" in caplog.messages[0]
    assert "7 of 1,500 unsolved so far, taken over" in caplog.messages[1]


def node(path: str, stats: Stats, *, resumed: bool = False) -> Node:
    """A node of which only its record matters."""
    solved = Solved((), np.zeros(0), np.zeros((1, 1)), np.ones((1, 1), bool), stats)
    return Node(0, LayerRecord(path, stats, 1, 2, 0.5), {}, np.zeros((1, 1), int), solved, resumed)


def test_tables_tell_numbers_by_their_errors():
    goal = np.array([[1.0], [2.0], [4.0]])
    errors = compare(goal, goal + 0.5)
    made, _ = built("relu")
    of_target = report.target_metrics("net", made.target.network, made.target.params, None, errors)
    of_ticket = report.ticket_metrics(made.ticket, None, errors, 1000, made.target.params, errors)
    assert (of_target["accuracy"], of_target["rmse"], of_target["r2"]) == (None, 0.5, errors.r2)
    assert of_ticket["agreement"] is of_ticket["agreement_interval"] is of_ticket["accuracy"] is None
    assert of_ticket["r2"] == errors.r2
    metrics = {
        "source": report.source_metrics(made.ticket),
        "ticket": of_ticket,
        "error": comparison_metrics(errors),
        "compact": None,
    }
    said = [str(cell) for column in verify_table(metrics).columns for cell in column.cells]
    assert "RMSE 0.5, R² 0.839286" in said  # 1 - 0.75 / (14 / 3)
    assert any(one.startswith("against the target RMSE 0.5") for one in said)
    assert not any("agreement" in one for one in said)


def test_kernels_of_signals_are_curves(tmp_path: Path):
    layers = (nn.Conv("c", 3, (5,)), nn.Activation("relu"), nn.GlobalMean(), nn.Dense("d", 2))
    network = nn.Network((12, 2), layers)
    target = Target(network, nn.init(network, jax.random.key(0)))
    made = construct(target, Source.of(target, copies=12), Best())
    found = report.realised_kernels(made, made.ticket.params)
    assert found is not None
    np.testing.assert_allclose(found.target, np.asarray(made.params["c"]["kernel"]).transpose(2, 1, 0))
    for kernels in (found.positive, found.negative):
        np.testing.assert_allclose(kernels, found.target, atol=0.1)
    report.draw_kernels(tmp_path / "kernels.png", found)
    assert (tmp_path / "kernels.png").read_bytes().startswith(b"\x89PNG")
