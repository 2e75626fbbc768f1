"""A hub repository's ``config.json``, of which only the keys listed here are used.

timm passes its content to the function that builds a network, and some arguments of
that function open addresses and files. So every argument must be known to be harmless,
and every number must be within bounds.
"""

import json
import re

from ..._utils._preprocessing import INTERPOLATIONS, MAX_SIDE
from ..._utils._shown import shown
from ...exceptions import BadFileError

_MAX_BYTES = 4 * 2**20  # most of them for the names of labels
_MAX_CLASSES = 200_000

# Arguments of timm's networks that describe the architecture and nothing else.
_SIZES = {
    "base_width", "block_size", "cardinality", "dims", "embed_dim", "embed_dims",
    "head_dim", "head_hidden_size", "img_size", "in_chans", "num_heads", "patch_size",
    "output_stride", "ref_feat_shape", "reg_tokens", "stem_width", "window_size",
}  # fmt: skip
_DEPTHS = {"depth", "depths", "layers"}
_OTHER_ARGUMENTS = {
    "act_layer", "attn_drop_rate", "avg_down", "class_token", "conv_mlp", "distilled",
    "drop_path_rate", "drop_rate", "dynamic_img_pad", "dynamic_img_size", "embed_norm",
    "fc_norm", "final_norm", "global_pool", "head_bias", "init_values", "ls_init_value",
    "mlp_ratio", "mlp_ratios", "no_embed_class", "norm_eps", "norm_layer",
    "num_classes", "patch_drop_rate", "pool_include_prefix", "pos_drop_rate",
    "pos_embed", "pre_norm", "proj_bias", "proj_drop_rate", "qk_norm", "qkv_bias",
    "rope_temperature",
    "scale_attn_norm", "scale_mlp_norm", "stem_type", "strict_img_size",
    "use_abs_pos_emb", "use_fc_norm", "use_rel_pos_bias", "use_rot_pos_emb",
}  # fmt: skip
_MAX_SIZE, _MAX_DEPTH = 16_384, 200


