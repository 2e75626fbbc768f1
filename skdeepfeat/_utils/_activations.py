"""Which functions of torch are activations, and which of them are ReLU.

They are told apart by name, because torch has several functions of each.
"""

OTHER_ACTIVATIONS = {
    "silu", "silu_", "gelu", "hardswish", "hardtanh", "hardtanh_", "leaky_relu",
    "leaky_relu_", "elu", "elu_", "selu", "selu_", "celu", "celu_", "mish", "prelu",
    "rrelu", "softplus", "logsigmoid", "softsign", "tanhshrink", "softshrink",
    "hardshrink", "threshold", "glu",
}  # fmt: skip
# Of pooled values, as in squeeze and excitation, they scale whole channels.
GATES = {"sigmoid", "sigmoid_", "hardsigmoid", "tanh", "tanh_"}
_ATTENTION = {
    "softmax", "scaled_dot_product_attention", "multi_head_attention_forward",
}  # fmt: skip


def limit_of_relu(name, args, kwargs):
    """Return the largest value that a function returns if it is a ReLU, else None."""
    if name in ("relu", "relu_"):
        return float("inf")
    if name == "relu6":
        return 6.0
    if name in ("hardtanh", "hardtanh_"):  # nn.ReLU6 is one
        low, high = [*args[1:3], kwargs.get("min_val"), kwargs.get("max_val")][:2]
        return float(high) if low == 0 else None
    return None


def is_other_activation(name, args):
    """Return whether a function that is not a ReLU is an activation or attention."""
    is_gate = name in GATES and _has_positions(args[0])
    return is_gate or name in OTHER_ACTIVATIONS or name in _ATTENTION


def _has_positions(tensor):
    """Return whether a tensor is a map or tokens, with more than one position."""
    if tensor.ndim == 4:
        return tensor.shape[1] * tensor.shape[2] > 1 and tensor.shape[2:].numel() > 1
    return tensor.ndim == 3 and tensor.shape[1] > 1
