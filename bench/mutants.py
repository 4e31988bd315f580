"""Do the tests of the deciding modules notice when one operator is changed.

    python -m bench.mutants [MODULE ...]      prints survivors, and the share that was noticed

A mutant is the module with one node of its syntax tree changed. It is put in place of the module
on import, in a process of its own, so that the file itself is never touched.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path

ROOT = Path(__file__).parents[1]
JOBS = 2
MEDIA = " ".join(  # on real devices, as root
    f"integration/test_verifier.py::test_{what}"
    for what in (
        "another_medium_under_the_same_name_is_gone",
        "a_medium_that_is_being_written_is_busy",
        "a_medium_that_dies_while_it_is_copied_is_named_with_the_place",
        "a_medium_that_shrinks_while_it_is_copied_is_gone",
        "what_is_no_file_is_not_read_and_does_not_block",
    )
)
TESTS = {
    "core/graph": "unit/core/test_graph.py",
    "core/floor": "unit/core/test_floor.py",
    "core/memory": "unit/core/test_memory.py",
    "core/lifecycle": "unit/core/test_lifecycle.py unit/core/test_images.py",
    "core/history": "unit/core/test_history.py",
    "core/supervision": "unit/core/test_supervision.py unit/core/test_services.py",
    "adapters/state_file": "unit/adapters/test_state_file.py",
    "verify/trust": "unit/verify/test_trust.py unit/verify/test_hostile_keys.py",
    "verify/keys": "unit/verify/test_keys.py unit/verify/test_hostile_keys.py",
    "verify/pinned": "unit/verify/test_pinned.py unit/verify/test_trust.py",
    "verify/pipeline": "unit/verify/test_pipeline.py unit/verify/test_offline.py",
    "verify/store": "unit/verify/test_store.py unit/verify/test_pipeline.py",
    "verify/carrier": "unit/verify/test_carrier.py unit/verify/test_probe.py",
    "verify/medium": f"unit/verify/test_medium.py unit/verify/test_carrier.py {MEDIA}",
    "verify/identity": f"unit/verify/test_identity.py {MEDIA}",
}
OPPOSITES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
VARIABLE = "EXTST_MUTANT"  # "core/graph:7" for the process that imports the mutant


def changes(node: ast.AST) -> Iterator[ast.AST]:  # noqa: C901 - one case for each kind of node
    """What may stand in place of a node."""
    match node:
        case ast.Compare(left, [op, *ops], values) if type(op) in OPPOSITES:
            yield ast.Compare(left, [OPPOSITES[type(op)](), *ops], values)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            yield from values
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.BinOp(left, ast.Add(), right):
            yield ast.BinOp(left, ast.Sub(), right)
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() as value):
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        case ast.Return(value) if value is not None and not is_constant(value, None):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr(ast.Call()) | ast.Continue() | ast.AugAssign():
            yield ast.Pass()
        case ast.If(_, then, other):
            yield ast.If(ast.Constant(True), then, other)
            yield ast.If(ast.Constant(False), then, other)
        case ast.IfExp(_, this, that):
            yield this
            yield that
        case _:
            pass


def is_constant(node: ast.AST, value: object) -> bool:
    """Whether the node is this very constant."""
    return isinstance(node, ast.Constant) and node.value is value


def mutants(source: str) -> Iterator[tuple[int, str, ast.Module]]:
    """Line, what was changed, and the changed tree, for every change of every node."""
    tree = ast.parse(source)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    # How a dataclass is made is no decision.
    spared = {part for node in classes for made in node.decorator_list for part in ast.walk(made)}
    for number, node in enumerate(ast.walk(tree)):
        if node in spared:
            continue
        for change in changes(node):
            changed = deepcopy(tree)
            target = list(ast.walk(changed))[number]
            parent, name, index = place_of(changed, target)
            new = ast.copy_location(deepcopy(change), target)
            if index is None:
                setattr(parent, name, new)
            else:
                getattr(parent, name)[index] = new
            what = f"{shorten(node)}  ->  {shorten(change)}"
            yield node.lineno, what, ast.fix_missing_locations(changed)  # type: ignore[attr-defined]


def place_of(tree: ast.AST, target: ast.AST) -> tuple[ast.AST, str, int | None]:
    """The parent of a node, the parent's field, and the place in it where that is a list."""
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is target:
                return parent, name, None
            if isinstance(value, list):
                for index, item in enumerate(value):
                    if item is target:
                        return parent, name, index
    raise LookupError(target)


def shorten(node: ast.AST) -> str:
    """The first line of the node's source."""
    return ast.unparse(node).splitlines()[0][:60]


class Spoiler(SourceFileLoader):
    """Loads one mutant in place of its module."""

    def source_to_code(self, data: object, path: object, **_: object) -> object:  # type: ignore[override]
        """Compile the mutant."""
        found = list(mutants(bytes(data).decode()))  # type: ignore[call-overload]
        return compile(found[int(os.environ[VARIABLE].split(":")[1])][2], str(path), "exec")

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        """Never from the cache of compiled modules."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class Finder:
    """Finds that one module before anybody else does."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """As importlib asks for it."""
        if name != "extsloader." + os.environ[VARIABLE].split(":")[0].replace("/", "."):
            return None
        spec = PathFinder.find_spec(name, path, target)  # type: ignore[arg-type]
        if spec and spec.origin:
            spec.loader = Spoiler(name, spec.origin)
        return spec


def notices(module: str, mutant: str) -> bool:
    """Whether a test fails, or does not end; a mutant that cannot be imported is noticed too."""
    options = "-qx -p bench.mutants -p no:cacheprovider --hypothesis-profile ci --timeout 20"
    tests = [f"tests/{path}" for path in TESTS[module].split()]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options.split(), *tests],
            cwd=ROOT, env=os.environ | {VARIABLE: mutant}, check=False,
            capture_output=True, timeout=90,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def examine(module: str) -> str:
    """Print the survivors of a module; returns its share of mutants that were noticed."""
    if notices(module, ":"):
        sys.exit(f"cannot judge {module}: its tests fail without a mutant")
    found = list(mutants((ROOT / f"extsloader/{module}.py").read_text()))
    with ThreadPoolExecutor(JOBS) as pool:
        names = [f"{module}:{number}" for number in range(len(found))]
        noticed = list(pool.map(partial(notices, module), names))
    for (line, what, _), good in zip(found, noticed, strict=True):
        if not good:
            print(f"  survives: extsloader/{module}.py:{line}  {what}", flush=True)
    return f"{module:20} {sum(noticed)} of {len(found)}  {sum(noticed) / len(found):.0%}"


if __name__ == "__main__":
    for name in sys.argv[1:] or TESTS:
        print(examine(name), flush=True)
elif VARIABLE in os.environ:
    sys.meta_path.insert(0, Finder())
