"""Promises about the tree: nothing private in it, all of it documented, all of it bounded."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

# Built from pieces, so that this file does not hold what it looks for.
HOSTS = [
    "pypi" + r"\.org",
    "pythonhosted" + r"\.org",
    "npmjs" + r"\.(org|com)",
    r"conda\." + "anaconda",
    r"deb\." + "debian",
]
MACHINE = [r"(?<![\w.}>/])/(" + "|".join(["home", "root", "work", "opt", "Users"]) + r")/\w"]
SECRETS = ["(index-url|find-links)" + r"\s*=", "-----BEGIN" + " [A-Z ]*PRIVATE KEY"]


def tracked(root: Path) -> list[Path]:
    """Files under version control; all files outside a checkout (an unpacked archive, say)."""
    if not (root / ".git").exists():
        pytest.skip("not a git checkout: cannot tell the project's files from others")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True)
    paths = [root / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def private_lines(text: str) -> list[str]:
    """Lines that name a package registry, a folder of one machine, or a key."""
    pattern = re.compile("|".join([*HOSTS, *MACHINE, *SECRETS]))
    return [line for line in text.splitlines() if pattern.search(line)]


def test_nothing_private_is_tracked(root: Path):
    found = {}
    for path in tracked(root):
        try:
            lines = private_lines(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue  # a picture or an array
        if lines:
            found[str(path.relative_to(root))] = lines
    assert found == {}


@pytest.mark.parametrize(
    "line",
    ["see https://" + "pypi" + ".org/simple", "open('/" + "home/me/data')", "DATA=/" + "work/data"],
)
def test_a_private_line_is_seen(line: str):
    assert private_lines(f"fine\n{line}\nfine") == [line]


@pytest.mark.parametrize("line", ["a/work/b", "https://example.com/home/x", "$HOME/root/x", "1/2"])
def test_an_innocent_line_is_not(line: str):
    assert private_lines(line) == []


def undocumented(path: Path) -> Iterator[str]:
    """Public modules, classes, functions and methods without a docstring."""

    def visit(node: ast.AST, prefix: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}.{child.name}"
                if child.name.startswith("_"):
                    continue
                if not ast.get_docstring(child):
                    yield name
                if isinstance(child, ast.ClassDef):
                    yield from visit(child, name)
            elif isinstance(child, ast.If | ast.Try | ast.With):
                yield from visit(child, prefix)

    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not ast.get_docstring(tree):
        yield path.stem
    yield from visit(tree, path.stem)


def test_every_public_name_has_a_docstring(root: Path):
    missing = {str(p.relative_to(root)): list(undocumented(p)) for p in (root / "slth").rglob("*.py")}
    assert missing
    assert {path: names for path, names in missing.items() if names} == {}


def test_a_missing_docstring_is_seen(tmp_path: Path):
    path = tmp_path / "m.py"
    path.write_text('"""M."""\ndef _f(): 0\ndef g(): 0\nclass C:\n    """C."""\n    def h(self): 0\n')
    assert list(undocumented(path)) == ["m.g", "m.C.h"]


def exported(path: Path) -> list[str] | None:
    """The literal `__all__` of a module, or None."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["__all__"]:
            return list(ast.literal_eval(node.value))
    return None


def test_every_subpackage_exports_a_sorted_list(root: Path):
    packages = [p for p in (root / "slth").rglob("__init__.py") if p.parent.name != "slth"]
    for path in packages:
        names, where = exported(path), str(path.relative_to(root))
        assert names is not None, f"{where} has no __all__"
        # as ruff sorts them: constants, classes, functions
        wanted = sorted(set(names), key=lambda name: (not name.isupper(), not name[0].isupper(), name))
        assert names == wanted, f"__all__ of {where} is not sorted, or repeats a name"


def unbounded(requirements: list[str]) -> list[str]:
    """Requirements without both a lower and an upper bound."""
    found = []
    for text in requirements:
        kinds = {bound.operator for bound in Requirement(text).specifier}
        if not (kinds & {">=", "==", "~="} and kinds & {"<", "==", "~="}):
            found.append(text)
    return found


def test_every_requirement_is_bounded(root: Path):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["project"]["optional-dependencies"]
    assert {"dev", "prepare", "cuda"} <= set(groups)
    for group in [project["build-system"]["requires"], project["project"]["dependencies"]]:
        assert unbounded(group) == []
    assert unbounded([text for group in groups.values() for text in group]) == []


def test_a_missing_bound_is_seen():
    assert unbounded(["a>=1,<2", "b", "c>=1", "d<2", "e==1", "f[x]>=1"]) == [
        "b",
        "c>=1",
        "d<2",
        "f[x]>=1",
    ]
