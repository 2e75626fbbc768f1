"""What identifies a user's module over items: its rows for the first items it saw.

There are no fixed items as there are fixed images. So the cache stores, with the rows
of a module, the first four items and their rows. A module with the same tensors is the
same module if its rows for these items agree, to a tolerance.
"""

import logging

import numpy as np

from .._utils._digests import digest_bytes
from .._utils._item_encoding import decode_item, encode_item
from .._utils._parameter_errors import first_line
from .._utils._random import random_states_kept
from ..exceptions import OutOfMemoryError
from ..networks import N_PROBE_ITEMS

logger = logging.getLogger(__name__)

# Bytes. Larger items are not stored, so they must be in X again.
_MAX_STORED = 2**24
# How often all items run again if the module may draw random numbers.
_N_IF_RANDOM = 16
# How often other processes may add a variant while this one is being recognized.
_N_ATTEMPTS = 8


def identify_by_items(extraction, namespaces, run):
    """Return the variants of namespaces that are a user's module.

    Parameters
    ----------
    extraction : Extraction
        Its `neck` is a snapshot.
    namespaces : list of Namespace
        One for each of the neck's outputs.
    run : callable
        ``run(function)`` returns ``function(device)``.

    Returns
    -------
    namespaces : list of Namespace
    known : dict of bytes to list of ndarray of float32, shape (n_features,)
        By the digest of the item, the rows that were computed for this.

    None if the same items gave different rows in another batch.
    """
    probes = _Probes(extraction, run)
    found = []
    for number, namespace in enumerate(namespaces):
        name = _recognize(probes, number, namespace, extraction.store)
        if name is None:
            return None
        found.append(namespace.variant(name))
    return found, probes.known()


def _recognize(probes, number, namespace, store):
    """Return the name of the variant of one output, or None if it is not stable."""
    for _ in range(_N_ATTEMPTS):
        variants = store.known_variants(namespace)
        digests = None
        for name, data in variants:
            stored = _unpack(data)
            if stored is None:
                continue
            some, items, wanted = stored
            rows = probes.rows_of_stored(some, items)
            if rows is None:
                continue
            # Other variants get the rows of the same items.
            digests = digests or some
            if probes.neck.agree(rows[number], wanted):
                # One item does not show whether the module mixes those of a batch.
                more = probes.first_of_source() if len(some) == 1 else ()
                if len(more) > 1 and not probes.is_stable(more):
                    return None
                return name
        if digests is None:
            digests = probes.first_of_source()
        if not probes.is_stable(digests):
            return None
        rows = probes.rows(digests)[number]
        data = _pack(digests, probes.items(digests), rows)
        name = digest_bytes(data).hex()
        if store.add_variant(namespace, name, data, variants):
            return name
    # It is not stored, so only a module with the same rows for the same items finds it.
    return name


class _Probes:
    """Items that tell what a module is, and its rows for them."""

    def __init__(self, extraction, run):
        self.neck = extraction.neck
        self._source = extraction.source
        self._digests = extraction.digests
        self._run = run
        self._items = {}
        self._rows = {}

    def first_of_source(self):
        """Return the digests of the first items that can be used."""
        chosen, failure = {}, None
        for i, digest in enumerate(self._digests):
            if digest is None or digest in chosen:
                continue
            item = self._source.item(i)
            _, failures = self.neck.batched([item])
            if not failures:
                chosen[digest] = item
            elif failure is None:
                failure = failures[0].at(i, self._source.describe(i))
            if len(chosen) == N_PROBE_ITEMS:
                break
        if not chosen and failure is not None:
            raise failure
        self._items.update(chosen)
        return tuple(chosen)

    def items(self, digests):
        """Return items that were used, by their digests."""
        return [self._items[one] for one in digests]

    def rows(self, digests, items=None):
        """Return the rows of items, or None if the items are not known.

        Parameters
        ----------
        digests : tuple of bytes
        items : list of object or None, default=None
            None if they were not stored.
        """
        if digests in self._rows:
            return self._rows[digests]
        if items is None:
            places = {digest: i for i, digest in enumerate(self._digests)}
            for one in digests:
                if one not in self._items and one in places:
                    self._items[one] = self._source.item(places[one])
            if not all(one in self._items for one in digests):
                return None
            items = self.items(digests)
        self._rows[digests] = self._run(
            lambda device: self.neck.rows_of(items, device, digests)
        )
        self._items.update(zip(digests, items, strict=True))
        return self._rows[digests]

    def rows_of_stored(self, digests, items):
        """Return the rows of items from the cache, or None if there are none.

        They may be items for a different `collate`, such as texts for one that takes
        dicts. Such a variant does not match.
        """
        try:
            return self.rows(digests, items)
        except OutOfMemoryError:
            raise
        except Exception as error:  # of the user's functions
            logger.info(
                "the module cannot process the stored items: %s", first_line(error)
            )
            return None

    def is_stable(self, digests):
        """Return whether the same items give the same rows, each in its own batch."""
        rows, items = self.rows(digests), self.items(digests)
        # The shortest ones are padded most.
        order = sorted(range(len(items)), key=lambda i: _size(items[i]))
        for i in order[: N_PROBE_ITEMS // 2]:
            item = items[i]
            alone = self._run(
                lambda device, item=item: self.neck.rows_of([item], device)
            )
            for one, all_rows in zip(alone, rows, strict=True):
                again = all_rows.copy()
                again[i] = one[0]
                if not self.neck.agree(again, all_rows):
                    return False
        return not self.neck.may_draw_numbers() or self._is_repeated(items, rows)

    def _is_repeated(self, items, rows):
        """Return whether the items have the same rows again and again."""
        # Dropout of a few values leaves most rows as they are.
        batch, _ = self.neck.batched(items)

        def run_often(device):
            # A generator of the module goes on only as long as this copy is used.
            with random_states_kept(device), self.neck.loaded(device) as run:
                return [run(batch) for _ in range(_N_IF_RANDOM)]

        return all(
            all(map(self.neck.agree, again, rows)) for again in self._run(run_often)
        )

    def known(self):
        """Return the finite rows of items by digest."""
        return {
            digest: [rows[i] for rows in outputs]
            for digests, outputs in self._rows.items()
            for i, digest in enumerate(digests)
            if all(np.isfinite(rows[i]).all() for rows in outputs)
        }


def _size(item):
    try:
        return len(encode_item(item))
    except TypeError:
        return 0


def _pack(digests, items, rows):
    """Return what the cache stores: the items if possible, and their rows."""
    try:
        encoded = encode_item(list(items))
        if len(encoded) > _MAX_STORED:
            items = None
    except TypeError:
        items = None  # they have a `key`
    return encode_item((list(digests), items, np.asarray(rows, "<f4")))


def _unpack(data):
    """Return digests, items (or None) and rows, or None if it is something else.

    The file may come from a stranger.
    """
    try:
        digests, items, rows = decode_item(data)
    except (TypeError, ValueError):
        return None
    is_ours = (
        isinstance(digests, list)
        and 1 <= len(digests) <= N_PROBE_ITEMS
        and all(isinstance(one, bytes) for one in digests)
        and (items is None or isinstance(items, list) and len(items) == len(digests))
        and isinstance(rows, np.ndarray)
        and rows.dtype == np.float32
        and rows.ndim == 2
        and len(rows) == len(digests)
    )
    return (tuple(digests), items, rows) if is_ours else None
