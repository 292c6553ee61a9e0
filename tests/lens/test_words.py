"""Words to regions, on tiny random models with a tokenizer made by hand."""

import pytest
import torch
from torch import nn

import sightline
from sightline.lens.combine import relative
from sightline.lens.words import words_to_regions

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
TOWER = {**SMALL, "image_size": 64, "patch_size": 16}
PIECES = ["<pad>", "<s>", "</s>", "▁a", "▁red", "▁cu", "be", "▁on", "▁ta", "ble", ".", "▁is", "▁it", "▁blue", "<image>"]
MARK = PIECES.index("<image>")
TEXT = {**SMALL, "vocab_size": len(PIECES), "num_key_value_heads": 2, "max_position_embeddings": 128}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SENTENCE = ["▁a", "▁red", "▁cu", "be", "▁on", "▁ta", "ble", ".", "</s>"]


class Pieces:
    """The three methods that are used, over a list of SentencePiece pieces."""

    all_special_ids = (0, 1, 2, MARK)

    def convert_ids_to_tokens(self, ids):
        return [PIECES[i] for i in ids]

    def decode(self, ids, skip_special_tokens=False):
        kept = [i for i in ids if not (skip_special_tokens and i in self.all_special_ids)]
        return "".join(PIECES[i] for i in kept).replace("▁", " ")


def seeded(build, config):
    torch.manual_seed(0)
    model = build(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.4)
    model.generation_config.eos_token_id = None  # a random model would stop anywhere
    return model


def llava():
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER),
        text_config=transformers.LlamaConfig(**TEXT, **ENDS),
        image_token_index=MARK,
    )
    model = seeded(transformers.LlavaForConditionalGeneration, config)
    inputs = {"input_ids": torch.tensor([[1, 11, *[MARK] * 16, 12]]), "pixel_values": torch.randn(1, 3, 64, 64)}
    return model, inputs


def blip():
    config = transformers.BlipConfig(
        vision_config=TOWER,
        text_config={**SMALL, "vocab_size": len(PIECES), "encoder_hidden_size": 16, **ENDS, "sep_token_id": 2},
    )
    model = seeded(transformers.BlipForConditionalGeneration, config)
    return model, {"pixel_values": torch.randn(1, 3, 64, 64), "input_ids": torch.tensor([[1, 3, 2]])}


def captioner():
    encoder = transformers.ViTConfig(**TOWER)
    decoder = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=len(PIECES), n_positions=64, add_cross_attention=True, **ENDS
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    model = seeded(transformers.VisionEncoderDecoderModel, config)
    model.generation_config.decoder_start_token_id = 1
    return model, {"pixel_values": torch.randn(1, 3, 64, 64)}


def git():
    config = transformers.GitConfig(**{k: v for k, v in TEXT.items() if k != "num_key_value_heads"}, **ENDS)
    config.vision_config = transformers.GitVisionConfig(**TOWER)
    model = seeded(transformers.GitForCausalLM, config)
    return model, {"pixel_values": torch.randn(1, 3, 64, 64), "input_ids": torch.tensor([[1, 3]])}


def qwen():
    text = {**TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**text, **ENDS},
        vision_config={
            "depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 16,
            "patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1], "spatial_merge_size": 2,
        },
        image_token_id=MARK, video_token_id=100, vision_start_token_id=101, vision_end_token_id=102,
    )  # fmt: skip
    model = seeded(transformers.Qwen2_5_VLForConditionalGeneration, config)
    ids = torch.tensor([[1, *[MARK] * 15, 11]])
    inputs = {
        "input_ids": ids, "pixel_values": torch.randn(60, 96), "image_grid_thw": torch.tensor([[1, 6, 10]]),
        "mm_token_type_ids": (ids == MARK).int(),
    }  # fmt: skip
    return model, inputs


MODELS = {"llava": llava, "blip": blip, "captioner": captioner, "git": git, "qwen": qwen}
GRIDS = {"qwen": (3, 5)}


@pytest.mark.parametrize("name", MODELS)
def test_each_word_has_one_map(name):
    model, inputs = MODELS[name]()
    ids = [PIECES.index(piece) for piece in SENTENCE]
    found = words_to_regions(model, inputs, tokenizer=Pieces(), generated=ids)
    assert [region.word for region in found] == ["a", "red", "cube", "on", "table", "."]
    assert found[2].tokens == (5, 6)
    assert found.text == "a red cube on table."
    assert len(found.sites) == 2
    for region in found:
        assert region.map.shape == GRIDS.get(name, (4, 4))
        assert region.map.sum() == pytest.approx(region.mass_on_image, abs=1e-5)
        assert 0 < region.mass_on_image < 1


def by_hand(model, inputs, written: list[int], layer: int) -> torch.Tensor:
    """Rows of the sentence in one eager forward, cut to the image: what each token was predicted from."""
    ids = torch.cat([inputs["input_ids"], torch.tensor([written])], 1)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(**{**inputs, "input_ids": ids}, output_attentions=True, use_cache=False)
    model.set_attn_implementation("sdpa")
    first = inputs["input_ids"].shape[1] - 1
    return out.attentions[layer][0].mean(0)[first : first + len(written), 2:18]


