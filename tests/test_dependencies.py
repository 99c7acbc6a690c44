"""What the code imports, what pyproject.toml declares, and what constraints.txt pins."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions

from helpers.clone import REPOSITORY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
OF_OTHERS = {"cmaes", "psutil"}  # imported by Optuna's CmaEsSampler, and by MLflow's monitor
FREE = {"torch", "torchvision"}  # each machine has its own build


def declared(requirements):
    parsed = map(Requirement, requirements)
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in parsed}


def imported():
    """By each module that the code imports, the distributions that it may be part of."""
    modules = set()
    for path in [REPOSITORY / "run.py", *(REPOSITORY / "src").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module.partition(".")[0])
    modules -= {*sys.stdlib_module_names, "lockstep", "hydra_plugins"}
    distributions = packages_distributions()
    return {module: set(map(canonicalize_name, distributions[module])) for module in modules}


def test_what_the_code_imports_is_declared_and_what_is_declared_is_imported():
    wanted = declared(PROJECT["dependencies"]).keys()
    extras = PROJECT["optional-dependencies"]
    allowed = wanted | declared([*extras["notebook"], *extras["cluster"]]).keys()
    assert [module for module, parts in imported().items() if not parts & allowed] == []
    assert wanted - set.union(*imported().values()) == OF_OTHERS


def test_each_dependency_but_torch_is_pinned_to_a_version_that_is_allowed():
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    pins = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines}
    assert len(pins) == len(lines)
    wanted = declared([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]])
    assert {name for name in wanted if name not in pins} == FREE
    assert [
        f"{name}{specifier}: {pins[name]}"
        for name, specifier in wanted.items()
        if name not in FREE and pins[name] not in specifier
    ] == []
