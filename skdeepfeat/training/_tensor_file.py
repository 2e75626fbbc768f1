"""Tensors and text in one safetensors file, with a checksum of both."""

import json

import safetensors.torch
import torch

from .._utils._digests import digest_arrays, digest_bytes
from ..exceptions import BadFileError


def dump_tensors(tensors, text):
    """Return the bytes of a file.

    Parameters
    ----------
    tensors : dict of str to Tensor
        On any device, in any order in memory.
    text : str

    Returns
    -------
    bytes
    """
    # Copies, because safetensors refuses tensors that share memory.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    return safetensors.torch.save(
        tensors, {"skdeepfeat": text, "digest": _digest(text, tensors)}
    )


def parse_tensors(content):
    """Return what `dump_tensors` was given.

    Parameters
    ----------
    content : bytes

    Returns
    -------
    text : str
    tensors : dict of str to Tensor

    Raises
    ------
    BadFileError
        With a message that completes "The file ... cannot be loaded: ".
    """
    foreign = "it is damaged, or was not written by this package"
    try:
        tensors = safetensors.torch.load(content)
        # The library gives the header of files only: eight bytes of length, then JSON.
        end = 8 + int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8:end])["__metadata__"]
        text, expected = metadata["skdeepfeat"], metadata["digest"]
        found = _digest(text, tensors)
    except Exception as error:  # of any bytes
        raise BadFileError(
            f"{foreign} ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    if found != expected:
        raise BadFileError(f"{foreign} (its checksum differs)")
    return text, tensors


def _digest(text, tensors):
    """Return the digest of a text and of tensors, whose order does not matter."""
    names = sorted(tensors)
    # As bytes, because numpy knows no bfloat16.
    arrays = [tensors[name].reshape(-1).view(torch.uint8).numpy() for name in names]
    shapes = [f"{name}{tensors[name].dtype}{[*tensors[name].shape]}" for name in names]
    return digest_bytes(
        "\n".join([text, *shapes, digest_arrays(*arrays)]).encode()
    ).hex()
