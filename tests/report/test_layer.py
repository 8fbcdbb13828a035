"""The picture of a layer: which taps survive, against the mask; their sums, against the network's answers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slth import Best, Source, Target, construct, nn, report
from slth.report.layer_drawing import PALE, _blocks, shown_of
from slth.source import layer_scale, parameter

PAD = nn.same_padding((3, 3))
NETWORK = nn.Network(
    (5, 5, 2),
    (
        nn.Conv("c", 3, (3, 3), padding=PAD),
        nn.Activation("relu"),
        nn.Conv("d", 2, (3, 3), padding=PAD),
        nn.Activation("relu"),
        nn.GlobalMean(),
        nn.Dense("e", 2),
    ),
)


@pytest.fixture(scope="module")
def made():
    target = Target(NETWORK, nn.init(NETWORK, jax.random.key(0)))
    return construct(target, Source.of(target, copies=8), Best())


def test_taps_survive_where_the_mask_has_them(made):
    for path in ("c", "d"):
        found = report.layer_picture(made, made.ticket.mask, path)
        mask = np.asarray(made.ticket.mask[path]["kernel"])
        columns = made.columns[path]
        reads = np.arange(found.kept.shape[1]) if path == "c" else made.columns["c"].reshape(-1)
        for row, kept in enumerate(found.kept):
            j, k = divmod(row, 8)
            assert found.output[row] == j
            for column, taps in enumerate(kept):
                np.testing.assert_array_equal(taps, mask[:, :, reads[column], columns[j, k]])
        goal = np.asarray(made.params[path]["kernel"]).transpose(3, 2, 0, 1)
        np.testing.assert_allclose(found.target * layer_scale(made.source, path), goal, rtol=1e-5)


def test_a_mask_without_a_channel_shows_it_as_pruned(made):
    mask = {name: dict(own) for name, own in made.ticket.mask.items()}
    kernel, front = np.array(mask["c"]["kernel"]), np.array(mask["univariate"]["kernel"])
    kernel[:, :, 5], front[..., 5] = False, False
    mask["c"]["kernel"], mask["univariate"]["kernel"] = kernel, front
    whole = report.layer_picture(made, made.ticket.mask, "c")
    found = report.layer_picture(made, mask, "c")
    assert whole.kept[:, 5].any()
    assert not found.kept[:, 5].any()
    assert found.input[5] == -1
    np.testing.assert_array_equal(np.delete(found.kept, 5, 1), np.delete(whole.kept, 5, 1))
    np.testing.assert_array_equal(found.random, whole.random)


def test_sums_are_what_the_ticket_answers_to_one_pixel(made):
    found, weights = report.layer_picture(made, made.ticket.mask, "c"), made.ticket.params
    front = nn.Network((5, 5, 2), made.source.network.layers[:3])
    own = {name: weights[name] for name in ("univariate", "c")}
    nothing = nn.apply(front, own, jnp.zeros((1, 5, 5, 2)))
    for number, sign in enumerate((1, -1)):
        for i in range(2):
            x = jnp.zeros((1, 5, 5, 2)).at[0, 2, 2, i].set(sign)
            answer = sign * np.asarray(nn.apply(front, own, x) - nothing)[0, 1:4, 1:4][::-1, ::-1]
            for row, column in enumerate(made.columns["c"].reshape(-1)):
                sums = found.sums[number, row, i] * layer_scale(made.source, "c")
                np.testing.assert_allclose(answer[:, :, column], sums, atol=1e-5)


def test_sums_of_copies_and_sizes_are_counted(made):
    found = report.layer_picture(made, made.ticket.mask, "d")
    mask = np.asarray(made.ticket.mask["d"]["kernel"])
    v = np.asarray(parameter(made.source, "d/kernel"), float)
    scale = layer_scale(made.source, "d")
    for row, column in enumerate(made.columns["d"].reshape(-1)):
        for i, copies in enumerate(made.columns["c"]):
            size, total = np.zeros((3, 3), int), np.zeros((3, 3))
            for copy in copies:
                size += mask[:, :, copy, column]
                total += v[:, :, copy, column] * mask[:, :, copy, column]
            np.testing.assert_array_equal(found.sizes[0, row, i], size)
            np.testing.assert_allclose(found.sums[0, row, i], total / scale, atol=1e-6)
    assert found.alpha is None


def test_a_dense_layer_behind_a_flattening_has_positions_for_taps():
    network = nn.Network((2, 2, 1), (nn.Flatten(), nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
    target = Target(network, nn.init(network, jax.random.key(0)))
    made = construct(target, Source.of(target, copies=15), Best())
    found = report.layer_picture(made, made.ticket.mask)
    assert (found.path, found.target.shape[:2], found.target.shape[2:]) == ("a", (3, 1), (2, 2))
    kernel = np.asarray(made.params["a"]["kernel"]).reshape(2, 2, 3) / layer_scale(made.source, "a")
    np.testing.assert_allclose(found.target[:, 0], kernel.transpose(2, 0, 1), rtol=1e-5)
    read = np.asarray(made.ticket.arrays["b/kernel"].any(1))[made.columns["a"].reshape(-1)]
    np.testing.assert_array_equal(found.live, read)
    assert 0 < read.sum() < len(read), "some copies are read by nothing"
    assert not found.kept[~read].any()
    assert np.abs(found.error[:, read]).max() < 0.2
    assert report.layer_picture(made, made.ticket.mask, "b").target.shape == (2, 3)


def test_pruned_weights_are_drawn_pale():
    values = np.array([-1.0, 1.0, 1.0]).reshape(1, 3, 1, 1)
    kept = np.array([True, True, False]).reshape(1, 3, 1, 1)
    colours = _blocks(values, kept, np.zeros(1), np.zeros(3)).colours[0, ::2]
    bright = _blocks(values, None, np.zeros(1), np.zeros(3)).colours[0, ::2]
    np.testing.assert_allclose(colours[:2], bright[:2])
    np.testing.assert_allclose(1 - colours[2], PALE * (1 - bright[2]))


def test_what_is_shown_has_weights(made, tmp_path: Path):
    found = report.layer_picture(made, made.ticket.mask, "d")
    empty = found._replace(target=np.where(np.arange(2)[:, None, None, None] == 0, 0, found.target))
    out, read, rows, columns = shown_of(empty, 2, 2, 3, 5)
    assert (out.tolist(), read.tolist()) == ([1], [0, 1])
    assert rows.tolist() == [8, 9, 10]
    assert set(found.input[columns]) == {0, 1}
    report.draw_layer(tmp_path / "layer.png", found, outputs=1, inputs=1)
    assert (tmp_path / "layer.png").stat().st_size > 3000
    with pytest.raises(ValueError, match="all weights of d are 0"):
        shown_of(found._replace(target=0 * found.target), 2, 2, 3, 5)


def test_layers_that_have_no_such_picture_are_refused(made):
    with pytest.raises(ValueError, match="no layer 'x': it has c, d, e"):
        report.layer_picture(made, made.ticket.mask, "x")
    layers = (nn.Conv("a", 2, (1, 1)), nn.Activation("relu"), nn.Conv("g", 4, (1, 1), groups=2))
    network = nn.Network((2, 2, 1), (*layers, nn.GlobalMean(), nn.Dense("o", 2)))
    target = Target(network, nn.init(network, jax.random.key(0)))
    grouped = construct(target, Source.of(target, copies=4), Best())
    with pytest.raises(ValueError, match="g has groups"):
        report.layer_picture(grouped, grouped.ticket.mask, "g")
