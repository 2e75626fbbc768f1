"""Any module over any items: the same promises as for images."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from item_networks import (
    GatedNet,
    TextNet,
    ids_alone,
    to_codes,
    with_lengths,
    with_mask,
)
from networks import fix_weights, rows_counted
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from skdeepfeat import (
    BadItemError,
    BadItemWarning,
    CacheWarning,
    FeatureCache,
    NonFiniteOutputError,
    OutOfMemoryError,
    TorchFeatureExtractor,
)
from skdeepfeat._utils._item_encoding import encode_item
from skdeepfeat.cache import _variants
from skdeepfeat.networks import _item_neck

TEXTS = [f"{i} " + "abcdefghijk "[: i % 11 + 1] * (i % 5 + 1) for i in range(40)]
BROKEN = "caf\u00e9"  # the collate functions take ASCII only


@pytest.fixture(autouse=True)
def forget():
    """Forget what this process knows, as a new one would."""

    def forget():
        _item_neck._remembered_probes.clear()
        _item_neck._remembered_rows.clear()

    forget()
    return forget


def alone(model, texts, take):
    """Return the rows of texts, each run alone by torch."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return np.stack([take(model, with_mask([text])) for text in texts])


def neck_of(model, inputs):
    mixed = model.mixing(model.embedding(inputs["ids"]))
    return mixed[0].mean(0).numpy()


# -- Features


def test_the_neck_is_what_torch_computes():
    found = TorchFeatureExtractor(TextNet(), with_mask).fit_transform(TEXTS)
    assert found.dtype == np.float32
    assert_allclose(found, alone(TextNet(), TEXTS, neck_of), atol=1e-5)


