"""Weights that are downloaded: torchvision's by URL, timm's from the hub.

Nothing is downloaded to list or to resolve names, only when weights are needed and the
file is not on this machine.
"""

import logging
import os
import urllib.error
import urllib.parse
from dataclasses import dataclass

import torch.hub

from ..._utils._printable import redacted
from ...exceptions import WeightsNotFoundError
from ._weights import Weights, file_key

logger = logging.getLogger(__name__)


def checkpoints_folder() -> str:
    """Return the folder where torch.hub keeps weights files ($TORCH_HOME)."""
    return os.path.join(torch.hub.get_dir(), "checkpoints")


@dataclass(frozen=True)
class UrlWeights(Weights):
    """A file at a URL, kept in torch.hub's folder.

    Attributes
    ----------
    url : str
    label : str
        The name its source has for it, such as ``"IMAGENET1K_V1"``.
    sha256_in_name : bool
        Whether the file's name has the beginning of its sha256, as torchvision's do.
        Names of other hosts may only look like that.
    """

    url: str
    label: str
    sha256_in_name: bool = False

    @property
    def file_name(self):
        """The name of the file."""
        return os.path.basename(urllib.parse.urlparse(self.url).path)

    @property
    def path(self):
        """Where the file is, or will be, on this machine."""
        return os.path.join(checkpoints_folder(), self.file_name)

    def identity(self, digest_file):
        """Return the file's name if it has its hash, else the file's digest."""
        if self.sha256:
            return {"url_file": self.file_name}
        return super().identity(digest_file)

    def is_identified(self):
        """Return whether the name has the file's hash, or the file is here."""
        return bool(self.sha256) or os.path.isfile(self.path)

    @property
    def sha256(self):
        """The beginning of the file's sha256, if its name has it."""
        found = torch.hub.HASH_REGEX.search(self.file_name)
        return found.group(1) if found and self.sha256_in_name else None

    def fetch(self):
        """Return the path of the file, which is downloaded if necessary."""
        path = self.path
        if os.path.exists(path):
            return path
        logger.info("downloading %s to %s", self.url, path)
        try:
            if path.startswith("~"):  # a folder of that name would be created
                raise OSError(
                    "there is no home directory for this user: set TORCH_HOME"
                )
            os.makedirs(checkpoints_folder(), exist_ok=True)
            torch.hub.download_url_to_file(self.url, path, self.sha256, progress=False)
        except (OSError, RuntimeError) as error:
            # URLError, HTTPError and time-outs are OSErrors; a wrong hash is a
            # RuntimeError.
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection
            raise _not_found(
                f"The weights {self.label!r} are not on this machine and could not be "
                f"downloaded ({_reason(error)}). Wanted: {self.file_name} from "
                f"{self.url}. Put the file into {checkpoints_folder()}."
            ) from error
        return path


@dataclass(frozen=True)
class HubWeights(Weights):
    """Weights in a repository of the Hugging Face hub, as timm stores them.

    As in timm, the safetensors file is preferred. timm 1.0.20 still reads some pickles
    without ``weights_only``. So the file is downloaded with the hub's client and read
    here. timm gets a state dict, which it adapts to the network.

    Attributes
    ----------
    repo : str
        ``owner/name`` or ``owner/name@revision``.
    file_name : str or None
        The file in the repository, if it does not have the usual name.
    """

    repo: str
    file_name: str | None = None
    label: str = "default"

    def store_key(self):
        """Return the repository, and the state of the local file if there is one."""
        path = self._local()
        return ("hub", self.repo, *(file_key(path) if path else ()))

    def is_identified(self):
        """Return whether the file is here."""
        return self._local() is not None

    def _candidates(self):
        name = self.file_name or "pytorch_model.bin"
        if name.endswith(".safetensors"):
            return [name]
        safe = {
            "pytorch_model.bin": "model.safetensors",
            "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
        }
        return [safe.get(name, os.path.splitext(name)[0] + ".safetensors"), name]

    def _local(self):
        import huggingface_hub  # slow, and not needed by the networks of torchvision

        repo, revision = split_repository(self.repo)
        find = huggingface_hub.try_to_load_from_cache
        for name in self._candidates():
            path = find(repo, name, revision=revision)
            if isinstance(path, str):
                return path
        return None

    def fetch(self):
        """Return the path of the file, which is downloaded if necessary."""
        import huggingface_hub
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
        )

        if path := self._local():
            return path
        repo, revision = split_repository(self.repo)
        last_error = None
        for name in self._candidates():
            try:
                return huggingface_hub.hf_hub_download(repo, name, revision=revision)
            except (OSError, HfHubHTTPError, ValueError, RuntimeError) as error:
                # A RuntimeError if the user has no home directory for the files.
                last_error = error
                # Without a connection, the client has already tried for 20 seconds.
                is_missing = isinstance(error, EntryNotFoundError)
                if not is_missing or isinstance(error, LocalEntryNotFoundError):
                    break
        raise hub_error(repo, self._candidates()[0], last_error) from last_error


def split_repository(repository):
    """Return the parts of ``owner/name@revision``; None for no revision."""
    name, _, revision = repository.partition("@")
    return name, revision or None


def hub_error(repo, file_name, error):
    """Return the error for a file of the hub that cannot be downloaded."""
    from huggingface_hub import constants

    folder = os.path.join(constants.HF_HUB_CACHE, "models--" + repo.replace("/", "--"))
    return _not_found(
        f"The weights of {repo!r} are not on this machine and could not be downloaded "
        f"({_reason(error)}). Wanted: {file_name} of the Hugging Face repository "
        f"{repo}. Run `hf download {repo}` where there is a connection and copy the "
        f"folder to {folder}."
    )


def _not_found(message):
    """Return an error that says what works here without a connection."""
    from . import _embedded, _torchvision  # which import this module

    try:
        files = set(os.listdir(checkpoints_folder()))
    except OSError:
        files = set()
    local = _torchvision.names_of_files(files)
    parts = [f"model={name!r}" for name in _embedded.list_names()]
    parts += [f"model={name!r}, weights={weights!r}" for name, weights in local]
    parts += ["weights=FILE (.safetensors, .pth)", "weights='random'"]
    return WeightsNotFoundError(
        f"{message} Usable here without a connection: {'; '.join(parts)}."
    )


def _reason(error):
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    text = (redacted(error).strip() or type(error).__name__).splitlines()[0]
    return text[:200]
