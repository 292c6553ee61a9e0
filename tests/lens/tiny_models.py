"""Tiny random models of `transformers`: one function each, giving a model in eval mode and the inputs of one call."""

from collections.abc import Callable
from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn

Built = tuple[nn.Module, dict[str, Any]]


def sharpen(model: nn.Module, seed: int = 0, gain: float = 1.6) -> nn.Module:
    """Fresh random weights, large enough that attention is far from uniform (checked by the tests)."""
    made = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            fan_in = parameter[0].numel() if "embed" not in name and "table" not in name else 1
            with torch.no_grad():
                parameter.copy_(gain * torch.randn(parameter.shape, generator=made) * fan_in**-0.5)
    return model.eval()


def pixels(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def words(*shape: int, vocabulary: int = 60, first: int = 5) -> Tensor:
    return torch.randint(first, vocabulary, shape, generator=torch.Generator().manual_seed(2))


def padding(batch: int, length: int, missing: int, side: str) -> Tensor:
    """Attention mask: the first sequence whole, the last lacking `missing` tokens on one side."""
    mask = torch.ones(batch, length, dtype=torch.long)
    if missing:
        mask[-1, slice(0, missing) if side == "left" else slice(length - missing, length)] = 0
    return mask


VISION: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECODER = {**TEXT, "num_key_value_heads": 2}
ENCODER_DECODER: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
}


def _image(model: type, config: Any) -> Callable[[], Built]:
    def build() -> Built:
        return sharpen(model(config())), {"pixel_values": pixels(2, 3, 32, 32)}

    return build


vit = _image(tf.ViTModel, lambda: tf.ViTConfig(**VISION))
deit = _image(tf.DeiTModel, lambda: tf.DeiTConfig(**VISION))
dinov2 = _image(tf.Dinov2Model, lambda: tf.Dinov2Config(**VISION))
dinov2_registers = _image(
    tf.Dinov2WithRegistersModel, lambda: tf.Dinov2WithRegistersConfig(**VISION, num_register_tokens=3)
)
dinov3 = _image(tf.DINOv3ViTModel, lambda: tf.DINOv3ViTConfig(**VISION, num_register_tokens=2))
ijepa = _image(tf.IJepaModel, lambda: tf.IJepaConfig(**VISION))
yolos = _image(tf.YolosModel, lambda: tf.YolosConfig(**{**VISION, "image_size": [32, 32]}, num_detection_tokens=3))
beit = _image(
    tf.BeitModel,
    lambda: tf.BeitConfig(**VISION, use_relative_position_bias=True, use_absolute_position_embeddings=False),
)
data2vec = _image(
    tf.Data2VecVisionModel, lambda: tf.Data2VecVisionConfig(**VISION, use_shared_relative_position_bias=True)
)
clip_vision = _image(tf.CLIPVisionModel, lambda: tf.CLIPVisionConfig(**VISION))
pvt = _image(
    tf.PvtV2Model,
    lambda: tf.PvtV2Config(
        image_size=32, num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[16, 32], num_attention_heads=[1, 2],
        sr_ratios=[2, 1], mlp_ratios=[2, 2], patch_sizes=[7, 3], strides=[4, 2],
    ),
)  # fmt: skip


def mae() -> Built:
    model = sharpen(
        tf.ViTMAEForPreTraining(
            tf.ViTMAEConfig(
                **VISION,
                decoder_hidden_size=16,
                decoder_num_hidden_layers=2,
                decoder_num_attention_heads=2,
                decoder_intermediate_size=24,
                mask_ratio=0.5,
            )
        )
    )
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(3))
    return model, {"pixel_values": pixels(2, 3, 32, 32), "noise": noise}


def swin() -> Built:
    config = tf.SwinConfig(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
    return sharpen(tf.SwinModel(config)), {"pixel_values": pixels(2, 3, 32, 32)}


def swinv2() -> Built:
    config = tf.Swinv2Config(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
    return sharpen(tf.Swinv2Model(config)), {"pixel_values": pixels(2, 3, 32, 32)}


def segformer() -> Built:
    config = tf.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 2], hidden_sizes=[16, 32], num_attention_heads=[1, 2], sr_ratios=[4, 1],
        patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2], decoder_hidden_size=16,
    )  # fmt: skip
    return sharpen(tf.SegformerModel(config)), {"pixel_values": pixels(2, 3, 32, 32)}


