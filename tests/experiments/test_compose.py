"""From settings to values: what the command line says of a source and a target is what is built."""

import jax
import pytest
from hydra import compose, initialize_config_dir

from experiments.command_line import CONF
from experiments.compose import solver_of, source_of
from experiments.settings import SOLVERS, check
from experiments.targets import data_of, spec_of
from slth import Best, Compensated, Robust, Rounded, Target, nn
from slth.nn.layers import Activation


def composed(*overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("ticket", ["target=mlp", *overrides])
    check(cfg)
    data = data_of(cfg)
    return cfg, spec_of(cfg, data), data


def built(*overrides: str):
    """The source that these settings ask for, of a target with random weights."""
    cfg, spec, data = composed(*overrides)
    return source_of(cfg, Target.of(spec, nn.init(spec, jax.random.key(0))), data)


def test_a_source_has_every_option_asked_for():
    given = ("init=glorot_normal", "scale=0.5", "presence=0.75", "biases=zero", "seed=3", "multiplicity=4")
    scales = ("{linear:2,dense*:0.5}", "[[linear,2],[dense*,0.5]]")
    for text in scales:
        asked = (*(f"source.{one}" for one in given), f"source.scales={text}")
        source = built(*asked)
        assert source.scales == (("linear", 2.0), ("dense*", 0.5))
        assert (source.init, source.scale, source.presence, source.biases) == (
            *("glorot_normal", 0.5, 0.75, "zero"),
        )
        assert (source.seed, source.multiplicity) == (3, 4)


def test_univariate_layers_may_have_positive_weights():
    source = built("construction.depth=2L", "source.univariate_signs=positive")
    assert source.positive == tuple(one.path for one in source.layout.univariate[1:])
    with pytest.raises(ValueError, match="source.univariate_signs: 'some' is unknown: choose one of random,"):
        built("source.univariate_signs=some")


@pytest.mark.parametrize("name", ["he_uniform", "uniform"])
def test_sources_are_whole_unless_asked(name: str):
    source = built(f"source={name}")
    assert (source.init, source.scales, source.presence, source.biases) == (name, (), 1.0, "random")


@pytest.mark.parametrize("kind", nn.ACTIVATIONS)
def test_any_activation_is_a_setting(kind: str):
    _, spec, _ = composed(f"target.activation={kind}", "target.slope=0.3")
    assert [layer for layer in spec.layers if isinstance(layer, Activation)] == [Activation(kind, 0.3)] * 2


def test_the_absolute_value_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"target: activation 'leaky_relu' has mu\+ \+ mu- = 0"):
        composed("target.activation=leaky_relu", "target.slope=-1")
    with pytest.raises(ValueError, match="target: activation 'cube' is unknown"):
        composed("target.activation=cube")
    with pytest.raises(ValueError, match="source.scales: 'conv9' fits no layer"):
        built("source.scales={conv9:2}")


def test_solvers_are_objects_with_the_options_asked_for():
    assert solver_of(composed()[0]) == Robust()
    assert solver_of(composed("solver.noise=fixed", "solver.price=0.5")[0]) == Robust(
        noise="fixed", price=0.5
    )
    assert solver_of(composed("solver=independent", "solver.size=3")[0]) == Best(size=3)
    asked = ("solver=compensated", "solver.compensation.sweeps=2", "solver.compensation.ridge=0.5")
    assert solver_of(composed(*asked)[0]) == Compensated(sweeps=2, ridge=0.5)
    for method, kinds in SOLVERS.items():
        for objective, kind in kinds.items():
            names = f"solver.method={method}", f"solver.objective={objective}"
            depth = "2L" if method == "rounded" else "L+1"
            assert type(solver_of(composed(*names, f"construction.depth={depth}")[0])) is kind
    rounded = "solver=rounded", "construction.depth=2L", "solver.bits=3", "solver.rounding.variables=6"
    assert solver_of(composed(*rounded)[0]) == Rounded(bits=3, variables=6)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("solver=compensated", "solver.noise=measured"), "solver.noise: means nothing to Compensated"),
        (("solver=independent", "solver.price=1"), "solver.price: means nothing to Best"),
        (("solver.objective=single", "solver.size=2"), "solver.size: means nothing to Single"),
        (("solver.compensation.block=4",), "solver.compensation.block: means nothing to Robust"),
        (("solver=rounded",), "solver.method: rounded chooses among univariate channels"),
        (("solver=robust", "solver.bits=2"), "solver.bits: means nothing to Robust"),
        (("source.multiplicity=21",), "source.multiplicity: at most 20 with Robust, got 21"),
    ],
)
def test_options_that_mean_nothing_are_refused(overrides: tuple[str, ...], message: str):
    with pytest.raises(ValueError, match=message):
        solver_of(composed(*overrides)[0])
