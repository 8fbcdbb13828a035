"""Imports point one way, and the core stands on few libraries."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# A module imports from slth only what stands on a lower step, or what shares its package.
STEPS = (
    ("types", "compile_cache", "precision", "progress"),
    ("random", "coding", "devices"),
    ("nn", "subset_sum"),
    ("target", "compact"),
    ("source", "interop", "data"),
    ("export", "kept"),
    ("ticket", "evaluate"),
    ("construction", "train"),
    ("certificate", "quantise"),
    ("refinement", "pruning"),
    ("planting",),
    ("report", "cli"),
    ("experiments", "__main__"),
)
STEP = {name: step for step, names in enumerate(STEPS) for name in names}
EDGE = {"progress", "data", "train", "pruning", "planting", "report", "experiments"}  # all else is the core
CORE_LIBRARIES = {"jax", "numpy", "flax", "jaxtyping", "safetensors"}
HEAVY = ("hydra", "omegaconf", "optax", "tensorflow_datasets", "tensorflow", "matplotlib", "pandas")


def modules(root: Path) -> dict[str, Path]:
    """Dotted name of each module of slth and experiments, with its file."""
    found = {}
    for package in ("slth", "experiments"):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Dotted names that a module imports anywhere in its text, relative ones resolved."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in known else base


def place(name: str) -> str:
    """Part of the project that holds a module: slth.nn.layers -> nn, experiments.x -> itself."""
    head, _, rest = name.partition(".")
    return rest.split(".")[0] if head == "slth" else head


def faults(root: Path) -> list[str]:
    """All that breaks the order of the imports, one sentence each."""
    known, found, graph = modules(root), [], {}
    for name, path in known.items():
        here = place(name)
        if here and here not in STEP:
            found.append(f"{name}: {here!r} has no place in STEPS")
            continue
        targets = set(imported(name, path, known))
        ours = {t for t in targets if t.split(".")[0] in ("slth", "experiments")}
        graph[name] = ours & set(known) - {name}
        for target in sorted(targets - ours):
            library = target.split(".")[0]
            if here not in EDGE and library not in CORE_LIBRARIES | sys.stdlib_module_names:
                found.append(f"{name}: the core must not import {library}")
        for target in sorted(ours):
            there = place(target)
            if not here:  # slth/__init__.py gathers the core
                if there in EDGE:
                    found.append(f"{name}: import slth must not load {there}")
            elif not there:
                if here != "experiments":  # a program starts at the front door
                    found.append(f"{name}: import from a module, not from slth itself")
            elif here != there and STEP.get(there, len(STEPS)) >= STEP[here]:
                found.append(f"{name}: {here} must not import {there}")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append("cycle: " + " -> ".join(error.args[1]))
    return found


def test_imports_point_one_way(root: Path):
    assert modules(root), "no module was found: the test looks in the wrong place"
    assert faults(root) == []
    assert {place(name) for name in modules(root)} - {""} == set(STEP), "STEPS names what is not there"


BROKEN = {  # behaviour: (module, its text, what must be said)
    "upwards": ("slth/nn/layers.py", "from slth.source import Source", "nn must not import source"),
    "sideways": ("slth/ticket.py", "import slth.certificate", "ticket must not import certificate"),
    "relative": ("slth/nn/layers.py", "from ..source import S", "nn must not import source"),
    "inside a function": (
        "slth/random.py",
        "def f():\n    import slth.ticket",
        "random must not import ticket",
    ),
    "foreign library": ("slth/source.py", "import scipy.signal", "the core must not import scipy"),
    "package root": ("slth/source.py", "from slth import __version__", "not from slth itself"),
    "edge in slth": ("slth/__init__.py", "from slth import data", "import slth must not load data"),
    "unplaced": ("slth/utils.py", "", "has no place in STEPS"),
}


@pytest.mark.parametrize("name, text, message", BROKEN.values(), ids=BROKEN.keys())
def test_each_fault_is_seen(tmp_path: Path, name: str, text: str, message: str):
    clean = {
        "slth/__init__.py": "",
        "slth/random.py": "import numpy as np",
        "slth/data.py": "import optax",
        "slth/nn/__init__.py": "from slth.nn.layers import Conv",
        "slth/nn/layers.py": "from slth.random import key\nfrom .fold import fold",
        "slth/nn/fold.py": "import functools",
    }
    for path, content in clean.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert faults(tmp_path) == []
    (tmp_path / name).write_text(text)
    assert len(faults(tmp_path)) == 1
    assert message in faults(tmp_path)[0]


def test_a_cycle_is_seen(tmp_path: Path):
    (tmp_path / "slth" / "nn").mkdir(parents=True)
    (tmp_path / "slth" / "nn" / "a.py").write_text("from slth.nn import b")
    (tmp_path / "slth" / "nn" / "b.py").write_text("from slth.nn.a import x")
    assert any(fault.startswith("cycle: slth.nn.") for fault in faults(tmp_path))


def loaded(statement: str, root: Path) -> list[str]:
    """Which of the heavy libraries a fresh interpreter holds after the statement."""
    program = f"{statement}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    return run.stdout.split()


def test_the_core_loads_no_heavy_library(root: Path):
    core = [name for name in modules(root) if place(name) not in EDGE]
    assert loaded("import slth", root) == []
    assert loaded("import " + ", ".join(core), root) == []


def test_a_heavy_library_is_seen(root: Path):
    assert "optax" in loaded("import slth, optax", root)
