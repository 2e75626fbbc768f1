"""What the pipeline sees of X: items by index, whatever their kind.

Images are one kind of item (`images.ImageSource`). Texts, recordings, rows and anything
else that a module takes are another (`feature_extraction.ListedItems`).
"""

import abc


class ItemSource(abc.ABC):
    """Items by index. All methods may be called from many threads at once.

    Attributes
    ----------
    kind : str
        The word for an item in messages.
    n_per_task : int
        How many items a thread loads at a time.
    """

    kind = "item"
    n_per_task = 1

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of items."""

    @abc.abstractmethod
    def digests(self, file_index=None, on_done=None, keeps=False):
        """Return the content digest of every item.

        Parameters
        ----------
        file_index : FileIndex or None, default=None
            Unchanged files that it knows are not read again.
        on_done : callable or None, default=None
            Called, from the calling thread, with the number of further files that are
            done. Items in memory are not counted: they take too little time.
        keeps : bool, default=False
            Whether to keep what is read of files, within a limit, until it is loaded.

        Returns
        -------
        digests : list of bytes or None
            32 bytes for each item; None for an item that cannot be read.
        failures : dict of int to BadItemError
            The items that cannot be read, by index.
        """

    def digests_in_parts(self, file_index=None, on_done=None):
        """Yield digests and failures of one part of the items after another.

        While the caller uses a part, further files are read and kept, within a limit.
        Parameters and failures are those of `digests`.

        Yields
        ------
        digests : list of bytes or None
            Of the items that follow those of the part before.
        failures : dict of int to BadItemError
        """
        yield self.digests(file_index, on_done, keeps=True)

    @abc.abstractmethod
    def fitted(self, i, preprocessing, budget=None):
        """Return one item in the form that batches are made of.

        Parameters
        ----------
        i : int
        preprocessing : Preprocessing
            Of the network, for images.
        budget : images.ByteBudget or None, default=None
            Bounds the memory of all threads.

        Raises
        ------
        BadItemError
            If it cannot be read, or has changed since its digest was taken.
        """

    @abc.abstractmethod
    def describe(self, i):
        """Return the path of an item, or what kind of object it is."""

    @abc.abstractmethod
    def part(self, indices):
        """Return some of the items as a source that other processes can use.

        It does not hold the other items, and counts its items from 0. It reads the same
        files from any working directory.

        Parameters
        ----------
        indices : ndarray of int
        """