def videomae() -> Built:
    model = sharpen(tf.VideoMAEModel(tf.VideoMAEConfig(**VISION, num_frames=4, tubelet_size=2)))
    return model, {"pixel_values": pixels(2, 4, 3, 32, 32)}


def timesformer() -> Built:
    model = sharpen(tf.TimesformerModel(tf.TimesformerConfig(**{**VISION, "patch_size": 16}, num_frames=3)))
    return model, {"pixel_values": pixels(2, 3, 3, 32, 32)}


def vivit() -> Built:
    model = sharpen(
        tf.VivitModel(tf.VivitConfig(**{**VISION, "patch_size": 16}, tubelet_size=[2, 16, 16], num_frames=4))
    )
    return model, {"pixel_values": pixels(2, 4, 3, 32, 32)}


def clip() -> Built:
    config = tf.CLIPConfig(
        text_config={**TEXT, "max_position_embeddings": 16, "eos_token_id": 63}, vision_config=VISION, projection_dim=16
    )
    ids = words(2, 9)
    ids[:, -1] = 63
    return sharpen(tf.CLIPModel(config)), {
        "pixel_values": pixels(2, 3, 32, 32), "input_ids": ids, "attention_mask": padding(2, 9, 3, "right"),
    }  # fmt: skip


def siglip() -> Built:
    config = tf.SiglipConfig(text_config={**TEXT, "max_position_embeddings": 16}, vision_config=VISION)
    return sharpen(tf.SiglipModel(config)), {"pixel_values": pixels(2, 3, 32, 32), "input_ids": words(2, 16)}


def bert() -> Built:
    return sharpen(tf.BertModel(tf.BertConfig(**TEXT))), {
        "input_ids": words(2, 9),
        "attention_mask": padding(2, 9, 3, "right"),
    }


def roberta() -> Built:
    return sharpen(tf.RobertaModel(tf.RobertaConfig(**TEXT))), {
        "input_ids": words(2, 9),
        "attention_mask": padding(2, 9, 3, "right"),
    }


def distilbert() -> Built:
    config = tf.DistilBertConfig(
        dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=64, max_position_embeddings=64
    )
    return sharpen(tf.DistilBertModel(config)), {
        "input_ids": words(2, 9),
        "attention_mask": padding(2, 9, 3, "right"),
    }


def gpt2(missing: int = 0) -> Built:
    config = tf.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=64, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    inputs = {"input_ids": words(2, 7)}
    if missing:
        inputs["attention_mask"] = padding(2, 7, missing, "left")
    return sharpen(tf.GPT2LMHeadModel(config)), inputs


def _decoder(model: type, config: Callable[[], Any], missing: int = 0) -> Callable[[], Built]:
    def build() -> Built:
        inputs = {"input_ids": words(2, 8)}
        if missing:
            inputs["attention_mask"] = padding(2, 8, missing, "left")
        return sharpen(model(config())), inputs

    return build