def fetch_hub_config(repository):
    """Return the ``config.json`` of a repository, downloaded if necessary.

    Parameters
    ----------
    repository : str
        ``owner/name`` or ``owner/name@revision``.

    Returns
    -------
    dict
        As `read_hub_config` returns it.

    Raises
    ------
    WeightsNotFoundError
        If it is not on this machine and cannot be downloaded.
    BadFileError
        If it is damaged, or has a key or value that is not allowed.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    from ._downloaded_weights import hub_error, split_repository

    name, revision = split_repository(repository)
    try:
        path = huggingface_hub.hf_hub_download(name, "config.json", revision=revision)
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, HfHubHTTPError, ValueError) as error:
        # Offline, not found, gated, no connection, or not the name of a repository.
        raise hub_error(name, "config.json", error) from error
    if len(content) > _MAX_BYTES:
        raise _error(repository, f"has more than {_MAX_BYTES:,} bytes")
    try:
        found = json.loads(content)
    except Exception as error:  # such as a RecursionError
        raise _error(repository, f"is damaged ({type(error).__name__})") from error
    return read_hub_config(found, repository)


def read_hub_config(found, repository):
    """Return the part of a ``config.json`` that is used.

    Parameters
    ----------
    found : object
        The content of the file.
    repository : str
        For messages.

    Returns
    -------
    dict
        ``repository`` and ``architecture`` (str), ``pretrained_cfg`` and
        ``model_args`` (dict). Reading it again gives the same.

    Raises
    ------
    BadFileError
        It names the key that is not allowed.
    """
    import timm

    def refuse(key, value, wanted):
        raise _error(
            repository, f"must have {wanted} as {key!r}, but has {shown(value)}"
        )

    if not isinstance(found, dict):
        raise _error(repository, "must be a JSON object")
    architecture = found.get("architecture")
    # A tag would name timm's own weights instead of those of the repository.
    is_plain = isinstance(architecture, str) and "." not in architecture
    if not is_plain or not timm.is_model(architecture):
        refuse("architecture", architecture, "the name of a timm network without a tag")
    # Old repositories have one dict of everything.
    described = found.get("pretrained_cfg", found)
    if not isinstance(described, dict):
        refuse("pretrained_cfg", described, "an object")
    described = dict(described)
    if "num_classes" in found:
        described["num_classes"] = found["num_classes"]
    own = timm.get_pretrained_cfg(architecture)
    config = {
        # timm itself knows which modules are the head and the first convolution.
        key: value
        for key, value in (own.to_dict() if own else {}).items()
        if key in ("classifier", "first_conv", "pool_size", "fixed_input_size")
    }
    for key, (is_allowed, wanted) in _CONFIG.items():
        if described.get(key) is not None:
            if not is_allowed(described[key]):
                refuse(f"pretrained_cfg.{key}", described[key], wanted)
            config[key] = described[key]
    arguments = found.get("model_args") or {}
    if not isinstance(arguments, dict):
        refuse("model_args", arguments, "an object")
    for key, value in arguments.items():
        if key not in _ARGUMENTS or not _ARGUMENTS[key](value):
            refuse(f"model_args.{key}", value, "nothing but known sizes and options")
    _apply_arguments(config, arguments)
    if not _is_input_size(config.get("input_size", (3, 1, 1))):
        refuse("model_args.img_size", arguments.get("img_size"), "a size in pixels")
    # Other numbers of channels are refused later, by an error that says what to do.
    for key in ("mean", "std"):
        values = config.get(key, (0, 0, 0))
        if len(values) != 3 == config.get("input_size", (3,))[0]:
            refuse(f"pretrained_cfg.{key}", values, "a number for each of 3 channels")
    return {
        "repository": repository,
        "architecture": architecture,
        "pretrained_cfg": config,
        "model_args": arguments,
    }


def _apply_arguments(config, arguments):
    """Change the size of the images as timm does for these arguments."""
    if arguments.get("dynamic_img_size") or arguments.get("strict_img_size") is False:
        config["fixed_input_size"] = False
    channels, *size = config.get("input_size") or (3, 224, 224)
    if config.get("fixed_input_size") and arguments.get("img_size") is not None:
        given = arguments["img_size"]
        size = given if isinstance(given, list) else [given, given]
    if {"in_chans", "img_size"} & arguments.keys():
        config["input_size"] = [arguments.get("in_chans") or channels, *size]


def _error(repository, what):
    return BadFileError(
        "The 'model' parameter must name a timm network on the hub. The config.json of "
        f"{repository!r} {what}. The file is not used. If you trust the repository, "
        "build the network with timm.create_model and pass it as 'model'."
    )


def _integer(low, high):
    return lambda value: type(value) is int and low <= value <= high


def _number(low, high):
    return lambda value: isinstance(value, (int, float)) and low <= value <= high


def _list_of(check, shortest=1, longest=64):
    return lambda values: (
        isinstance(values, (list, tuple))
        and shortest <= len(values) <= longest
        and all(map(check, values))
    )


def _one_or_list_of(check):
    """Return a check of an argument: null, a value or a list of these."""
    each = _list_of(lambda value: value is None or check(value), shortest=0)
    return lambda value: each(value if isinstance(value, list) else [value])


def _is_option(value):
    if isinstance(value, str):
        return bool(re.fullmatch(r"[\w.-]{0,40}", value))
    return _number(-_MAX_CLASSES, _MAX_CLASSES)(value)


def _one_of(*names):
    return (lambda value: value in names), f"one of {', '.join(names)}"


def _is_file_name(value):
    # Without separators, so it is in no other folder.
    return isinstance(value, str) and re.fullmatch(r"[\w.-]{1,100}", value)


_is_input_size = _list_of(_integer(1, MAX_SIDE), 3, 3)

# The arguments of networks that are used, and whether a value is allowed.
_ARGUMENTS = {
    **dict.fromkeys(_SIZES, _one_or_list_of(_integer(0, _MAX_SIZE))),
    **dict.fromkeys(_DEPTHS, _one_or_list_of(_integer(0, _MAX_DEPTH))),
    **dict.fromkeys(_OTHER_ARGUMENTS, _one_or_list_of(_is_option)),
}
# The keys of `pretrained_cfg` that are used: whether a value is allowed, and what it
# must be. There are no addresses, files, other repositories, state dicts or loaders.
_CONFIG = {
    "input_size": (_is_input_size, f"three integers from 1 to {MAX_SIDE}"),
    "fixed_input_size": (lambda value: isinstance(value, bool), "true or false"),
    "interpolation": _one_of(*INTERPOLATIONS),
    "crop_pct": (_number(0.2, 2), "a number from 0.2 to 2"),
    "crop_mode": _one_of("center", "squash", "border"),
    "mean": (_list_of(_number(-1000, 1000)), "a list of numbers"),
    "std": (_list_of(_number(1e-6, 1000)), "a list of numbers above 0"),
    "num_classes": (_integer(0, _MAX_CLASSES), f"an integer up to {_MAX_CLASSES:,}"),
    "label_offset": (lambda value: value in (0, 1), "0 or 1"),
    "hf_hub_filename": (_is_file_name, "a file's name"),
}