@pytest.mark.parametrize(
    "pooling, reduce",
    [
        ("auto", lambda x: x.mean(0)),
        ("avg", lambda x: x.mean(0)),
        ("max", lambda x: x.amax(0)),
        ("gem", lambda x: x.clamp(min=1e-6).pow(3).mean(0).pow(1 / 3)),
    ],
)
def test_padding_is_left_out_of_the_pooling(pooling, reduce):
    extractor = TorchFeatureExtractor(
        TextNet(), with_mask, layer="mixing", pooling=pooling, cache=None
    )
    wanted = alone(
        TextNet(), TEXTS, lambda m, x: reduce(m.mixing(m.embedding(x["ids"]))[0])
    )
    assert_allclose(extractor.fit_transform(TEXTS), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("collate", [with_mask, with_lengths])
def test_neighbors_do_not_matter(collate):
    if collate is with_mask:
        extractor = TorchFeatureExtractor(TextNet(), collate, layer=["mixing", "neck"])
    else:  # forward has no parameter of this name
        extractor = TorchFeatureExtractor(GatedNet(), collate, layer="gru")
    extractor.set_params(cache=None)
    together = extractor.fit_transform(TEXTS)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = extractor.set_params(batch_size=7).transform([TEXTS[i] for i in order])
    single = extractor.set_params(batch_size=1).transform(TEXTS)
    scale = np.abs(together).max()
    assert_allclose(shuffled, together[order], atol=1e-5 * scale)
    assert_allclose(single, together, atol=1e-5 * scale)


def test_sequences_as_output():
    class Net(GatedNet):
        def forward(self, ids, lengths=None):
            return super().forward(ids)

    extractor = TorchFeatureExtractor(Net(), with_lengths)
    found = extractor.fit_transform(TEXTS)
    assert FeatureCache().info().n_rows == len(TEXTS)
    single = extractor.set_params(cache=None, batch_size=1).transform(TEXTS)
    assert_allclose(found, single, atol=1e-5 * np.abs(single).max())


def test_masks_of_convolutions():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(128, 4)
            self.pairs = nn.Conv1d(4, 5, 2, stride=2)
            fix_weights(self)

        def forward(self, ids):
            return self.pairs(self.embedding(ids).transpose(1, 2)).relu()

    texts = ["ab", "abcd", "abcdefgh"]  # all positions are those of whole pairs
    net = Net()
    found = TorchFeatureExtractor(net, with_lengths, layer="pairs").fit_transform(texts)
    for row, text in zip(found, texts, strict=True):
        with torch.no_grad():
            wanted = net.pairs(net.embedding(to_codes([text])[0]).transpose(1, 2))
        assert_allclose(row, wanted[0].mean(1), atol=1e-6)


def test_inputs_of_every_form():
    rows = np.random.default_rng(0).normal(size=(10, 4))

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = fix_linear(4, 3)

        def forward(self, a, b=0):
            return self.linear(a) + b

    forms = {
        "tensor": lambda items: torch.tensor(np.stack(items)),
        "array": np.stack,
        "tuple": lambda items: (torch.tensor(np.stack(items)), 0),
        "dict": lambda items: {"a": torch.tensor(np.stack(items)), "b": 0},
    }
    found = [
        TorchFeatureExtractor(Two(), one, layer="output", cache=None).transform(rows)
        for one in forms.values()
    ]
    for one in found[1:]:
        assert_allclose(one, found[0])
    with torch.no_grad():
        wanted = fix_linear(4, 3)(torch.tensor(rows, dtype=torch.float32))
    assert_allclose(found[0], wanted, atol=1e-6)


def fix_linear(n_in, n_out):
    linear = nn.Linear(n_in, n_out)
    fix_weights(linear)
    return linear


@pytest.mark.parametrize(
    "X",
    [
        np.array(TEXTS),
        np.array(TEXTS, object)[:, None],
        pd.Series(TEXTS),
        pd.DataFrame({"text": TEXTS}),
        pl.Series(TEXTS),
        pl.DataFrame({"text": TEXTS}),
        [[text] for text in TEXTS],
    ],
    ids=lambda X: type(X).__module__,
)
def test_texts_in_every_container(X):
    extractor = TorchFeatureExtractor(TextNet(), with_mask)
    assert_allclose(extractor.fit_transform(X), extractor.transform(TEXTS))


def test_graphs_as_dicts():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = fix_linear(3, 4)

        def forward(self, nodes, edges):
            return self.linear(edges @ nodes)

    def collate(graphs):
        nodes = [torch.tensor(graph["nodes"]) for graph in graphs]
        edges = [torch.tensor(graph["edges"]) for graph in graphs]
        lengths = torch.tensor([len(one) for one in nodes])
        padded = torch.zeros(len(graphs), max(lengths), max(lengths))
        for one, into in zip(edges, padded, strict=True):
            into[: len(one), : len(one)] = one
        nodes = nn.utils.rnn.pad_sequence(nodes, batch_first=True)
        return {"nodes": nodes, "edges": padded, "lengths": lengths}

    rng = np.random.default_rng(0)
    graphs = [
        {"nodes": rng.random((n, 3)), "edges": rng.random((n, n))} for n in (2, 5, 3)
    ]
    net = Net()
    found = TorchFeatureExtractor(net, collate, layer="output").fit_transform(graphs)
    with torch.no_grad():
        for row, one in zip(found, graphs, strict=True):
            wanted = net.linear(torch.tensor(one["edges"] @ one["nodes"]).float())
            assert_allclose(row, wanted.mean(0), atol=1e-5)


def test_layers_after_the_last_wanted_one_do_not_run():
    seen = []

    class Late(nn.Linear):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), Late(3, 2))
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    TorchFeatureExtractor(net, np.stack, layer="1").fit_transform(rows)
    assert sum(seen) <= 6  # those that tell what the module is


# -- The cache


def make_search(extractor):
    steps = [("features", extractor), ("classifier", LogisticRegression())]
    grid = {"classifier__C": np.logspace(-3, 3, 12)}
    return GridSearchCV(Pipeline(steps), grid, cv=5, error_score="raise")


