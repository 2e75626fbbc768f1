"""Features of texts: averages of word vectors, and what your own texts teach."""

from ._sentence_encoder import SentenceEncoder
from ._word2vec import Word2Vec
from ._word_vector_features import WordVectorFeatures

__all__ = ["SentenceEncoder", "Word2Vec", "WordVectorFeatures"]
