"""Images decoded in threads, ahead of whoever wants them."""

import functools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import joblib

from .._errors import BadImageError

__all__ = ["decode_ahead"]

# How many batches the decoding threads may be ahead of one network: one that is
# waiting while another is being filled. More only costs memory.
_BATCHES_AHEAD = 2


def decode_ahead(
    source,
    indices,
    preprocessing,
    batch_size,
    n_consumers=1,
    found_bad=None,
    for_device=False,
):
    """Yield (rows, images, failures) a batch, decoding the next ones meanwhile.

    Threads do the decoding: Pillow releases the GIL, and no process is forked after
    a GPU has been touched. The queue is bounded, so memory does not grow with X.

    Parameters
    ----------
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
    n_ahead = (_BATCHES_AHEAD + n_consumers - 1) * batch_size

    load = functools.partial(
        source.for_device if for_device else source.fitted, preprocessing=preprocessing
    )

    n_threads = joblib.cpu_count()
    remaining = iter(indices.tolist())
    with ThreadPoolExecutor(n_threads, thread_name_prefix="skdeepfeat-decode") as pool:
        pending = deque()

        def top_up():
            while len(pending) < n_ahead + n_threads:
                row = next(remaining, None)
                if row is None:
                    return
                pending.append((row, pool.submit(load, row)))

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
            pool.shutdown(wait=True, cancel_futures=True)
