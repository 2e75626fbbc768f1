"""The functions of the package that one call of `transform` goes through.

Run ``python -m benchmarks.call_path`` in the repository. It prints how many distinct
functions and files a cold call (empty cache) and a warm one (known images) run through,
and with ``--list`` their names in the order of their first calls.
"""

import argparse
import inspect
import os
import pathlib
import sys
import tempfile
import threading

import numpy as np
from PIL import Image

import skdeepfeat
from skdeepfeat import PretrainedFeatureExtractor

PACKAGE = str(pathlib.Path(skdeepfeat.__file__).parent)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--list", action="store_true", help="name the functions")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(pathlib.Path(folder), options.images)
        extractor = PretrainedFeatureExtractor(
            options.model, device="cpu", cache=pathlib.Path(folder, "cache")
        )
        for name in ("cold", "warm"):
            called = functions_called(lambda: extractor.transform(paths))
            here = [place for place, is_here in called.items() if is_here]
            print(f"{name}: {in_words(called)}; in the calling thread {in_words(here)}")
            if options.list:
                for file, function in called:
                    print(f"    {pathlib.Path(file).relative_to(PACKAGE)} {function}")


def write_images(folder, n_images):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n_images):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        paths.append(str(folder / f"{i}.jpg"))
        Image.fromarray(pixels).save(paths[-1])
        # The cache does not remember the digests of files that have just changed.
        os.utime(paths[-1], (0, 0))
    return paths


def in_words(called):
    files = {file for file, _ in called}
    return f"{len(called)} functions in {len(files)} files"


def functions_called(function):
    """Return the functions of the package that a call runs, in any thread.

    Comprehensions and the bodies of imported modules do not count.

    Returns
    -------
    dict of (file, name) to bool
        Whether it ran in the calling thread.
    """
    called, thread = {}, threading.get_ident()

    def note(frame, event, argument):
        code = frame.f_code
        # Bodies of classes and modules are not optimized.
        is_function = code.co_flags & inspect.CO_OPTIMIZED
        is_comprehension = code.co_name.endswith(("comp>", "genexpr>"))
        if event == "call" and code.co_filename.startswith(PACKAGE):
            if is_function and not is_comprehension:
                place = (code.co_filename, code.co_qualname)
                is_here = threading.get_ident() == thread
                called[place] = is_here or called.get(place, False)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return called


if __name__ == "__main__":
    main()
