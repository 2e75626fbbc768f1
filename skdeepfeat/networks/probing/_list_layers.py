"""The table of a network's layers."""

import pandas as pd

from ..._utils._forks import survives_fork
from ..sources._network_sources import make_spec
from ._examine import probe_spec, stages_of

__all__ = ["list_layers"]

_COLUMNS = [
    "name",
    "kind",
    "output_shape",
    "layout",
    "stage",
    "n_parameters",
    "share_of_cost",
    "cumulative_cost",
]


@survives_fork
def list_layers(model="efficientnet_lite0", *, weights="default", image_size=None):
    """List the layers of a network at which features can be taken.

    No weights are loaded or downloaded for it.

    Parameters
    ----------
    model : str or Module, default="efficientnet_lite0"
        As in `PretrainedFeatureExtractor`.
    weights : str or PathLike, default="default"
        As in `PretrainedFeatureExtractor`; they decide the size of the image, and in
        a few networks the architecture.
    image_size : int, (int, int) or None, default=None
        Pixels, instead of the weights' own size.

    Returns
    -------
    pandas.DataFrame
        One row for each layer in the order in which they run, with

        - ``name``: as to be given as `layer`;
        - ``kind``: the class of the module;
        - ``output_shape``: without the batch axis;
        - ``layout``: "NCHW" and "NHWC" for maps, "NLC" for tokens, "vector", "other";
        - ``stage``: the number that stands for this layer, if one does;
        - ``n_parameters``: with those of the modules in it;
        - ``share_of_cost``: its own share of the network's floating-point operations,
          0 to 1, with those of the modules in it;
        - ``cumulative_cost``: the share that running the network until this layer is
          done takes.

    Raises
    ------
    TypeError, ValueError
        If a parameter is wrong.

    Examples
    --------
    >>> from skdeepfeat.networks import list_layers
    >>> layers = list_layers("resnet18")
    >>> layers.loc[layers["stage"] == 4, "name"].item()
    'layer4'
    """
    spec = make_spec(model, weights, image_size, None, 0)
    probe = probe_spec(spec)
    total = probe.total_cost or 1
    numbers = {name: number for number, name in enumerate(stages_of(spec))}
    layers = [*probe.layers.values(), probe.neck, probe.output]
    layers.sort(key=lambda one: (one.order, one.name != "neck"))
    rows = [
        (
            one.name,
            one.kind,
            one.shape,
            one.layout,
            numbers.get(one.name),
            one.n_parameters,
            one.cost / total,
            one.cumulative_cost / total,
        )
        for one in layers
        if one.is_offered
    ]
    return pd.DataFrame(rows, columns=_COLUMNS).astype({"stage": "Int64"})
