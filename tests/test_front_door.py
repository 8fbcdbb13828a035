"""The six lines of the README, for trained networks in files and with no number that a user has to know."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

import slth
from slth import nn
from tests.fixtures.make_pytorch import value
from tests.front_door import network, program, trained_file

FIXTURES = Path(__file__).parent / "fixtures"
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.FAIL_FAST
NUMBER = re.compile(r"-?\d+(\.\d+)?")


class Near(doctest.OutputChecker):
    """Takes numbers that another machine may have rounded otherwise: equal text, near numbers."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        texts = [NUMBER.sub("#", " ".join(said.split())) for said in (want, got)]
        numbers = [[float(match[0]) for match in NUMBER.finditer(said)] for said in (want, got)]
        return texts[0] == texts[1] and np.allclose(*numbers, rtol=0.2)


def failures(text: str) -> tuple[int, str]:
    """How many examples of a text fail, and what is said of them."""
    said: list[str] = []
    test = doctest.DocTestParser().get_doctest(text, {}, "page", "page", 0)
    assert test.examples
    return doctest.DocTestRunner(Near(), optionflags=FLAGS).run(test, out=said.append).failed, "".join(said)


def blocks(text: str) -> list[str]:
    """The fenced Python blocks of a page that hold prompts."""
    found = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for block in found if ">>>" in block]


def test_the_readme_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = "\n".join(blocks((root / "README.md").read_text(encoding="utf-8")))
    for line in ("slth.load(", "slth.construct(", "made.unsolved", "made.ticket.save(", "slth.Ticket.load("):
        assert line in text, f"the README's example lost {line}"
    (tmp_path / "tests").symlink_to(root / "tests")
    monkeypatch.chdir(tmp_path)
    assert failures(text) == (0, "")


@pytest.mark.parametrize("said, count", [("(2, 0.51)", 0), ("(3, 0.51)", 1), ("[2, 0.51]", 1)])
def test_a_wrong_output_in_a_page_is_seen(said: str, count: int):
    page = f"```python\n>>> 1 + 1, 0.5\n{said}\n```\n```console\n$ make\n```\n"
    assert blocks(page) == [f">>> 1 + 1, 0.5\n{said}\n"]
    assert failures(blocks(page)[0])[0] == count


def test_a_pytorch_file_is_loaded_as_pytorch_wrote_it():
    pad = nn.same_padding((3, 3))
    layers = (nn.Conv("0", 3, (3, 3), padding=pad), nn.BatchNorm("1"), nn.Activation("relu"))
    spec = nn.Network((4, 4, 2), (*layers, nn.Flatten("chw"), nn.Dense("4", 4)))
    legacy, zipped = (slth.load(FIXTURES / name, spec) for name in ("state_legacy.pth", "state_zip.pt"))
    x = np.sin(np.arange(5 * 4 * 4 * 2)).reshape(5, 4, 4, 2).astype(np.float32)
    np.testing.assert_array_equal(legacy(x), zipped(x))
    assert not any(isinstance(layer, nn.BatchNorm) for layer in legacy.network.layers)
    factor = value("1.weight", (3,)) / np.sqrt(value("1.running_var", (3,)) + 1e-5)
    expected = np.transpose(value("0.weight", (3, 2, 3, 3)), (2, 3, 1, 0)) * factor
    np.testing.assert_allclose(legacy.params["0"]["kernel"], expected, rtol=1e-5)
    made = slth.construct(legacy, slth.Source.of(legacy), slth.Robust(), x)
    assert made.error(x).relative < 0.1


@pytest.mark.parametrize(
    "first, second, kind",
    [("tanh", "tanh", "npz"), ("gelu", "gelu", "safetensors"), ("relu", "tanh", "npz")],
    ids=["tanh", "gelu", "relu+tanh"],
)
def test_the_program_needs_no_number(first: str, second: str, kind: str, tmp_path: Path):
    spec = network(first, second)
    passed = program(trained_file(spec, tmp_path / f"net.{kind}"), spec, tmp_path)
    assert passed.accuracy >= 0.95
    assert passed.agreement >= 0.98
    assert passed.unsolved <= 0.05 * passed.problems
