"""Features of texts: averages of word vectors, and vectors learned from your texts."""

from ._word2vec import Word2Vec
from ._word_vector_features import WordVectorFeatures

__all__ = ["Word2Vec", "WordVectorFeatures"]
