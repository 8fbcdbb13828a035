"""A network out of another by a rule: what the rule is shown, and what becomes of its answers."""

from collections import Counter
from dataclasses import replace

import pytest

from slth import nn
from slth.nn.graph import named_layers, value_shapes
from slth.nn.rewrite import Place, Sides
from tests.nn.nets import NETWORKS

each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def unchanged(place: Place, before: tuple[nn.Layer, ...]) -> tuple[nn.Layer, ...]:
    return (*before, place.layer)


@each_network
def test_the_identity_rule_gives_the_same_network(network: nn.Network):
    assert nn.rewrite(network, unchanged) == network


@each_network
def test_a_rule_sees_every_layer_with_the_values_of_the_graph(network: nn.Network):
    seen: list[Place] = []

    def rule(place: Place, before: tuple[nn.Layer, ...]) -> tuple[nn.Layer, ...]:
        seen.append(place)
        return unchanged(place, before)

    nn.rewrite(network, rule)
    expected = []
    for step in nn.graph(network):
        if isinstance(step, nn.Sum):
            terms = (*step.maps, *step.skips)
            expected += [(term.path, term.layer, term.reads) for term in terms if term.layer is not None]
        elif isinstance(step, nn.Apply):
            expected.append((step.path, step.layer, step.value))
    found = [(p.path if hasattr(p.layer, "name") else "", p.layer, p.reads) for p in seen]
    assert Counter(found) == Counter(expected)
    assert [place.shape for place in seen] == [value_shapes(network)[place.reads] for place in seen]
    assert [path for path, _, _ in found if path] == list(named_layers(network))


@each_network
def test_a_rule_of_blocks_sees_the_value_of_each_sum(network: nn.Network):
    seen = []

    def rule(place: Place, sides: Sides, value: int) -> Sides:
        assert isinstance(place.layer, nn.Residual)
        assert sides == (place.layer.branch, place.layer.skip)
        assert place.shape == value_shapes(network)[place.reads]
        seen.append((place.path, value))
        return sides

    nn.rewrite(network, unchanged, rule)
    blocks = [
        (step.name, number)
        for number, step in enumerate(nn.graph(network), start=1)
        if isinstance(step, nn.Sum) and step.name not in named_layers(network)
    ]
    assert seen == blocks


def test_values_are_those_of_the_old_network_whatever_the_rule_makes():
    network, seen = NETWORKS["a nested block last in its branch"], {}

    def rule(place: Place, before: tuple[nn.Layer, ...]) -> tuple[nn.Layer, ...]:
        seen.setdefault(place.path, []).append(place.reads)
        match place.layer:
            case nn.Activation():
                return before  # dropped
            case nn.Conv(name=name):
                return (
                    *before,
                    place.layer,
                    nn.Activation("tanh"),
                    replace(place.layer, name=f"{name}.again"),
                )
        return (*before, place.layer)

    made, of_rule = nn.rewrite(network, rule), seen
    seen = {}
    nn.rewrite(network, lambda place, before: rule(place, before) and unchanged(place, before))
    assert of_rule == seen
    assert [layer.kind for layer in made.layers if isinstance(layer, nn.Activation)] == ["tanh"]
    assert nn.Activation("relu") not in [step.layer for step in nn.graph(made) if isinstance(step, nn.Apply)]
    convolutions = [path for path, layer in named_layers(network).items() if isinstance(layer, nn.Conv)]
    again = [path for path, layer in named_layers(made).items() if isinstance(layer, nn.Conv)]
    assert again == [name for path in convolutions for name in (path, f"{path}.again")]


def test_a_rule_sees_the_new_layers_of_its_own_sequence_alone():
    network, seen = NETWORKS["dense block, projection, folded"], {}

    def rule(place: Place, before: tuple[nn.Layer, ...]) -> tuple[nn.Layer, ...]:
        seen[place.path] = before
        return unchanged(place, before)

    nn.rewrite(network, rule)
    assert seen["r/skip/w"] == ()
    assert seen["r/branch/u"] == ()
    assert [type(layer) for layer in seen["d"]] == [nn.Dense, nn.Activation, nn.Residual, nn.Activation]


def test_a_rule_of_blocks_may_replace_a_side():
    network = NETWORKS["dense block, folded"]

    def weighted(place: Place, sides: Sides, value: int) -> Sides:
        return sides._replace(skip=(*sides.skip, nn.Dense(f"made {value}", 4)))

    made = nn.rewrite(network, unchanged, weighted)
    blocks = [layer for layer in made.layers if isinstance(layer, nn.Residual)]
    assert [block.skip for block in blocks] == [(nn.Dense("made 5", 4),)]
    assert set(named_layers(made)) == set(named_layers(network)) | {"r/skip/made 5"}


def test_a_network_that_does_not_fit_together_is_refused():
    network = NETWORKS["dense block, folded"]

    def wider(place: Place, before: tuple[nn.Layer, ...]) -> tuple[nn.Layer, ...]:
        layer = place.layer
        return (*before, replace(layer, features=9) if place.path == "r/branch/v" else layer)

    with pytest.raises(ValueError, match=r"^r: branch gives \(9,\), skip gives \(4,\)"):
        nn.rewrite(network, wider)
