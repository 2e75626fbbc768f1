"""Matrices and kernels as products of smaller ones.

All functions compute in float64 and take weights in torch's order: (outputs, inputs)
for a linear layer, (outputs, inputs, height, width) for a convolution.
"""

import math

import torch

# Maximum number of sweeps of HOOI, the first of which gain most. HOOI ends early when a
# sweep reduces the lost energy by a fraction below `_SMALLEST_GAIN`.
_N_SWEEPS = 10
_SMALLEST_GAIN = 1e-3


def matrix_factors(weight, rank):
    """Return the best approximation of a weight of some rank (Denton et al. 2014 [1]_).

    Parameters
    ----------
    weight : Tensor, shape (n_outputs, ...)
        A kernel counts as a matrix with a row for each output.
    rank : int

    Returns
    -------
    first : Tensor, shape (rank, ...)
    second : Tensor, shape (n_outputs, rank)
        Their product is the weight without its smallest singular values.

    References
    ----------
    .. [1] Denton et al., "Exploiting linear structure within convolutional networks for
       efficient evaluation", NeurIPS 2014.
    """
    matrix = weight.double().flatten(1)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    # The square root on both sides keeps the factors at the same scale.
    root = values[:rank].sqrt()
    first = root[:, None] * right[:rank]
    return first.reshape(rank, *weight.shape[1:]), left[:, :rank] * root


def response_factors(weight, bias, mean, components, rank):
    """Return the approximation with the least error of the responses.

    It projects the responses on their principal components (Zhang et al. 2015 [1]_).
    The mean squared error is the sum of the variances of the other components.

    Parameters
    ----------
    weight : Tensor, shape (n_outputs, ...)
    bias : Tensor, shape (n_outputs,), or None
    mean : Tensor, shape (n_outputs,)
        Of the responses.
    components : Tensor, shape (n_outputs, n_outputs)
        Eigenvectors of the covariance of the responses as columns, largest first.
    rank : int

    Returns
    -------
    first : Tensor, shape (rank, ...)
    second : Tensor, shape (n_outputs, rank)
    bias : Tensor, shape (n_outputs,)

    References
    ----------
    .. [1] Zhang et al., "Accelerating very deep convolutional networks for
       classification and detection", TPAMI 2016 (arXiv 1505.06798, 2015).
    """
    kept = components[:, :rank]
    first = (kept.T @ weight.double().flatten(1)).reshape(rank, *weight.shape[1:])
    offset = mean.double() if bias is None else mean.double() - bias.double()
    constant = offset - kept @ (kept.T @ offset)
    return first, kept, constant if bias is None else bias.double() + constant


def separable_factors(weight, rank):
    """Return a kernel as columns followed by rows (Jaderberg et al. 2014 [1]_).

    Parameters
    ----------
    weight : Tensor, shape (n_outputs, n_inputs, height, width)
    rank : int

    Returns
    -------
    columns : Tensor, shape (rank, n_inputs, height, 1)
    rows : Tensor, shape (n_outputs, rank, 1, width)

    References
    ----------
    .. [1] Jaderberg, Vedaldi and Zisserman, "Speeding up convolutional neural networks
       with low rank expansions", BMVC 2014.
    """
    n_out, n_in, height, width = weight.shape
    unfolded = weight.permute(1, 2, 0, 3).reshape(n_in * height, n_out * width)
    first, second = matrix_factors(unfolded, rank)
    columns = second.reshape(n_in, height, rank).permute(2, 0, 1)[..., None]
    rows = first.reshape(rank, n_out, width).permute(1, 0, 2)[:, :, None]
    return columns, rows


