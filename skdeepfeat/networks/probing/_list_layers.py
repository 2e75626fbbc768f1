"""The table of a network's layers."""

from ..._utils._public_function import public_function
from ..sources._network_sources import make_spec
from ._probe import probe_spec
from ._stages import stages_of


@public_function
def list_layers(model="efficientnet_lite0", *, weights="default", image_size=None):
    """List the layers of a network whose outputs can be used as features.

    No weights are loaded or downloaded.

    Parameters
    ----------
    model : str or Module, default="efficientnet_lite0"
        As in `PretrainedFeatureExtractor`.
    weights : str or PathLike, default="default"
        As in `PretrainedFeatureExtractor`. The weights determine the size of the image
        and, for a few networks, the architecture.
    image_size : int, (int, int) or None, default=None
        The size of the image in pixels. By default, the size that the weights were
        trained with.

    Returns
    -------
    pandas.DataFrame
        One row for each layer, in the order in which the layers run, with the columns

        - ``name``: a value for the parameter `layer`;
        - ``kind``: the class of the module;
        - ``output_shape``: the shape of the output without the batch axis;
        - ``layout``: "NCHW" and "NHWC" for maps, "NLC" for tokens, "vector" or "other";
        - ``stage``: the number of the stage that ends with this layer, or missing;
        - ``n_parameters``: the number of parameters of the layer, including the layers
          inside it;
        - ``share_of_cost``: the layer's share of the network's floating-point
          operations, from 0 to 1, including the layers inside it;
        - ``cumulative_cost``: the share of the operations that is needed to compute
          the output of this layer.

    Raises
    ------
    TypeError, ValueError
        If a parameter is invalid.

    Examples
    --------
    >>> from skdeepfeat.networks import list_layers
    >>> layers = list_layers("resnet18")
    >>> layers.loc[layers["stage"] == 4, "name"].item()
    'layer4'
    """
    spec = make_spec(model, weights, image_size)
    probe = probe_spec(spec)
    total = probe.total_cost or 1
    numbers = {name: number for number, name in enumerate(stages_of(spec))}
    layers = [*probe.layers.values(), probe.neck, probe.output]
    layers.sort(key=lambda one: (one.order, one.name != "neck"))
    layers = [one for one in layers if one.is_offered]
    import pandas as pd  # here, because features do not need it

    return pd.DataFrame(
        {
            "name": [one.name for one in layers],
            "kind": [one.kind for one in layers],
            "output_shape": [one.shape for one in layers],
            "layout": [one.layout for one in layers],
            "stage": pd.array([numbers.get(one.name) for one in layers], "Int64"),
            "n_parameters": [one.n_parameters for one in layers],
            "share_of_cost": [one.cost / total for one in layers],
            "cumulative_cost": [one.cumulative_cost / total for one in layers],
        }
    )