@pytest.mark.slow
def test_a_search_sends_each_item_through_the_module_once(tmp_path, forget):
    log = tmp_path / "log"
    search = make_search(TorchFeatureExtractor(TextNet(log), with_mask))
    y = [len(text) > 20 for text in TEXTS]
    search.fit(TEXTS, y)
    # The first four tell what the module is; two of them run again alone.
    assert rows_counted(log) == len(TEXTS) + 2
    # A new process computes the first four again, and nothing else.
    forget()
    search.fit(TEXTS[::-1], y[::-1])
    assert rows_counted(log) == len(TEXTS) + 6


def test_changed_modules_are_noticed():
    net = TextNet()
    extractor = TorchFeatureExtractor(net, with_mask)
    first = extractor.fit_transform(TEXTS)

    class Doubled(TextNet):
        def forward(self, ids, attention_mask):
            weights = attention_mask[..., None].float()
            return self.head((2 * self.embedding(ids) * weights).sum(1))

    Doubled.__name__ = "TextNet"  # the same tensors, other code
    other = extractor.set_params(model=Doubled()).fit_transform(TEXTS[:20])
    assert np.abs(other - first[:20]).max() > 0.1
    extractor.set_params(model=TextNet())
    assert_allclose(extractor.transform(TEXTS), first)
    net.embedding.weight.data += 1
    extractor.set_params(model=net)
    assert np.abs(extractor.transform(TEXTS) - first).max() > 0.1


def test_stored_items_may_be_for_another_collate():
    def take_dicts(items):
        return with_mask([item["text"] for item in items])

    first = TorchFeatureExtractor(TextNet(), with_mask).fit_transform(TEXTS)
    extractor = TorchFeatureExtractor(TextNet(), take_dicts)
    found = extractor.fit_transform([{"text": text} for text in TEXTS])
    assert_allclose(found, first, atol=1e-5)
    assert FeatureCache().info().n_rows == 2 * len(TEXTS)


ROWS = np.zeros((1, 12), np.float32)
DIGEST = b"0123456789abcdef" * 2


@pytest.mark.parametrize(
    "foreign",
    [
        3,
        (),
        ([], [], ROWS[:0]),
        (3, ["a"], ROWS),
        ([[DIGEST]], ["a"], ROWS),
        ([DIGEST], 3, ROWS),
        ([DIGEST], ["a", "b"], ROWS),
        ([DIGEST], ["a"], None),
        ([DIGEST], ["a"], ROWS[0]),
        ([DIGEST], ["a"], ROWS.astype(str)),
        ([DIGEST], ["a"], np.zeros((2, 12), np.float32)),
        ([DIGEST] * 5, ["a"] * 5, np.zeros((5, 12), np.float32)),
        ([DIGEST], [3], ROWS),  # collate cannot take it
        ([DIGEST], ["a"], ROWS),  # of another module
    ],
    ids=str,
)
def test_variants_in_a_foreign_cache(monkeypatch, foreign):
    recall = _variants.recall
    other = [("0" * 64, encode_item(foreign))]
    monkeypatch.setattr(_variants, "recall", lambda *args: [*other, *recall(*args)])
    extractor = TorchFeatureExtractor(TextNet(), with_mask)
    found = extractor.fit_transform(TEXTS)
    assert_allclose(found, alone(TextNet(), TEXTS, neck_of), atol=1e-5)
    assert_allclose(extractor.transform(TEXTS), found)
    assert FeatureCache().info().n_rows == len(TEXTS)


def test_changed_attributes_and_collate_objects_are_noticed():
    class Scaled(nn.Linear):
        scale = 1.0

        def forward(self, x):
            return super().forward(x) * self.scale

    class Collate:
        def __init__(self, shift):
            self.shift = shift

        def __call__(self, items):
            return np.stack(items) + self.shift

    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    net = Scaled(4, 2)
    extractor = TorchFeatureExtractor(net, Collate(0), layer="output")
    found = [extractor.fit_transform(rows)]
    net.scale = 3.0
    found.append(extractor.transform(rows))
    assert_allclose(found[1], 3 * found[0], rtol=1e-5)
    extractor.collate.shift = 1.0
    found.append(extractor.transform(rows))
    assert np.abs(found[2] - found[1]).min() > 1e-3
    net.scale, extractor.collate.shift = 1.0, 0.0
    assert_allclose(extractor.transform(rows), found[0])


