from itertools import pairwise

import pytest
import torch
from torch import nn

from lockstep.training.networks import LogisticRegression, MultilayerPerceptron


def test_logistic_regression_is_xw_plus_b():
    module = LogisticRegression(5, 3)
    x = torch.rand(4, 5)
    assert module.W.shape == (5, 3)
    torch.testing.assert_close(module(x), x @ module.W + module.b)


def test_logistic_regression_starts_xavier_uniform_with_zero_bias():
    expected = nn.init.xavier_uniform_(torch.empty(784, 10), generator=torch.Generator().manual_seed(3))
    module = LogisticRegression(784, 10, torch.Generator().manual_seed(3))
    assert torch.equal(module.W, expected)
    assert torch.equal(module.b, torch.zeros(10))


@pytest.mark.parametrize("hidden_dims", [(7,), (256, 100), (9, 8, 7)])
def test_perceptron_starts_as_torch_linear_does(hidden_dims):
    torch.manual_seed(11)
    widths = [20, *hidden_dims, 10]
    expected = [nn.Linear(a, b) for a, b in pairwise(widths)]
    module = MultilayerPerceptron(20, 10, hidden_dims, generator=torch.Generator().manual_seed(11))
    for layer, reference in zip([*module.hidden, module.output], expected, strict=True):
        assert torch.equal(layer.weight, reference.weight)
        assert torch.equal(layer.bias, reference.bias)


def test_initialisation_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    MultilayerPerceptron(20, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(3), expected)


def test_dropout_stands_after_each_hidden_activation():
    module = MultilayerPerceptron(6, 3, (5, 4), dropout=0.5)
    x = torch.rand(8, 6)
    torch.manual_seed(0)
    given = module.train()(x)
    torch.manual_seed(0)
    h = x
    for layer in module.hidden:
        h = nn.functional.dropout(torch.relu(layer(h)), 0.5)
    torch.testing.assert_close(given, module.output(h))


def test_representations_are_the_activations_without_dropout():
    module = MultilayerPerceptron(6, 3, (5, 4), dropout=0.5, activation="tanh").train()
    x = torch.rand(8, 6)
    first, second = module.representations(x)
    torch.testing.assert_close(first, torch.tanh(module.hidden[0](x)))
    torch.testing.assert_close(second, torch.tanh(module.hidden[1](first)))
    torch.testing.assert_close(module.eval()(x), module.output(second))
