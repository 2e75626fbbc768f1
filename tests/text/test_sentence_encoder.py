"""Tests of SentenceEncoder."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

from skdeepfeat.text import SentenceEncoder, Word2Vec
from skdeepfeat.text._sentence_networks import GRUEncoder, NeighborDecoder
from skdeepfeat.text._sentence_pairs import document_codes, followers

WORDS = {
    "sea": "ship wave sail harbor captain anchor".split(),
    "farm": "cow barn wheat tractor meadow farmer".split(),
}
VECTORS = {
    word: row
    for word, row in zip(
        WORDS["sea"] + WORDS["farm"],
        np.random.default_rng(0).normal(size=(12, 8)),
        strict=True,
    )
}


def make_documents(n_documents=40, n_sentences=5, seed=0):
    """Return sentences, and the document of each; a document has one topic."""
    rng = np.random.default_rng(seed)
    sentences, groups = [], []
    for document in range(n_documents):
        words = list(WORDS.values())[document % 2]
        for _ in range(n_sentences):
            sentences.append(" ".join(rng.choice(words, 3)))
            groups.append(document)
    return sentences, np.array(groups)


def small(**params):
    defaults = {"n_components": 8, "max_epochs": 2, "batch_size": 32, "random_state": 0}
    return SentenceEncoder(params.pop("vectors", VECTORS), **{**defaults, **params})


@pytest.fixture(scope="module")
def fitted():
    sentences, groups = make_documents()
    return small().fit(sentences, groups=groups)


# -- Which texts follow each other


def brute_force(texts, documents):
    pairs = set()
    for i in range(len(texts)):
        later = [j for j in range(i + 1, len(texts)) if documents[j] == documents[i]]
        if later and len(texts[i]) and len(texts[later[0]]):
            pairs.add((i, later[0]))
    return pairs


@pytest.mark.parametrize("seed", range(20))
def test_pairs_are_those_of_a_plain_search(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    texts = [np.arange(rng.integers(0, 3)) for _ in range(n)]
    documents = document_codes(rng.integers(0, 4, n).astype(str), n)
    following = followers(texts, documents)
    pairs = {(i, int(j)) for i, j in enumerate(following) if j >= 0}
    assert pairs == brute_force(texts, documents)
    assert all(documents[i] == documents[j] for i, j in pairs)


def test_rows_of_a_document_need_not_be_next_to_each_other():
    sentences, groups = make_documents(6, 4)
    apart = np.argsort(np.arange(len(sentences)) % 4, kind="stable")
    mixed = [sentences[i] for i in apart]
    assert small().fit(mixed, groups=groups[apart]).n_pairs_ == 6 * 3
    assert small().fit(sentences, groups=groups).n_pairs_ == 6 * 3
    assert small().fit(sentences).n_pairs_ == 6 * 4 - 1


def test_a_text_without_known_words_joins_no_neighbors():
    texts = ["ship", "wave", "", "sail", "harbor", "qqq", "captain"]
    assert small().fit(texts).n_pairs_ == 2


# -- What is learned


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"encoder": "mean"},
        {"method": "vicreg"},
        {"method": "barlow"},
        {"method": "align_uniform"},
        {"vectors": "learned", "vector_size": 8},
        {"decode": True},
    ],
    ids=str,
)
def test_sentences_of_one_topic_become_similar(params):
    sentences, groups = make_documents()
    params = {"max_epochs": 20, "learning_rate": 1e-2, **params}
    encoder = small(**params).fit(sentences, groups=groups)
    assert len(encoder.history_) == params["max_epochs"]
    losses = encoder.history_["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    tested, groups = make_documents(20, 2, seed=1)
    rows = encoder.transform(tested)
    assert rows.shape == (40, 8) and rows.dtype == np.float32
    model = LogisticRegression(C=100).fit(rows[:20], groups[:20] % 2)
    assert model.score(rows[20:], groups[20:] % 2) >= 0.85


def test_the_loss_of_the_decoder_is_that_of_a_plain_one():
    torch.manual_seed(0)
    words = torch.nn.Embedding(6, 3, padding_idx=0)
    network = NeighborDecoder(words, GRUEncoder(3, 8), 8, n_predicted=3)
    triples = torch.tensor([[[1, 5, 0], [2, 3, 4], [0, 0, 0]]])
    with torch.no_grad():
        [found] = network(triples)
        code = network.encoder(words(triples[:, 1]), torch.ones(1, 3))
        state, expected = None, 0.0
        # The words 4 and 5 are predicted as one unknown word, 4; 0 is the end.
        for earlier, wanted in zip([0, 1, 5], [1, 4, 0], strict=True):
            inputs = torch.cat([words.weight[earlier][None], code], dim=1)[:, None]
            output, state = network.before(inputs, state)
            expected -= network.to_words(output[0, 0]).log_softmax(0)[wanted] / 3
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("vectors", [VECTORS, "learned"], ids=["given", "learned"])
def test_one_seed_gives_the_same_rows(vectors):
    sentences, groups = make_documents(10)
    first = small(vectors=vectors).fit(sentences, groups=groups)
    again = clone(first).fit(sentences, groups=groups)
    rows = first.transform(sentences)
    np.testing.assert_array_equal(again.transform(sentences), rows)
    other = clone(first).set_params(random_state=1).fit(sentences, groups=groups)
    assert not np.allclose(other.transform(sentences), rows)
    copy = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(copy.transform(sentences), rows)


def test_the_scale_of_the_vectors_does_not_matter():
    sentences, groups = make_documents(10)
    large = {word: 1e4 * row for word, row in VECTORS.items()}
    rows = [
        small(vectors=one).fit(sentences, groups=groups).transform(sentences)
        for one in (VECTORS, large)
    ]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-3, atol=1e-4)


# -- Rows


@pytest.mark.parametrize("encoder", ["gru", "mean"])
def test_a_row_does_not_depend_on_its_neighbors(encoder):
    sentences, groups = make_documents(10)
    fitted = small(encoder=encoder).fit(sentences, groups=groups)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list(VECTORS), n)) for n in rng.integers(1, 60, 300)]
    rows = fitted.transform(texts)
    alone = np.vstack([fitted.transform([text]) for text in texts[::10]])
    np.testing.assert_allclose(rows[::10], alone, atol=1e-6)
    order = rng.permutation(len(texts))
    shuffled = fitted.transform([texts[i] for i in order])
    np.testing.assert_allclose(shuffled, rows[order], atol=1e-6)


def test_texts_without_known_words_are_treated_as_wanted(fitted):
    texts = ["", "ship wave", "qqq zzz", "ship qqq wave"]
    rows = fitted.transform(texts)
    np.testing.assert_array_equal(rows[[0, 2]], 0)
    # Unknown words are skipped.
    np.testing.assert_allclose(rows[3], rows[1], atol=1e-6)
    copy = pickle.loads(pickle.dumps(fitted))
    rows = copy.set_params(on_missing="nan").transform(texts)
    assert np.isnan(rows[[0, 2]]).all() and np.isfinite(rows[[1, 3]]).all()
    with pytest.raises(ValueError, match="Index 0 .*2 of 4"):
        copy.set_params(on_missing="raise").transform(texts)
    assert not fitted.transform([""]).any()


def test_words_after_the_longest_are_left_out():
    sentences, groups = make_documents(10)
    fitted = small(max_length=3).fit(sentences, groups=groups)
    rows = fitted.transform(["ship wave sail", "ship wave sail cow barn"])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


FORMS = {
    "array": np.array,
    "column": lambda texts: np.array(texts, dtype=object)[:, None],
    "series": pd.Series,
    "frame": lambda texts: pd.DataFrame({"text": texts}),
    "polars": pl.Series,
    "polars frame": lambda texts: pl.DataFrame({"text": texts}),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_texts_and_groups_may_be_in_any_column(form, fitted):
    sentences, groups = make_documents()
    names = [f"document {group}" for group in groups]
    column = pl.Series(names) if form is pl.Series else pd.Series(names)
    found = small().fit(form(sentences), groups=column)
    assert found.n_pairs_ == fitted.n_pairs_
    np.testing.assert_array_equal(
        found.transform(form(sentences)), fitted.transform(sentences)
    )


def test_names_and_frames(fitted):
    assert list(fitted.get_feature_names_out()[:2]) == [
        "sentenceencoder0",
        "sentenceencoder1",
    ]
    sentences, groups = make_documents(4)
    frame = pd.DataFrame({"text": sentences}, index=range(100, 100 + len(sentences)))
    encoder = small().set_output(transform="pandas")
    rows = encoder.fit_transform(frame, groups=groups)
    assert list(rows.index) == list(frame.index)
    assert list(encoder.feature_names_in_) == ["text"]


def test_a_fitted_word2vec_survives_clone():
    sentences, groups = make_documents(10)
    word2vec = Word2Vec(4, max_epochs=1, random_state=0).fit(sentences)
    encoder = clone(small(vectors=word2vec)).fit(sentences, groups=groups)
    assert encoder.transform(sentences).shape == (50, 8)
    assert encoder.vectors_ is None


def test_groups_are_metadata():
    sentences, groups = make_documents(12)
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(
            small().set_fit_request(groups=True), LogisticRegression()
        )
        search = GridSearchCV(
            pipeline, {"sentenceencoder__encoder": ["gru", "mean"]}, cv=GroupKFold(3)
        )
        search.fit(sentences, groups % 2, groups=groups)
    assert search.best_estimator_[0].n_pairs_ == 12 * 4


def test_an_interrupted_fit_has_the_weights_so_far(monkeypatch):
    from skdeepfeat.text import _sentence_pairs

    sentences, groups = make_documents(10)
    batch, calls = _sentence_pairs.TextTuples.batch, []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return batch(self, *args)

    monkeypatch.setattr(_sentence_pairs.TextTuples, "batch", interrupted)
    encoder = small(max_epochs=50, batch_size=16)
    with pytest.warns(RuntimeWarning, match="interrupted") as record:
        encoder.fit(sentences, groups=groups)
    assert record[0].filename == __file__
    assert len(encoder.history_) == 1
    assert np.isfinite(encoder.transform(sentences)).all()


# -- Bad input


@pytest.mark.parametrize(
    ("X", "groups", "match"),
    [
        (["ship", "wave", "sail"], [0, 1, 2], "2 pairs.*groups.*0 pair"),
        (["ship", "wave"], None, "2 pairs.*1 pair"),
        (["ship"], None, "2 pairs"),
        (["qqq", "", "zzz"], None, "3 of them without a known word"),
        (["ship", "wave", "sail"], [0, 0], "groups.*3 rows.*2 entries"),
        (["ship", "wave", "sail"], [0, None, 0], "groups.*index 1"),
        (["ship", "wave", "sail"], ["a", "a", np.nan], "groups.*index 2"),
        (["ship", 3, "sail"], None, "Index 1"),
        (["ship", None, "sail"], None, "Index 1"),
        ("ship wave", None, r"use \[X\]"),
        ([], None, "at least one"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), None, "one column"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(X, groups, match):
    with pytest.raises((ValueError, TypeError), match=match):
        small().fit(X, groups=groups)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"vectors": "glove-50"}, "vectors.*Did you mean 'glove-50d'"),
        ({"vectors": "learn"}, "vectors.*Did you mean 'learned'"),
        ({"vectors": "nowhere.txt"}, "no such file"),
        ({"vectors": {"a": [1, 2], "b": [1]}}, "one length"),
        ({"encoder": "lstm"}, "encoder"),
        ({"method": "byol"}, "method"),
        ({"batch_size": 1}, "batch_size"),
        ({"max_length": 0}, "max_length"),
        ({"max_epochs": 0}, "max_epochs"),
    ],
)
def test_bad_parameters_are_named(params, match):
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        small(**params).fit(["ship", "wave", "sail"])


def test_vectors_of_another_length_after_the_fit_are_named():
    sentences, groups = make_documents(4)
    for encoder in ("gru", "mean"):
        fitted = small(encoder=encoder).fit(sentences, groups=groups)
        fitted.set_params(vectors={"ship": [1, 2]})
        with pytest.raises(ValueError, match="'vectors' parameter.*8 numbers.*fitted"):
            fitted.transform(["ship"])


def test_it_must_be_fitted():
    with pytest.raises(NotFittedError):
        small().transform(["ship"])


def test_many_unknown_words_are_reported():
    with pytest.warns(UserWarning, match="67% .*quux") as record:
        encoder = small().fit(["ship quux corge", "wave quux corge", "sail quux corge"])
    assert record[0].filename == __file__
    assert encoder.unknown_fraction_ == pytest.approx(2 / 3)
