"""Settings are read from parameters of the same name, unless values are given."""

from dataclasses import dataclass
from types import SimpleNamespace

from skdeepfeat._utils._settings import Settings


@dataclass
class Loop(Settings):
    n_epochs: int
    batch_size: int = 1
    seed: int = 0


def test_parameters_defaults_and_others():
    source = SimpleNamespace(n_epochs=3, batch_size=8, verbose=1)
    assert Loop.of(source) == Loop(3, 8, 0)
    assert Loop.of(source, n_epochs=5, seed=2) == Loop(5, 8, 2)
    assert Loop.of(Loop(3, 8, 4), batch_size=2) == Loop(3, 2, 4)
