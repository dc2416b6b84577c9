"""Change one place of the code after the other, and see whether the tests beside it notice.

python utils/mutants.py --sample 200

Which modules, which of cosmic-ray's operators and which tests: `[tool.mutants]` in pyproject.toml. Changes that are
equal in effect: tests/mutants.toml, each with its reason. Nothing in the working tree is touched: every job works on
a copy of its own. Exits with 1 where fewer changes are noticed or explained than `at_least` says.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import os
import random
import re
import shlex
import shutil
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import SimpleQueue
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("src") / "maskprism"
Fate = Literal["killed", "explained", "survived"]


@dataclass(frozen=True)
class Mutant:
    """A module with one change. was, became: the changed lines, joined and without the space around them."""

    module: str
    line: int
    was: str
    became: str
    code: str

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line}\n  - {self.was}\n  + {self.became}"


@dataclass(frozen=True)
class Explanation:
    """Why no test can notice a change: of the line `was` to the line `became`, or to anything without that."""

    module: str
    was: str
    why: str
    became: str = ""

    def covers(self, mutant: Mutant) -> bool:
        """Whether it is about this change."""
        return (self.module, self.was) == (mutant.module, mutant.was) and self.became in ("", mutant.became)


_OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Eq: ast.NotEq, ast.Is: ast.IsNot, ast.In: ast.NotIn}


class _Meaning(ast.NodeTransformer):
    """Takes out what runs no differently when changed: annotations, docstrings, decorators, imports for types.

    So are whether arguments go by place or by name, which `*` and `/` say, and what `zip` should never find. What is
    said in two ways (`not a == b`) is said in one.
    """

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.UnaryOp(ast.Not(), ast.UnaryOp(ast.Not(), inner)):
                return inner
            case ast.UnaryOp(ast.Not(), ast.Compare(left, [op], right)) if type(op) in _OPPOSITE:
                return ast.Compare(left, [_OPPOSITE[type(op)]()], right)
        return node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "zip":  # strict: a check that should never fail
            node.keywords = []
        return self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.defaults += [default for default in node.kw_defaults if default is not None]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant("")
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns, node.decorator_list = None, []
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = []
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)


def effect(code: str) -> str:
    """The code without what runs no differently when changed. Raises SyntaxError."""
    return ast.dump(_Meaning().visit(ast.parse(code)))


def mutants(modules: Sequence[str], operators: Sequence[str], seed: int) -> Iterator[Mutant]:
    """Every change of the modules, in an order that the seed decides."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    wanted = re.compile("|".join(operators))
    chosen = [get_operator(name)() for name in operator_names() if wanted.fullmatch(name.removeprefix("core/"))]
    codes = {module: (ROOT / SOURCE / f"{module}.py").read_text(encoding="utf-8") for module in modules}
    places = [
        (module, operator, number)
        for module, code in codes.items()
        for tree in [get_ast(code)]
        for operator in chosen
        for number in range(sum(1 for node in ast_nodes(tree) for _ in operator.mutation_positions(node)))
    ]
    random.Random(seed).shuffle(places)
    effects = {module: {effect(code)} for module, code in codes.items()}
    for module, operator, number in places:
        changed = mutate_code(codes[module], operator, number)
        try:
            outcome = effect(changed)
        except SyntaxError:
            continue
        if outcome not in effects[module]:  # nor a change that another operator makes, too
            effects[module].add(outcome)
            yield _described(module, codes[module], changed)


def _described(module: str, code: str, changed: str) -> Mutant:
    before, after = code.splitlines(), changed.splitlines()
    start = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    end = next(i for i, (a, b) in enumerate(zip(before[::-1], after[::-1], strict=False)) if a != b)
    was, became = (" ".join(line.strip() for line in lines[start : len(lines) - end]) for lines in (before, after))
    return Mutant(module, start + 1, was, became, changed)


