"""The bar that counts images."""

from tqdm.auto import tqdm

__all__ = ["progress_bar"]


def progress_bar(n_images, title, verbose, **options):
    """Return a bar of `n_images`, shown if `verbose` is above 0."""
    return tqdm(
        total=n_images, desc=title, unit="image", disable=verbose < 1, **options
    )
