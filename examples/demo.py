"""A grid search over deep features of real images, and again at once from the cache.

Which surface is it, and is it a face? For each task, one GridSearchCV chooses the layer
of the network and the classifier on top; raw pixels are the baseline. It needs no
connection, and writes to `demo_output/`.

The same as the command `skdeepfeat demo`, which is installed with the package; what it
runs is in `skdeepfeat/cli/_demo_search.py`, to be read and changed as an example: it
uses nothing but the public interface. It needs `pip install 'skdeepfeat[demo]'`.
"""

import sys

from skdeepfeat.cli import main

if __name__ == "__main__":
    main(["demo", *sys.argv[1:]], prog_name="skdeepfeat")
