"""Writes docs/reference.md from the code: ``python docs/make_reference.py``, or ``make reference``.

Every public name has a section with its signature and its docstring. The code is read, not imported, so the
page does not depend on the machine. tests/test_reference.py fails where the page is older than the code.
"""

import ast
import builtins
import doctest
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference.md"
PACKAGES = (
    *("slth", "slth.nn", "slth.subset_sum", "slth.source", "slth.construction", "slth.ticket"),
    *("slth.evaluate", "slth.compact", "slth.certificate", "slth.interop", "slth.data", "slth.train"),
    *("slth.report", "slth.coding", "slth.refinement", "slth.quantise", "slth.export", "slth.interop.jaxpr"),
    *("slth.cli", "slth.pruning", "slth.planting"),
)
SECTIONS = ("Args", "Returns", "Raises", "Example", "Source")
"""Sections of a docstring in their order; the mathematics, or the summary, stands before all of them."""
WIDTH = 100
"""Longest signature that stands on one line."""

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


class Name(NamedTuple):
    """A public name and where it is defined."""

    public: str
    """Such as ``slth.nn.Conv``."""
    module: str
    """Such as ``slth.nn.layers``."""
    node: Definition
    doc: str
    """Its docstring; for a constant the string below it."""

    @property
    def place(self) -> str:
        """The module and the name there, the same for all public names of one thing."""
        return f"{self.module}.{defined(self.node)}"


def path_of(module: str) -> Path | None:
    """The file of a module, None where there is none."""
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


@cache
def tree_of(module: str) -> ast.Module:
    """The parsed text of a module."""
    path = path_of(module)
    assert path is not None, f"{module} is no module"
    return ast.parse(path.read_text(encoding="utf-8"))


def defined(node: ast.AST) -> str | None:
    """The name that a statement defines."""
    match node:
        case ast.FunctionDef(name) | ast.ClassDef(name):
            return name
        case ast.Assign([ast.Name(name)]) | ast.AnnAssign(ast.Name(name)):
            return name
    return None


def exported(module: str) -> list[str]:
    """The names in ``__all__``; of a module without it, its public functions and classes."""
    body = tree_of(module).body
    for node in body:
        if isinstance(node, ast.Assign) and defined(node) == "__all__":
            return list(ast.literal_eval(node.value))
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in body if isinstance(node, kinds) and not node.name.startswith("_")]


def resolve(module: str, name: str) -> tuple[str, Definition, str] | None:
    """Module, statement and docstring of what a module calls by a name; None for a submodule."""
    body = tree_of(module).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if defined(node) == name:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                return module, node, ast.get_docstring(node) or ""
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            return module, node, string_of(after)
    for node in body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "slth":
            assert node.module is not None
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    inner = f"{node.module}.{alias.name}"
                    return None if path_of(inner) else resolve(node.module, alias.name)
    raise LookupError(f"{module} has no {name}")


def string_of(node: ast.AST | None) -> str:
    """The text of a statement that is a string, such as the one that describes a constant; else nothing."""
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return textwrap.dedent(node.value.value).strip()
    return ""


def names_of(module: str) -> list[Name]:
    """The public names of a module, submodules aside."""
    found = ((name, resolve(module, name)) for name in exported(module))
    return [Name(f"{module}.{name}", *place) for name, place in found if place is not None]


