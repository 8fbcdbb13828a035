"""Presets: their files say what their table says, and each refuses what its theorem does not cover."""

import pytest
from omegaconf import OmegaConf

from experiments.command_line import CONF
from experiments.compose import preset_of
from slth.construction.presets import PRESETS, check, missing
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten
from tests.construction.nets import RESIDUAL

RELU, TANH = Activation("relu"), Activation("tanh")
DENSE = Network((3,), (Dense("a", 4), RELU, Dense("b", 2)))
SMOOTH = Network((3,), (Dense("a", 4), TANH, Dense("b", 2)))
CONV = Network((4, 4, 1), (Conv("a", 2, (2, 2)), RELU, Flatten(), Dense("b", 2)))
RESNET = RESIDUAL["option A"][0]
BLOCKS = Network((3,), (Dense("a", 3), RELU, Residual("r", (Dense("u", 3),)), RELU, Dense("b", 2)))


@pytest.mark.parametrize("name", PRESETS)
def test_files_say_what_the_table_says(name):
    found = OmegaConf.to_container(OmegaConf.load(CONF / f"construction/{name}.yaml"))
    assert preset_of(found) == PRESETS[name]


def test_every_file_is_in_the_table():
    assert {path.stem for path in (CONF / "construction").glob("*.yaml")} == set(PRESETS)


COVERED = {
    "dense": (DENSE, "any", ["malach2020", "pensia2020", "burkholz2022_fc", "burkholz2022"]),
    "dense, not below 0": (DENSE, "nonnegative", list(PRESETS)),
    "dense, tanh": (SMOOTH, "any", ["burkholz2022_fc", "burkholz2022"]),
    "convolutions": (CONV, "any", ["burkholz2022"]),
    "convolutions, not below 0": (CONV, "nonnegative", ["dacunha2021", "burkholz2022"]),
    "residual": (RESNET, "nonnegative", ["burkholz2022"]),
    "dense residual": (BLOCKS, "any", ["burkholz2022"]),
}


@pytest.mark.parametrize("target, inputs, names", COVERED.values(), ids=COVERED.keys())
def test_what_each_covers(target, inputs, names):
    assert [name for name, preset in PRESETS.items() if missing(preset, target, inputs) is None] == names


REFUSED = {
    "signed inputs": ("dacunha2021", CONV, "inputs below 0", "burkholz2022"),
    "convolutions": ("pensia2020", CONV, "convolutions", "burkholz2022"),
    "dense tanh": ("malach2020", SMOOTH, "the activation tanh", "burkholz2022_fc"),
    "blocks": ("burkholz2022_fc", BLOCKS, "residual blocks", "burkholz2022"),
    "signed dense": ("dacunha2021", DENSE, "inputs below 0", "pensia2020"),
}


@pytest.mark.parametrize("name, target, lacking, other", REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_says_why_and_what_would(name, target, lacking, other):
    with pytest.raises(
        ValueError, match=f"^construction={name} covers .*{lacking}: choose construction={other}$"
    ):
        check(PRESETS[name], target, "any")
    check(PRESETS[other], target, "any")


def test_a_file_with_other_settings_is_refused():
    with pytest.raises(ValueError, match="construction: its settings are name, depth"):
        preset_of({"name": "mine"})
