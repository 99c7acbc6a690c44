"""The code of a user's own network: read, checked, and run with settings."""

import pytest
from helpers.nets import NETS, module

from lockstep.config.errors import Refused
from lockstep.config.model_config import ModuleConfig
from lockstep.data.description import DataDescription
from lockstep.training import network_code

DATA = DataDescription("drawn", "digest", (28, 28), tuple("abc"), 10, 5, "drawn")


def code_in(folder, text, name="Net"):
    path = folder / "my_nets.py"
    path.write_text(text)
    return network_code.read(f"{path}:{name}")


def refusal(call, *args, **kwargs):
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)
    return [problem.replace(f"{NETS}:", "nets.py:") for problem in caught.value.problems]


def test_settings_are_the_arguments_with_their_defaults_as_plain_data():
    code = network_code.read(f"{NETS}:ConvNet")
    assert code.settings({}) == {"channels": 4, "dropout": 0.25, "kernel": [3, 3]}
    assert code.settings({"channels": "8", "kernel": [5, 1]}) == {
        "channels": 8,
        "dropout": 0.25,
        "kernel": [5, 1],
    }
    network = code.build({"channels": 8, "kernel": [5, 1]}, DATA)
    assert (network.conv1.kernel_size, network.conv1.in_channels, network.fc.out_features) == ((5, 1), 1, 3)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"chanels": 8},
            "model.chanels=8: not an argument of ConvNet; it has channels, dropout, kernel; did you mean ch",
        ),
        ({"channels": "many"}, "model.channels=many: must be a valid integer"),
        ({"channels": 1.5}, "model.channels=1.5: must be a valid integer"),
        ({"dropout": True}, "model.dropout=True: must be a valid number"),
        ({"kernel": [3, 3, 3]}, "model.kernel=[3, 3, 3]: Tuple should have at most 2 items"),
        (
            {"input_shape": [1, 2, 3]},
            "model.input_shape=[1, 2, 3]: not an argument of ConvNet; it has channels",
        ),
    ],
)
def test_settings_that_the_network_does_not_take_are_named(given, problem):
    [found] = refusal(network_code.read(f"{NETS}:ConvNet").settings, given)
    assert found.startswith(problem)


def test_arguments_without_annotation_take_what_their_default_is(tmp_path):
    code = code_in(
        tmp_path,
        "from torch import nn\n"
        "def Net(width=16, rate=0.5, bias=True, kind='relu', act=nn.ReLU, *, depth, **more):\n    pass\n",
    )
    plain = {"width": 16, "rate": 0.5, "bias": True, "kind": "relu"}
    assert code.settings({"depth": [1, 2]}) == {**plain, "depth": [1, 2]}
    assert code.settings({"depth": 1, "rate": 1, "width": 2.5}) == {
        **plain,
        "depth": 1,
        "rate": 1.0,
        "width": 2.5,
    }
    assert refusal(code.settings, {"bias": 1}) == [
        "model.bias=1: must be a valid boolean",
        "model.depth: required by Net; give it as model.depth=<value> (the data gives input_shape and"
        " n_classes)",
    ]
    assert "not an argument of Net" in refusal(code.settings, {"depth": 1, "act": "nn.Tanh"})[0]


def test_arguments_are_what_their_defaults_are(tmp_path):
    code = code_in(
        tmp_path,
        "from torch import nn\n"
        "def Net(n_classes, hidden=(24, 16), pairs=((1, 2),), kinds=['a'], depth: int = None,\n"
        "        rate: float = 0):\n"
        "    assert hidden + (1,) and pairs[0] + (1,) and kinds + ['b'] and depth is None\n"
        "    return nn.Linear(hidden[0], n_classes)\n",
    )
    plain = {"hidden": [24, 16], "pairs": [[1, 2]], "kinds": ["a"], "depth": None, "rate": 0.0}
    assert code.settings({}) == plain
    assert str(code.settings({})) == str(code.settings({"rate": 0}))  # one run: 0.0, not 0
    assert code.build(plain, DATA).in_features == 24
    assert code.build(code.settings({"hidden": [8]}), DATA).in_features == 8
    assert code.settings({"depth": 3})["depth"] == 3
    assert refusal(code.settings, {"depth": "deep", "hidden": 8}) == [
        "model.depth=deep: must be a valid integer",
        "model.hidden=8: must be a valid array",
    ]