@pytest.mark.parametrize(
    "vary",
    [
        lambda x: x + torch.rand(len(x), 1),
        lambda x: nn.functional.dropout(x, 0.02),
    ],
    ids=["noise", "little dropout"],
)
def test_modules_that_vary_are_not_cached(vary):
    class Noisy(nn.Linear):
        def forward(self, x):
            return vary(super().forward(x))

    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    extractor = TorchFeatureExtractor(Noisy(4, 2), np.stack, layer="output")
    with pytest.warns(CacheWarning, match="are not cached"):
        extractor.fit_transform(rows)
    assert FeatureCache().info().n_rows == 0


def test_a_generator_of_the_module_is_noticed():
    class Noisy(nn.Linear):
        def forward(self, x):
            rows = super().forward(x)
            return rows if self.generator.random() < 0.9 else 2 * rows

    model = Noisy(4, 2)
    model.generator = np.random.default_rng(0)
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    with pytest.warns(CacheWarning, match="are not cached"):
        TorchFeatureExtractor(model, np.stack, layer="output").fit_transform(rows)


def test_a_module_that_mixes_items_was_first_given_one(forget):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.RNN(4, 3)
            fix_weights(self)

        def forward(self, rows):
            return self.layer(rows)[0]  # for which a batch is one sequence

    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    extractor = TorchFeatureExtractor(Recurrent(), np.stack, layer="output")
    extractor.fit_transform(rows[:1])
    for _ in range(2):
        with pytest.warns(CacheWarning, match="are not cached"):
            extractor.transform(rows)
        assert FeatureCache().info().n_rows == 1
        forget()


def test_padding_that_nobody_leaves_out_is_not_cached():
    extractor = TorchFeatureExtractor(GatedNet(), ids_alone, layer="gru")
    with pytest.warns(CacheWarning, match="attention_mask"):
        extractor.fit_transform(TEXTS)
    assert FeatureCache().info().n_rows == 0


class Text:
    """An item whose content is not known."""

    def __init__(self, text):
        self.text = text


def collate_objects(items):
    return with_mask([item.text for item in items])


def test_items_of_unknown_content_need_a_key(tmp_path):
    log = tmp_path / "log"
    items = [Text(text) for text in TEXTS]
    extractor = TorchFeatureExtractor(TextNet(log), collate_objects)
    with pytest.warns(CacheWarning, match="key=") as caught:
        first = extractor.fit_transform(items)
    assert len(caught) == 1
    assert FeatureCache().info().n_rows == 0
    extractor.set_params(key=lambda item: item.text)
    assert_allclose(extractor.fit_transform(items), first, atol=1e-5)
    n = rows_counted(log)
    assert_allclose(extractor.transform(items[::-1]), first[::-1], atol=1e-5)
    assert rows_counted(log) == n
    with pytest.raises(TypeError, match="'key' parameter"):
        extractor.set_params(key=lambda item: item).transform(items)


def test_items_that_look_alike_are_not_mixed_up():
    items = [1, True, "1", 1.0, "11", b"1", np.float32(1), np.array([1])]

    def collate(items):
        return torch.tensor([[float(len(repr(one)) + len(str(type(one))))] * 3
                             for one in items])  # fmt: skip

    extractor = TorchFeatureExtractor(nn.Identity(), collate)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = extractor.fit_transform(items)
    assert_allclose(found, collate(items))
    assert_allclose(extractor.transform(items[::-1]), collate(items[::-1]))


# -- Errors


