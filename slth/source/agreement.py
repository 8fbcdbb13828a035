"""Whether a source is one of a target: its settings are read off its widths, and its network compared."""

from slth.nn.graph import behind, graph, is_nonnegative, linear_maps, sums, value_shapes
from slth.nn.network import Network
from slth.source.layout import MOST_CONSTANTS, SKIP, UNIVARIATE, Layout, made_layout
from slth.source.widths import check_covered, widened

HINT = "make the source of this target and multiplicity with slth.Source.of(target, copies=...)"


def layout_of(target: Network, network: Network, multiplicity: int, *, positive: bool = False) -> Layout:
    """The layout that a source's widths and names imply, for files that hold no more than its network.

    Args:
      target: spec of the target, without batch norm.
      network: spec of a source of L + 1 or 2L (`slth.source.source_network`).
      multiplicity: m.
      positive: whether the source has layers of positive weights (`slth.Source`).
    Returns: the layout; `slth.Source.of` gives the one that its source was made with.
    Raises: ValueError where the source is not one of this target, naming the layer, what was expected and
      what to do.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> source = slth.Source.of(target, copies=5)
      >>> slth.source.layout_of(target.network, source.network, 5).nodes == source.layout.nodes
      True
    """
    wide = linear_maps(network)
    skips = [step for step in sums(target) if any(one.side == "skip" for one in step.skips)]
    skip = "random" if all(f"{step.name}/skip/{SKIP}" in wide for step in skips) else "carried"
    depth = "L+1" if UNIVARIATE in wide else "2L"
    check_covered(target, skip, depth)
    if network.input_shape != target.input_shape:
        raise ValueError(
            f"source: it reads inputs of shape {network.input_shape}, and the target reads "
            f"{target.input_shape}: {HINT}"
        )
    hidden, *others = (step for step in sums(target) if step.maps)
    front_path = UNIVARIATE if depth == "L+1" else f"{hidden.maps[0].path}.{UNIVARIATE}"
    for path in (*linear_maps(target), front_path):
        if path not in wide:
            raise ValueError(f"source: it has no layer {path}, which a source of this target has: {HINT}")
    first, front = wide[hidden.maps[0].path].layer, wide[front_path]
    width, signs = front.layer.features, 1 if positive and is_nonnegative(network, front.reads) else 2
    each = signs * value_shapes(network)[front.reads][-1]  # width = N each + 2 K
    if not front.layer.use_bias:
        copies, constants = width // each, 0
    elif depth == "2L":
        few = 2 * width <= MOST_CONSTANTS * (each + 4)
        copies, constants = width // (each + 4) if few else (width - 2 * MOST_CONSTANTS) // each, 1
    elif others:
        constants = first.features - multiplicity * hidden.features
        copies = (width - 2 * constants) // each
    else:  # no hidden layer says how many constants there are
        copies = (width - 2 * multiplicity) // each
        constants = (width - copies * each) // 2
    layout = made_layout(
        target, multiplicity, max(copies, 1), max(constants, 0), skip, depth, positive=positive
    )
    found = _described(network)
    expected = _described(widened(target, layout, own_biases=first.use_bias))
    for part in (*(f"layer {path}" for path in linear_maps(target)), *expected, *found):
        mine, theirs = (parts.get(part, "missing") for parts in (found, expected))
        if mine != theirs:
            raise ValueError(
                f"source: {part} is {mine:.240}, and for this target should be {theirs:.240}: {HINT}"
            )
    return layout


def _described(network: Network) -> dict[str, str]:
    """The layers and skips of a network, what each reads, and what its output is, in words."""
    described = {}
    for step in sums(network):
        for term in (*step.maps, *step.skips):
            path = term.path or f"{step.name}/{getattr(term, 'side', '')}"
            described[f"layer {path}"] = str(term.layer or "the identity")
            described[f"what {path} reads"] = _words(network, term.reads)
    return described | {"the output": _words(network, len(graph(network)))}


def _words(network: Network, value: int) -> str:
    before = behind(network, value)
    return ", ".join([before.name or "the input", *map(str, before.layers)])