def test_maps_equal_one_eager_pass_over_the_whole_sentence():
    model, inputs = llava()
    written = [PIECES.index(piece) for piece in SENTENCE]
    reference = by_hand(model, inputs, written, 1)
    found = words_to_regions(model, inputs, tokenizer=Pieces(), generated=written, layers=-1)
    assert torch.allclose(found[0].map.flatten(), reference[0], atol=1e-5)
    assert torch.allclose(found.find("cube").map.flatten(), reference[2:4].mean(0), atol=1e-5)
    compared = words_to_regions(model, inputs, tokenizer=Pieces(), generated=written, layers=1, method="relative")
    assert torch.allclose(compared[1].map.flatten(), relative(reference)[1], atol=1e-3)
    both = words_to_regions(model, inputs, tokenizer=Pieces(), generated=written)
    mean = (reference + by_hand(model, inputs, written, 0)) / 2
    assert torch.allclose(both[1].map.flatten(), mean[1], atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", ["llava", "blip", "captioner", "git", "qwen"])
def test_what_the_model_writes_is_what_it_writes_alone(name, steps):
    model, inputs = MODELS[name]()
    if name == "blip":
        del inputs["input_ids"]
        model.text_decoder.generation_config.suppress_tokens = [0, 1, 2, MARK]
    model.generation_config.suppress_tokens = [0, 1, 2, MARK]
    with torch.no_grad():
        alone = model.generate(**inputs, do_sample=False, max_new_tokens=steps)[0, -steps:]
    found = words_to_regions(model, inputs, tokenizer=Pieces(), max_new_tokens=steps)
    assert sum(len(region.tokens) for region in found) == steps
    assert found.text == Pieces().decode(alone.tolist(), skip_special_tokens=True).strip()


def test_cross_attention_steps_equal_one_pass_with_the_sentence_given():
    model, inputs = captioner()
    ids = [PIECES.index(piece) for piece in SENTENCE[:3]]
    found = words_to_regions(model, inputs, tokenizer=Pieces(), generated=ids)
    with torch.no_grad(), sightline.record(model, sites="*crossattention*") as seen:
        model(pixel_values=inputs["pixel_values"], decoder_input_ids=torch.tensor([[1, *ids[:-1]]]))
    rows = torch.stack([site.weights[0].mean(0) for site in seen]).mean(0)[:, 1:]  # without the class token
    assert torch.allclose(torch.stack([r.map.flatten() for r in found]), rows, atol=1e-5)


def test_pictures(tmp_path):
    model, inputs = llava()
    ids = [PIECES.index(piece) for piece in SENTENCE]
    found = words_to_regions(model, inputs, tokenizer=Pieces(), generated=ids)
    found.save(tmp_path / "words.png")
    assert (tmp_path / "words.png").stat().st_size > 1000
    assert found._repr_html_().startswith('<img alt="a red cube on table." src="data:image/png;base64,')
    assert "on the image" in found.caption
    model, inputs = qwen()
    packed = words_to_regions(model, inputs, tokenizer=Pieces(), generated=ids)
    assert packed._repr_html_().startswith("<table>")
    with pytest.raises(ValueError, match="give image="):
        packed.strip()


def test_refusals():
    model, inputs = llava()
    with pytest.raises(ValueError, match="tokenizer must be"):
        words_to_regions(model, inputs, tokenizer=None)
    with pytest.raises(ValueError, match="one image and its prompt"):
        words_to_regions(model, {k: torch.cat([v, v]) for k, v in inputs.items()}, tokenizer=Pieces())
    with pytest.raises(ValueError, match="wrote 2 texts"):
        words_to_regions(captioner()[0], {"pixel_values": torch.rand(2, 3, 64, 64)}, tokenizer=Pieces())
    with pytest.raises(ValueError, match="no generate"):
        words_to_regions(nn.Linear(2, 2), inputs, tokenizer=Pieces())
    with pytest.raises(ValueError, match="there are 2 layers"):
        words_to_regions(model, inputs, tokenizer=Pieces(), generated=[3, 4], layers=2)
    with pytest.raises(ValueError, match='"raw" or "relative"'):
        words_to_regions(model, inputs, tokenizer=Pieces(), method="grad")
    with pytest.raises(ValueError, match="generated is empty"):
        words_to_regions(model, inputs, tokenizer=Pieces(), generated=[])
    with pytest.raises(ValueError, match="nothing but special tokens"):
        words_to_regions(model, inputs, tokenizer=Pieces(), generated=[2, 2])
    model.generation_config.eos_token_id = 2
    with pytest.raises(ValueError, match="stopped after 2 of the 3"):
        words_to_regions(model, inputs, tokenizer=Pieces(), generated=[3, 2, 4])
    with pytest.raises(ValueError, match="not among the words: a"):
        words_to_regions(model, inputs, tokenizer=Pieces(), generated=[3, 4]).find("cube")
