"""What compression did, as tables."""

import pandas as pd

from ..networks import changes_of
from ._costs import layer_costs
from ._layers import batches_of
from ._timing import milliseconds_per_image


def describe_layers(method, before, outcome, pixels):
    """Return a row for each layer that was there before a method.

    Parameters
    ----------
    method : str
    before : Model
    outcome : Outcome
    pixels : ndarray of uint8, shape (n_images, height, width, 3)

    Returns
    -------
    list of dict
    """
    images = next(batches_of(pixels))[:2]
    old, new = layer_costs(before, images), layer_costs(outcome.model, images)
    n_earlier = len(changes_of(before.network))
    new_changes = changes_of(outcome.model.network)[n_earlier:]
    changes = {change["layer"]: change for change in new_changes}
    rows = []
    for name, cost in old.items():
        parts = [
            one for key, one in new.items() if key == name or key.startswith(f"{name}.")
        ]
        layer = before.network.get_submodule(name)
        kind, size = _in_words(layer, changes.get(name))
        n_nonzero = sum(one.n_nonzero for one in parts)
        if method == "obd_weights":
            zeros = 1 - n_nonzero / cost.n_parameters
            kind, size = "zeros", f"{zeros:.0%} zeros"
        rows.append(
            {
                "method": method,
                "layer": name,
                "kind": kind,
                "size": size,
                "parameters_before": cost.n_parameters,
                "parameters": sum(one.n_parameters for one in parts),
                "nonzero_parameters": n_nonzero,
                "multiply_adds_before": cost.multiply_adds,
                "multiply_adds": sum(one.multiply_adds for one in parts),
                "relative_error": (outcome.errors or {}).get(name, float("nan")),
                "note": (outcome.notes or {}).get(name, ""),
            }
        )
    return rows


def describe_networks(subject, names, models, scores, runtimes):
    """Return the table of the networks before and after each method.

    Parameters
    ----------
    subject : TunedSubject or ExtractorSubject
    names : list of str
    models : list of Model
    scores : list of float
    runtimes : list of str
        Those that times are measured in.

    Returns
    -------
    DataFrame
        One row per network.
    """
    images = next(batches_of(subject.pixels))[:2]
    costs = [layer_costs(model, images) for model in models]
    necks = [subject.neck.with_network(model.network) for model in models]
    is_error = subject.score_name != "score"
    table = pd.DataFrame(
        {
            "network": names,
            subject.score_name: [-score if is_error else score for score in scores],
            "parameters": [sum(x.numel() for x in one.parameters()) for one in models],
            "bytes": [model.n_bytes for model in models],
            "sparse_bytes": [_sparse_bytes(model) for model in models],
            "multiply_adds": [
                sum(cost.multiply_adds for cost in one.values()) for one in costs
            ],
        }
    )
    milliseconds = milliseconds_per_image(necks, runtimes)
    for (runtime, batch), times in milliseconds.items():
        table[f"ms_per_image_{runtime}_{batch}"] = times
    return table


def _in_words(layer, change):
    """Return the kind of a change and the size that is left."""
    if change is None:
        return "unchanged", ""
    kind = change["kind"]
    if kind == "resized":
        is_depthwise = getattr(layer, "groups", 1) > 1  # its channels count once
        n_outputs, n_inputs = layer.weight.shape[:2]
        parts = []
        if change["outputs"] < n_outputs:
            parts.append(f"{change['outputs']} of {n_outputs} channels")
        if change["inputs"] < n_inputs and not is_depthwise:
            parts.append(f"{change['inputs']} of {n_inputs} inputs")
        return "pruned", ", ".join(parts)
    ranks = change.get("ranks", [change.get("rank")])
    return kind, ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


def _sparse_bytes(model):
    """Return the bytes of the weights as compressed sparse rows, where that is less."""
    total = 0
    for tensor in [*model.parameters(), *model.buffers()]:
        dense = tensor.numel() * tensor.element_size()
        if tensor.ndim < 2:
            total += dense
            continue
        n_columns = tensor[0].numel()
        index = 2 if n_columns <= 2**16 else 4
        n_values = int(tensor.count_nonzero())
        sparse = n_values * (tensor.element_size() + index) + 4 * (len(tensor) + 1)
        total += min(dense, sparse)
    return total
