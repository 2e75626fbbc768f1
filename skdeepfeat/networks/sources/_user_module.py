"""A user's own network."""

import functools

from ..._utils._parameter_errors import choice_error
from ..._utils._preprocessing import Preprocessing
from .._modules import attribute_of, copy_network
from ._network_spec import NetworkSpec

# Most ImageNet networks were trained with this.
_IMAGENET = Preprocessing(resize=256, crop=(224, 224))


def make_spec(module, weights, image_size, preprocessing):
    """Return the `NetworkSpec` of a user's module.

    Parameters
    ----------
    module : torch.nn.Module
        It is never changed: a copy that shares its weights runs instead.
    weights : "default"
        The module's own.
    image_size : tuple of (int, int) or None
    preprocessing : Preprocessing or None
        By default that of the module's ``pretrained_cfg``, else ImageNet's usual one
        (shorter side to 256, center 224, bilinear).

    Returns
    -------
    NetworkSpec
    """
    if weights != "default":
        wanted = "'default' for a module as 'model', which has its weights already"
        raise choice_error("weights", wanted, weights)
    own = preprocessing or _own_preprocessing(module)
    name = type(module).__name__
    return NetworkSpec(
        name=name,
        model_name=name.lower(),
        architecture={"module": name},
        build=functools.partial(copy_network, module),
        preprocessing=own.with_crop(image_size) if image_size else own,
        native_size=own.crop,
        module=module,
    )


def _own_preprocessing(module):
    for attribute in ("pretrained_cfg", "default_cfg"):
        config = attribute_of(module, attribute)
        if hasattr(config, "to_dict"):
            config = config.to_dict()
        if isinstance(config, dict) and config.get("input_size"):
            from ._timm import preprocessing_from_config  # slow to import

            return preprocessing_from_config(config)
    return _IMAGENET
