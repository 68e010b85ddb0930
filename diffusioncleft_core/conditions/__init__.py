"""The clinical vocabulary: conditions as data, read from a TOML file."""

from .grammar import words_of
from .loader import load_vocabulary
from .vocabulary import Attribute, Condition, Mode, Rule, Vocabulary

__all__ = ["Attribute", "Condition", "Mode", "Rule", "Vocabulary", "load_vocabulary", "words_of"]