def test_arguments_that_are_passed_on_are_settings(tmp_path):
    code = code_in(
        tmp_path,
        "from torch import nn\n"
        "def Net(n_classes, width=4, **more): return nn.Linear(width, n_classes, **more)\n",
    )
    assert code.settings({}) == {"width": 4}
    assert list(code.settings({"z": [1], "bias": False, "width": 8})) == ["width", "bias", "z"]
    assert code.build({"width": 8, "bias": False}, DATA).bias is None
    assert refusal(code.build, {"width": 8, "bais": False}, DATA)[0].startswith(
        "Net(width=8, bais=False): TypeError: "
    )
    for key in ("source", "path", "n_classes"):
        assert refusal(code.settings, {key: 3}) == [f"model.{key}=3: not an argument of Net; it has width"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("class Other:\n    pass", "no such class or function; it has no class of a torch.nn.Module"),
        ("from torch import nn\nclass Nets(nn.Module):\n    pass", "it has Nets; did you mean Nets?"),
        ("Net = 3", "no such class or function"),
        ("def Net(:", "SyntaxError: invalid syntax (line 1)"),
        ("import torch\n\n1 / 0", "ZeroDivisionError: division by zero (line 3)"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package' (line 1)"),
        (
            "import beside",
            "imports beside, which the run's identity would not contain; a network is one",
        ),
        ("from .beside import x", "imports .beside, which"),
        ("def f():\n    from beside.inner import x", "imports beside, which"),
        ("import torch\ntorch.set_default_dtype(torch.float64)", "changes torch's default dtype; put what"),
        ("import torch\ntorch.set_grad_enabled(False)", "changes whether gradients are computed; put what"),
        ("import torch\ntorch.manual_seed(0)", "draws random numbers while it is imported, or seeds"),
        ("import random\nrandom.seed(1)", "draws random numbers while it is imported, or seeds"),
        ("import numpy\nnumpy.random.rand()", "draws random numbers while it is imported, or seeds"),
        ("def Net(path): pass", "its argument path can't be a setting, as model.path is another"),
        ("from torch import nn\ndef Net(layer: nn.Module): pass", "its argument layer is no plain data"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path, text, problem):
    import torch

    (tmp_path / "beside.py").write_text("raise AssertionError('it was run')")
    try:
        [found] = refusal(code_in, tmp_path, text)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
    assert found.startswith(f"model.path={tmp_path}/my_nets.py:Net: ")
    assert problem in found


def test_a_path_names_a_file_that_is_there_and_something_in_it(tmp_path):
    (tmp_path / "my_nets.py").write_text("")
    assert refusal(network_code.read, "my_nets.py") == [
        "model.path=my_nets.py: name a class or function in the file, as in my_nets.py:ConvNet"
    ]
    [found] = refusal(network_code.read, f"{tmp_path}/my_net.py:ConvNet")
    assert found.endswith("can't be read: No such file or directory; did you mean my_nets.py?")


def test_code_that_no_command_has_named_is_not_run(tmp_path):
    stored = ModuleConfig(name="module", path=f"{tmp_path}/my_nets.py:Net", source="Net@0123")
    (tmp_path / "my_nets.py").write_text("raise AssertionError('it was run')")
    [found] = refusal(network_code.of, stored)
    assert "is not run unless a command or call names this file" in found


def test_a_file_is_read_once_and_identified_by_its_content(tmp_path):
    text = "from torch import nn\ndef Net(n_classes): return nn.Linear(2, n_classes)\n"
    first = code_in(tmp_path, text)
    assert code_in(tmp_path, text + "# edited while a command runs") == first
    (tmp_path / "copy").mkdir()
    moved, edited = tmp_path / "copy" / "other.py", tmp_path / "copy" / "edited.py"
    moved.write_text(text)
    edited.write_text(text + "\n")
    assert network_code.read(f"{moved}:Net").source == first.source
    assert network_code.read(f"{edited}:Net").source != first.source


def test_errors_of_a_network_name_the_line_and_the_settings():
    code = network_code.of(module("Fails", width=5))
    [found] = refusal(code.build, {"width": 5}, DATA)
    assert found.startswith("Fails(width=5): ValueError: no width of 5 (line ")
    assert refusal(network_code.of(module("no_network")).build, {}, DATA) == [
        "no_network(): returns int; allowed: a torch.nn.Module"
    ]
