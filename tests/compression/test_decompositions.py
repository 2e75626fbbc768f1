"""Factors of weights: the error is what numpy's singular values say it is."""

import numpy as np
import pytest
import tensorly
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from tensorly.decomposition import partial_tucker, tensor_train
from torch import nn

from skdeepfeat.compression import _decompositions, _factorizations
from skdeepfeat.compression._decompositions import (
    TuckerDecomposition,
    matrix_factors,
    response_factors,
    separable_factors,
    split_size,
    tensor_train_cores,
)
from skdeepfeat.compression._factorizations import FACTORIZATIONS
from skdeepfeat.compression._layers import LayerUse


def drawn(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def lost(found, wanted):
    return float((found.double() - wanted.double()).square().sum())


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (6, 5, 3, 3)])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_error_of_a_matrix_is_the_discarded_energy(shape, rank):
    weight = drawn(*shape)
    first, second = matrix_factors(weight, rank)
    product = (second @ first.flatten(1)).reshape(shape)
    values = np.linalg.svd(weight.flatten(1).double().numpy(), compute_uv=False)
    assert_allclose(lost(product, weight), (values[rank:] ** 2).sum(), atol=1e-9)


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_error_of_responses_is_the_discarded_variance(has_bias):
    weight, inputs = drawn(9, 20), drawn(500, 20, seed=1) * 3 + 2
    bias = drawn(9, seed=2) if has_bias else None
    responses = inputs.double() @ weight.double().T + (0 if bias is None else bias)
    covariance = np.cov(responses.numpy().T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    components = torch.from_numpy(vectors[:, ::-1].copy())
    for rank in (1, 4, 9):
        first, second, constant = response_factors(
            weight, bias, responses.mean(0), components, rank
        )
        found = inputs.double() @ first.T @ second.T + constant
        expected = values[::-1][rank:].sum()
        assert_allclose(lost(found, responses) / len(inputs), expected, atol=1e-8)


def test_principal_components_beat_the_singular_values_of_the_weights():
    # Inputs that vary in one direction mostly.
    weight, inputs = drawn(9, 20).double(), drawn(500, 20, seed=1).double()
    inputs[:, 0] *= 30
    responses = inputs @ weight.T
    values, vectors = torch.linalg.eigh(torch.cov(responses.T, correction=0))
    first, second, constant = response_factors(
        weight, None, responses.mean(0), vectors.flip(1), 3
    )
    plain = matrix_factors(weight, 3)
    of_responses = lost(inputs @ first.T @ second.T + constant, responses)
    of_weights = lost(inputs @ plain[0].T @ plain[1].T, responses)
    assert of_responses < of_weights / 2


@pytest.mark.parametrize("rank", [1, 5, 15])
def test_a_separable_kernel(rank):
    weight = drawn(6, 5, 3, 3)
    columns, rows = separable_factors(weight, rank)
    kernel = torch.einsum("rih,orw->oihw", columns[..., 0], rows[:, :, 0])
    unfolded = weight.permute(1, 2, 0, 3).reshape(15, 18).double().numpy()
    values = np.linalg.svd(unfolded, compute_uv=False)
    assert_allclose(lost(kernel, weight), (values[rank:] ** 2).sum(), atol=1e-9)
    # Two convolutions compute what the kernel does.
    image = drawn(2, 5, 9, 8, seed=3).double()
    passed = torch.conv2d(image, columns, padding=(1, 0))
    passed = torch.conv2d(passed, rows, padding=(0, 1))
    assert_allclose(passed, torch.conv2d(image, kernel, padding=1), atol=1e-10)


@pytest.mark.parametrize("ranks", [(2, 3), (4, 2), (5, 6)])
def test_tucker_agrees_with_tensorly(ranks):
    weight = drawn(6, 5, 3, 3)
    decomposition = TuckerDecomposition(weight)
    first, core, last = decomposition.factors(*ranks)
    kernel = torch.einsum("ri,srhw,os->oihw", first, core, last)
    (their_core, factors), _ = partial_tucker(
        weight.double().numpy(), rank=[ranks[1], ranks[0]], modes=[0, 1], n_iter_max=100
    )
    theirs = tensorly.tenalg.multi_mode_dot(their_core, factors, modes=[0, 1])
    error = lost(kernel, weight)
    assert_allclose(error, lost(torch.from_numpy(theirs), weight), rtol=2e-2, atol=1e-9)
    total = float(weight.double().square().sum())
    assert_allclose(error, total - float(core.square().sum()), atol=1e-9)
    assert error <= total * decomposition.lost_energy(*ranks) + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_few_sweeps_lose_hardly_more_than_many(seed, monkeypatch):
    """Noise is the worst case: trained kernels have fewer important directions."""
    decomposition = TuckerDecomposition(drawn(24, 16, 3, 3, seed=seed))
    kept = float(decomposition.factors(6, 9)[1].square().sum())
    monkeypatch.setattr(_decompositions, "_N_SWEEPS", 300)
    monkeypatch.setattr(_decompositions, "_SMALLEST_GAIN", 0)
    most = float(decomposition.factors(6, 9)[1].square().sum())
    total = float(drawn(24, 16, 3, 3, seed=seed).double().square().sum())
    assert total - kept <= 1.02 * (total - most)


def test_a_kernel_is_decomposed_once_for_all_ranks(monkeypatch):
    layer = nn.Conv2d(40, 48, 3)
    use = LayerUse("layer", layer, n_inputs=100, n_outputs=100, n_columns=100)
    found = counted(monkeypatch, _decompositions, "_principal")
    options = list(FACTORIZATIONS["tucker"].options(use))
    # One call for each axis, and one call, half a sweep, for each option.
    assert len(options) > 1 and len(found) == 2 + len(options)
    n_calls = len(found)
    options[0].make()
    assert len(found) > n_calls
    n_calls = len(found)
    options[0].make()  # again, as for another candidate with this option
    assert len(found) == n_calls
    found = counted(monkeypatch, _factorizations, "matrix_factors")
    options = list(FACTORIZATIONS["svd"].options(use))
    for option in options:
        option.make()
    assert len(options) > 1 and len(found) == 1


def counted(monkeypatch, module, name):
    """Return a list that gets an entry for each call of a function."""
    calls, function = [], getattr(module, name)

    def call(*args):
        calls.append(name)
        return function(*args)

    monkeypatch.setattr(module, name, call)
    return calls


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99, 1.0])
def test_the_ranks_of_tucker_keep_the_energy(energy):
    weight = drawn(12, 10, 3, 3)
    decomposition = TuckerDecomposition(weight)
    ranks = decomposition.ranks(energy)
    total = float(weight.double().square().sum())
    assert decomposition.lost_energy(*ranks) <= 1 - energy + 1e-9
    core = decomposition.factors(*ranks)[1]
    assert float(core.square().sum()) >= energy * total - 1e-9
    if energy == 1.0:
        assert ranks == (10, 12)


@pytest.mark.parametrize("max_rank", [1, 4, 50])
def test_a_tensor_train_agrees_with_tensorly(max_rank):
    out_shape, in_shape = (2, 3, 4), (3, 5, 2)
    weight = drawn(24, 30)
    cores = tensor_train_cores(weight, out_shape, in_shape, max_rank)
    tensor = weight.double().numpy().reshape(*out_shape, *in_shape)
    tensor = tensor.transpose(0, 3, 1, 4, 2, 5).reshape(6, 15, 8)
    theirs = tensor_train(tensor, rank=[1, *[core.shape[-1] for core in cores]])
    ours = [core.flatten(1, 2).numpy() for core in cores]
    found = tensorly.tt_to_tensor(ours)
    assert_allclose(found, tensorly.tt_to_tensor(list(theirs)), atol=1e-10)
    if max_rank == 50:
        assert_allclose(found, tensor, atol=1e-10)


@given(st.integers(1, 5000), st.integers(1, 4))
def test_the_factors_of_a_size(size, n_factors):
    factors = split_size(size, n_factors)
    assert len(factors) == n_factors
    assert np.prod(factors) == size
