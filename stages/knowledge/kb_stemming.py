"""Words as they are searched: without case and accents, cut down to their stems.

    stems("The mills of Bákö", "english")    # ["the", "mill", "of", "bako"]
    stems("на мельницах", "english")         # ["на", "мельниц"]: Cyrillic words always by the rules of Russian

Stemming is Snowball's (https://snowballstem.org, Porter 2001). Texts in other languages than those below go by the
rules of English: so do queries, and a word as it stands in the text is found in any case.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

# Combining accents belong to the word: Russian stress marks have no letters of their own. No underscore, as in FTS5.
WORD = re.compile("[^\\W_]+(?:[\u0300-\u036f]+[^\\W_]*)*")
ACCENT = re.compile("[\u0300-\u036f]")
CYRILLIC = re.compile("[\u0400-\u052f]")
# Frequent words that tell a language from its neighbours, folded; together a fifth to a third of any connected text
FREQUENT_WORDS = {
    "english": "the of and to is that was for with by from are as on at which this were an be",
    "german": "der die das und ist nicht ein eine einer mit von den dem des auf im zu als fur auch",
}
FUNCTION_WORDS = {language: words.split() for language, words in FREQUENT_WORDS.items()}
DEFAULT = "english"
MIN_SHARE = 0.08  # of function words: Dutch has 3 % of "English" ones
SAMPLE_CHARS = 5_000


def folded(text: str) -> str:
    """Without case and accents. FTS5's own remove_diacritics leaves Cyrillic alone: it takes no `елка` for `ёлка`."""
    folded_case = text.casefold()
    return folded_case if folded_case.isascii() else ACCENT.sub("", unicodedata.normalize("NFKD", folded_case))


def language_of(text: str) -> str:
    """english | german, by the function words at the beginning; english where it is neither, or too short to tell."""
    words = Counter(WORD.findall(folded(text[:SAMPLE_CHARS])))
    counts = {language: sum(words[word] for word in known) for language, known in FUNCTION_WORDS.items()}
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] > MIN_SHARE * words.total() else DEFAULT


def stems(text: str, language: str) -> list[str]:
    """The stem of every word, in order. language: english | german, of the words that are not Russian."""
    return [stem(word, language) for word in WORD.findall(text)]


@lru_cache(maxsize=1 << 17)
def stem(word: str, language: str) -> str:
    """One word's stem; the same for all spellings that differ in case, accents, or ё for е."""
    if CYRILLIC.search(word):
        # й is и with an accent to Unicode, but another letter to the rules of Russian
        parts = unicodedata.normalize("NFC", word.casefold()).split("й")
        return _stemmed("й".join(folded(part) for part in parts), "russian")
    return _stemmed(folded(word), language)


def _stemmed(word: str, language: str) -> str:
    # The pure Python classes by name: snowballstemmer.stemmer() would take a C library of another version where
    # there is one. A new one each time: they keep the word they work on, which two threads would mix up.
    from snowballstemmer.english_stemmer import EnglishStemmer
    from snowballstemmer.german_stemmer import GermanStemmer
    from snowballstemmer.russian_stemmer import RussianStemmer

    kinds = {"english": EnglishStemmer, "german": GermanStemmer, "russian": RussianStemmer}
    return str(kinds[language]().stemWord(word))
