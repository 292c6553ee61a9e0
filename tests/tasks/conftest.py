"""Tiny models with random weights in folders, as transformers saves them with their image processors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
Save = Callable[[str], Path]


def _make(kind: str) -> tuple[Any, Any]:
    import transformers as t
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    squash = {"height": 32, "width": 32}
    crop = {"size": {"shortest_edge": 40}, "crop_size": squash}
    names = {0: "cat", 1: "cup", 2: "rocket"}
    classes = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    text |= {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "projection_dim": 32}
    if kind == "vit":
        return t.ViTForImageClassification(t.ViTConfig(**SIZES, **classes)), ViTImageProcessorPil(size=squash)
    if kind == "headless vit":
        return t.ViTModel(t.ViTConfig(**SIZES), add_pooling_layer=False), ViTImageProcessorPil(size=squash)
    if kind == "dinov2":
        config = t.Dinov2WithRegistersConfig(**SIZES, num_register_tokens=2, mlp_ratio=2)
        return t.Dinov2WithRegistersModel(config), BitImageProcessorPil(**crop)
    if kind == "swin":
        config = t.SwinConfig(
            image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, **classes
        )
        return t.SwinForImageClassification(config), ViTImageProcessorPil(size=squash)
    if kind == "clip":
        config = t.CLIPConfig(text_config=text, vision_config=SIZES, projection_dim=32)
        return t.CLIPModel(config), CLIPImageProcessorPil(**crop)
    if kind == "siglip":
        config = t.SiglipVisionConfig(**SIZES)
        return t.SiglipVisionModel(config), SiglipImageProcessorPil(size=squash)
    if kind == "bert":
        return t.BertModel(t.BertConfig(**{k: text[k] for k in list(text)[:5]})), None
    raise AssertionError(kind)


@pytest.fixture(scope="session")
def save_tiny(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Gives the folder of a tiny model of a kind; made once a session."""
    made: dict[str, Path] = {}

    def save(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind.replace(" ", "_"))
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model, processor = _make(kind)
            model.save_pretrained(made[kind])
            if processor is not None:
                processor.save_pretrained(made[kind])
        return made[kind]

    return save
