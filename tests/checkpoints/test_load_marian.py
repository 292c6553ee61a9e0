"""MarianMT folders of transformers: equal logits, and the same sentences from the same beam."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sightline.attention import masks
from sightline.checkpoints.load import load_checkpoint
from sightline.decoding import beam_search, greedy
from sightline.systems.transformer import Transformer

transformers = pytest.importorskip("transformers")
WORDS = 40


def marian(folder: Path, *, shared: bool = True, **more: object) -> nn.Module:
    """A translator with random weights, saved to a folder; sentences end now and then."""
    last = WORDS - 1 if shared else 30
    config = transformers.MarianConfig(
        **{
            "vocab_size": WORDS,
            "decoder_vocab_size": last + 1,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 3,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "pad_token_id": last,
            "eos_token_id": 0,
            "decoder_start_token_id": last,
            "forced_eos_token_id": None,
            "scale_embedding": True,
            "share_encoder_decoder_embeddings": shared,
            "activation_function": "swish",
            "max_position_embeddings": 64,
        }
        | more
    )
    torch.manual_seed(0)
    model = transformers.MarianMTModel(config).eval()
    for name, parameter in model.named_parameters():
        if "embed_positions" not in name:
            nn.init.normal_(parameter, std=0.25)
    model.final_logits_bias[0, 0] = 3.0
    model.save_pretrained(folder)
    return model


def sentences() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    lengths = torch.tensor([9, 4, 6, 1])
    source = torch.randint(1, 29, (4, 9)).where(torch.arange(9) < lengths[:, None], 39)
    return source, lengths, (torch.arange(9) < lengths[:, None]).long()


@pytest.mark.parametrize("shared", [True, False])
def test_equal_logits(tmp_path: Path, shared: bool) -> None:
    theirs, mine = marian(tmp_path, shared=shared), load_checkpoint(tmp_path)
    assert isinstance(mine, Transformer)
    source, lengths, mask = sentences()
    target = torch.randint(1, 29, (4, 50))
    with torch.no_grad():
        expected = theirs(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
        torch.testing.assert_close(mine(source, lengths, target), expected, atol=2e-5, rtol=0)
        encoded = theirs.get_encoder()(source, attention_mask=mask).last_hidden_state
        states = mine.read(source, lengths).states
    real = masks.padding(lengths, 9)[:, 0, 0]
    torch.testing.assert_close(states[real], encoded[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("penalty", [0.6, 1.0])
@pytest.mark.parametrize("beam", [1, 4])
def test_the_same_sentences_from_the_same_beam(tmp_path: Path, beam: int, penalty: float) -> None:
    theirs, mine = marian(tmp_path), load_checkpoint(tmp_path)
    source, lengths, mask = sentences()
    expected = theirs.generate(
        input_ids=source,
        attention_mask=mask,
        num_beams=beam,
        length_penalty=penalty,
        early_stopping="never" if beam > 1 else False,
        max_new_tokens=25,
        do_sample=False,
        bad_words_ids=[[39]],
        return_dict_in_generate=True,
        output_scores=True,
    )
    with torch.no_grad():
        step, state = mine.steps(source, lengths)
        words = {"start": 39, "end": 0, "blocked": (39,), "max_length": 25}
        if beam == 1:
            found = greedy(step, state, **words)
        else:
            found = beam_search(step, state, beam=beam, length_penalty=penalty, **words)
            torch.testing.assert_close(found.scores[:, 0], expected.sequences_scores, atol=1e-4, rtol=0)
    rows = [[word for word in row if word != 39] for row in expected.sequences.tolist()]
    assert found.lists() == [row[: row.index(0)] if 0 in row else row for row in rows]
    assert any(0 in row for row in rows), "some sentences should end"


def test_what_would_be_computed_otherwise_is_refused(tmp_path: Path) -> None:
    marian(tmp_path)
    right = json.loads((tmp_path / "config.json").read_text())
    for wrong, told in (
        ({"scale_embedding": False}, "scale_embedding=False; only True"),
        ({"normalize_before": True}, "normalize_before=True; only False"),
        ({"decoder_attention_heads": 8}, "attention_heads 4 and 8"),
        ({"activation_function": "tanh"}, "activation_function='tanh'"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(right | wrong))
        with pytest.raises(ValueError, match=told):
            load_checkpoint(tmp_path)


def test_old_files_with_every_copy_of_the_table_and_the_positions(tmp_path: Path) -> None:
    theirs = marian(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    mine = load_checkpoint(tmp_path)
    assert mine.output is None
    state = theirs.state_dict()
    state["model.encoder.embed_positions.weight"] = state["model.encoder.embed_positions.weight"] + 0.1
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="positions of the encoder are not Marian's"):
        load_checkpoint(tmp_path)
