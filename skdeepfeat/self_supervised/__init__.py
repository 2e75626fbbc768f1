"""Features learned without labels: autoencoders and pairs of views."""

from ._autoencoder import Autoencoder
from ._conv_autoencoder import ConvAutoencoder
from ._self_supervised_extractor import SelfSupervisedExtractor

__all__ = ["Autoencoder", "ConvAutoencoder", "SelfSupervisedExtractor"]
