"""The house plan: who may import whom, and what the web process never loads."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, clean_environment

PACKAGE = ROOT / "musubitlx"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [ROOT / "webgui.py", *PACKAGE.rglob("*.py")]
}

# A module imports from its own row's left and from the rows below it, never from above.
LAYERS = (
    (
        "webgui",
        "musubitlx.runner",
        "musubitlx.inspector",
        "musubitlx.fetching",
        "musubitlx.read_options",
    ),
    (
        "musubitlx.bootstrap",
        "musubitlx.serving",
        "musubitlx.checks",
        "musubitlx.autocaption",
        "musubitlx.history",
        "musubitlx.events",
        "musubitlx.board",
        "musubitlx.comparison",
        "musubitlx.report",
        "musubitlx.queues",
    ),
    ("musubitlx.commands", "musubitlx.surroundings"),
    (
        "musubitlx.endings",
        "musubitlx.recording",
        "musubitlx.watches",
        "musubitlx.closing",
        "musubitlx.execution",
    ),
    ("musubitlx.remedies",),
    ("musubitlx.estimate", "musubitlx.caches", "musubitlx.recipes"),
    ("musubitlx.origins", "musubitlx.samples", "musubitlx.modelcard", "musubitlx.outputs"),
    ("musubitlx.curves",),
    ("musubitlx.hub", "musubitlx.downloads", "musubitlx.weights"),
    (
        "musubitlx.access",
        "musubitlx.configs",
        "musubitlx.records",
        "musubitlx.jobs",
        "musubitlx.measured",
    ),
    (
        "musubitlx.health",
        "musubitlx.uploads",
        "musubitlx.captioned",
        "musubitlx.edits",
        "musubitlx.trash",
        "musubitlx.notes",
    ),
    (
        "musubitlx.projects",
        "musubitlx.looks",
        "musubitlx.models",
        "musubitlx.interpreters",
        "musubitlx.captionpython",
        "musubitlx.musubi",
        "musubitlx.settings",
        "musubitlx.flagrules.given",
        "musubitlx.flagrules.kinds",
        "musubitlx.flagrules.optimizer",
        "musubitlx.flagrules.torch_schedule",
        "musubitlx.flagrules.schedule",
        "musubitlx.flagrules.network",
        "musubitlx.flagrules.paths",
        "musubitlx.flagrules",
        "musubitlx.flags",
    ),
    ("musubitlx.archives", "musubitlx.imports"),
    (
        "musubitlx.captions",
        "musubitlx.pictures",
        "musubitlx.bell",
        "musubitlx.diagnose",
        "musubitlx.targets",
        "musubitlx.messages",
        "musubitlx.notify",
        "musubitlx.resources",
    ),
    (
        "musubitlx.assets",
        "musubitlx.processes",
        "musubitlx.births",
        "musubitlx.metrics",
        "musubitlx.schedules",
        "musubitlx.progress",
    ),
    ("musubitlx.logsearch",),
    ("musubitlx.captioners",),
    ("musubitlx.home", "musubitlx.lease", "musubitlx.logs", "musubitlx.options", "musubitlx.yamls"),
    (
        "musubitlx.presets",
        "musubitlx.known_errors",
        "musubitlx.prompts",
        "musubitlx.bars",
        "musubitlx.tensors",
        "musubitlx.buckets",
    ),
    ("musubitlx.errors",),
    ("musubitlx",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PROGRAMS = (
    "musubitlx.runner",
    "musubitlx.captioning",
    "musubitlx.practice",
    "musubitlx.bootstrap",
    "musubitlx.inspector",
    "musubitlx.fetching",
    "musubitlx.read_options",
)
HEAVY = ("torch", "transformers", "diffusers", "accelerate")
LAZY = (
    "torch",
    "PIL",
    "yaml",
    "numpy",
    "imagehash",
    "scipy",
    "pillow_heif",
    "toml",
    "safetensors",
    "transformers",
    "musubitlx.practice",
)


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Every module a file imports, as full dotted names; `top_only`: as it is itself imported."""
    found, tree = set(), ast.parse(path.read_text(encoding="utf-8"))
    nodes = at_import(tree) if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def at_import(tree: ast.AST):
    """Every node that runs when the module is imported: not the bodies of functions."""
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from at_import(child)


