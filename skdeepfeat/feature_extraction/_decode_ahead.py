"""Images decoded in threads, ahead of whoever wants them."""

import math
from collections import deque

import joblib

from ..exceptions import BadImageError
from ..images import ByteBudget, ThreadPool

__all__ = ["decode_ahead", "decoding_threads"]

# How many batches the decoding threads may be ahead of one network: one that is
# waiting while another is being filled. More only costs memory.
_BATCHES_AHEAD = 2


def decoding_threads():
    """Return a `ThreadPool` for `decode_ahead`.

    Decoders release the GIL, and no process is forked after a GPU has been touched.
    """
    return ThreadPool(joblib.cpu_count(), "skdeepfeat-decode")


def decode_ahead(
    pool,
    source,
    indices,
    preprocessing,
    batch_size,
    n_consumers=1,
    found_bad=None,
    for_device=False,
):
    """Yield (rows, images, failures) a batch, decoding the next ones meanwhile.

    What is in memory at a time is bounded in images and in bytes (`ByteBudget`), so it
    does not grow with X.

    Parameters
    ----------
    pool : ThreadPool
        Once it is abandoned, the next batch is a CancelledError.
    source : images.ImageSource
    indices : ndarray of int
        Which of its images.
    preprocessing : Preprocessing
        Its geometry is applied.
    batch_size : int
    n_consumers : int, default=1
        How many take batches side by side.
    found_bad : threading.Event or None, default=None
        If not None, the batch in which an image could not be read is the last: it is
        set then, and no batch is begun after somebody else has set it.
    for_device : bool, default=False
        Whether JPEGs are left encoded for `images.fit_on_device`.
    """
    n_ahead = (_BATCHES_AHEAD + n_consumers - 1) * batch_size + joblib.cpu_count()
    load = source.for_device if for_device else source.fitted
    budget = ByteBudget()
    n_ahead = min(n_ahead, budget.total // (3 * math.prod(preprocessing.crop)) + 1)
    remaining = iter(indices.tolist())
    pending = deque()

    def top_up():
        # Encoded ones are of any size.
        if for_device and sum(map(_n_encoded, pending)) > budget.total:
            return
        while len(pending) < n_ahead:
            row = next(remaining, None)
            if row is None:
                return
            pending.append((row, pool.submit(load, row, preprocessing, budget)))

    try:
        top_up()
        while pending and not (found_bad and found_bad.is_set()):
            rows, images, bad = [], [], {}
            while pending and len(rows) < batch_size:
                row, future = pending.popleft()
                try:
                    images.append(future.result())
                    rows.append(row)
                except BadImageError as error:
                    bad[row] = error
                top_up()
            if bad and found_bad:
                found_bad.set()
            yield rows, images, bad
    finally:
        budget.close()
        for _, future in pending:
            future.cancel()


def _n_encoded(waiting):
    """Return the bytes of a JPEG that waits for the device."""
    _, future = waiting
    if not future.done() or future.exception() is not None:
        return 0
    return len(getattr(future.result(), "data", ()))
