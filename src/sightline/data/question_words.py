"""A question's words as an answerer reads them; without torch, so that a wrong question is told at once."""

from sightline.data.vocabulary import caption_tokens

SPELLING = {"colour": "color", "colours": "colors", "coloured": "colored", "grey": "gray"}
LONGEST_QUESTION = 20  # words


def question_words(text: str) -> list[str]:
    """Splits a question into the words an answerer reads: lower case, no marks, one spelling, what's as what is."""
    words = [SPELLING.get(word, word) for word in caption_tokens(text)]
    asking = {"what", "where", "which", "there", "who"}
    return [
        "is" if word == "'s" and before in asking else word for before, word in zip(["", *words], words, strict=False)
    ]