def belongs(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def ours(names: set[str]) -> set[str]:
    """The modules of this project among what is imported."""
    return {name for name in names if name in MODULES}


def is_part_of(module: str, *programs: str) -> bool:
    return any(belongs(module, program) for program in programs)


@pytest.mark.parametrize("module", MODULES)
def test_only_webgui_knows_flask(module):
    used = {name.split(".")[0] for name in imports(MODULES[module])}
    assert module == "webgui" or "flask" not in used
    if "werkzeug" in used and module != "webgui":  # Flask's own server, one of three to choose from
        assert module == "musubitlx.serving"
        assert not any(
            belongs(name, "werkzeug") for name in imports(MODULES[module], top_only=True)
        )
        own = {name for name in imports(MODULES[module]) if belongs(name, "werkzeug")}
        assert all(belongs(name, "werkzeug.serving") for name in own)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_webgui(module):
    assert not any(belongs(name, "webgui") for name in imports(MODULES[module]))


@pytest.mark.parametrize(
    "module", [name for name in MODULES if not is_part_of(name, *PROGRAMS[1:3])]
)
def test_nothing_heavy_is_imported_outside_the_programs(module):
    assert not any(belongs(name, heavy) for name in imports(MODULES[module]) for heavy in HEAVY)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_heavy_is_imported_at_module_level_anywhere(module):
    top = imports(MODULES[module], top_only=True)
    assert not any(belongs(name, heavy) for name in top for heavy in HEAVY)


@pytest.mark.parametrize("module", MODULES)
def test_nobody_imports_the_programs(module):
    for program in PROGRAMS:
        if not belongs(module, program):
            assert not any(belongs(name, program) for name in imports(MODULES[module]))


def test_every_module_has_its_place_in_the_house():
    placed = {name for name in MODULES if not is_part_of(name, *PROGRAMS[1:3])}
    assert placed == set(LEVEL)


@pytest.mark.parametrize("module", LEVEL)
def test_imports_run_downwards_only(module):
    level, row = LEVEL[module], LAYERS[LEVEL[module]]
    for name in ours(imports(MODULES[module])) - {module}:
        beside = LEVEL[name] == level and row.index(name) < row.index(module)
        assert LEVEL[name] > level or beside, f"{module} imports {name}"


def test_no_import_leads_back_to_where_it_began():
    graph = {module: ours(imports(path)) - {module} for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way, module])
        if module not in done:
            for name in sorted(graph[module] - {"musubitlx"}):
                visit(name, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_bootstrap_needs_the_standard_library_only():
    reached, waiting = set(), ["musubitlx.bootstrap"]
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        names = imports(MODULES[module], top_only=True)
        waiting += ours(names)
        foreign = {name.split(".")[0] for name in names} - {"musubitlx"}
        assert foreign <= sys.stdlib_module_names, module


def loaded(code: str) -> set[str]:
    """The modules that are loaded after `code` has run in a fresh interpreter."""
    code += "\nimport sys; print('\\n'.join(sorted(sys.modules)))"
    command = [sys.executable, "-c", code]
    told = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=True
    )
    return set(told.stdout.split())


def test_the_web_process_starts_light():
    modules = loaded("import webgui")
    assert "flask" in modules
    assert modules & set(LAZY) == set()


def test_the_runner_starts_light():
    modules = loaded("import musubitlx.runner")
    assert modules & {*LAZY, "flask", "werkzeug", "gevent"} == set()


@pytest.mark.parametrize("module", MODULES)
def test_no_shell_is_ever_used(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = f"{node.value.id}.{node.attr}"
            assert called not in ("os.system", "os.popen", "subprocess.getoutput", "pickle.loads")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec")


@pytest.mark.parametrize("module", MODULES)
def test_every_public_thing_says_what_it_does(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{module} has no docstring"
    assert list(undocumented(tree, module)) == []


def undocumented(node: ast.AST, where: str):
    """Public functions and classes without a docstring.

    What stands inside a function is left out, and so is a method that does what
    the method of its base class says.
    """
    classes = {child.name: child for child in node.body if isinstance(child, ast.ClassDef)}
    for child in node.body:
        if isinstance(child, DEFINITIONS) and not child.name.startswith("_"):
            if not ast.get_docstring(child):
                yield f"{where}.{child.name}"
            if isinstance(child, ast.ClassDef):
                told = {name for base in child.bases for name in documented(classes, base)}
                inside = undocumented(child, f"{where}.{child.name}")
                yield from (name for name in inside if name.rsplit(".", 1)[1] not in told)


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def documented(classes: dict[str, ast.ClassDef], base: ast.expr) -> set[str]:
    """The documented methods of a base class of the same file, those it inherits included."""
    found = classes.get(base.id) if isinstance(base, ast.Name) else None
    if found is None:
        return set()
    own = {
        one.name for one in found.body if isinstance(one, DEFINITIONS) and ast.get_docstring(one)
    }
    return own.union(*(documented(classes, further) for further in found.bases))


@pytest.mark.parametrize("module", MODULES)
def test_no_file_names_the_place_it_was_written_at(module):
    text = MODULES[module].read_text(encoding="utf-8")
    assert str(ROOT) + os.sep not in text
    assert str(Path.home()) + os.sep not in text or Path.home() == Path("/")
