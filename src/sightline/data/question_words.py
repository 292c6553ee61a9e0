"""A question's words as an answerer reads them; without torch, so that a wrong question is told at once."""

from collections.abc import Sequence

from sightline.data.vocabulary import caption_tokens

SPELLING = {"colour": "color", "colours": "colors", "coloured": "colored", "grey": "gray"}
LONGEST_QUESTION = 20  # words
# of English: they name neither a thing nor what it is like, so that no place in a picture is theirs
_BARE = """
a an and any are as at be by can do does for from has have how in is it its many much of on or same that the there these
this those to was were what when where which who whose why with
"""
BARE = frozenset(_BARE.split())


def question_words(text: str) -> list[str]:
    """Splits a question into the words an answerer reads: lower case, no marks, one spelling, what's as what is."""
    words = [SPELLING.get(word, word) for word in caption_tokens(text)]
    asking = {"what", "where", "which", "there", "who"}
    return [
        "is" if word == "'s" and before in asking else word for before, word in zip(["", *words], words, strict=False)
    ]


def beside_maps(words: Sequence[str]) -> str:
    """What has to be known beside the maps of a question's words where some of them name nothing; else "".

    A word's map follows from what was read before it, so that such a word has one too, wherever it lies.
    """
    bare = [f'"{word}"' for word in dict.fromkeys(words) if word in BARE]
    if not bare:
        return ""
    named = f"the words {', '.join(bare[:-1])} and {bare[-1]} name" if len(bare) > 1 else f"the word {bare[0]} names"
    return f"a word's map need not lie on what it names, and {named} nothing to look at"
