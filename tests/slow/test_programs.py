"""How many programs a construction compiles: few, and none for a layer like an earlier one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import json
import jax
count = 0
def listen(event, duration, **_):
    global count
    count += event == "/jax/core/compile/backend_compile_duration"
jax.monitoring.register_event_duration_secs_listener(listen)
import slth
from slth import nn
from slth.construction import nodes_of, plan_of
from slth.nn import zoo
spec = zoo.build("resnet20", (32, 32, 3), 10)
images = jax.random.normal(jax.random.key(1), (64, 32, 32, 3))
by_node = []
for seed in (0, 1):
    target = slth.Target.of(spec, nn.init(spec, jax.random.key(seed)))
    source = slth.Source.of(target, copies=15, seed=seed)
    before = count
    plan = plan_of(target, source, slth.Robust(), images)
    by_node.append([["plan", count - before]])
    for node in nodes_of(plan):
        by_node[-1].append([node.record.path, count - before])
print(json.dumps(by_node))
"""


def test_a_resnet20_compiles_at_most_25_programs_and_another_one_none(root: Path):
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    first, second = json.loads(done.stdout.splitlines()[-1])
    totals = dict(first)
    assert 10 < totals["linear"] <= 25
    # Blocks of one role after the first one compile nothing.
    assert totals["layer1.2/branch/conv2"] == totals["layer1.1/branch/conv1"]
    assert totals["layer3.2/branch/conv2"] == totals["layer3.1/branch/conv1"]
    assert second[-1][1] <= 2  # the sizes of a few chunks follow the numbers of doubtful problems
