"""The house: which package may import which, asserted from the code's own imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.clone import REPOSITORY

SOURCE = REPOSITORY / "src" / "lockstep"
ORDER = (
    *("cli", "search", "sweep", "report", "terminal", "tracking", "execution", "recovery", "pictures"),
    *("training", "data", "results", "config"),
)
"""Each package imports only packages behind it."""

MAY_IMPORT = {
    "torch": {"training", "data", "pictures", "execution"},
    "distributed": {"execution"},
    "hydra": {"config", "cli"},
    "omegaconf": {"config", "cli"},
}
PRIVATE = ("hydra._internal", "joblib.externals", "mlflow.protos", "optuna.storages._", "torch._")


def imported(path):
    """Every module that a file imports, wherever in it; of `from a import b` both a and a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(folder):
    found = sorted(folder.rglob("*.py"))
    assert found
    return found


def test_the_packages_are_those_of_the_order():
    assert sorted(path.parent.name for path in SOURCE.glob("*/__init__.py")) == sorted(ORDER)


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_packages_below_it(package):
    below = {package, *ORDER[ORDER.index(package) :]}
    for path in files(SOURCE / package):
        for module in imported(path):
            root, _, rest = module.partition(".")
            if root == "lockstep" and rest.split(".")[0] in ORDER:
                assert rest.split(".")[0] in below, f"{path} imports {module}"


@pytest.mark.parametrize(("library", "packages"), MAY_IMPORT.items())
def test_heavy_libraries_are_imported_where_they_belong(library, packages):
    importers = {
        path.relative_to(SOURCE).parts[0]
        for path in files(SOURCE)
        if library in {module.partition(".")[0] for module in imported(path)}
    }
    assert importers <= packages
    assert importers  # else the library's name is wrong here


def test_private_modules_are_imported_in_compatibility_files_only():
    paths = [*files(REPOSITORY / "src"), REPOSITORY / "run.py"]
    private = {path.name for path in paths if any(m.startswith(PRIVATE) for m in imported(path))}
    assert private == {"_hydra_compat.py"}


@pytest.mark.parametrize("package", ORDER)
def test_a_packages_init_is_a_docstring_that_names_its_modules(package):
    folder = SOURCE / package
    tree = ast.parse((folder / "__init__.py").read_text())
    [statement] = tree.body
    docstring = ast.get_docstring(tree)
    assert isinstance(statement, ast.Expr) and docstring
    modules = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert modules == {word for word in modules if f"`{word}`" in docstring}


def test_results_need_numpy_only():
    names = [f"lockstep.results.{path.stem}" for path in sorted((SOURCE / "results").glob("[a-z]*.py"))]
    for file in ("history_file", "predictions_file", "run_files"):  # pyarrow's
        names.remove(f"lockstep.results.{file}")
    names += ["lockstep.data.description", "lockstep.config.identity"]
    script = f"import sys, importlib\nfor name in {names}: importlib.import_module(name)\n"
    script += "print(sorted({'torch', 'mlflow', 'pydantic', 'omegaconf', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert len(names) >= 5
    assert done.stdout == "[]\n"


def test_every_test_file_stands_in_the_package_that_it_tests():
    tests = REPOSITORY / "tests"
    folders = {path.name for path in tests.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - {"helpers", "fixtures", "hydra_plugins"} <= set(ORDER)
    assert Path(__file__).parent == tests


LINES, FUNCTION_LINES, ATTRIBUTES = 300, 60, 8
"""The most of a file, a function, and attributes of a class that change: more asks to be split by concept."""

MADE_IN = {"__init__", "__post_init__", "allocate", "_allocate"}
"""Where attributes are made, together; elsewhere they change."""


@pytest.mark.parametrize("package", ["", *ORDER])
def test_files_functions_and_classes_are_small(package):
    for path in sorted((SOURCE / package).glob("*.py")):
        text = path.read_text()
        assert len(text.splitlines()) <= LINES, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < FUNCTION_LINES, f"{path}: {node.name}"
            elif isinstance(node, ast.ClassDef):
                assert len(changing(node)) <= ATTRIBUTES, f"{path}: {node.name}"


def changing(node):
    """The attributes of a class that its methods assign after they were made."""
    methods = [of for of in node.body if isinstance(of, ast.FunctionDef) and of.name not in MADE_IN]
    found = [part for method in methods for part in ast.walk(method) if isinstance(part, ast.Attribute)]
    return {
        part.attr
        for part in found
        if isinstance(part.ctx, ast.Store) and isinstance(part.value, ast.Name) and part.value.id == "self"
    }
