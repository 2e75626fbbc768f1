"""Tests of Word2Vec."""

import numpy as np
import pytest
from sklearn.base import clone

from skdeepfeat.text import Word2Vec, WordVectorFeatures

TOPICS = ["cat dog fish bird".split(), "car bus train ship".split()]


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(TOPICS[i % 2], 6)) for i in range(600)]


@pytest.fixture(scope="module")
def fitted(texts):
    return Word2Vec(8, max_epochs=6, batch_size=256, random_state=0).fit(texts)


def test_words_of_one_topic_are_near_each_other(fitted):
    for topic in TOPICS:
        nearest = [word for word, _ in fitted.most_similar(topic[0], n=3)]
        assert set(nearest) == set(topic[1:])
    assert fitted.history_["train_loss"].is_monotonic_decreasing
    assert fitted.vectors_.shape == fitted.context_vectors_.shape == (8, 8)
    assert sorted(fitted.counts_, reverse=True) == list(fitted.counts_)


def test_texts_are_means_of_their_words(fitted):
    features = fitted.transform(["cat dog", "unknown words", "Bus"])
    rows = [fitted.vocabulary_[word] for word in ("cat", "dog")]
    np.testing.assert_allclose(features[0], fitted.vectors_[rows].mean(0), rtol=1e-6)
    np.testing.assert_array_equal(features[1], 0)
    np.testing.assert_array_equal(
        features[2], fitted.vectors_[fitted.vocabulary_["bus"]]
    )
    assert list(fitted.get_feature_names_out()[:2]) == ["word2vec0", "word2vec1"]
    assert fitted.n_features_in_ == 1


def test_the_optimum_is_the_shifted_pmi():
    # Levy and Goldberg 2014: with enough dimensions, u'v = PMI - log k.
    pairs = {"a b": 50, "a c": 30, "b c": 20, "d e": 60, "a d": 10, "c e": 30}
    texts = [text for text, count in pairs.items() for _ in range(count)]
    k = 2
    fitted = Word2Vec(
        5, window=1, negative=k, min_count=1, subsample=None, noise_exponent=1,
        max_epochs=120, batch_size=400, learning_rate=5e-2, random_state=0,
    ).fit(texts)  # fmt: skip
    joint = np.zeros((5, 5))
    for text, count in pairs.items():
        i, j = (fitted.vocabulary_[word] for word in text.split())
        joint[i, j] += count
        joint[j, i] += count
    joint /= joint.sum()
    products = fitted.vectors_ @ fitted.context_vectors_.T
    seen = joint > 0
    independent = np.outer(joint.sum(1), joint.sum(0))
    pmi = np.log(joint[seen] / independent[seen])
    np.testing.assert_allclose(products[seen], pmi - np.log(k), atol=0.12)
    assert products[~seen].max() < -2.5


def test_one_seed_gives_the_same_vectors(texts):
    word2vec = Word2Vec(4, max_epochs=1, random_state=3)
    first = word2vec.fit(texts[:100]).vectors_
    np.testing.assert_array_equal(clone(word2vec).fit(texts[:100]).vectors_, first)
    # Neither does the order of the texts decide on the words.
    reordered = clone(word2vec).fit(texts[:100][::-1])
    assert reordered.vocabulary_ == word2vec.vocabulary_


@pytest.mark.parametrize("name", ["v.txt", "v.vec", "v.bin"])
def test_what_is_saved_is_read_again(name, fitted, tmp_path):
    fitted.save(tmp_path / name)
    texts = ["cat bus", "ship"]
    np.testing.assert_allclose(
        WordVectorFeatures(tmp_path / name).fit_transform(texts),
        fitted.transform(texts),
        rtol=1e-6,
    )


@pytest.mark.parametrize("binary", [False, True])
def test_gensim_reads_what_we_write_and_we_read_what_it_writes(
    binary, fitted, tmp_path
):
    gensim = pytest.importorskip("gensim", reason="no build for this Python")
    path = tmp_path / ("v.bin" if binary else "v.txt")
    fitted.save(path)
    theirs = gensim.models.KeyedVectors.load_word2vec_format(path, binary=binary)
    assert theirs.index_to_key == list(fitted.vocabulary_)
    np.testing.assert_allclose(theirs.vectors, fitted.vectors_, rtol=1e-6)
    nearest = [word for word, _ in theirs.most_similar("cat", topn=3)]
    assert nearest == [word for word, _ in fitted.most_similar("cat", n=3)]
    back = tmp_path / ("w.bin" if binary else "w.txt")
    theirs.save_word2vec_format(back, binary=binary)
    np.testing.assert_allclose(
        WordVectorFeatures(back).fit_transform(["cat"]), fitted.transform(["cat"])
    )


@pytest.mark.parametrize("name", ["v.txt", "v.bin"])
def test_words_that_a_file_cannot_hold_are_written_without_white_space(name, tmp_path):
    words = ["new york", "a\nb", "", "c\td", "\ud800", "é"]
    word2vec = Word2Vec(3, min_count=1, max_epochs=1, tokenizer=lambda text: words)
    word2vec.fit(["x"]).save(tmp_path / name)
    read = WordVectorFeatures(tmp_path / name, tokenizer=lambda text: [text])
    found = read.fit_transform(["new_york", "a_b", "_", "c_d", "?", "é"])
    rows = [word2vec.vocabulary_[word] for word in words]
    np.testing.assert_allclose(found, word2vec.vectors_[rows], rtol=1e-6)


def test_huge_settings_take_no_more_than_the_texts_need(texts):
    # With as many contexts as the window is wide, this would take gigabytes.
    fitted = Word2Vec(
        2, window=10**9, noise_exponent=1000.0, max_epochs=1, random_state=0
    ).fit(texts[:20])
    assert np.isfinite(fitted.vectors_).all()


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (["cat"], "at least 2"),
        (["cat dog"], "min_count=2"),
        (["cat", "dog", "cat", "dog"], "two of them in one text"),
        (["cat dog", None], "Index 1"),
    ],
)
def test_texts_that_cannot_be_learned_from_are_refused(X, match):
    with pytest.raises((ValueError, TypeError), match=match):
        Word2Vec().fit(X)


def test_other_bad_calls_are_named(fitted, tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'cat'"):
        fitted.most_similar("catt")
    with pytest.raises(ValueError, match="5 has no vector"):
        fitted.most_similar(["cat", 5])
    with pytest.raises(ValueError, match="'positive'.*at least one"):
        fitted.most_similar([])
    for n in (0, -1, 2.5, "3"):
        with pytest.raises(ValueError, match="'n' parameter"):
            fitted.most_similar("cat", n=n)
    with pytest.raises(ValueError, match=r"path.*\.bin"):
        fitted.save(tmp_path / "v.csv")
    with pytest.raises(ValueError, match="vector_size"):
        Word2Vec(0).fit(["a b"])
