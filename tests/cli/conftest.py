"""A tiny Vision Transformer with random weights in a folder, as transformers saves one, and a few
photographs."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of progress, however long a busy machine takes: what a verb says otherwise is compared whole."""
    monkeypatch.setattr("sightline.cli.console.FIRST", 3600.0)


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("tiny_vit")
    names = {0: "cat", 1: "cup", 2: "rocket", 3: "street"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            image_size=32,
            patch_size=8,
            id2label=names,
            label2id={name: number for number, name in names.items()},
        )
        ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
