import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.metrics.words import DROPPED, caption_words

# what Stanford's PTBTokenizer 3.4.1 makes of these, in lower case and without punctuation, tried with the program
AS_THE_OFFICIAL_PROGRAM = {
    "A man's t-shirt isn't red, 1/2 off.": "a man 's t-shirt is n't red 1/2 off",
    "the dogs' owner can't, won't and cannot": "the dogs owner ca n't wo n't and can not",
    "isn’t it’s “quoted” text…": "is n't it 's quoted text",
    "gonna wanna gotta gimme lemme 'tis": "gon na wan na got ta gim me lem me 't is",
    "gonna-be wanna-": "gonna-be wan na",
    "Mr. Smith and St. Louis, vs. Dale Jr.": "mr. smith and st. louis vs. dale jr.",
    "near Miss. dog, near miss. dog": "near miss. dog near miss dog",
    "plan A. The dog, plan A. a dog": "plan a the dog plan a. a dog",
    "No. 5 and no. 5 but no. dogs": "no. 5 and no. 5 but no dogs",
    "in the U.S. Army at 5 p.m. or 10:30am": "in the u.s. army at 5 p.m. or 10:30 am",
    "S.C.U.B.A. and C.D's": "s.c.u.b.a. and c.d 's",
    "(a dog) [a cat]": "-lrb- a dog -rrb- -lsb- a cat -rsb-",  # brackets stay, as in the official figures
    "wow!! really? no!?": "wow !! really no !?",
    "a - b -- c a–b semi- trailer": "a b c a b semi trailer",
    "AT&T Texas A&amp;M a&b": "at&t texas a&m a & b",
    "1,000 dogs $5.00 50% #1 #dog": "1,000 dogs $ 5.00 50 % # 1 #dog",
    "and/or his/her w/ a dog": "and/or his/her w / a dog",
    "slip 'n' slide, rock 'n roll, '70s, 5 o'clock": "slip 'n' slide rock 'n roll '70s 5 o'clock",
    "<unk> a statefarm.com hat a dog.A cat": "<unk> a statefarm.com hat a dog.a cat",
    "y'all o'neil d'angelo hook 'em horns": "y' all o'neil d'angelo hook 'em horns",
    "shelves., and": "shelves. and",
    "naïve café snow_board": "naïve café snow_board",
    "half ½ cup 1+1 .5": "half 1/2 cup 1 +1 .5",
    " . , \" ' - ": "",
}


@pytest.mark.parametrize("text", AS_THE_OFFICIAL_PROGRAM)
def test_words_as_the_official_program_cuts_them(text: str) -> None:
    assert " ".join(caption_words(text)) == AS_THE_OFFICIAL_PROGRAM[text]


@given(st.text(max_size=40))
@settings(deadline=None)
def test_any_text_is_cut(text: str) -> None:
    words = caption_words(text)
    assert all(word and word not in DROPPED and not any(c in " \t\n" for c in word) for word in words)
    assert caption_words(f"  {text}\n") == words


@given(st.lists(st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=9), max_size=9))
@settings(deadline=None)
def test_plain_words_stay_as_they_are(words: list[str]) -> None:
    words = [word for word in words if word not in ("cannot", "gonna", "wanna", "gotta", "gimme", "lemme")]
    assert caption_words(" ".join(words).upper() + " .") == words


def official_cut(lines: list[str], folder: Path) -> list[list[str]]:
    """The official wrapper writes beside its own code, so its program is called as it calls it."""
    import subprocess

    import pycocoevalcap.tokenizer.ptbtokenizer as wrapper

    file = folder / "captions.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    jar = Path(wrapper.__file__).parent / wrapper.STANFORD_CORENLP_3_4_1_JAR
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    told = subprocess.run([*command, str(file)], capture_output=True, check=True).stdout.decode().split("\n")
    return [[w for w in line.rstrip().split(" ") if w and w not in wrapper.PUNCTUATIONS] for line in told[: len(lines)]]


def test_real_captions_against_the_official_program(shared: Path, tmp_path: Path, needs_java: None) -> None:
    text = (shared / "data" / "flickr8k" / "Flickr8k_text" / "Flickr8k.token.txt").read_text("utf-8")
    lines = [line.split("\t", 1)[1].strip() for line in text.split("\n") if "\t" in line][::5]
    more = gzip.decompress((shared / "data" / "multi30k" / "data" / "task1" / "raw" / "train.en.gz").read_bytes())
    lines += more.decode().rstrip("\n").split("\n")[::5]
    assert len(lines) == 7000 + 5800
    differ = [
        (line, words) for line, words in zip(lines, official_cut(lines, tmp_path), strict=True)
        if caption_words(line) != words
    ]  # fmt: skip
    assert not differ


def test_made_up_words_against_the_official_program(tmp_path: Path, needs_java: None) -> None:
    lines = [line for line in AS_THE_OFFICIAL_PROGRAM if line.strip()]
    assert [" ".join(words) for words in official_cut(lines, tmp_path)] == [
        AS_THE_OFFICIAL_PROGRAM[line] for line in lines
    ]
