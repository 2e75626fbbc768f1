"""Options that several commands have, and the conversion of option values."""

import json
import os
import re

import click

from .._utils._address import is_like_address


def image_size(value):
    """Return the side of a square, or (height, width), in pixels."""
    found = re.fullmatch(r"(\d+)(?:[x,](\d+))?", value, re.IGNORECASE)
    sides = [int(side) for side in found.groups() if side] if found else [0]
    if min(sides) < 1:
        raise click.BadParameter(
            f"{value!r} is not a size in pixels such as 224, or HEIGHTxWIDTH such as "
            "224x320."
        )
    return sides[0] if len(sides) == 1 else tuple(sides)


def batch_size(value):
    """Return a number above zero, or "auto"."""
    if value == "auto":
        return value
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number above 0 nor auto.")
    return int(value)


def n_jobs(value):
    """Return a number of processes, where -1 means one for each core."""
    if not re.fullmatch(r"[+-]?\d+", value) or int(value) == 0:
        raise click.BadParameter(
            f"{value!r} is not a number of processes: above 0, or -1 for as many as "
            "there are cores."
        )
    return int(value)


def layer(value):
    """Return the name of a layer, or the number of a stage."""
    return int(value) if re.fullmatch(r"-?\d+", value) else value


def layer_list(value):
    """Return a list of layers, or "stages" for every stage and the neck."""
    return value if value == "stages" else [layer(each) for each in _parts(value)]


def devices(value):
    """Return a device, or a list of devices."""
    return _parts(value) if "," in value else value


def _parts(value):
    return [each.strip() for each in value.split(",")]


def storage_option(value):
    """Return the key and the value of KEY=VALUE; the value is JSON if possible."""
    key, equals, text = value.partition("=")
    if not (key and equals):
        # The value may be a password, so it is not shown.
        raise click.BadParameter("it must be KEY=VALUE, such as anon=true.")
    try:
        return key, json.loads(text)
    except ValueError:
        return key, text


def cache_size(value):
    """Return a number of bytes with a unit, or None for no limit."""
    from ..cache import FeatureCache

    size = None if value.lower() == "none" else value
    try:
        FeatureCache(max_size=size)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a size such as '20 GB' or none."
        ) from error
    return size


def output_option(endings, help):
    """Return the option --output, a local file with one of the given endings."""

    def check(ctx, param, value):
        # A Zarr array is a folder, so a slash may follow its name.
        name = value.rstrip("/") if ".zarr" in endings else value
        if os.path.splitext(name)[1] not in endings:
            *others, last = endings
            raise click.BadParameter(
                f"{value!r} must end in {', '.join(others)} or {last}."
            )
        if is_like_address(value):
            raise click.BadParameter(f"{value!r} must be on a local disk.")
        folder = os.path.dirname(os.path.abspath(value))
        if not os.path.isdir(folder):
            raise click.BadParameter(f"there is no folder {folder!r}.")
        # Checked before the work, which may take hours.
        if os.path.isdir(value) and not name.endswith(".zarr"):
            raise click.BadParameter(f"{value!r} is a folder.")
        if not os.access(folder, os.W_OK):
            raise click.BadParameter(f"the folder {folder!r} is not writable.")
        return value

    return click.option(
        "-o", "--output", required=True, metavar="FILE", callback=check, help=help
    )


image_size_option = click.option(
    "--image-size",
    type=image_size,
    metavar="N|HxW",
    help="Image size in pixels. By default, the size that the weights were trained "
    "with.",
)

overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace the output if it exists."
)

quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Show only warnings and errors."
)

verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Show log messages, and progress even if stderr is not a terminal.",
)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Write JSON, for scripts."
)

weights_option = click.option(
    "--weights",
    metavar="NAME|FILE|random",
    default="default",
    help="Name of one of the network's sets of weights, a file (.safetensors, .pth), "
    "or random.",
)

random_state_option = click.option(
    "--random-state",
    type=click.IntRange(0, 2**32 - 1),
    metavar="N",
    help="Seed, for the same result each time.",
)
