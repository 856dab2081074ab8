"""The plan of the house as a test: who may import whom, what may touch files, what must stay light."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import loramerge

ROOT = Path(loramerge.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py"))

_L0 = {"errors", "registry", "options"}
MAY_IMPORT = {
    "__init__": {"api"},
    "__main__": {"cli"},
    "errors": set(),
    "registry": {"errors"},
    "options": {"errors"},
    "core": _L0,
    "linalg": _L0 | {"core"},
    "formats": _L0 | {"core"},
    "methods": _L0 | {"core", "linalg"},
    "hub": _L0 | {"core", "formats", "__init__"},
    "workspace": _L0 | {"core", "formats", "hub"},
    "kernels": _L0,
    "models": _L0 | {"core", "formats"},
    "training": _L0 | {"core", "linalg", "formats", "models"},
    "evaluation": _L0 | {"core", "linalg", "kernels", "formats", "models"},
    "engine": _L0 | {"core", "linalg", "methods"},
    "recipe": _L0 | {"core"},
    "api": _L0
    | {"core", "linalg", "formats", "methods", "hub", "workspace", "engine", "recipe", "__init__"}
    | {"models", "training", "evaluation"},
    "search": _L0 | {"core", "methods", "evaluation", "recipe", "api"},
    "report": _L0 | {"core", "linalg", "formats", "methods", "engine", "recipe", "workspace", "api"},
    "demo": _L0 | {"core", "formats", "hub", "api"},
    "cli": {"*"},
}
# Who may open files; who may print; who may use the network. Everybody else gets what they need handed in.
READS = {"core/catalog.py", "core/provenance.py", "formats", "hub", "workspace", "recipe.py", "demo"}
READS |= {"models/text.py", "evaluation/_files.py", "search", "report"}
NETWORK = {"huggingface_hub", "httpx", "httpx2", "requests", "urllib", "socket", "uvicorn", "starlette"}
HEAVY = {"torch", "sklearn", "transformers", "peft", "huggingface_hub", "scipy", "matplotlib", "rich"}


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Dotted names a file imports (leaving out what is only for type checkers)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else list(ast.walk(tree))
    guarded = {id(n) for g in ast.walk(tree) if _is_type_guard(g) for n in ast.walk(g)}
    found = set()
    for node in nodes:
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _is_type_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def own(names: set[str]) -> set[str]:
    """The layers that some dotted names belong to."""
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == "loramerge" and len(parts) > 1:
            known = parts[1] in MAY_IMPORT or (ROOT / parts[1]).exists() or (ROOT / f"{parts[1]}.py").exists()
            found.add(parts[1] if known else "__init__")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    allowed = MAY_IMPORT[layer(path)]

    assert "*" in allowed or own(imports(path)) <= allowed | {layer(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_are_imported_when_they_are_needed(path):
    tops = {name.split(".")[0] for name in imports(path, top_only=True)}
    if path.relative_to(ROOT).parts[:1] == ("demo",) and path.stem in ("model", "train", "digits"):
        pytest.skip("the demo's model is a torch module; it is only imported by the demo")

    assert not tops & HEAVY


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_hub_touches_the_network(path):
    used = {name.split(".")[0] for name in imports(path)} & NETWORK

    assert not used or layer(path) == "hub"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_command_line_prints(path):
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    printed = [f for f in calls if isinstance(f, ast.Name) and f.id == "print"]

    assert not printed


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_opened_where_the_table_says(path):
    where = str(path.relative_to(ROOT))
    names = {"open", "read_text", "read_bytes", "write_text", "write_bytes"}
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    used = {f.id if isinstance(f, ast.Name) else f.attr for f in calls if isinstance(f, ast.Name | ast.Attribute)}

    assert not used & names or where in READS or layer(path) in READS


def test_plugins_do_not_import_plugins():
    for folder in ("methods/merge", "formats", "cli/commands", "evaluation/tasks", "search/samplers"):
        for path in (ROOT / folder).glob("[!_]*.py"):
            package = f"loramerge.{folder.replace('/', '.')}"
            others = {n for n in imports(path) if n.startswith(f"{package}.")}

            assert not {n for n in others if not n.removeprefix(f"{package}.").startswith("_")}, path


def loaded_by(*arguments: str, cwd: Path | None = None) -> tuple[int, set[str]]:
    """Exit code and top-level modules that one command line loads."""
    code = (
        "import sys, json\n"
        "from loramerge.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as e:\n    rc = e.code\n"
        "sys.stderr.write('LOADED' + json.dumps([rc, sorted({m.split('.')[0] for m in sys.modules})]))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd, check=True)
    found = json.loads(run.stderr.rpartition("LOADED")[2])
    return found[0] or 0, set(found[1])


def test_help_is_light():
    code, modules = loaded_by("--help")

    assert code == 0
    assert not modules & HEAVY


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "cli/commands").glob("[!_]*.py")))
def test_every_commands_help_is_light(name):
    code, modules = loaded_by(name, "--help")

    assert code == 0
    assert not modules & HEAVY


def test_show_of_a_local_adapter_imports_no_torch(tmp_path, shared):
    adapter = shared / "data/trained/minilm-trec-patterns"

    code, modules = loaded_by("--format", "json", "show", str(adapter), cwd=tmp_path)

    assert code == 0
    assert not modules & {"torch", "sklearn", "transformers", "peft", "huggingface_hub"}


def test_planning_imports_no_torch(tmp_path, shared):
    folder = shared / "data/trained"
    refs = [str(folder / name) for name in ("minilm-sst2-r8", "minilm-trec-r8")]

    code, modules = loaded_by("merge", *refs, "--plan", cwd=tmp_path)

    assert code == 0
    assert not modules & {"torch", "sklearn", "transformers", "peft", "huggingface_hub"}


@pytest.mark.parametrize(
    "how", [["--rank", "8"], ["--method", "cat"], ["--method", "negate", "--rank", "max"]], ids=str
)
def test_merges_that_only_weigh_import_no_torch(tmp_path, shared, how):
    folder = shared / "data/trained"
    names = ["minilm-sst2-r8"] if "negate" in how else ["minilm-sst2-r8", "minilm-trec-r8"]

    code, modules = loaded_by("merge", *(str(folder / name) for name in names), "-o", "out", *how, cwd=tmp_path)

    assert code == 0
    assert not modules & {"torch", "sklearn", "transformers", "peft"}


def _plugins() -> list[str]:
    folders = ("methods/merge", "formats", "cli/commands", "evaluation/tasks", "search/samplers")
    return [f"loramerge.{f.replace('/', '.')}.{p.stem}" for f in folders for p in sorted((ROOT / f).glob("[!_]*.py"))]


def test_every_plugin_imports_without_torch():
    code = (
        f"import sys, importlib\nfor n in {_plugins()!r}: importlib.import_module(n)\nassert 'torch' not in sys.modules"
    )

    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=False
    )

    assert run.returncode == 0, run.stderr