llama = _decoder(tf.LlamaForCausalLM, lambda: tf.LlamaConfig(**DECODER))
llama_padded = _decoder(tf.LlamaForCausalLM, lambda: tf.LlamaConfig(**DECODER), missing=3)
mistral = _decoder(tf.MistralForCausalLM, lambda: tf.MistralConfig(**DECODER, sliding_window=4))
mixtral = _decoder(
    tf.MixtralForCausalLM, lambda: tf.MixtralConfig(**DECODER, num_local_experts=2, num_experts_per_tok=1)
)
qwen2 = _decoder(
    tf.Qwen2ForCausalLM,
    lambda: tf.Qwen2Config(**DECODER, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    missing=2,
)
qwen3 = _decoder(tf.Qwen3ForCausalLM, lambda: tf.Qwen3Config(**DECODER, head_dim=8), missing=2)
phi = _decoder(tf.PhiForCausalLM, lambda: tf.PhiConfig(**TEXT))
phi3 = _decoder(tf.Phi3ForCausalLM, lambda: tf.Phi3Config(**DECODER))
gemma = _decoder(tf.GemmaForCausalLM, lambda: tf.GemmaConfig(**DECODER, head_dim=8))
gemma2 = _decoder(
    tf.Gemma2ForCausalLM,
    lambda: tf.Gemma2Config(
        **DECODER, head_dim=8, query_pre_attn_scalar=8, sliding_window=4, attn_logit_softcapping=2.0
    ),
    missing=2,
)
gemma3 = _decoder(
    tf.Gemma3ForCausalLM,
    lambda: tf.Gemma3TextConfig(**DECODER, head_dim=8, query_pre_attn_scalar=8, sliding_window=4),
)
opt = _decoder(tf.OPTForCausalLM, lambda: tf.OPTConfig(**{**TEXT, "ffn_dim": 48, "word_embed_proj_dim": 32}), missing=2)
gpt_neox = _decoder(tf.GPTNeoXForCausalLM, lambda: tf.GPTNeoXConfig(**TEXT))
bloom = _decoder(
    tf.BloomForCausalLM, lambda: tf.BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=64), missing=2
)
falcon = _decoder(
    tf.FalconForCausalLM,
    lambda: tf.FalconConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=64, alibi=False),
)


def t5() -> Built:
    config = tf.T5Config(
        d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=64, decoder_start_token_id=0, pad_token_id=0,
        eos_token_id=2,
    )  # fmt: skip
    return sharpen(tf.T5ForConditionalGeneration(config), gain=1.0), {  # T5 does not scale its scores
        "input_ids": words(2, 9), "attention_mask": padding(2, 9, 3, "right"), "decoder_input_ids": words(2, 5),
    }  # fmt: skip


def _encoder_decoder(model: type, config: type) -> Callable[[], Built]:
    def build() -> Built:
        return sharpen(model(config(**ENCODER_DECODER))), {
            "input_ids": words(2, 9), "attention_mask": padding(2, 9, 3, "right"), "decoder_input_ids": words(2, 5),
        }  # fmt: skip

    return build


def led() -> Built:
    config = tf.LEDConfig(
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=64, attention_window=4,
    )  # fmt: skip
    return sharpen(tf.LEDModel(config)), {"input_ids": words(2, 8), "decoder_input_ids": words(2, 4)}


bart = _encoder_decoder(tf.BartForConditionalGeneration, tf.BartConfig)
marian = _encoder_decoder(tf.MarianMTModel, tf.MarianConfig)
pegasus = _encoder_decoder(tf.PegasusForConditionalGeneration, tf.PegasusConfig)


def whisper() -> Built:
    config = tf.WhisperConfig(
        **{k: v for k, v in ENCODER_DECODER.items() if k not in ("max_position_embeddings", "forced_eos_token_id")},
        num_mel_bins=8, max_source_positions=12, max_target_positions=32, begin_suppress_tokens=None,
        suppress_tokens=None,
    )  # fmt: skip
    sound = torch.randn(2, 8, 24, generator=torch.Generator().manual_seed(4))
    return sharpen(tf.WhisperForConditionalGeneration(config)), {
        "input_features": sound,
        "decoder_input_ids": words(2, 5),
    }


def blip() -> Built:
    config = tf.BlipConfig(
        text_config={**TEXT, "encoder_hidden_size": 32, "is_decoder": True, "sep_token_id": 2},
        vision_config=VISION, projection_dim=16,
    )  # fmt: skip
    return sharpen(tf.BlipForConditionalGeneration(config)), {
        "pixel_values": pixels(2, 3, 32, 32), "input_ids": words(2, 5), "attention_mask": padding(2, 5, 0, "right"),
    }  # fmt: skip


def blip2() -> Built:
    former = {**TEXT, "encoder_hidden_size": 32, "cross_attention_frequency": 1}
    config = tf.Blip2Config(
        vision_config=VISION, qformer_config=former, num_query_tokens=6, image_token_index=63,
        text_config={**TEXT, "ffn_dim": 48, "word_embed_proj_dim": 32, "model_type": "opt"},
    )  # fmt: skip
    ids = torch.cat([torch.full((2, 6), 63), words(2, 5)], 1)
    return sharpen(tf.Blip2ForConditionalGeneration(config)), {"pixel_values": pixels(2, 3, 32, 32), "input_ids": ids}


