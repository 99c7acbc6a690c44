"""CONTRIBUTING.md's two walks name files and functions that exist."""

import ast
import re

import pytest
from helpers.clone import REPOSITORY

ROW = re.compile(r"^\| \d+ \| `([^`]+)` \| (.+?) \| .+ \|$", re.M)
NAME = re.compile(r"`([^`]+)`")


def walks():
    """Each walk's steps: a file, and the names to look for in it."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text().partition("\n## Two walks\n")[2].partition("\n## ")[0]
    _, *sections = text.split("\n### ")
    return {
        section.partition("\n")[0]: [(file, NAME.findall(names)) for file, names in ROW.findall(section)]
        for section in sections
    }


def defined_in(file):
    """The functions, classes and methods of a module; the keys of a YAML file."""
    if file.startswith("conf/"):
        return set(re.findall(r"^(\w+):", (REPOSITORY / file).read_text(), re.M))
    names = set()
    for node in ast.parse((REPOSITORY / "src" / "lockstep" / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{of.name}" for of in node.body if isinstance(of, ast.FunctionDef)}
    return names


def test_there_are_two_walks_of_at_most_eight_files():
    one, other = ({file for file, _ in steps} for steps in walks().values())
    assert 0 < len(one) <= 8
    assert 0 < len(other) <= 8


@pytest.mark.parametrize(("file", "names"), [step for steps in walks().values() for step in steps])
def test_a_walk_names_what_exists(file, names):
    assert names
    assert set(names) <= defined_in(file)