def test_a_collate_that_fails_on_one_item():
    texts = [*TEXTS[:10], BROKEN, *TEXTS[10:20], BROKEN]
    extractor = TorchFeatureExtractor(TextNet(), with_mask, batch_size=4)
    with pytest.raises(BadItemError, match="UnicodeEncodeError") as caught:
        extractor.fit_transform(texts)
    assert caught.value.index == 10
    wanted = TorchFeatureExtractor(TextNet(), with_mask).transform(TEXTS[:20])
    extractor.set_params(on_error="nan")
    for cache in ("default", None):
        with pytest.warns(BadItemWarning) as caught:
            found = extractor.set_params(cache=cache).transform(texts)
        assert [one.index for one in caught[0].message.failures] == [10, 21]
        assert np.isnan(found[[10, 21]]).all()
        assert_allclose(np.delete(found, [10, 21], 0), wanted, atol=1e-5)


def test_the_first_items_are_broken(forget):
    extractor = TorchFeatureExtractor(TextNet(), with_mask, on_error="nan")
    with pytest.warns(BadItemWarning):
        found = extractor.fit_transform([BROKEN, "", *TEXTS[:3]])
    assert np.isnan(found[:2]).all() and not np.isnan(found[2:]).any()
    with pytest.warns(BadItemWarning):
        assert np.isnan(extractor.transform([BROKEN])).all()
    extractor.set_params(cache=None)
    with pytest.raises(BadItemError):  # how many features there are is not known
        forget()
        extractor.transform([BROKEN])


@pytest.mark.parametrize("cache", ["default", None])
def test_a_key_that_fails_for_all_items(cache):
    extractor = TorchFeatureExtractor(
        TextNet(), with_mask, key=lambda text: text.name, cache=cache, on_error="nan"
    )
    with pytest.warns(BadItemWarning):
        found = extractor.fit_transform(TEXTS)
    assert found.shape == (len(TEXTS), 12) and np.isnan(found).all()


def test_empty_texts_are_named():
    extractor = TorchFeatureExtractor(TextNet(), with_mask)
    with pytest.raises(BadItemError, match="padding") as caught:
        extractor.fit_transform([*TEXTS[:5], "", *TEXTS[5:]])
    assert caught.value.index == 5


def test_items_that_cannot_be_batched():
    rows = [np.ones(3), np.ones(3), np.ones(4)]
    extractor = TorchFeatureExtractor(nn.Identity(), np.stack)
    with pytest.raises(ValueError, match="^The 'collate' parameter.*together"):
        extractor.fit_transform(rows)


@pytest.mark.parametrize(
    "parameters, error, text",
    [
        ({"layer": "mixin"}, ValueError, "'layer'.*Did you mean 'mixing'"),
        ({"layer": 3}, ValueError, "'layer'"),
        ({"layer": ["mixing", 1]}, TypeError, "'layer'"),
        ({"collate": None}, ValueError, "'collate'"),
        ({"model": "resnet18"}, ValueError, "'model'"),
        ({"pooling": "median"}, ValueError, "'pooling'"),
        ({"key": 1}, ValueError, "'key'"),
        ({"collate": lambda texts: 3}, TypeError, "'collate'"),
        ({"collate": lambda texts: {"lengths": "ab"}}, TypeError, "'collate'.*lengths"),
        ({"layer": "mixing", "pooling": "flatten"}, ValueError, "'pooling'"),
        ({"layer": "mixing", "pooling": "cls"}, ValueError, "'pooling'"),
        ({"model": nn.LazyLinear(3)}, ValueError, "'model'.*Lazy.*collate"),
    ],
)
def test_bad_parameters(parameters, error, text):
    given = {"model": TextNet(), "collate": with_mask, "cache": None, "batch_size": 8}
    extractor = TorchFeatureExtractor(**{**given, **parameters})
    with pytest.raises(error, match=f"^The {text}"):
        extractor.fit_transform(TEXTS)


