"""docs/reference.md is what the code says, and the code says enough; the other pages name what there is."""

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"`((?:slth|experiments|benchmarks|tests)(?:\.\w+)+)(?:\([^`]*\))?`")
FILE = re.compile(r"`((?:slth|experiments|benchmarks|tests|conf|docs)/[\w./+-]*)`")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def generator() -> ModuleType:
    """docs/make_reference.py as a module; docs is no package."""
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = generator()


def test_the_reference_is_not_older_than_the_code():
    written = REFERENCE.PAGE.read_text(encoding="utf-8")
    assert written == REFERENCE.page(), "docs/reference.md is older than the code: run `make reference`"


def test_every_package_of_the_library_is_in_the_reference():
    packages = {f"slth.{path.parent.name}" for path in (ROOT / "slth").glob("*/__init__.py")}
    assert packages <= set(REFERENCE.PACKAGES)


@pytest.mark.parametrize("package", REFERENCE.PACKAGES)
def test_every_public_name_is_documented_in_order_and_by_example(package: str):
    names = REFERENCE.names_of(package)
    assert names
    assert [fault for name in names for fault in REFERENCE.faults(name)] == []


@pytest.mark.parametrize("package", REFERENCE.PACKAGES)
def test_the_names_are_those_that_an_import_finds(package: str):
    module = importlib.import_module(package)
    for name in REFERENCE.names_of(package):
        found = getattr(module, name.public.rpartition(".")[2])
        if isinstance(name.node, ast.FunctionDef | ast.ClassDef):
            assert found.__name__ == name.node.name


GOOD = "Twice x.\n\nArgs:\n  x: a number.\nReturns: 2 x.\n\nExample:\n  >>> twice = 2\n\nSource: Euler."
BROKEN = {  # behaviour: (docstring, what must be said)
    "good": (GOOD, []),
    "none": ("", ["m.f has no docstring"]),
    "no example": ("Twice x.", ["m.f has no Example"]),
    "order": (
        "Twice x.\n\nReturns: 2 x.\nArgs:\n  x: a number.\n\nExample:\n  >>> twice = 2",
        [
            "m.f has the sections Returns, Args, Example, and their order is "
            "Args, Returns, Raises, Example, Source"
        ],
    ),
    "bare prompts": (
        "Twice x.\n\n>>> twice = 2",
        ["m.f has prompts outside of its section Example", "m.f has no Example"],
    ),
    "no import": (
        "Twice x.\n\nExample:\n  >>> np.ones(2)",
        ["m.f has an example that uses np without importing it"],
    ),
}


@pytest.mark.parametrize("doc, said", BROKEN.values(), ids=BROKEN.keys())
def test_each_fault_of_a_docstring_is_seen(doc: str, said: list[str]):
    node = ast.parse("def f(x): ...").body[0]
    assert list(REFERENCE.faults(REFERENCE.Name("m.f", "m", node, doc))) == said


def test_headings_that_look_alike_have_addresses_of_their_own():
    found = REFERENCE.anchors(["## slth.nn.Apply", "### slth.nn.apply", "text"])
    assert found == {"## slth.nn.Apply": "slthnnapply", "### slth.nn.apply": "slthnnapply-1"}


def test_every_link_of_the_reference_leads_somewhere():
    text = REFERENCE.page()
    places = set(REFERENCE.anchors(text.split("\n\n")).values())
    links = re.findall(r"\]\(#([^)]*)\)", text)
    assert len(links) > 100
    assert set(links) <= places


def unknown(text: str) -> list[str]:
    """Dotted names of the project in backticks that cannot be imported, and paths that are not there."""
    wrong = []
    for dotted in NAME.findall(text):
        parts = dotted.split(".")
        for count in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:count]))
            except ModuleNotFoundError:
                continue
            for part in parts[count:]:
                found = getattr(found, part, None)
            if found is None:
                wrong.append(dotted)
            break
        else:
            wrong.append(dotted)
    paths = (path for path in FILE.findall(text) if "NAME" not in path)
    return wrong + [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_name_in_a_page_exists(page: Path):
    if page.name == "CHANGELOG.md":
        pytest.skip("it also names what is gone")
    assert unknown(page.read_text(encoding="utf-8")) == []


def test_a_name_that_is_gone_is_seen():
    text = "`slth.nn.Conv`, `slth.nn.graph(network)`, `slth.gone.f`, `slth.nn.gone`, `slth/gone.py`, `slth`"
    assert unknown(text) == ["slth.gone.f", "slth.nn.gone", "slth/gone.py"]


def test_every_name_in_the_code_exists():
    """Docstrings too refer to what there is."""
    wrong = {}
    for path in (ROOT / "slth").rglob("*.py"):
        if found := unknown(path.read_text(encoding="utf-8")):
            wrong[str(path.relative_to(ROOT))] = found
    assert wrong == {}
