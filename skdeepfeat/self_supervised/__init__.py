"""Features learned without labels: autoencoders."""

from ._autoencoder import Autoencoder

__all__ = ["Autoencoder"]
