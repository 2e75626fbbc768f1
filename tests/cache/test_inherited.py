"""Children that are forked while their parent has the file open.

The forks belong to a process of its own: the test process is never forked.
"""

import os

import pytest

from tests.cache.pretend import finish, start

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="processes are forked on POSIX"
)

SETUP = """
import os, sys, threading, warnings
from pretend import Nets, key_of
from skdeepfeat._utils import _forks
from skdeepfeat.cache import FeatureCache
from skdeepfeat.exceptions import CacheWarning

warnings.simplefilter("error")
assert _forks._FORK_TIMEOUT
_forks._FORK_TIMEOUT = 0.2
cache = FeatureCache(sys.argv[1])
Nets({"a": 3}).check_fetch(cache, range(5))
inside, go_on = threading.Event(), threading.Event()

def forked_while(work, then):
    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(240)
    child = os.fork()
    if not child:
        then()
        sys.exit()  # not os._exit: what Python does at its end must do no harm either
    assert os.waitpid(child, 0)[1] == 0
    go_on.set()
    thread.join()
    assert Nets({"a": 3}).check_fetch(cache, range(5)) == []
    assert cache.check().ok
"""

IN_USE = """
def write(connection):
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM rows")
    inside.set()
    assert go_on.wait(240)
    connection.execute("ROLLBACK")

def work():
    with cache.open() as store:
        store.run(write, writing=True)

def then():
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert Nets({"a": 3}).check_fetch(cache, range(5)) == [*range(5)]
        assert [each.category for each in caught] == [CacheWarning], caught
        assert "forked" in str(caught[0].message)
    other = FeatureCache(sys.argv[1] + "-other")
    assert Nets({"a": 3}).check_fetch(other, range(5)) == [*range(5)]
    assert Nets({"a": 3}).check_fetch(other, range(5)) == []

forked_while(work, then)
"""

IDLE = """
def work():
    with _forks.undisturbed_by_forks():  # as a step of training is
        inside.set()
        assert go_on.wait(240)

with cache.open() as store:
    store.run(lambda connection: None)
    assert store.database.is_open

    def then():
        assert not store.database.is_open
        for each in (cache, FeatureCache(cache.path)):
            assert Nets({"a": 3}).check_fetch(each, range(7)) in ([], [5, 6])
        assert store.all_known(Nets({"a": 3}).namespaces, [key_of(0)])
        assert cache.check().ok

    forked_while(work, then)
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [IN_USE, IDLE], ids=["in use", "idle"])
def test_a_child_has_no_connection_of_its_parent(directory, script):
    # The assertions about the child are in the script.
    assert finish(start(SETUP + script, directory)) == ""
