"""The constructions of the literature as points of one space, and what each of their theorems covers."""

from typing import Literal, NamedTuple

from slth.nn.graph import activations, linear_maps, sums
from slth.nn.layers import Conv
from slth.nn.network import Network

Depth = Literal["2L", "L+1"]
Subset = Literal["any", "one"]
Inputs = Literal["any", "nonnegative"]


class Preset(NamedTuple):
    """A construction and the targets that its theorem covers."""

    name: str
    depth: Depth
    """Layers of the source for a target of L: two for each, or one more."""
    subset: Subset
    """Variables of a weight: any subset of them, or at most one."""
    inputs: Inputs
    """What the network may read."""
    layers: tuple[str, ...]
    """Kinds of layers, of dense, conv and residual."""
    activations: tuple[str, ...] | None
    """None: all that the table knows."""


KINDS = {"dense": "dense layers", "conv": "convolutions", "residual": "residual blocks"}
"""Of layers, in words."""
_DENSE = ("dense",)
PRESETS = {
    preset.name: preset
    for preset in (
        Preset("malach2020", "2L", "one", "any", _DENSE, ("relu",)),
        Preset("pensia2020", "2L", "any", "any", _DENSE, ("relu",)),
        Preset("dacunha2021", "2L", "any", "nonnegative", ("dense", "conv"), ("relu",)),
        Preset("burkholz2022_fc", "L+1", "any", "any", _DENSE, None),
        Preset("burkholz2022", "L+1", "any", "any", tuple(KINDS), None),
    )
}
"""Malach et al., ICML 2020; Pensia et al., NeurIPS 2020; da Cunha et al., ICLR 2022; Burkholz, NeurIPS 2022
and ICML 2022."""


def missing(preset: Preset, target: Network, inputs: Inputs) -> str | None:
    """What a target has that the preset's theorem does not cover; None if it covers all."""
    kinds = {"conv" if isinstance(entry.layer, Conv) else "dense" for entry in linear_maps(target).values()}
    if any(step.skips or step.name != step.path for step in sums(target)):
        kinds.add("residual")
    lacking = [KINDS[kind] for kind in sorted(kinds - set(preset.layers))]
    if preset.activations is not None:
        others = {act.kind for act in activations(target)} - set(preset.activations)
        lacking += [f"the activation {kind}" for kind in sorted(others)]
    if preset.inputs == "nonnegative" and inputs == "any":
        lacking.append("inputs below 0")
    return lacking[0] if lacking else None


def check(preset: Preset, target: Network, inputs: Inputs) -> None:
    """Refuse a target that the preset's theorem does not cover, naming a construction that would.

    Args:
      inputs: "nonnegative" where no input of the network can be below 0.
    Raises: ValueError of one line.
    """
    lacking = missing(preset, target, inputs)
    if lacking is None:
        return
    which = "ReLU networks" if preset.activations == ("relu",) else "networks"
    of = " and ".join(preset.layers)
    reads = " that read no input below 0" if preset.inputs == "nonnegative" else ""
    covering = [one for one in PRESETS.values() if missing(one, target, inputs) is None]
    other = next((one for one in covering if one.subset == preset.subset), covering[0])
    raise ValueError(
        f"construction={preset.name} covers {which} of {of} layers{reads}, and this target has {lacking}: "
        f"choose construction={other.name}"
    )
