"""Which kernels run, in which chunks, and that each compiles for a GPU."""

import functools
import importlib
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from slth.subset_sum import Objective, solve, stages
from slth.subset_sum.stages import Stage, compiled, compiler_options, plan
from tests.subset_sum.problems import forms, prices, problems

solve_module = importlib.import_module("slth.subset_sum.solve")  # the package's name is the function's
PROBLEMS = 10**7
CASES = {(objective, m) for objective in Objective for m in (6, 15, 20)} | {
    (objective, m) for objective in (Objective.BEST, Objective.SMALLEST) for m in (24, 32)
}


@pytest.mark.parametrize("objective, m", sorted(CASES))
def test_chunks_fill_a_gpu_and_fit_its_memory(objective, m):
    """The kernels are those of a CPU: only the problems in one call are more."""
    cpu, gpu = (plan(objective, m, None, PROBLEMS, platform) for platform in ("cpu", "gpu"))
    assert [stage._replace(chunk=0) for stage in cpu] == [stage._replace(chunk=0) for stage in gpu]
    *fast, exact = gpu
    numbers = m * m if objective is Objective.QUADRATIC else m
    for stage in fast:
        assert 2**16 <= stage.chunk <= 2**18
        assert stage.chunk * numbers * 4 < 2**29
    assert m > 20 or 2**14 <= exact.chunk <= 2**18
    assert all(stage.chunk <= 16384 for stage in cpu)


def test_fewer_kernels_compile_where_they_would_save_little(monkeypatch):
    monkeypatch.setattr(stages, "MANY", 2**31)
    kernels = [len(plan(Objective.ROBUST, 15, None, n)) for n in (2**16, 2**16 + 1)]
    assert kernels == [2, 3]
    assert len(plan(Objective.ROBUST, 12, None, 2**30)) == 2


def test_few_problems_that_come_again_and_again_are_worth_a_kernel(monkeypatch):
    monkeypatch.setattr(stages, "FEW", dict.fromkeys(Objective, stages.effort(12, 100)))
    monkeypatch.setattr(stages, "FEW_LONG", 512)
    monkeypatch.setattr(solve_module, "IN_USE", set())
    monkeypatch.setattr(solve_module, "TRIED", {})
    monkeypatch.setattr(solve_module, "ENOUGH", 3)
    x, t = problems(12, 100, seed=3)
    used, found = [], []
    for _ in range(5):
        used.append(len(solve_module._stages(Objective.BEST, 12, None, 100)))
        found.append(solve(x, t, "best").mask)  # counts as well
    assert used == [1, 1, 3, 3, 3]
    assert all((one == found[0]).all() for one in found)
    assert len(solve_module._stages(Objective.BEST, 24, None, 100)) == 1  # they are met in the middle
    monkeypatch.setattr(solve_module, "platform", lambda: "gpu")
    assert solve_module._stages(Objective.BEST, 12, None, 100) == plan(Objective.BEST, 12, None, 101, "gpu")


def test_problems_that_are_neither_few_nor_many_have_the_kernel_for_all_variables(monkeypatch):
    """However often they come: the kernel that drops variables compiles longest, and pays from `MANY` on."""
    monkeypatch.setattr(stages, "FEW", {Objective.ROBUST: stages.effort(15, 100)})
    monkeypatch.setattr(solve_module, "MANY", 2**31)
    monkeypatch.setattr(stages, "MANY", 2**31)
    monkeypatch.setattr(solve_module, "IN_USE", set())
    monkeypatch.setattr(solve_module, "TRIED", {})
    monkeypatch.setattr(solve_module, "ENOUGH", 2)
    kernels = [len(solve_module._stages(Objective.ROBUST, 15, None, 2**16)) for _ in range(9)]
    assert kernels == [2] * 9
    assert [len(solve_module._stages(Objective.ROBUST, 15, None, 100)) for _ in range(4)] == [1, 1, 2, 2]
    assert len(solve_module._stages(Objective.ROBUST, 15, None, 2**16 + 1)) == 3


def test_longer_chunks_are_for_very_many_problems():
    few, many = (plan(Objective.BEST, 15, None, n) for n in (2**20, 2**20 + 1))
    assert [stage.chunk for stage in few[:2]] == [1024, 256]
    assert [stage.chunk for stage in many[:2]] == [4096, 2048]


def test_threads_share_the_threads_of_a_process():
    x, t = problems(12, 9000, seed=4)
    alone = solve(x, t, "best").mask
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda _: solve(x, t, "best").mask, range(6)))
    assert all((one == alone).all() for one in together)


def test_a_cpu_is_what_a_plan_is_for_unless_it_is_said():
    assert plan(Objective.ROBUST, 15, None, PROBLEMS) == plan(Objective.ROBUST, 15, None, PROBLEMS, "cpu")


def test_the_width_of_vectors_is_said_to_a_cpu_alone():
    assert compiler_options("cpu") == {"xla_cpu_prefer_vector_width": 512}
    assert compiler_options("gpu") is None
    assert compiler_options("tpu") is None


def shapes(stage: Stage, m: int):
    """Arguments of a stage's kernel, without values."""
    array = functools.partial(jax.ShapeDtypeStruct, dtype=np.float32)
    x, t = array((m, stage.chunk)), array((stage.chunk,))
    if stage.objective is Objective.QUADRATIC:
        return None, None, array(()), {"gram": array((m, m, stage.chunk)), "linear": x}
    return x, t, array(()), {"price": x} if stage.objective is Objective.ROBUST else {}


@pytest.mark.parametrize(
    "objective, m", [*((objective, 15) for objective in Objective), (Objective.BEST, 25)], ids=str
)
def test_every_kernel_lowers_for_cuda(objective, m):
    for stage in plan(objective, m, None, PROBLEMS, "gpu"):
        traced = compiled(stage, (jax.devices()[0],)).trace(True, *shapes(stage, m))
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert f"tensor<{m}x{stage.chunk}xf32>" in text or objective is Objective.QUADRATIC


def test_a_gpu_is_sent_chunks_before_one_is_read():
    done = []
    results = solve_module._ahead(
        lambda k: done.append(("send", k)) or k, lambda k: done.append(("read", k)) or k, range(6)
    )
    assert list(results) == list(range(6))
    ahead = solve_module.AHEAD
    assert done[: ahead + 2] == [("send", k) for k in range(ahead + 1)] + [("read", 0)]
    assert [k for what, k in done if what == "read"] == list(range(6))


@pytest.mark.parametrize("chunks", ["a fifth", "of a gpu"])
@pytest.mark.parametrize("objective, m", [("best", 8), ("smallest", 8), ("robust", 13), ("quadratic", 8)])
def test_solutions_do_not_depend_on_the_chunks(objective, m, chunks, monkeypatch):
    x, t = problems(m, 5000, seed=3)
    data = {"x": x, "t": t} | (prices(x, t) if objective == "robust" else {})
    if objective == "quadratic":
        data = {"x": None, "t": None, **forms(m, 5000)}
    usual = solve(**data, objective=objective)

    def fifth(*arguments):
        return tuple(stage._replace(chunk=stage.chunk // 5) for stage in plan(*arguments))

    if chunks == "a fifth":  # no power of 2, and the last chunk is cut otherwise
        monkeypatch.setattr(solve_module, "plan", fifth)
    else:  # chunks sent ahead, small enough that there are several
        monkeypatch.setattr(solve_module, "platform", lambda: "gpu")
        monkeypatch.setattr(stages, "BUSY", 2**9)
    jax.tree.map(np.testing.assert_array_equal, solve(**data, objective=objective), usual)