@pytest.mark.parametrize(
    "X",
    ["one text", {"a": "b"}, {"a"}, iter(TEXTS), 3, [], np.array(3), torch.tensor(3)],
    ids=lambda X: type(X).__name__,
)
def test_bad_collections(X):
    with pytest.raises((TypeError, ValueError), match="^X must"):
        TorchFeatureExtractor(TextNet(), with_mask).fit(X)


def test_a_module_that_fails_tells_its_inputs():
    extractor = TorchFeatureExtractor(nn.Linear(3, 2), np.stack, cache=None)
    with pytest.raises(RuntimeError) as caught:
        extractor.fit_transform(np.ones((5, 4)))
    assert "(4, 4)" in caught.value.__notes__[0]


def test_features_that_are_not_finite():
    rows = np.arange(20.0).reshape(10, 2)

    class Inverse(nn.Identity):
        def forward(self, x):
            return 1 / (x - 10)

    with pytest.raises(NonFiniteOutputError, match="item") as caught:
        TorchFeatureExtractor(Inverse(), np.stack).fit_transform(rows)
    assert caught.value.indices == (5,)


def test_little_memory(tmp_path):
    log = tmp_path / "log"
    extractor = TorchFeatureExtractor(TextNet(log, limit=5), with_mask, cache=None)
    wanted = TorchFeatureExtractor(TextNet(), with_mask, cache=None).transform(TEXTS)
    assert_allclose(extractor.fit_transform(TEXTS), wanted, atol=1e-5)
    with pytest.raises(OutOfMemoryError, match="item"):
        extractor.set_params(model=TextNet(limit=0)).transform(TEXTS)


# -- An estimator


def test_names_clones_and_pickles():
    extractor = TorchFeatureExtractor(TextNet(), with_mask, layer=["neck", "output"])
    frame = extractor.set_output(transform="pandas").fit_transform(
        pd.DataFrame({"text": TEXTS}, index=range(100, 140))
    )
    assert list(frame.columns[[0, 12]]) == ["textnet_neck_000", "textnet_output_000"]
    assert list(frame.index) == list(range(100, 140))
    assert extractor.layers_ == ["neck", "output"]
    assert extractor.n_features_out_ == frame.shape[1] == 15
    for other in (clone(extractor), pickle.loads(pickle.dumps(extractor))):
        assert_allclose(other.fit_transform(TEXTS), frame)
        assert list(other.get_feature_names_out()) == list(frame.columns)


def test_names_before_anything_was_transformed():
    extractor = TorchFeatureExtractor(TextNet(), with_mask, cache=None).fit(TEXTS)
    assert extractor.n_features_out_ == len(extractor.get_feature_names_out()) == 12


@pytest.mark.slow
def test_workers(tmp_path):
    log = tmp_path / "log"
    texts = [*TEXTS, BROKEN]
    extractor = TorchFeatureExtractor(
        TextNet(log), with_mask, n_jobs=2, batch_size=4, on_error="nan"
    )
    with pytest.warns(BadItemWarning) as caught:
        found = extractor.fit_transform(texts)
    assert [one.index for one in caught[0].message.failures] == [40]
    assert_allclose(found[:40], alone(TextNet(), TEXTS, neck_of), atol=1e-5)
    assert rows_counted(log) == len(TEXTS) + 2
    assert len({line.split()[1] for line in log.read_text().splitlines()}) > 1


class Stack:
    """`numpy.stack`, whose repr in the names of tests differs from run to run."""

    def __call__(self, items):
        return np.stack(items)

    def __repr__(self):
        return "stack"


@parametrize_with_checks(
    [TorchFeatureExtractor(nn.Identity(), Stack(), cache=None)],
    expected_failed_checks=lambda _: {
        name: "an item may be anything: NaN, complex, an object, an empty row"
        for name in (
            "check_complex_data",
            "check_dtype_object",
            "check_estimators_empty_data_messages",
            "check_estimators_nan_inf",
            "check_fit1d",
            "check_fit2d_predict1d",
        )
    },
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
