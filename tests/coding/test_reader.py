"""Tickets as a program sees them that knows nothing but docs/ticket_format.md."""

import hashlib

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from slth import Compensated, Robust, Rounded, Source, Target, construct, nn, ticket
from slth.nn.zoo import build
from slth.source import parameter
from tests.coding import ticket_reader
from tests.coding.rounded_case import Case

RELU = nn.Activation("relu")
NETWORKS = {
    "dense": nn.Network((6,), (nn.Dense("a", 5), RELU, nn.Dense("b", 4), RELU, nn.Dense("c", 3))),
    "clipped": nn.Network(
        (6,),
        (
            *(nn.Dense("a", 5), nn.Activation("relu6"), nn.Dense("b", 4), nn.Activation("hard_swish")),
            *(nn.Dense("c", 4), nn.Activation("hard_sigmoid"), nn.Dense("d", 3)),
        ),
    ),
    "upsampled": nn.Network(
        (4, 4, 2),
        (
            *(nn.Conv("a", 3, (2, 2)), RELU, nn.Upsample((2, 3)), nn.Conv("b", 3, (1, 1)), RELU),
            *(nn.GlobalMax(), nn.Dense("c", 3)),
        ),
    ),
    "conv": nn.Network(
        (9, 9, 2),
        (
            *(nn.Conv("a", 3, (3, 3), (2, 2), ((1, 0), (1, 1))), RELU, nn.Pool("max", (2, 2))),
            *(nn.Conv("b", 4, (2, 1), dilation=(1, 2)), nn.Activation("leaky_relu", 0.2)),
            *(nn.Flatten("chw"), nn.Dense("o", 3)),
        ),
    ),
    "groups": nn.Network(
        (6, 5, 2),
        (
            *(nn.Conv("a", 4, (3, 3)), RELU, nn.Conv("g", 4, (2, 2), (2, 1), groups=2), RELU),
            *(nn.Conv("d", 8, (2, 2), padding=((0, 1), (1, 0)), groups=4), RELU),
            *(nn.Flatten("chw"), nn.Dense("o", 3)),
        ),
    ),
    "concatenations": nn.Network(
        (4, 4, 2),
        (
            *(nn.Conv("a", 3, (2, 2)), nn.Concat("d", ((), (RELU, nn.Conv("v", 2, (1, 1)))))),
            nn.Concat(
                "i", ((nn.Conv("u", 2, (1, 1)), RELU), (nn.Concat("j", ((), (nn.Conv("w", 1, (1, 1)),))),))
            ),
            *(nn.Flatten(), nn.Dense("o", 3)),
        ),
    ),
    "residual": build("digits_resnet", (8, 8, 1), 10, width=4),
}
SLOW = pytest.mark.slow
CASES = {
    "dense, biases of its own": ("dense", {"own_biases": True, "constants": 9}, Robust()),
    "dense, uniform": ("dense", {"init": "uniform", "biases": "zero"}, Robust()),
    "clipped": ("clipped", {}, Robust()),
    "upsampled": ("upsampled", {}, Robust()),
    "groups": ("groups", {}, Robust()),
    "groups, 2L": ("groups", {"depth": "2L", "univariate_signs": "positive"}, Robust()),
    "concatenations": ("concatenations", {}, Robust()),
    "concatenations, 2L": ("concatenations", {"depth": "2L"}, Rounded()),
    "conv": pytest.param("conv", {}, Robust(), marks=SLOW),
    "conv, 2L": ("conv", {"depth": "2L"}, Robust()),
    "conv, 2L, positive": ("conv", {"depth": "2L", "univariate_signs": "positive"}, Robust()),
    "residual": pytest.param(
        "residual", {"scale": 1.5, "scales": {"*conv1": 1.1, "univ*/bias": 0.9}}, Robust(), marks=SLOW
    ),
    "residual, 2L": pytest.param(
        "residual", {"depth": "2L", "univariate": 4, "scale": 1.5}, Compensated(sweeps=1), marks=SLOW
    ),
}


@pytest.mark.parametrize("name, options, solver", CASES.values(), ids=CASES.keys())
def test_a_reader_of_the_page_computes_the_same(name, options, solver, tmp_path):
    network = NETWORKS[name]
    target = Target.of(network, nn.init(network, jax.random.key(1)))
    x = jax.random.normal(jax.random.key(2), (40, *network.input_shape))
    made = construct(target, Source.of(target, 6, seed=3, **options), solver, x)
    for version in (ticket.PLAIN, ticket.CODED):
        path = tmp_path / f"{version}.ticket"
        path.write_bytes(ticket.to_bytes(made.ticket, version))
        found = ticket_reader.read(path)
        assert found.version == version
        assert found.mask.keys() == made.ticket.arrays.keys()
        assert all(np.array_equal(found.mask[key], mask) for key, mask in made.ticket.arrays.items())
        assert ticket_reader.sha256_of(ticket_reader.source_parameters(found)) == made.ticket.source_sha256
        wanted = made.ticket(x[:8])
        assert (
            np.abs(ticket_reader.outputs(found, np.asarray(x[:8])) - wanted).max()
            < 1e-4 * np.abs(wanted).max()
        )


@pytest.mark.parametrize("join", [False, True])
def test_a_reader_of_the_page_reads_rounded_kernels(join: bool, tmp_path):
    layers = (nn.Conv("u", 24, (1, 1)), RELU, nn.Conv("a", 5, (2, 1)), RELU, nn.Flatten(), nn.Dense("o", 2))
    source = Source(nn.Network((3, 2, 3), layers), seed=4, multiplicity=1, init="uniform")
    values = {path: np.asarray(parameter(source, path)) for path in nn.parameter_shapes(source.network)}
    case = Case(0, 3, [0, 1, 2, -1, 2, 1, -2, 0] * 3, (2, 1), 5, 2**44, join=join, most=40, values=values)
    arrays = case.arrays | {path: np.ones(values[path].shape, bool) for path in ("o/bias", "o/kernel")}
    steps = (("a/kernel", 2**44), ("o/kernel", 2**40))
    made = ticket.make(source, unflatten_dict(arrays, sep="/"), 1.0, steps=steps)
    assert case.rounding(case.encode()).join == join
    made.save(tmp_path / "t.ticket")
    found = ticket_reader.read(tmp_path / "t.ticket")
    assert found.version == 2
    assert all(np.array_equal(found.mask[path], array) for path, array in arrays.items())


def test_what_is_hashed_is_the_entry_without_its_checksum():
    """As the page says it: no program has to write floats as another does."""
    source = Source(nn.Network((2,), (nn.Dense("a", 3, use_bias=False),)), seed=0, multiplicity=1)
    content = ticket.to_bytes(ticket.make(source, {"a": {"kernel": np.eye(2, 3, dtype=bool)}}, 0.1 + 0.2))
    size = int.from_bytes(content[:8], "little")
    start = content.index(b'"{') + 1
    text = content[start : content.index(b'}"', start) + 1].replace(b'\\"', b'"')
    begin = text.index(b'"checksum":"')
    stated, rest = text[begin + 12 : begin + 76].decode(), text[:begin] + text[begin + 78 :]
    assert begin == 1
    assert hashlib.sha256(rest + b"\0" + content[8 + size :]).hexdigest() == stated
