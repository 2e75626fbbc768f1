"""Options that several commands have, and the types of their values."""

import json
import re

import click

from ._program import debug_option

__all__ = [
    "BatchSize",
    "CacheSize",
    "Devices",
    "ImageSize",
    "Jobs",
    "Layer",
    "LayerList",
    "StorageOption",
    "debug_option",
    "json_option",
    "weights_option",
]

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Write JSON, for scripts."
)


weights_option = click.option(
    "--weights",
    metavar="NAME|FILE|random",
    default="default",
    show_default=True,
    help="A name that the source of the network knows, a file (.safetensors, .pth), or "
    "random.",
)


class ImageSize(click.ParamType):
    """Pixels: the side of a square, or height x width."""

    name = "image size"

    def convert(self, value, param, ctx):
        found = re.fullmatch(r"(\d+)(?:[x,](\d+))?", value, re.IGNORECASE)
        sides = [int(side) for side in found.groups() if side] if found else [0]
        if min(sides) < 1:
            self.fail(
                f"{value!r} is not a size in pixels such as 224, or HEIGHTxWIDTH such "
                "as 224x320.",
                param,
                ctx,
            )
        return sides[0] if len(sides) == 1 else tuple(sides)


class BatchSize(click.ParamType):
    """A number above zero, or "auto"."""

    name = "batch size"

    def convert(self, value, param, ctx):
        if value == "auto":
            return value
        if not value.isdecimal() or int(value) < 1:
            self.fail(f"{value!r} is neither a number above 0 nor auto.", param, ctx)
        return int(value)


class Jobs(click.ParamType):
    """A number of processes; -1 is one a core."""

    name = "number of processes"

    def convert(self, value, param, ctx):
        if not re.fullmatch(r"[+-]?\d+", value) or int(value) == 0:
            self.fail(
                f"{value!r} is not a number of processes: above 0, or -1 for as many "
                "as there are cores.",
                param,
                ctx,
            )
        return int(value)


class Layer(click.ParamType):
    """The name of a layer, or the number of a stage."""

    name = "layer"

    def convert(self, value, param, ctx):
        return int(value) if re.fullmatch(r"-?\d+", value) else value


class LayerList(click.ParamType):
    """Layers with commas between them, or "stages" for every stage and the neck."""

    name = "layers"

    def convert(self, value, param, ctx):
        if value == "stages":
            return value
        return [Layer().convert(each, param, ctx) for each in _parts(value)]


class Devices(click.ParamType):
    """A device, or several with commas between them."""

    name = "device"

    def convert(self, value, param, ctx):
        devices = _parts(value)
        return devices if len(devices) > 1 else value


def _parts(value):
    return [each.strip() for each in value.split(",")]


class StorageOption(click.ParamType):
    """KEY=VALUE; the value is JSON where it can be read so, else text."""

    name = "option"

    def convert(self, value, param, ctx):
        key, equals, text = value.partition("=")
        if not (key and equals):
            # Not shown: it may be a password.
            self.fail("it must be KEY=VALUE, such as anon=true.", param, ctx)
        try:
            return key, json.loads(text)
        except ValueError:
            return key, text


class CacheSize(click.ParamType):
    """Bytes with a unit; "none" is no limit."""

    name = "size"

    def convert(self, value, param, ctx):
        from ..cache import FeatureCache

        value = None if value.lower() == "none" else value
        try:
            FeatureCache(max_size=value)
        except ValueError as error:
            self.fail(f"{value!r} is not a size such as '20 GB' or none.", param, ctx)
            raise AssertionError from error
        return value
