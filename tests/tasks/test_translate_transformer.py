"""Translating with the Transformer: ours and MarianMT's folders, whose sentences equal those of transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sightline
from sightline.cli.main import run
from sightline.data.marian_pieces import MarianPieces, is_marian
from sightline.data.subwords import Subwords
from sightline.data.transduction import Transduction
from sightline.systems.transformer import Transformer
from sightline.tasks.translate import (
    PIECES,
    TranslationError,
    alignment,
    head_alignments,
    open_translator,
    search,
    translate,
    translate_all,
)

TEXTS = [
    "Ein Hund rennt über die Wiese.", "Zwei Kinder spielen im Schnee.", "Ein Mann spielt Gitarre.",
    "A dog runs across the meadow.", "Two children play in the snow.", "A man plays the guitar.",
]  # fmt: skip


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "weights"
    pieces = Subwords.build(Transduction("copy", 50).source, size=70)
    torch.manual_seed(0)
    model = Transformer(words=len(pieces), dim=16, depth=2, heads=4, hidden=24, dropout=0.0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    pieces.save(folder / PIECES)
    return folder


def make_marian(folder: Path) -> Path:
    """A MarianMT folder as the hub has them, with random weights and words learned from six sentences."""
    sentencepiece = pytest.importorskip("sentencepiece")
    transformers = pytest.importorskip("transformers")
    folder.mkdir(parents=True, exist_ok=True)
    for side in ("source", "target"):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS * 5), model_prefix=str(folder / side), vocab_size=60, hard_vocab_limit=False,
            minloglevel=2,
        )  # fmt: skip
        (folder / f"{side}.model").rename(folder / f"{side}.spm")
    reader = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    names = [reader.id_to_piece(number) for number in range(reader.get_piece_size())]
    words = ["</s>", "<unk>", *[name for name in names if not name.startswith("<")], ">>fra<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    transformers.MarianTokenizer(
        str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json")
    ).save_pretrained(folder)
    pad = len(words) - 1
    config = transformers.MarianConfig(
        vocab_size=len(words), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, pad_token_id=pad, eos_token_id=0,
        decoder_start_token_id=pad, forced_eos_token_id=None, scale_embedding=True, activation_function="swish",
        max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.MarianMTModel(config).eval()
    for name, parameter in model.named_parameters():
        if "embed_positions" not in name and "norm" not in name:
            nn.init.normal_(parameter, std=0.5)
    model.final_logits_bias[0, 0] = 2.0  # some sentences end, some do not
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_marian(tmp_path_factory.mktemp("hub") / "opus-mt-xx")


# -- ours --------------------------------------------------------------------------------------------------------------


def test_each_sentence_is_translated_as_alone_in_any_batch(ours: Path) -> None:
    opened = open_translator(ours.parent)  # the run's folder
    texts = ["a b c", "d e f g a b c d", "b", "c c c a"]
    for text, found in zip(texts, translate_all(texts, system=opened, batch=2), strict=True):
        alone = translate(text, system=ours)
        assert found.text == alone.text
        assert found.score == pytest.approx(alone.score, abs=1e-5)


def test_the_alignment_is_that_of_each_head_while_writing(ours: Path) -> None:
    opened = open_translator(ours)
    source = [*opened.pieces.encode("a b c d"), opened.pieces.end]
    (target, _), *_ = search(opened.model, [source], opened.pieces, beam=1)
    heads = head_alignments(opened.model, source, target, opened.pieces)
    assert heads.shape == (2, 4, len(target), len(source))
    heard = []
    with torch.no_grad():
        step, cache = opened.model.steps(torch.tensor([source]), torch.tensor([len(source)]))
        for word in [1, *target[:-1]]:
            with sightline.record(opened.model) as seen:
                _, cache = step(torch.tensor([word]), cache)
            heard.append(torch.cat([site.weights for site in seen if site.path.endswith(".cross")]))
    np.testing.assert_allclose(heads, torch.cat(heard, dim=2).numpy(), atol=1e-6)
    mean = alignment(opened.model, source, target, opened.pieces)
    np.testing.assert_allclose(mean, heads.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(mean.sum(axis=1), 1, atol=1e-5)


def test_the_result_draws_the_mean_and_every_head(ours: Path, tmp_path: Path) -> None:
    found = translate("a b c d", system=ours)
    assert found.attention is not None
    assert found.attention.heads is not None
    assert found.attention.heads.shape == (2, 4, *found.attention.weights.shape)
    np.testing.assert_allclose(found.attention.heads.mean(axis=(0, 1)), found.attention.weights, atol=1e-6)
    assert found.heads_picture().width > found.attention.weights.shape[1]
    page = found.save(tmp_path / "a.html").read_text(encoding="utf-8")
    assert '"heads": [[[[' in page


def test_the_shell_writes_picture_heads_and_page(ours: Path, tmp_path: Path) -> None:
    out = tmp_path / "looks"
    for _ in range(2):  # the second replaces the first
        assert run(["translate", "a b c d", "-s", str(ours), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} >= {
        "a b c d.alignment.png", "a b c d.alignment.html", "a b c d.heads.png",
    }  # fmt: skip
    assert len(list(out.glob("*.heads.png"))) == 1


# -- MarianMT ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beam", [1, 4])
def test_the_sentences_are_those_of_transformers(marian: Path, beam: int) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.MarianTokenizer.from_pretrained(marian)
    theirs = transformers.MarianMTModel.from_pretrained(marian)
    pad = tokenizer.pad_token_id
    given = tokenizer([*TEXTS[:3], ">>fra<< Ein Hund."], return_tensors="pt", padding=True)
    wanted = theirs.generate(
        **given, num_beams=beam, length_penalty=1.0, early_stopping="never" if beam > 1 else False, max_new_tokens=26,
        do_sample=False, bad_words_ids=[[pad]],
    )  # fmt: skip
    opened = open_translator(marian)
    assert isinstance(opened.pieces, MarianPieces)
    sources = [[*opened.pieces.encode(text), opened.pieces.end] for text in [*TEXTS[:3], ">>fra<< Ein Hund."]]
    assert sources == [row[: row.index(0) + 1] for row in given["input_ids"].tolist()]
    for place, (source, row) in enumerate(zip(sources, wanted.tolist(), strict=True)):
        (found, _), *_ = search(opened.model, [source], opened.pieces, beam=beam)
        row = [number for number in row if number != pad]
        ended = 0 in row
        row = row[: row.index(0)] if ended else row
        if ended or beam == 1:  # an unfinished one depends on the limit, which differs with the length
            assert found[: len(row)] == row, place
            assert opened.pieces.decode(row) == tokenizer.decode(row, skip_special_tokens=True)


def test_marian_by_the_shell(marian: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["translate", TEXTS[0], "-s", str(marian), "--beam", "1", "--json", "--out", str(tmp_path / "looks")]
    assert run(command) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    found = translate(TEXTS[0], system=marian, beam=1)
    assert result["text"] == found.text
    assert result["unknown"] == []
    assert translate("Ein Hund 漢字", system=marian, beam=1).unknown == ("漢字",)
    assert Path(result["heads"]).stat().st_size > 1000
    assert found.attention is not None
    assert found.attention.source == (*["Ein", "Hund", "rennt", "über", "die", "Wiese", "."], "</s>")


@pytest.mark.parametrize("name", ["source.spm", "vocab.json", "config.json"])
def test_what_is_missing_or_broken_is_told_in_one_line(marian: Path, tmp_path: Path, name: str) -> None:
    for broken in (False, True):
        folder = tmp_path / str(broken)
        folder.mkdir()
        for file in marian.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        if broken:
            (folder / name).write_bytes(b"{}")
        else:
            (folder / name).unlink()
        with pytest.raises(ValueError, match=str(folder)) as told:
            open_translator(folder)
        assert "\n" not in str(told.value)


def test_without_sentencepiece_it_says_what_to_install(marian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.data.marian_pieces.find_spec", lambda name: None)
    with pytest.raises(TranslationError, match="pip install sentencepiece"):
        open_translator(marian)


def test_a_hub_id_is_read_from_the_cache_and_told_where_it_is_not(
    marian: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    assert is_marian(tmp_path / "none", "Helsinki-NLP/opus-mt-de-en")
    assert not is_marian(tmp_path / "none", "nowhere")
    assert not is_marian(tmp_path, "a/b")
    with pytest.raises(TranslationError, match="nobody/opus-mt-none-at-all: neither a folder here"):
        open_translator("nobody/opus-mt-none-at-all")
