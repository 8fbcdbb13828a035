"""A construction that breaks off goes on after its last whole node, and ends with the same bits."""

from dataclasses import replace

import numpy as np
import pytest

from slth import Best, Compensated, Robust, Target, construct
from slth.construction import nodes_of, plan_of
from slth.construction.resume import load_node, node_file
from tests.construction.nets import PLAIN, RESIDUAL, images, source_of, target_of
from tests.construction.solvers import Counting, Interrupted

M, COUNT = 5, 6
NETWORKS = {  # carried skips and a flattening; pooling, no bias, two dense layers behind a flattening
    "blocks on one axis": RESIDUAL["blocks on one axis"][0],
    "pooled": PLAIN["pooled"],
}
SOLVERS = {"best": Best(), "measured": Robust(noise="measured"), "compensated": Compensated(sweeps=2)}


def prepared(name):
    target = Target(*target_of(NETWORKS[name]))
    return target, source_of(target.network, M), images(target.network, COUNT)


def files(folder):
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("choice", SOLVERS)
def test_a_broken_construction_goes_on_with_the_same_bits(name, choice, tmp_path):
    target, source, x = prepared(name)
    whole = construct(target, source, SOLVERS[choice], x)
    count = len(whole.records)
    done = 0
    for more in (1, 2):  # broken twice
        broken = Counting(SOLVERS[choice], fails_at=more)
        with pytest.raises(Interrupted):
            construct(target, source, broken, x, folder=tmp_path)
        assert broken.count == more, "nothing is solved again"
        done += more
        assert len(files(tmp_path)) == done
    last = Counting(SOLVERS[choice])
    made = construct(target, source, last, x, folder=tmp_path)
    assert last.count == count - done > 0
    assert made.ticket == whole.ticket
    assert [record.path for record in made.records] == [record.path for record in whole.records]
    for one, other in zip(made.records, whole.records, strict=True):
        assert one._replace(seconds=0.0) == other._replace(seconds=0.0)
    assert all(np.array_equal(made.columns[path], columns) for path, columns in whole.columns.items())
    again = Counting(SOLVERS[choice])
    assert construct(target, source, again, x, folder=tmp_path).ticket == whole.ticket
    assert again.count == 0


def other_target(target, source, solver, x):
    network, params = target_of(target.network, seed=1)
    return Target(network, params), source, solver, x


OTHERS = {
    "target": other_target,
    "seed": lambda target, source, solver, x: (target, replace(source, seed=1), solver, x),
    "solver": lambda target, source, solver, x: (target, source, Best(), x),
    "tolerance": lambda target, source, solver, x: (target, source, replace(solver, tolerance=0.02), x),
    "images": lambda target, source, solver, x: (target, source, solver, x + np.float32(2**-20)),
    "fewer images": lambda target, source, solver, x: (target, source, solver, x[:-1]),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS.keys())
def test_nodes_of_another_construction_are_not_taken_over(change, tmp_path):
    target, source, x = prepared("pooled")
    solver = SOLVERS["measured"]
    nodes = len(construct(target, source, solver, x, folder=tmp_path).records)
    target, source, solver, x = change(target, source, solver, x)
    counting = Counting(solver)
    made = construct(target, source, counting, x, folder=tmp_path)
    assert counting.count == nodes
    assert made.ticket == construct(target, source, solver, x).ticket


@pytest.mark.parametrize("options", [{"nonnegative": True}, {"fit": 2.0}], ids=["inputs", "fit"])
def test_nor_are_those_of_other_settings(options, tmp_path):
    target, source, x = prepared("pooled")
    nodes = len(construct(target, source, Best(), np.abs(x), folder=tmp_path).records)
    counting = Counting(Best())
    construct(target, source, counting, np.abs(x), folder=tmp_path, **options)
    assert counting.count == nodes


def cut(content):
    return content[:-1]


def emptied(content):
    return b""


def altered_header(content):
    return content[:20] + bytes([content[20] ^ 1]) + content[21:]


def other_format(content):
    return content.replace(b"slth kept", b"slth noon")


@pytest.mark.parametrize("damage", [cut, emptied, altered_header, other_format])
def test_a_damaged_node_is_solved_again(damage, tmp_path):
    target, source, x = prepared("pooled")
    whole = construct(target, source, Best(), x, folder=tmp_path)
    path = files(tmp_path)[1]
    path.write_bytes(damage(path.read_bytes()))
    counting = Counting(Best())
    made = construct(target, source, counting, x, folder=tmp_path)
    assert counting.count == 1
    assert made.ticket == whole.ticket
    again = Counting(Best())
    construct(target, source, again, x, folder=tmp_path)
    assert again.count == 0, "the damaged file has been written anew"


def test_nodes_say_whether_they_were_solved_before(tmp_path):
    target, source, x = prepared("pooled")
    plan = plan_of(target, source, Best(), x)
    nodes = nodes_of(plan, tmp_path)
    first = next(nodes)
    nodes.close()
    assert not first.resumed
    assert [path.name for path in files(tmp_path)] == [node_file(tmp_path, first.number).name]
    assert [node.resumed for node in nodes_of(plan, tmp_path)] == [True, False, False, False]


def test_no_half_written_file_is_left(tmp_path, monkeypatch):
    target, source, x = prepared("pooled")

    def full(self, content):
        self.touch()
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        construct(target, source, Best(), x, folder=tmp_path)
    assert files(tmp_path) == []


def test_a_node_that_is_not_there_is_none(tmp_path):
    assert load_node(tmp_path, 3, "x") is None
