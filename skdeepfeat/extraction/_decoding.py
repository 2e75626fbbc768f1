"""Images decoded in threads, ahead of whoever wants them."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import joblib

from .._errors import BadImageError

__all__ = ["decode_ahead"]

# How many batches the decoding threads may be ahead of one network: one that is
# waiting while another is being filled. More only costs memory.
_BATCHES_AHEAD = 2


def decode_ahead(
    source, indices, preprocessing, batch_size, n_consumers=1, stop_at_bad=False
):
    """Yield (rows, images, failures) a batch, decoding the next ones meanwhile.

    Threads do the decoding: Pillow releases the GIL, and no process is forked after
    a GPU has been touched. The queue is bounded, so memory does not grow with X.
    With `stop_at_bad`, the batch in which an image could not be read is the last.
    """
    n_ahead = (_BATCHES_AHEAD + n_consumers - 1) * batch_size

    def load(row):
        return source.fitted(row, preprocessing)

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
            while pending:
                rows, images, bad = [], [], {}
                while pending and len(rows) < batch_size:
                    row, future = pending.popleft()
                    try:
                        images.append(future.result())
                        rows.append(row)
                    except BadImageError as error:
                        bad[row] = error
                    top_up()
                yield rows, images, bad
                if bad and stop_at_bad:
                    return
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