def split(doc: str) -> list[tuple[str, str]]:
    """The parts of a docstring, (section, text); the first part is the summary and has no section."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in doc.splitlines():
        heading, colon, rest = line.partition(":")
        if colon and heading in SECTIONS:
            parts.append((heading, [rest.strip()] if rest.strip() else []))
        else:
            parts[-1][1].append(line)
    return [(heading, textwrap.dedent("\n".join(lines)).strip("\n")) for heading, lines in parts]


def faults(name: Name) -> Iterator[str]:
    """What is wrong with a docstring: nothing there, sections out of order, no example."""
    if not name.doc:
        yield f"{name.public} has no docstring"
        return
    parts = split(name.doc)
    found = [heading for heading, _ in parts[1:]]
    if found != [heading for heading in SECTIONS if heading in found]:
        yield f"{name.public} has the sections {', '.join(found)}, and their order is {', '.join(SECTIONS)}"
    if any(">>>" in text for heading, text in parts if heading != "Example"):
        yield f"{name.public} has prompts outside of its section Example"
    examples = [text for heading, text in parts if heading == "Example"]
    if isinstance(name.node, ast.FunctionDef | ast.ClassDef) and not any(">>>" in text for text in examples):
        yield f"{name.public} has no Example"
    for missing in (name for text in examples for name in undefined(text)):
        yield f"{name.public} has an example that uses {missing} without importing it"


def undefined(example: str) -> list[str]:
    """Names that an example uses and neither imports nor makes."""
    source = "".join(part.source for part in doctest.DocTestParser().get_examples(example))
    known, used = set(dir(builtins)), []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(name, ast.Load()):
                used.append(name)
            case ast.Name(name) | ast.FunctionDef(name) | ast.ClassDef(name) | ast.arg(name):
                known.add(name)
            case ast.ExceptHandler(name=str(name)):
                known.add(name)
            case ast.Import(names) | ast.ImportFrom(names=names):
                known |= {alias.asname or alias.name.partition(".")[0] for alias in names}
    return [name for name in dict.fromkeys(used) if name not in known]


def members(module: str, node: ast.ClassDef) -> list[tuple[Definition, str]]:
    """Fields of a class and of its bases in slth, and its own public methods, with what is said of each."""
    found: dict[str, tuple[Definition, str]] = {}
    for base in node.bases:
        with suppress(LookupError):  # a base of another library
            place = resolve(module, ast.unparse(base))
            if place is not None and isinstance(place[1], ast.ClassDef):
                inherited = members(place[0], place[1])
                found |= {str(defined(f)): (f, doc) for f, doc in inherited if isinstance(f, ast.AnnAssign)}
    for child, after in zip(node.body, [*node.body[1:], None], strict=True):
        name = defined(child)
        if name is None or name.startswith("_"):
            continue
        if isinstance(child, ast.FunctionDef):
            found[name] = child, ast.get_docstring(child) or ""
        elif isinstance(child, ast.AnnAssign) and "ClassVar" not in ast.unparse(child.annotation):
            found[name] = child, string_of(after)
    return list(found.values())


def is_property(node: ast.FunctionDef) -> bool:
    """Whether a method is read as an attribute."""
    return any(ast.unparse(mark) in ("property", "cached_property") for mark in node.decorator_list)


def signature(public: str, module: str, node: Definition) -> str:
    """A name with its arguments as the code has them."""
    match node:
        case ast.ClassDef(bases=bases):
            fields = [child for child, _ in members(module, node) if isinstance(child, ast.AnnAssign)]
            if [ast.unparse(base) for base in bases] == ["Protocol"] or not fields:
                return public
            return called(public, [ast.unparse(field) for field in fields], "")
        case ast.FunctionDef(args=arguments, returns=returns):
            plain = [*arguments.posonlyargs, *arguments.args]
            defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
            texts = [argument(*pair) for pair in zip(plain, defaults, strict=True)]
            if texts and texts[0] in ("self", "cls"):
                texts = texts[1:]
            if arguments.vararg is not None:
                texts.append(f"*{ast.unparse(arguments.vararg)}")
            elif arguments.kwonlyargs:
                texts.append("*")
            pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            texts += [argument(*pair) for pair in pairs]
            if arguments.kwarg is not None:
                texts.append(f"**{ast.unparse(arguments.kwarg)}")
            return called(public, texts, f" -> {ast.unparse(returns)}" if returns is not None else "")
        case ast.Assign(value=value) | ast.AnnAssign(value=value) if value is not None:
            text = ast.unparse(value)
            return f"{public} = {text}" if len(text) < WIDTH else public
    return public


def argument(node: ast.arg, default: ast.expr | None) -> str:
    """One argument of a function."""
    text = ast.unparse(node)
    if default is None:
        return text
    return (
        f"{text} = {ast.unparse(default)}"
        if node.annotation is not None
        else f"{text}={ast.unparse(default)}"
    )


def called(name: str, arguments: list[str], returns: str) -> str:
    """A signature on one line, or with a line for each argument."""
    short = f"{name}({', '.join(arguments)}){returns}"
    if len(short) <= WIDTH:
        return short
    inside = ",\n".join(f"    {text}" for text in arguments)
    return f"{name}(\n{inside},\n){returns}"


def prose(text: str) -> str:
    """The text of a docstring as Markdown: mathematics and code in its marks."""
    text = re.sub(r":math:`([^`]*)`", lambda match: "$`" + " ".join(match[1].split()) + "`$", text)
    return re.sub(r"``([^`]*)``", r"`\1`", text)


def rendered(doc: str) -> Iterator[str]:
    """A docstring as Markdown, section by section."""
    for heading, text in split(doc):
        if heading == "":
            yield prose(text)
        elif heading == "Example":
            yield f"```python\n{text}\n```"
        elif heading == "Args" and re.match(r"[\w, *]+: ", text):
            entries = re.split(r"\n(?=\S)", text)
            pairs = (entry.partition(": ") for entry in entries)
            lines = [f"- `{names}`: {prose(' '.join(said.split()))}" for names, _, said in pairs]
            yield "*Arguments*\n\n" + "\n".join(lines)
        else:
            yield f"*{'Arguments' if heading == 'Args' else heading}*: {prose(text)}"


def section(name: Name) -> Iterator[str]:
    """The section of one name."""
    yield f"### {name.public}"
    yield f"```python\n{signature(name.public, name.module, name.node)}\n```"
    yield from rendered(name.doc)
    if not isinstance(name.node, ast.ClassDef):
        return
    fields, methods = [], []
    for node, doc in members(name.module, name.node):
        if isinstance(node, ast.FunctionDef) and not is_property(node):
            methods.append((node, doc))
        elif doc:
            fields.append(f"- `{defined(node)}`: {prose(' '.join(doc.split()))}")
    if fields:
        yield "*Attributes*\n\n" + "\n".join(fields)
    short = name.public.rpartition(".")[2]
    for node, doc in methods:
        yield f"#### {name.public}.{node.name}"
        yield f"```python\n{signature(f'{short}.{node.name}', name.module, node)}\n```"
        yield from rendered(doc)


def anchors(blocks: list[str]) -> dict[str, str]:
    """The address that GitHub gives each heading: one that is taken gets a number."""
    found: dict[str, str] = {}
    for block in blocks:
        if match := re.match(r"#+ (.*)", block):
            base = re.sub(r"[^\w -]", "", match[1].lower()).replace(" ", "-")
            count = sum(
                re.fullmatch(rf"{re.escape(base)}(-\d+)?", other) is not None for other in found.values()
            )
            found[match[0]] = f"{base}-{count}" if count else base
    return found


def page() -> str:
    """The whole page."""
    title = "# Reference"
    blocks, names = [title], {module: names_of(module) for module in PACKAGES}
    first: dict[str, str] = {}  # the public name under which a thing has its section
    for module in PACKAGES:
        doc = (ast.get_docstring(tree_of(module)) or "").split("\n\n")[0]
        blocks += [f"## {module}", prose(" ".join(doc.split()))]
        for name in names[module]:
            if name.place not in first:
                first[name.place] = name.public
                blocks += section(name)
    places = anchors(blocks)

    def link(name: Name) -> str:
        public = first[name.place]
        return f"[{name.public.rpartition('.')[2]}](#{places[f'### {public}']})"

    index = [
        f"- [`{module}`](#{places[f'## {module}']}): {', '.join(map(link, names[module]))}"
        for module in PACKAGES
    ]
    head = [
        "Every public name with its signature and its docstring. `make reference` writes this page from the "
        "code; the tests run its examples and fail where the page is older than the code. The guides beside "
        "it say what the names are for: [tickets.md](tickets.md) first.",
        "\n".join(index),
    ]
    return "\n\n".join([title, *head, *blocks[1:]]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT), file=sys.stderr)
