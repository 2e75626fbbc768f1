"""Converting image transforms to a `Preprocessing`, exactly or not at all."""

import dataclasses

import timm.data.transforms as timm_transforms
import torch
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import _presets, v2

from ..._utils._parameter_errors import choice_error
from ..._utils._preprocessing import INTERPOLATIONS, Preprocessing
from ..._utils._shown import shown

_COMPOSED = (v1.Compose, v2.Compose, nn.Sequential)
_TO_TENSOR = (
    v1.PILToTensor, v2.PILToTensor, v2.ToImage, timm_transforms.MaybePILToTensor,
)  # fmt: skip
_TO_FLOAT = (
    v1.ToTensor, timm_transforms.MaybeToTensor, v1.ConvertImageDtype, v2.ToDtype,
)  # fmt: skip
# The images are RGB already, and the other transforms have no effect.
_NOTHING = (v2.RGB, v2.ToPureTensor, nn.Identity)


@dataclasses.dataclass
class _Steps:
    """The steps read so far, in the order in which they have to come."""

    resize: object = None
    crop: tuple[int, int] | None = None
    interpolation: str | None = None
    crop_mode: str = "center"
    fill: tuple[int, int, int] = (0, 0, 0)
    scale: float | None = None
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    is_tensor: bool = False
    is_normalized: bool = False


def preprocessing_from_transform(transform):
    """Return the `Preprocessing` that does the same as a transform.

    Parameters
    ----------
    transform : torchvision preset for classification, or composed transform
        What ``weights.transforms()`` returns, or a ``Compose`` of ``Resize``,
        ``CenterCrop``, ``ToTensor`` and ``Normalize`` of torchvision or timm.

    Returns
    -------
    Preprocessing or None
        None for any other object.

    Raises
    ------
    ValueError
        It names the step that `Preprocessing` cannot express.
    """
    if not isinstance(transform, (_presets.ImageClassification, *_COMPOSED)):
        return None
    steps = _Steps()
    for step in _flat(transform):
        try:
            is_known = _read(step, steps)
        except (AttributeError, TypeError, ValueError):  # values of any kind
            is_known = False
        if not is_known:
            raise _refused(transform, f"its step {shown(step)} is none of these")
    if steps.crop is None and isinstance(steps.resize, tuple):
        steps.crop = steps.resize
    if steps.resize is None or steps.crop is None:
        raise _refused(transform, "it does not give every image the same size")
    if steps.scale is None:
        raise _refused(transform, "it does not scale the pixels to numbers from 0 to 1")
    steps.mean = tuple(value * steps.scale for value in steps.mean)
    steps.std = tuple(value * steps.scale for value in steps.std)
    names = [field.name for field in dataclasses.fields(Preprocessing)]
    return Preprocessing(**{name: getattr(steps, name) for name in names})


def _refused(transform, why):
    return choice_error(
        "preprocessing",
        "a Preprocessing, or transforms that it can express: Resize, CenterCrop, "
        f"ToTensor and Normalize with fixed values, in this order; {why}",
        transform,
    )


def _flat(transform):
    if isinstance(transform, _presets.ImageClassification):
        return [
            v1.Resize(transform.resize_size, transform.interpolation),
            v1.CenterCrop(transform.crop_size),
            v1.ToTensor(),
            v1.Normalize(transform.mean, transform.std),
        ]
    if not isinstance(transform, _COMPOSED):
        return [transform]
    inner = getattr(transform, "transforms", transform)
    return [step for one in inner for step in _flat(one)]


def _read(step, steps):
    """Read one step; return whether `Preprocessing` can express it."""
    if isinstance(step, _NOTHING):
        return True
    if isinstance(step, _TO_TENSOR):
        steps.is_tensor = True
        return True
    for kinds, read in _READERS.items():
        if isinstance(step, kinds):
            return read(step, steps)
    return False


def _read_float(step, steps):
    dtype = getattr(step, "dtype", torch.float32)
    if dtype is torch.uint8 and steps.scale is None:
        return True
    steps.is_tensor = True
    if steps.scale is None:
        # Without scaling, numbers stay from 0 to 255, and so are mean and std.
        steps.scale = 1.0 if getattr(step, "scale", True) else 1 / 255
    return dtype is torch.float32


def _read_normalize(step, steps):
    mean, std = (tuple(float(one) for one in value) for value in (step.mean, step.std))
    steps.mean, steps.std = (3 * v if len(v) == 1 else v for v in (mean, std))
    fits = len(steps.mean) == len(steps.std) == 3 and all(steps.std)
    first, steps.is_normalized = not steps.is_normalized, True
    return first and fits and steps.scale is not None


def _read_crop(step, steps):
    first = steps.crop is None and not steps.is_normalized
    steps.crop = _pair(step.size)
    if isinstance(step, timm_transforms.CenterCropOrPad):
        fill = step.fill if isinstance(step.fill, (tuple, list)) else [step.fill] * 3
        steps.fill = tuple(int(one) for one in fill)
        return first and step.padding_mode == "constant" and not steps.is_tensor
    return first and steps.crop_mode == "center" and steps.resize is not None


def _read_resize(step, steps):
    first = steps.resize is None and steps.crop is None and not steps.is_normalized
    # Some are members of an enumeration, and some their values.
    mode = str(getattr(step.interpolation, "value", step.interpolation))
    steps.interpolation = mode.removesuffix("-exact")
    if isinstance(step, timm_transforms.ResizeKeepRatio):
        # The longer side gets the whole size in timm's mode "border", else the shorter
        # one.
        steps.resize = step.size[0]
        steps.crop_mode = "border" if step.longest else "center"
        is_random = step.random_scale_prob or step.random_aspect_prob
        is_square = step.size[0] == step.size[1]
        return first and not is_random and is_square and step.longest in (0, 1)
    size = step.size
    if isinstance(size, (tuple, list)):
        size = int(size[0]) if len(size) == 1 else _pair(size)
    steps.resize = size
    # PIL images are always resized with antialiasing, tensors only on request.
    smooth = not steps.is_tensor or step.antialias or steps.interpolation == "nearest"
    known = steps.interpolation in INTERPOLATIONS
    whole = size is not None and step.max_size is None
    return first and known and whole and bool(smooth)


def _pair(size):
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    height, width = sides * 2 if len(sides) == 1 else sides
    return int(height), int(width)


_READERS = {
    _TO_FLOAT: _read_float,
    (v1.Normalize, v2.Normalize): _read_normalize,
    (v1.CenterCrop, v2.CenterCrop, timm_transforms.CenterCropOrPad): _read_crop,
    (v1.Resize, v2.Resize, timm_transforms.ResizeKeepRatio): _read_resize,
}
