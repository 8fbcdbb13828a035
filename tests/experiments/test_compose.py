"""From settings to values: what the command line says of a source and a target is what is built."""

import pytest
from hydra import compose, initialize_config_dir

from experiments.compose import check, data_of, source_of, spec_of
from experiments.run_folder import CONF
from slth import nn
from slth.nn.layers import Activation


def composed(*overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("ticket", ["target=mlp", *overrides])
    check(cfg)
    data = data_of(cfg)
    return cfg, spec_of(cfg, data), data


def test_a_source_has_every_option_asked_for():
    given = ("init=glorot_normal", "scale=0.5", "presence=0.75", "biases=zero", "seed=3", "multiplicity=4")
    scales = ("{linear:2,dense*:0.5}", "[[linear,2],[dense*,0.5]]")
    for text in scales:
        asked = (*(f"source.{one}" for one in given), f"source.scales={text}")
        source = source_of(*composed(*asked))
        assert source.scales == (("linear", 2.0), ("dense*", 0.5))
        assert (source.init, source.scale, source.presence, source.biases) == (
            *("glorot_normal", 0.5, 0.75, "zero"),
        )
        assert (source.seed, source.multiplicity) == (3, 4)


@pytest.mark.parametrize("name", ["he_uniform", "uniform"])
def test_sources_are_whole_unless_asked(name: str):
    source = source_of(*composed(f"source={name}"))
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
        source_of(*composed("source.scales={conv9:2}"))