class TuckerDecomposition:
    """The Tucker-2 decomposition of a kernel, for any ranks (Kim et al. 2016 [1]_).

    The channels are rotated once, so that the first ones have the most energy (the
    higher-order SVD). All ranks start from the first channels of the rotated kernel.

    Parameters
    ----------
    weight : Tensor, shape (n_outputs, n_inputs, height, width)

    References
    ----------
    .. [1] Kim et al., "Compression of deep convolutional neural networks for fast and
       low power mobile applications", ICLR 2016.
    """

    def __init__(self, weight):
        weight = weight.double()
        self._of_in, of_inputs = _principal(weight, 1)
        self._of_out, of_outputs = _principal(weight, 0)
        self._energies = of_inputs, of_outputs
        outer = torch.einsum("oihw,or->rihw", weight, self._of_out)
        self._rotated = torch.einsum("rihw,is->rshw", outer, self._of_in)
        self._total = weight.square().sum()

    def ranks(self, energy):
        """Return the ranks of the channels that keep a share of the energy.

        In each of the two unfoldings along channels, the squared singular values that
        are left out add up to at most half of what may be lost.

        Parameters
        ----------
        energy : float
            In (0, 1].

        Returns
        -------
        rank_in, rank_out : int
        """
        ranks = []
        for values in self._energies:
            lost = values.sum() - values.cumsum(0)
            allowed = (1 - energy) / 2 * values.sum() + 1e-12 * values.sum()
            ranks.append(int((lost > allowed).sum()) + 1)
        return tuple(ranks)

    def lost_energy(self, rank_in, rank_out):
        """Return an upper bound on the fraction of the energy that `factors` loses.

        This is what is lost after one sweep. Further sweeps gain little.
        """
        kept = _energies(self._outer(self._rotated[:, :rank_in], rank_out)[1], 1)
        total = float(self._total)
        return max(0.0, 1 - float(kept[:rank_in].sum()) / total) if total else 0.0

    def factors(self, rank_in, rank_out):
        """Return a kernel between fewer channels, and the factors around it.

        The two factors are computed from each other in turn, until the error hardly
        falls (HOOI).

        Parameters
        ----------
        rank_in, rank_out : int

        Returns
        -------
        first : Tensor, shape (rank_in, n_inputs)
        core : Tensor, shape (rank_out, rank_in, height, width)
        last : Tensor, shape (n_outputs, rank_out)
        """
        total = lost = float(self._total)
        inner = self._rotated[:, :rank_in]
        for _ in range(_N_SWEEPS):
            of_out, outer = self._outer(inner, rank_out)
            of_in = _principal(outer, 1)[0][:, :rank_in]
            core = torch.einsum("rihw,is->rshw", outer, of_in)
            before, lost = lost, total - float(core.square().sum())
            if before - lost <= _SMALLEST_GAIN * before + 1e-12 * total:
                break
            inner = torch.einsum("oihw,ir->orhw", self._rotated, of_in)
        return (self._of_in @ of_in).T, core, self._of_out @ of_out

    def _outer(self, inner, rank_out):
        """Return the best directions of the outputs, and the kernel along them."""
        of_out = _principal(inner, 0)[0][:, :rank_out]
        return of_out, torch.einsum("oihw,or->rihw", self._rotated, of_out)


def tensor_train_cores(weight, out_shape, in_shape, max_rank):
    """Return the cores of a matrix (Novikov et al. 2015), by successive SVDs.

    Parameters
    ----------
    weight : Tensor, shape (n_outputs, n_inputs)
    out_shape, in_shape : sequence of int
        Factors of the numbers of outputs and inputs, equally many.
    max_rank : int

    Returns
    -------
    list of Tensor, shape (rank, out_shape[k], in_shape[k], next rank)
    """
    n = len(out_shape)
    order = [axis for k in range(n) for axis in (k, n + k)]
    rest = weight.double().reshape(*out_shape, *in_shape).permute(order)
    rank, cores = 1, []
    for n_out, n_in in zip(out_shape[:-1], in_shape[:-1], strict=True):
        matrix = rest.reshape(rank * n_out * n_in, -1)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        kept = min(max_rank, len(values))
        cores.append(left[:, :kept].reshape(rank, n_out, n_in, kept))
        rest = values[:kept, None] * right[:kept]
        rank = kept
    cores.append(rest.reshape(rank, out_shape[-1], in_shape[-1], 1))
    return cores


def split_size(size, n_factors):
    """Return factors of a size, as equal as its prime factors allow."""
    primes, divisor = [], 2
    while divisor <= math.isqrt(size):
        if size % divisor:
            divisor += 1
        else:
            primes.append(divisor)
            size //= divisor
    factors = [1] * n_factors
    for prime in [size, *reversed(primes)]:
        factors[factors.index(min(factors))] *= prime
    return factors


def _principal(tensor, axis):
    """Return the directions of an axis with most energy, and their energies."""
    values, vectors = torch.linalg.eigh(_covariance(tensor, axis))
    return vectors.flip(1), values.flip(0).clamp(min=0)


def _energies(tensor, axis):
    """Return the second result of `_principal`, in less time."""
    return torch.linalg.eigvalsh(_covariance(tensor, axis)).flip(0).clamp(min=0)


def _covariance(tensor, axis):
    unfolded = tensor.movedim(axis, 0).flatten(1)
    return unfolded @ unfolded.T
