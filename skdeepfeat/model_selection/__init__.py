"""Which network, which layer and how much fine-tuning, decided by measurement."""

__all__ = []
