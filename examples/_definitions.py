"""Short texts with labels that an installed package ships: definitions of WordNet.

timm ships the definitions of the 21,844 nouns of ImageNet. WordNet numbers its nouns
such that those of one kind are next to each other.
"""

import importlib.util
import pathlib

# The numbers of the nouns of a kind, first and last.
_KINDS = {
    "animal": (1300000, 2666195),
    "artifact": (2666196, 4619999),
    "food": (7550000, 7959999),
    "person": (9600000, 10799999),
    "plant": (11530000, 13239999),
}


def load_definitions():
    """Return definitions, and the kind of thing that each defines, as lists of str."""
    home = importlib.util.find_spec("timm").submodule_search_locations[0]
    file = pathlib.Path(home, "data", "_info", "imagenet_synset_to_definition.txt")
    texts, labels = [], []
    for line in file.read_text(encoding="utf-8").splitlines():
        number, _, definition = line.partition("\t")
        for kind, (first, last) in _KINDS.items():
            if first <= int(number[1:]) <= last:
                texts.append(definition)
                labels.append(kind)
    return texts, labels