class Trees:
    """Copies of the code and its tests, one for each job."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self._free: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            tree = folder / str(number)
            for part in ("src", "tests"):
                shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "pyproject.toml", tree)
            # Without this every run would compile the package; with hashes, never a stale file is taken.
            compileall.compile_dir(tree / "src", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
            self._free.put(tree)

    def passes(self, tests: Sequence[str], timeout_s: float, mutant: Mutant | None = None) -> bool:
        """Whether tests pass with a change (or as it is) within that time."""
        from cosmic_ray.testing import TestOutcome, run_tests

        tree = self._free.get()
        command = ["env", f"PYTHONPATH={tree / 'src'}", sys.executable, "-m", "pytest", "-x", "--no-header",
                   "--hypothesis-profile=mutants", f"--rootdir={tree}", f"--config-file={tree / 'pyproject.toml'}",
                   *(str(tree / "tests" / f"{name}.py") for name in tests)]  # fmt: skip
        try:
            if mutant is None:
                outcome, said = run_tests(shlex.join(command), timeout_s)
                if outcome is not TestOutcome.SURVIVED:
                    raise SystemExit(f"the tests {', '.join(tests)} fail as they are:\n{said}")
                return True
            path = tree / SOURCE / f"{mutant.module}.py"
            whole = path.read_text(encoding="utf-8")
            path.write_text(mutant.code, encoding="utf-8")
            outcome, _ = run_tests(shlex.join(command), timeout_s)
            path.write_text(whole, encoding="utf-8")
            return outcome is TestOutcome.SURVIVED
        finally:
            self._free.put(tree)


def explanations(modules: Sequence[str]) -> list[Explanation]:
    """Those of tests/mutants.toml. Exits where a line that one is about is gone."""
    entries = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text(encoding="utf-8")).get("equal", [])
    found = [Explanation(**entry) for entry in entries]
    for one in found:
        code = " ".join((ROOT / SOURCE / f"{one.module}.py").read_text(encoding="utf-8").split())
        if one.module not in modules or one.was not in code:
            raise SystemExit(f"tests/mutants.toml is about a line of {one.module} that is not there: {one.was}")
    return found


def judged(
    chosen: Sequence[Mutant], tests: Mapping[str, Sequence[str]], explained: Sequence[Explanation], jobs: int
) -> Iterator[tuple[Mutant, Fate]]:
    """What becomes of each change, in their order."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        trees = Trees(Path(folder), jobs)
        limits: dict[str, float] = {}
        for module in sorted({mutant.module for mutant in chosen}):
            started = time.monotonic()
            trees.passes(tests[module], 600)
            limits[module] = 20 + 3 * (time.monotonic() - started)

        def judge(mutant: Mutant) -> Fate:
            if any(one.covers(mutant) for one in explained):
                return "explained"
            return "survived" if trees.passes(tests[mutant.module], limits[mutant.module], mutant) else "killed"

        yield from zip(chosen, pool.map(judge, chosen), strict=True)


def main() -> None:
    """Judge all changes or a sample of them, and tell of those that survive."""
    config: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutants"]
    tests: dict[str, list[str]] = config["tests"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(tests), help="only these, as pyproject.toml names them")
    parser.add_argument("--sample", type=int, help="so many changes, drawn at random; all unless given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    if unknown := set(given.modules) - set(tests):
        parser.error(f"[tool.mutants.tests] has no {', '.join(sorted(unknown))}; expected {', '.join(tests)}")
    os.environ.pop("MASKPRISM_REAL_DATA", None)  # no real weights: too slow, once per change

    started = time.monotonic()
    every = mutants(given.modules, config["operators"], given.seed)
    chosen = [mutant for mutant, _ in zip(every, range(given.sample))] if given.sample else list(every)  # noqa: B905
    fates: Counter[tuple[str, Fate]] = Counter()
    for mutant, fate in judged(chosen, tests, explanations(list(tests)), given.jobs):
        fates[mutant.module, fate] += 1
        if fate == "survived":
            print(mutant, flush=True)
    good = 0
    for module in given.modules:
        killed, explained, survived = (fates[module, fate] for fate in ("killed", "explained", "survived"))
        good += killed + explained
        if total := killed + explained + survived:
            print(f"{module:30} {killed + explained:4} of {total:4} ({killed} killed, {explained} explained)")
    share = good / max(len(chosen), 1)
    print(f"{share:.1%} of {len(chosen)} changes are noticed or explained, after {time.monotonic() - started:.0f} s")
    sys.exit(share < config["at_least"])


if __name__ == "__main__":
    main()
