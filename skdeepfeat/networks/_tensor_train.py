"""A linear layer whose matrix is a product of small tensors."""

import math

import torch
from torch import nn


class TensorTrainLinear(nn.Module):
    """A linear layer in the tensor-train format (Novikov et al. 2015 [1]_).

    The entry of the matrix at output (i_1, ..., i_d) and input (j_1, ..., j_d) is the
    matrix product ``G_1[:, i_1, j_1, :] ... G_d[:, i_d, j_d, :]``. This takes less
    memory than the matrix, but often more time.

    Parameters
    ----------
    in_shape, out_shape : sequence of int
        Their products are the numbers of inputs and outputs.
    ranks : sequence of int
        The d - 1 inner sizes of the product.
    bias : bool, default=True

    References
    ----------
    .. [1] Novikov et al., "Tensorizing neural networks", NeurIPS 2015.
    """

    def __init__(self, in_shape, out_shape, ranks, bias=True):
        super().__init__()
        self.in_features = math.prod(in_shape)
        self.out_features = math.prod(out_shape)
        sizes = [1, *ranks, 1]
        self.cores = nn.ParameterList(
            torch.zeros(sizes[k], n_out, n_in, sizes[k + 1])
            for k, (n_out, n_in) in enumerate(zip(out_shape, in_shape, strict=True))
        )
        self.register_parameter(
            "bias", nn.Parameter(torch.zeros(self.out_features)) if bias else None
        )

    def forward(self, inputs):
        """Return the outputs, shape (..., out_features)."""
        rows = inputs.reshape(-1, self.in_features)
        n_done, n_left = 1, self.in_features
        for core in self.cores:
            rank, n_out, n_in, next_rank = core.shape
            n_left //= n_in
            # As a product of matrices, which every runtime knows.
            rows = rows.reshape(-1, n_done, rank * n_in, n_left).transpose(2, 3)
            matrix = core.transpose(1, 2).reshape(rank * n_in, n_out * next_rank)
            rows = (rows @ matrix).transpose(2, 3)
            rows = rows.reshape(-1, n_done * n_out, next_rank, n_left)
            n_done *= n_out
        outputs = rows.reshape(*inputs.shape[:-1], self.out_features)
        return outputs if self.bias is None else outputs + self.bias


def multiply_adds_of_train(cores):
    """Return the multiply-adds of one row, for cores as in `TensorTrainLinear`."""
    n_done, n_left, total = 1, math.prod(core.shape[2] for core in cores), 0
    for core in cores:
        n_left //= core.shape[2]
        total += n_done * n_left * core.numel()
        n_done *= core.shape[1]
    return total