def llava(missing: int = 0) -> Built:
    config = tf.LlavaConfig(
        vision_config={**VISION, "model_type": "clip_vision_model", "num_hidden_layers": 3},
        text_config={**DECODER, "model_type": "llama"}, image_token_id=63, vision_feature_layer=-2,
    )  # fmt: skip
    ids = torch.cat([words(2, 3), torch.full((2, 16), 63), words(2, 4)], 1)
    inputs = {"pixel_values": pixels(2, 3, 32, 32), "input_ids": ids}
    if missing:
        inputs["attention_mask"] = padding(2, 23, missing, "left")
    return sharpen(tf.LlavaForConditionalGeneration(config)), inputs


def qwen2_5_vl() -> Built:
    config = tf.Qwen2_5_VLConfig(
        vision_config={
            "depth": 3, "hidden_size": 32, "num_heads": 4, "intermediate_size": 48, "out_hidden_size": 32,
            "patch_size": 4, "spatial_merge_size": 2, "window_size": 16, "fullatt_block_indexes": [1],
            "temporal_patch_size": 2,
        },
        text_config={
            **DECODER,
            "rope_parameters": {"mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 1e4},
        },
        image_token_id=63, video_token_id=62, vision_start_token_id=61, vision_end_token_id=60,
    )  # fmt: skip
    height, width = 12, 8  # in patches: windows of 4 x 4 patches, one row of them cut short by the grid's end
    grid = torch.tensor([[1, height, width]])
    ids = torch.cat([words(1, 2), torch.tensor([[61]]), torch.full((1, height * width // 4), 63), words(1, 4)], 1)
    return sharpen(tf.Qwen2_5_VLForConditionalGeneration(config)), {
        "input_ids": ids, "pixel_values": pixels(height * width, 3 * 2 * 4 * 4), "image_grid_thw": grid,
        "mm_token_type_ids": (ids == 63).long(),
    }  # fmt: skip


def detr() -> Built:
    config = tf.DetrConfig(
        **{k: v for k, v in ENCODER_DECODER.items() if k in (
            "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads",
            "encoder_ffn_dim", "decoder_ffn_dim",
        )},
        num_queries=5, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=tf.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
        ),
    )  # fmt: skip
    mask = torch.ones(2, 32, 48, dtype=torch.long)
    mask[1, :, 32:] = 0
    return sharpen(tf.DetrModel(config)), {"pixel_values": pixels(2, 3, 32, 48), "pixel_mask": mask}


def vilt() -> Built:
    config = tf.ViltConfig(**{**VISION, **TEXT}, num_images=-1, max_image_length=-1)
    return sharpen(tf.ViltModel(config)), {
        "pixel_values": pixels(2, 3, 32, 32), "input_ids": words(2, 5), "attention_mask": padding(2, 5, 2, "right"),
        "pixel_mask": torch.ones(2, 32, 32, dtype=torch.long),
    }  # fmt: skip


def trocr() -> Built:
    decoder = tf.TrOCRConfig(
        d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=48, vocab_size=64,
        max_position_embeddings=32, cross_attention_hidden_size=32,
    )  # fmt: skip
    model = tf.VisionEncoderDecoderModel(
        encoder=tf.ViTModel(tf.ViTConfig(**VISION)), decoder=tf.TrOCRForCausalLM(decoder)
    )
    return sharpen(model), {"pixel_values": pixels(2, 3, 32, 32), "decoder_input_ids": words(2, 5)}


def perceiver() -> Built:
    config = tf.PerceiverConfig(
        num_latents=6, d_latents=16, d_model=24, num_blocks=1, num_self_attends_per_block=2,
        num_self_attention_heads=2, num_cross_attention_heads=2,
    )  # fmt: skip
    return sharpen(tf.PerceiverModel(config)), {
        "inputs": torch.randn(2, 10, 24, generator=torch.Generator().manual_seed(5))
    }


def lxmert() -> Built:
    config = tf.LxmertConfig(
        hidden_size=32, num_attention_heads=4, intermediate_size=48, vocab_size=64, l_layers=1, x_layers=1, r_layers=1,
        visual_feat_dim=12,
    )  # fmt: skip
    return sharpen(tf.LxmertModel(config)), {
        "input_ids": words(2, 5), "visual_feats": pixels(2, 7, 12), "visual_pos": pixels(2, 7, 4).sigmoid(),
        "attention_mask": padding(2, 5, 2, "right"),
    }  # fmt: skip


def sam_vision() -> Built:
    config = tf.SamVisionConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, output_channels=8, image_size=32, patch_size=4,
        window_size=3, global_attn_indexes=[1], mlp_dim=48,
    )  # fmt: skip
    return sharpen(tf.SamVisionModel(config)), {"pixel_values": pixels(2, 3, 32, 32)}


def hiera() -> Built:
    config = tf.HieraConfig(
        image_size=[32, 32], patch_size=[7, 7], patch_stride=[4, 4], embed_dim=16, depths=[1, 1], num_heads=[1, 2],
        embed_dim_multiplier=2.0, num_query_pool=1, masked_unit_size=[4, 4], masked_unit_attention=[True, False],
    )  # fmt: skip
    return sharpen(tf.HieraModel(config)), {"pixel_values": pixels(2, 3, 32, 32)}


def albert() -> Built:
    return sharpen(tf.AlbertModel(tf.AlbertConfig(**TEXT, embedding_size=16))), {
        "input_ids": words(2, 9),
        "attention_mask": padding(2, 9, 3, "right"),
    }


def deberta() -> Built:
    config = tf.DebertaV2Config(**TEXT, relative_attention=True, pos_att_type=["p2c", "c2p"])
    return sharpen(tf.DebertaV2Model(config)), {
        "input_ids": words(2, 9),
        "attention_mask": padding(2, 9, 3, "right"),
    }


def xlnet() -> Built:
    config = tf.XLNetConfig(d_model=32, n_layer=2, n_head=4, d_inner=48, vocab_size=64)
    return sharpen(tf.XLNetModel(config)), {"input_ids": words(2, 9)}


gpt_neo = _decoder(
    tf.GPTNeoForCausalLM,
    lambda: tf.GPTNeoConfig(
        hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], vocab_size=64,
        window_size=4, bos_token_id=1, eos_token_id=2,
    ),
)  # fmt: skip
gptj = _decoder(
    tf.GPTJForCausalLM,
    lambda: tf.GPTJConfig(n_embd=32, n_layer=2, n_head=4, rotary_dim=4, vocab_size=64, bos_token_id=1, eos_token_id=2),
)
owlvit = _image(tf.OwlViTVisionModel, lambda: tf.OwlViTVisionConfig(**VISION))


def wav2vec2() -> Built:
    config = tf.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=[16, 16],
        conv_stride=[4, 4], conv_kernel=[8, 4], num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    return sharpen(tf.Wav2Vec2Model(config)), {"input_values": pixels(2, 400)}


def idefics3() -> Built:
    config = tf.Idefics3Config(
        vision_config=VISION, text_config={**DECODER, "model_type": "llama"}, image_token_id=63, scale_factor=2
    )
    ids = torch.cat([words(1, 3), torch.full((1, 4), 63), words(1, 3)], 1)
    return sharpen(tf.Idefics3ForConditionalGeneration(config)), {
        "pixel_values": pixels(1, 1, 3, 32, 32),
        "input_ids": ids,
    }


def paligemma() -> Built:
    config = tf.PaliGemmaConfig(
        vision_config={**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        text_config={**DECODER, "model_type": "gemma", "head_dim": 8}, image_token_index=63, projection_dim=32,
    )  # fmt: skip
    ids = torch.cat([torch.full((2, 16), 63), words(2, 4)], 1)
    return sharpen(tf.PaliGemmaForConditionalGeneration(config)), {
        "pixel_values": pixels(2, 3, 32, 32),
        "input_ids": ids,
        "token_type_ids": torch.zeros_like(ids),
    }
