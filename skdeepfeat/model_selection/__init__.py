"""Which network, which layer and how much fine-tuning, decided by measurement."""

from ._transfer_advisor import TransferAdvisor

__all__ = ["TransferAdvisor"]
