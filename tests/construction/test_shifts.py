"""Moments at all positions: products of shifted images against products of what each tap reads."""

import jax
import numpy as np
import pytest

import slth
from slth import nn
from slth.construction import compensated
from slth.construction import moments as moments_module
from slth.construction.moments import moments
from slth.construction.noise import slot_values
from slth.construction.shifts import shifts_of

RELU = nn.Activation("relu")
SAME = {"kernel": (3, 3), "padding": ((1, 1), (1, 1))}
LAYERS = {
    "same": ((8, 8), SAME),
    "valid": ((7, 6), {"kernel": (3, 3)}),
    "dilated, uneven padding": ((7, 6), {"kernel": (5, 3), "padding": ((2, 2), (1, 2)), "dilation": (1, 2)}),
    "padding beyond the kernel": ((5, 4), {"kernel": (3, 1), "padding": ((4, 3), (0, 0))}),
    "one axis": ((9,), {"kernel": (3,), "padding": ((1, 1),)}),
    "groups": ((8, 8), SAME | {"groups": 2}),
}


def taps_of(layer, x):
    """What each tap reads at each output position of each image, in float64: (taps, positions, channels)."""
    x = np.pad(np.asarray(x, np.float64), [(0, 0), *layer.padding, (0, 0)])
    outputs = [
        size - (kernel - 1) * dilation
        for size, kernel, dilation in zip(x.shape[1:-1], layer.kernel, layer.dilation, strict=True)
    ]
    found = []
    for tap in np.ndindex(layer.kernel):
        starts = [t * dilation for t, dilation in zip(tap, layer.dilation, strict=True)]
        cut = tuple(slice(start, start + count) for start, count in zip(starts, outputs, strict=True))
        found.append(x[:, *cut].reshape(-1, x.shape[-1]))
    return np.stack(found)


def products(parts, columns, samples, skip, outputs):
    """The moments as they are defined."""
    (part,) = parts
    slots = part.stream.slots
    spatial = part.layer.output_shape(part.read.shape)[:-1]
    seen = np.ravel_multi_index((samples.image, *samples.place.T), (len(part.stream.x), *spatial))
    read = taps_of(part.layer, part.stream.ticket)[:, seen]
    variables = read.transpose(1, 0, 2).reshape(read.shape[1], -1)
    z = np.concatenate([variables, np.zeros((len(variables), 1))], 1)[:, columns.place]
    wanted = taps_of(part.layer, slot_values(part.stream.x, slots.channel, slots.sign))[:, seen]
    wanted = np.concatenate([*wanted.transpose(2, 0, 1), np.ones((1, len(z)))])
    missed = np.zeros((len(z), 0))
    if skip is not None:
        x, ticket = (np.asarray(a, np.float64).reshape(-1, a.shape[-1])[seen] for a in (skip.x, skip.ticket))
        missed = np.repeat(x, len(outputs) // x.shape[1], 1) - ticket[:, outputs]
    return z.T @ z / len(z), z.T @ wanted.T / len(z), z.T @ missed / len(z)


@pytest.mark.parametrize("positions", [16384, 30 * 20], ids=["whole", "windows"])
@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_moments_of_shifted_images_are_means_of_products(name: str, means: bool, positions: int, monkeypatch):
    """Layers with a residual block, where its size stays, in which case a skip is carried; windows of 20
    positions of each image at most, or whole images."""
    size, options = LAYERS[name]
    first, *others = (nn.Conv(letter, 4, **options) for letter in "abc")
    layers = (nn.Conv("a", 4, options["kernel"], padding=first.padding), RELU)
    if first.output_shape((*size, 4)) == (*size, 4):
        layers += (nn.Residual("r", (others[0], RELU, others[1])), RELU)
    else:
        layers += (others[0], RELU)
    network = nn.Network((*size, 2), (*layers, nn.GlobalMean(), nn.Dense("d", 3)))
    target = slth.Target(network, nn.init(network, jax.random.key(1)))
    images = np.asarray(jax.random.normal(jax.random.key(2), (30, *size, 2)))
    real, used = moments_module.shifted_moments, []

    def shifted(*arguments):
        used.append(arguments)
        return real(*arguments)

    def compared(parts, columns, samples, skip, outputs):
        before = len(used)
        found = moments(parts, columns, samples, skip, outputs)
        if len(used) > before:
            for own, reference in zip(found, products(parts, columns, samples, skip, outputs), strict=True):
                assert own.shape == reference.shape
                np.testing.assert_allclose(own, reference, atol=1e-5 * np.abs(reference).max(initial=0))
        return found

    monkeypatch.setattr(moments_module, "shifted_moments", shifted)
    monkeypatch.setattr(compensated, "moments", compared)
    solver = slth.Compensated(sweeps=1, means=means, positions=positions)
    slth.construct(target, slth.Source.of(target, copies=4, images=images), solver, images)
    assert len(used) >= (len(network.layers) // 3 if positions == 16384 else 1)


def test_a_kernel_of_nine_taps_has_thirteen_differences():
    shifts = shifts_of(nn.Conv("a", 4, **SAME), (8, 8, 3))
    assert shifts is not None
    assert len(shifts.differences) == 13
    assert shifts.edges == ((0, 1, 7, 8), (0, 1, 7, 8))
    assert shifts.reached.sum(1).tolist() == [4, 6, 4, 6, 9, 6, 4, 6, 4]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv("a", 4, (3, 3), stride=(2, 2)),
        nn.Conv("a", 4, (1, 1)),
        nn.Conv("a", 4, (8, 8)),
    ],
    ids=["strides", "one tap", "one position"],
)
def test_no_shifts_where_they_save_nothing(layer: nn.Conv):
    assert shifts_of(layer, (8, 8, 3)) is None


def test_samples_of_some_positions_are_read_tap_by_tap(monkeypatch):
    """Fewer positions than images are drawn at random, and have no neighbours to share products with."""
    monkeypatch.setattr(moments_module, "shifted_moments", None)
    layers = (nn.Conv("a", 3, **SAME), RELU, nn.Conv("b", 3, **SAME), nn.GlobalMean(), nn.Dense("d", 2))
    network = nn.Network((8, 8, 2), layers)
    target = slth.Target(network, nn.init(network, jax.random.key(1)))
    images = np.asarray(jax.random.normal(jax.random.key(2), (20, 8, 8, 2)))
    solver = slth.Compensated(sweeps=1, positions=19)
    made = slth.construct(target, slth.Source.of(target, copies=4), solver, images)
    assert np.isfinite(made.error(images).relative)


@pytest.mark.parametrize("copies, size", [(1, (8, 8)), (5, (2, 2))], ids=["one copy", "wide zeros"])
def test_no_shifts_where_they_take_more_memory_than_a_node_may(copies: int, size: tuple, monkeypatch):
    """Moments of the target's inputs with variables, and zeros around small images."""
    monkeypatch.setattr(moments_module, "shifted_moments", None)
    monkeypatch.setattr(moments_module, "PIECE", 64)
    layers = (nn.Conv("a", 3, **SAME), RELU, nn.Conv("b", 3, **SAME), nn.GlobalMean(), nn.Dense("d", 2))
    network = nn.Network((*size, 2), layers)
    target = slth.Target(network, nn.init(network, jax.random.key(1)))
    images = np.asarray(jax.random.normal(jax.random.key(2), (200, *size, 2)))
    source = slth.Source.of(target, copies=copies)
    assert np.isfinite(slth.construct(target, source, slth.Compensated(sweeps=1), images).unsolved)
