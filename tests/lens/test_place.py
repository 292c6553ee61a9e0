"""Layouts are proven, not believed: one patch of the input is changed, and the key that moves must be the named one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import sightline
from sightline.lens.layout import Layout
from sightline.lens.place import infer_layout
from sightline.lens.windows import Windows, find_windows

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
IMAGE = {**SMALL, "image_size": 64, "patch_size": 8}


def seeded(build, config, **call):
    torch.manual_seed(0)
    model = build(config, **call).eval()
    for parameter in model.parameters():  # initial weights are tiny: every key would weigh the same
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    return model


def moved_key(model: nn.Module, first: dict, second: dict, path: str, row: int | None = None) -> tuple[int, object]:
    """The key whose score changed, in one row or most.  log softmax shifts all other keys of a row alike."""
    rows = []
    for inputs in (first, second):
        with torch.no_grad(), sightline.record(model, sites=path) as seen:
            model(**inputs)
        rows.append(seen[0].weights[0].double().clamp_min(1e-30).log())
    shift = rows[1] - rows[0]
    shift = (shift - shift.median(-1, keepdim=True).values).abs()
    shift = shift.median(1).values if row is None else shift[:, row]
    return int(shift.mean(0).argmax()), seen[0]


def changed(pixels: Tensor, y: int, x: int, size: int, frames: slice = slice(None)) -> Tensor:
    """The pixels with other values in the square cell (y, x) of this size (and in these frames of a clip)."""
    other = pixels.clone()
    square = other[..., y * size : (y + 1) * size, x * size : (x + 1) * size]
    square = square[:, frames] if pixels.dim() == 5 else square
    square += 3 * torch.randn(square.shape, generator=torch.Generator().manual_seed(1))
    return other


def test_changing_a_cell_changes_its_pixels_only():
    pixels = torch.zeros(1, 2, 3, 8, 8)
    where = changed(pixels, 1, 0, 4, slice(1, 2)).ne(0).nonzero()
    assert where[:, 1].unique().tolist() == [1]
    assert where[:, 3].min() == 4
    assert where[:, 4].max() == 3


PLAIN = {
    "vit": ("ViTConfig", "ViTModel", {}, ("class",)),
    "deit": ("DeiTConfig", "DeiTModel", {}, ("class", "distillation")),
    "dinov2": ("Dinov2Config", "Dinov2Model", {}, ("class",)),
    "registers": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        {},
        ("class", "register 1", "register 2", "register 3", "register 4"),
    ),
    "dinov3": (
        "DINOv3ViTConfig",
        "DINOv3ViTModel",
        {"num_register_tokens": 2},
        ("class", "register 1", "register 2"),
    ),
    "ijepa": ("IJepaConfig", "IJepaModel", {}, ()),
    "siglip": ("SiglipVisionConfig", "SiglipVisionModel", {}, ()),
    "clip": ("CLIPVisionConfig", "CLIPVisionModel", {}, ("class",)),
    "beit": ("BeitConfig", "BeitModel", {}, ("class",)),
    "blip": ("BlipVisionConfig", "BlipVisionModel", {}, ("class",)),
}
RESIZES = {"vit", "deit", "siglip", "clip", "beit", "ijepa", "blip"}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(("y", "x"), [(0, 0), (2, 5), (7, 1)])
def test_a_changed_patch_moves_the_key_that_the_layout_names(name, y, x):
    config, build, extra, names = PLAIN[name]
    model = seeded(getattr(transformers, build), getattr(transformers, config)(**IMAGE, **extra))
    pixels = torch.randn(1, 3, 64, 64)
    before, after = {"pixel_values": pixels}, {"pixel_values": changed(pixels, y, x, 8)}
    key, site = moved_key(model, before, after, "*")
    layout = infer_layout(model, site.keys, pixels, path=site.path)
    assert (layout.height, layout.width, layout.prefix_names) == (8, 8, names)
    assert key == layout.index_of(y, x)
    row = torch.zeros(site.keys).index_fill(0, torch.tensor(key), 1.0)
    assert layout.map(row).nonzero().tolist() == [[y, x]]


@pytest.mark.parametrize("name", sorted(RESIZES))
def test_images_that_are_not_square(name):
    config, build, extra, _ = PLAIN[name]
    model = seeded(getattr(transformers, build), getattr(transformers, config)(**IMAGE, **extra))
    pixels = torch.randn(1, 3, 32, 72)
    before, after = {"pixel_values": pixels}, {"pixel_values": changed(pixels, 3, 6, 8)}
    for inputs in (before, after):
        inputs["interpolate_pos_encoding"] = True
    if name == "beit":
        for inputs in (before, after):
            del inputs["interpolate_pos_encoding"]
    key, site = moved_key(model, before, after, "*")
    layout = infer_layout(model, site.keys, pixels, path=site.path)
    assert (layout.height, layout.width) == (4, 9)
    assert key == layout.index_of(3, 6)


def test_our_own_transformer():
    from sightline.systems.vit import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=(48, 64),
        patch=16,
        dim=16,
        depth=1,
        heads=2,
        registers=3,
    ).eval()
    pixels = torch.randn(1, 3, 48, 64)
    key, site = moved_key(model, {"images": pixels}, {"images": changed(pixels, 2, 1, 16)}, "*")
    layout = infer_layout(model, site.keys, pixels, path=site.path)
    assert layout.prefix_names == ("class", "register 1", "register 2", "register 3")
    assert key == layout.index_of(2, 1)


def test_a_model_of_somebody_else():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut = nn.Conv2d(3, 16, (8, 4), (8, 4))
            self.cls = nn.Parameter(torch.randn(1, 1, 16))
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            tokens = torch.cat([self.cls, self.cut(images).flatten(2).mT], 1)
            return self.attention(tokens, tokens, tokens)[0]

    torch.manual_seed(0)
    model, pixels = Own().eval(), torch.randn(1, 3, 32, 32)
    layout = infer_layout(model, 33, pixels, path="attention")
    assert layout == Layout(4, 8, prefix=1, prefix_names=("class",))
    other = pixels.clone()
    other[..., 8:16, 20:24] += 3
    key, _ = moved_key(model, {"images": pixels}, {"images": other}, "*")
    assert key == layout.index_of(1, 5) == layout.index_of_pixel(21, 9, (32, 32))


SWIN = {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4, "image_size": 64, "patch_size": 4}


@pytest.mark.parametrize("version", ["Swin", "Swinv2", "DonutSwin"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (52, 72)])
@pytest.mark.parametrize(("stage", "block"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_windows_go_back_in_place(version, height, width, stage, block):
    """One token of one layer's input is changed: that key moves, in the rows of its own window and in no other."""
    model = seeded(getattr(transformers, f"{version}Model"), getattr(transformers, f"{version}Config")(**SWIN))
    pixels, size = torch.randn(2, 3, height, width), 4 * 2**stage
    grid = (-(-height // size), -(-width // size))
    cell = (grid[0] // 2) * grid[1] + grid[1] // 3
    layer = model.get_submodule(f"encoder.layers.{stage}.blocks.{block}")
    placed = []
    for change in (0.0, 3.0):

        def hook(module: nn.Module, args: tuple, kwargs: dict, change: float = change) -> tuple:
            tokens = args[0].clone()
            tokens[:, cell] += change * torch.randn(tokens.shape[-1], generator=torch.Generator().manual_seed(2))
            return (tokens, *args[1:]), kwargs

        handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
        with torch.no_grad(), sightline.record(model, sites=f"*layers.{stage}.blocks.{block}.*") as seen:
            model(pixels)
        handle.remove()
        call = seen[0].calls[0]
        windows = find_windows(model, seen[0].path, call.batch, call.queries, pixels)
        placed.append(windows.place(call.row_weights(), 2))
    assert windows.grid == grid
    assert windows.shift == ((2, 2) if block and min(grid) > 4 else (0, 0))
    assert placed[0].shape == (2, seen[0].all_heads, windows.tokens, windows.tokens)
    assert (placed[0].sum(-1) <= 1 + 1e-5).all()
    assert grid[0] % 4 or grid[1] % 4 or placed[0].sum(-1).min() > 1 - 1e-5
    inside = windows.locate(torch.arange(windows.tokens))[0]
    inside = inside == inside[cell]
    moved = (placed[1] - placed[0]).abs().sum((0, 1))
    assert moved[~inside].max() == 0
    assert placed[0][:, :, inside][..., ~inside].max() == 0
    shift = (placed[1].clamp_min(1e-30).log() - placed[0].clamp_min(1e-30).log())[:, :, inside][..., inside]
    shift = (shift - shift.median(-1, keepdim=True).values).abs().median(2).values.sum((0, 1))
    assert inside.nonzero().flatten()[shift.argmax()] == cell


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2), st.integers(0, 2))
def test_windows_equal_a_naive_partition(height, width, tall, wide, down, right):
    windows = Windows((height, width), (tall, wide), (down, right))
    across = -(-width // wide)
    padded = (-(-height // tall) * tall, across * wide)
    for y in range(height):
        for x in range(width):
            sy, sx = (y - down) % padded[0], (x - right) % padded[1]  # after torch.roll by minus the shift
            window, row = windows.locate(torch.tensor([y * width + x]))
            assert int(window) == sy // tall * across + sx // wide
            assert int(row) == sy % tall * wide + sx % wide


def test_windows_refuse_what_does_not_fit():
    windows = Windows((4, 4), (2, 2))
    with pytest.raises(ValueError, match="4 windows of 4 tokens"):
        windows.place(torch.rand(5, 1, 4, 4), 1)
    with pytest.raises(ValueError, match="cells 0 to 15"):
        windows.locate(torch.tensor([16]))
    assert windows.rows(sightline.CLS).tolist() == [0]
    assert windows.rows(slice(14, None)).tolist() == [14, 15]
    assert windows.rows(lambda info: [info.queries - 1]).tolist() == [15]


@pytest.mark.parametrize("global_layer", [False, True])
def test_windows_of_sam_and_vitdet(global_layer):
    config = transformers.VitDetConfig(
        **{k: v for k, v in IMAGE.items() if k != "intermediate_size"},
        window_size=3,
        window_block_indices=[] if global_layer else [0],
    )
    model = seeded(transformers.VitDetModel, config)
    path, pixels = "encoder.layer.0.attention", torch.randn(1, 3, 64, 64)
    windows = find_windows(model, path, 1 if global_layer else 9, 64 if global_layer else 9, pixels)
    assert (windows is None) == global_layer
    assert global_layer or (windows.grid, windows.size, windows.shift) == ((8, 8), (3, 3), (0, 0))


@pytest.mark.parametrize(
    ("version", "stage", "cell", "keys"),
    [("Segformer", 0, 4, 32), ("Segformer", 1, 8, 16), ("Pvt", 0, 4, 32), ("Pvt", 1, 8, 16)],
)
def test_pyramids_whose_keys_have_a_coarser_grid(version, stage, cell, keys):
    """Keys are the stage's grid reduced again by a convolution; both are found by number alone."""
    if version == "Segformer":
        config = transformers.SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], sr_ratios=[8, 2], hidden_sizes=[16, 16], patch_sizes=[7, 3],
            strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[1, 1],
        )  # fmt: skip
    else:
        config = transformers.PvtConfig(
            image_size=128, num_encoder_blocks=3, depths=[1, 1, 1], sequence_reduction_ratios=[8, 2, 1],
            hidden_sizes=[16, 16, 16], patch_sizes=[4, 2, 2], strides=[4, 2, 2], num_attention_heads=[1, 2, 2],
            mlp_ratios=[1, 1, 1],
        )  # fmt: skip
    model = seeded(getattr(transformers, f"{version}Model"), config)
    pixels = torch.randn(1, 3, 128, 128)
    before, after = {"pixel_values": pixels}, {"pixel_values": changed(pixels, 2, 1, keys)}
    with torch.no_grad(), sightline.record(model) as seen:
        model(**before)
    path = seen[stage].path
    key, site = moved_key(model, before, after, path)
    queries = infer_layout(model, site.queries, pixels, path=path)
    assert (queries.height, queries.width) == (128 // cell, 128 // cell)
    layout = infer_layout(model, site.keys, pixels, path=path)
    assert (layout.height, layout.width) == (128 // keys, 128 // keys)
    if stage == 0:
        assert key == layout.index_of(2, 1)


def test_cells_of_a_convolutional_backbone():
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=12,
        backbone_config=transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic", out_features=["stage4"]
        ),
    )  # fmt: skip
    model, pixels = seeded(transformers.DetrModel, config), torch.randn(1, 3, 96, 128)
    with torch.no_grad(), sightline.record(model) as seen:
        model(pixels)
    grids = {}
    for site in seen:
        try:
            layout = infer_layout(model, site.keys, pixels, path=site.path, inputs={"pixel_values": pixels})
            grids[site.path] = (layout.height, layout.width)
        except ValueError as error:
            grids[site.path] = str(error)
    assert grids.pop("decoder.layers.0.self_attn").endswith("see the cross attention")  # 12 queries, 3 x 4 cells
    assert len(grids) == 2
    assert set(grids.values()) == {(3, 4)}


@pytest.mark.parametrize("frame", [0, 3])
def test_clips_of_timesformer(frame):
    config = transformers.TimesformerConfig(**IMAGE, num_frames=4)
    model, clip = seeded(transformers.TimesformerModel, config), torch.randn(1, 4, 3, 64, 64)
    with torch.no_grad(), sightline.record(model) as seen:
        model(clip)
    paths = {"temporal" in site.path: site.path for site in seen}
    times = infer_layout(model, 4, clip, path=paths[True])
    assert (times.frames, times.height, times.width) == (4, 1, 1)
    layout = infer_layout(model, 65, clip, path=paths[False])
    assert layout == Layout(8, 8, prefix=1, prefix_names=("class",))
    after = changed(clip, 5, 2, 8, slice(frame, frame + 1))
    key, _ = moved_key(model, {"pixel_values": clip}, {"pixel_values": after}, paths[False])
    assert key == layout.index_of(5, 2)


@pytest.mark.parametrize(("frame", "y", "x"), [(0, 0, 3), (1, 2, 1), (3, 3, 3)])
def test_joint_space_and_time_tokens_are_ordered_by_place_first(frame, y, x):
    config = transformers.TimesformerConfig(
        **{**IMAGE, "patch_size": 16}, num_frames=4, attention_type="joint_space_time"
    )
    model, clip = seeded(transformers.TimesformerModel, config), torch.randn(1, 4, 3, 64, 64)
    after = changed(clip, y, x, 16, slice(frame, frame + 1))
    key, site = moved_key(model, {"pixel_values": clip}, {"pixel_values": after}, "*")
    layout = infer_layout(model, site.keys, clip, path=site.path)
    assert (layout.frames, layout.height, layout.width, layout.prefix) == (4, 4, 4, 1)
    assert key == layout.index_of(y, x, frame)


@pytest.mark.parametrize(("name", "prefix"), [("VideoMAE", 0), ("Vivit", 1), ("VJEPA2", 0)])
@pytest.mark.parametrize(("frame", "y", "x"), [(0, 0, 3), (1, 2, 1)])
def test_tubes_of_two_frames(name, prefix, frame, y, x):
    sizes = {**IMAGE, "patch_size": 16}
    if name == "Vivit":
        config = transformers.VivitConfig(**sizes, num_frames=4, tubelet_size=[2, 16, 16])
    elif name == "VideoMAE":
        config = transformers.VideoMAEConfig(**sizes, num_frames=4)
    else:
        config = transformers.VJEPA2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, crop_size=64, patch_size=16, frames_per_clip=4,
            pred_hidden_size=16, pred_num_attention_heads=2, pred_num_hidden_layers=1,
        )  # fmt: skip
    model, clip = seeded(getattr(transformers, f"{name}Model"), config), torch.randn(1, 4, 3, 64, 64)
    after = changed(clip, y, x, 16, slice(2 * frame, 2 * frame + 2))
    argument = "pixel_values_videos" if name == "VJEPA2" else "pixel_values"
    key, site = moved_key(model, {argument: clip}, {argument: after}, "!predictor*")
    layout = infer_layout(model, site.keys, clip, path=site.path)
    assert (layout.frames, layout.height, layout.width, layout.prefix) == (2, 4, 4, prefix)
    assert key == layout.index_of(y, x, frame)


TEXT = {**SMALL, "vocab_size": 40, "num_key_value_heads": 2, "max_position_embeddings": 256}
TOWER = {**IMAGE, "patch_size": 16}
MARK = 39


def sentence(image_tokens: int) -> Tensor:
    return torch.tensor([[1, 2, 3, *[MARK] * image_tokens, 4, 5]])


def unmixed(model: nn.Module, tower: str = "vision_tower") -> nn.Module:
    """The tower's attention adds nothing, so that no patch is mixed with another before the words read them."""
    for name, layer in model.model.get_submodule(tower).named_modules():
        if isinstance(layer, nn.Linear) and name.split(".")[-1] in ("out_proj", "o_proj", "projection_layer"):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


def llava(**extra):
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER),
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_index=MARK,
        vision_feature_layer=-1,
        **extra,
    )
    return unmixed(seeded(transformers.LlavaForConditionalGeneration, config))


@pytest.mark.parametrize("strategy", ["default", "full"])
@pytest.mark.parametrize(("y", "x"), [(0, 0), (1, 3)])
def test_image_inside_a_sentence(strategy, y, x):
    model, prefix = llava(vision_feature_select_strategy=strategy), int(strategy == "full")
    pixels = torch.randn(1, 3, 64, 64)
    inputs = {"input_ids": sentence(16 + prefix), "pixel_values": pixels}
    after = {**inputs, "pixel_values": changed(pixels, y, x, 16)}
    key, site = moved_key(model, inputs, after, "*language_model*", row=-1)
    layout = infer_layout(model, site.keys, pixels, path=site.path, inputs=inputs)
    assert (layout.height, layout.width, layout.offset, layout.prefix, layout.suffix) == (4, 4, 3, prefix, 2)
    assert key == layout.index_of(y, x) == 3 + prefix + 4 * y + x
    assert layout.map(torch.rand(site.keys + 7)).shape == (4, 4)  # seven words later
    tower = infer_layout(model, 17, pixels, path="model.vision_tower.encoder.layers.0.self_attn", inputs=inputs)
    assert (tower.height, tower.width, tower.prefix, tower.offset) == (4, 4, 1, 0)


def test_several_images_and_unequal_sentences():
    model = llava()
    pixels = torch.randn(2, 3, 64, 64)
    ids = torch.tensor([[1, *[MARK] * 16, 2, *[MARK] * 16, 3]])
    path = "model.language_model.layers.0.self_attn"
    layout = infer_layout(model, 35, pixels, path=path, inputs={"input_ids": ids, "pixel_values": pixels})
    assert (layout.offset, layout.tiles[0].offset) == (1, 18)
    assert layout.tokens == layout.tiles[0].tokens == 35
    ids = torch.tensor([[1, 2, *[MARK] * 16], [1, *[MARK] * 16, 2]])
    with pytest.raises(ValueError, match="one at a time"):
        infer_layout(model, 18, pixels, path=path, inputs={"input_ids": ids, "pixel_values": pixels})
    ids = torch.tensor([[1, *[MARK] * 14, 2]])
    with pytest.raises(ValueError, match=r"layout=Layout\(height, width, offset=1"):
        infer_layout(model, 16, pixels[:1], path=path, inputs={"input_ids": ids, "pixel_values": pixels[:1]})


def llava_next():
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER),
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_index=MARK,
        vision_feature_layer=-1,
        image_grid_pinpoints=[[64, 128], [128, 64], [128, 128]],
    )
    return unmixed(seeded(transformers.LlavaNextForConditionalGeneration, config))


@pytest.mark.parametrize(("tile", "y", "x"), [(1, 0, 0), (2, 1, 2), (0, 2, 1)])
def test_tiles_with_a_thumbnail(tile, y, x):
    """50 x 100 pixels: thumbnail, then two tiles of 64 joined, each row of patches ended by one more token."""
    model = llava_next()
    pixels = torch.randn(1, 3, 3, 64, 64)
    sizes = torch.tensor([[50, 100]])
    inputs = {"input_ids": sentence(16 + 4 * (8 + 1)), "pixel_values": pixels, "image_sizes": sizes}
    other = pixels.clone()
    other[:, tile] = changed(pixels[:, tile], y, x, 16)
    key, site = moved_key(model, inputs, {**inputs, "pixel_values": other}, "*language_model*", row=-1)
    layout = infer_layout(model, site.keys, pixels, path=site.path, inputs=inputs)
    thumbnail = layout.tiles[0]
    assert (thumbnail.height, thumbnail.width, thumbnail.offset) == (4, 4, 3)
    assert (layout.height, layout.width, layout.offset) == (4, 8, 19)
    if tile == 0:
        assert key == thumbnail.index_of(y, x)
    else:
        assert key == layout.index_of(y, x + 4 * (tile - 1))


QWEN = {"depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 16, "patch_size": 4}


def qwen(window: int = 16):
    text = {**TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config={**QWEN, "window_size": window, "fullatt_block_indexes": [1], "spatial_merge_size": 2},
        image_token_id=MARK, video_token_id=38, vision_start_token_id=37, vision_end_token_id=36,
    )  # fmt: skip
    return seeded(transformers.Qwen2_5_VLForConditionalGeneration, config)


def patches_of(grid: tuple[int, int, int], changed_at: tuple[int, int] | None = None) -> Tensor:
    """What the processor makes: rows of 3 x 2 x 4 x 4 values, the four patches of a merged square together."""
    _, height, width = grid
    values = torch.randn(height, width, 96, generator=torch.Generator().manual_seed(0))
    if changed_at is not None:
        values[changed_at] += 3 * torch.randn(96, generator=torch.Generator().manual_seed(1))
    return values.reshape(height // 2, 2, width // 2, 2, 96).transpose(1, 2).reshape(height * width, 96)


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize(("y", "x"), [(0, 0), (3, 9), (5, 2), (1, 1)])
def test_patches_in_window_order(block, y, x):
    """Qwen2.5-VL sorts merged squares by window: here 6 x 10 patches in windows of 4 x 4, for all its layers."""
    model, grid = qwen(), (1, 6, 10)
    model.model.visual.blocks = nn.ModuleList([model.model.visual.blocks[block]])
    model.model.visual.fullatt_block_indexes = [0] if block else []
    thw = torch.tensor([grid])
    runs = [{"hidden_states": patches_of(grid, at), "grid_thw": thw} for at in (None, (y, x))]
    keys, path = [], ""
    for inputs in runs:
        with torch.no_grad(), sightline.record(model.model.visual) as seen:
            model.model.visual(**inputs)
        keys.append(seen[0].weights[0].double())
        path = seen[0].path
    layout = infer_layout(model.model.visual, seen[0].keys, None, path=path, inputs={"grid_thw": thw})
    assert (layout.height, layout.width, layout.frames, layout.tokens) == (6, 10, 1, 60)
    changed_rows = (keys[1] - keys[0]).abs().sum((0, 2))
    assert int(changed_rows.argmax()) == layout.index_of(y, x)
    if block == 0:  # only its own window moved
        told = layout.map(changed_rows).gt(1e-6).nonzero()
        assert {(int(i) // 4, int(j) // 4) for i, j in told} == {(y // 4, x // 4)}


@pytest.mark.parametrize(("y", "x"), [(0, 0), (2, 7)])
def test_merged_patches_inside_a_sentence(y, x):
    model, grid = qwen(), (1, 6, 10)
    model.model.visual.blocks = nn.ModuleList()  # no mixing before the words read them
    thw = torch.tensor([grid])
    ids = torch.tensor([[1, 37, *[MARK] * 15, 36, 2]])
    runs = [
        {
            "input_ids": ids, "pixel_values": patches_of(grid, at), "image_grid_thw": thw,
            "mm_token_type_ids": (ids == MARK).int(),
        }
        for at in (None, (y, x))
    ]  # fmt: skip
    key, site = moved_key(model, *runs, "*language_model*", row=-1)
    layout = infer_layout(model, site.keys, None, path=site.path, inputs=runs[0])
    assert (layout.height, layout.width, layout.offset, layout.suffix) == (3, 5, 2, 2)
    assert key == layout.index_of(y // 2, x // 2)


def internvl():
    vision = transformers.InternVLVisionConfig(**{**IMAGE, "image_size": [64, 64], "patch_size": [8, 8]})
    config = transformers.InternVLConfig(
        vision_config=vision, text_config=transformers.Qwen2Config(**TEXT), image_token_id=MARK, downsample_ratio=0.5
    )
    return unmixed(seeded(transformers.InternVLForConditionalGeneration, config))


def idefics3():
    config = transformers.Idefics3Config(
        vision_config=IMAGE, text_config=transformers.LlamaConfig(**TEXT), image_token_id=MARK, scale_factor=2
    )
    return unmixed(seeded(transformers.Idefics3ForConditionalGeneration, config), "vision_model")


@pytest.mark.parametrize(("tile", "y", "x"), [(0, 0, 0), (1, 3, 1), (2, 2, 3)])
@pytest.mark.parametrize("build", [internvl, idefics3])
def test_tiles_before_the_whole_image(build, tile, y, x):
    """Three views of 4 x 4 tokens, each of 2 x 2 patches; the last is the whole image made small, and is shown."""
    model, pixels = build(), torch.randn(3, 3, 64, 64)
    view = [MARK] * 16
    ids = torch.tensor([[1, *view, *view, *view, 2] if build is internvl else [1, *view, 3, *view, 4, 5, *view, 2]])
    other = pixels.clone()
    other[tile : tile + 1] = changed(pixels[tile : tile + 1], y, x, 16)
    runs = [{"input_ids": ids, "pixel_values": p if build is internvl else p[None]} for p in (pixels, other)]
    key, site = (
        moved_key(model, *runs, "*layers.0.self_attn", row=-1)
        if build is internvl
        else moved_key(model, *runs, "*text_model*", row=-1)
    )
    layout = infer_layout(model, site.keys, runs[0]["pixel_values"], path=site.path, inputs=runs[0])
    views = [*layout.tiles, layout]
    assert [(v.height, v.width) for v in views] == [(4, 4)] * 3
    assert key == views[tile].index_of(y, x)


def mistral3():
    config = transformers.Mistral3Config(
        vision_config=transformers.PixtralVisionConfig(**IMAGE), spatial_merge_size=2, image_token_index=MARK,
        text_config=transformers.MistralConfig(**TEXT, head_dim=8), vision_feature_layer=-1,
    )  # fmt: skip
    return unmixed(seeded(transformers.Mistral3ForConditionalGeneration, config))


def gemma3():
    config = transformers.Gemma3Config(
        vision_config=transformers.SiglipVisionConfig(**IMAGE), image_token_index=MARK, mm_tokens_per_image=16,
        text_config=transformers.Gemma3TextConfig(**TEXT, head_dim=8),
    )  # fmt: skip
    return unmixed(seeded(transformers.Gemma3ForConditionalGeneration, config))


@pytest.mark.parametrize(("y", "x"), [(0, 0), (1, 3)])
@pytest.mark.parametrize("build", [mistral3, gemma3])
def test_squares_of_patches_as_one_token(build, y, x):
    """Pixtral ends each row with another token, which the layout skips; Gemma 3 pools."""
    model, rows = build(), 2 if build is mistral3 else 4
    pixels = torch.randn(1, 3, 16 * rows, 64)
    row = [MARK] * 4
    ids = torch.tensor([[1, *row, 6, *row, 7, 2] if build is mistral3 else [1, 3, *row * 4, 4, 2]])
    inputs = {"input_ids": ids}
    if build is mistral3:
        inputs["image_sizes"] = torch.tensor([[32, 64]])
    else:
        inputs["token_type_ids"] = (ids == MARK).int()
    runs = [{**inputs, "pixel_values": p} for p in (pixels, changed(pixels, y, x, 16))]
    key, site = moved_key(model, *runs, "*language_model*", row=-1)
    layout = infer_layout(model, site.keys, pixels, path=site.path, inputs=runs[0])
    assert (layout.height, layout.width) == (rows, 4)
    assert key == layout.index_of(y, x)
    assert layout.map((ids[0] == MARK).float()).all()


def test_queries_of_a_q_former_are_no_places():
    config = transformers.Blip2Config(
        vision_config=TOWER, qformer_config={**SMALL, "vocab_size": 40, "encoder_hidden_size": 16},
        text_config=transformers.OPTConfig(
            hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16
        ),
        num_query_tokens=4, image_token_index=MARK,
    )  # fmt: skip
    model, pixels = transformers.Blip2ForConditionalGeneration(config), torch.rand(1, 3, 64, 64)
    inputs = {"input_ids": sentence(4), "pixel_values": pixels}
    crossing = "qformer.encoder.layer.0.crossattention.attention"
    assert infer_layout(model, 17, pixels, path=crossing, inputs=inputs).prefix_names == ("class",)
    for path, keys in (("qformer.encoder.layer.0.attention", 4), ("language_model.model.decoder.layers.0", 9)):
        with pytest.raises(ValueError, match="learned queries"):
            infer_layout(model, keys, pixels, path=path, inputs=inputs)


def test_latents_and_prompt_of_diffusion_models():
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), cross_attention_dim=16, attention_head_dim=8, layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    inputs = {"sample": torch.randn(1, 4, 8, 12), "timestep": 1, "encoder_hidden_states": torch.randn(1, 24, 16)}
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    assert infer_layout(unet, 96, None, path=f"{block}.attn1", inputs=inputs) == Layout(8, 12)
    with pytest.raises(ValueError, match="words of the prompt"):  # 24 words, and 24 cells of the next stage
        infer_layout(unet, 24, None, path=f"{block}.attn2", inputs=inputs)
    sd3 = diffusers.SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=8, out_channels=4,
    ).eval()  # fmt: skip
    for parameter in sd3.parameters():
        nn.init.normal_(parameter, std=0.3)
    latents = torch.randn(1, 4, 8, 12)
    inputs = {"encoder_hidden_states": torch.randn(1, 5, 16), "pooled_projections": torch.randn(1, 8)}
    inputs["timestep"] = torch.tensor([1])
    runs = [{**inputs, "hidden_states": x} for x in (latents, changed(latents, 2, 1, 2))]
    key, site = moved_key(sd3, *runs, "*")
    layout = infer_layout(sd3, site.keys, None, path=site.path, inputs=runs[0])
    assert layout == Layout(4, 6, suffix=5)
    assert key == layout.index_of(2, 1)
    numbers = torch.tensor([[0, y, x] for y in range(3) for x in range(4)])
    flux = {"encoder_hidden_states": torch.rand(1, 5, 16), "img_ids": numbers, "hidden_states": torch.rand(1, 12, 64)}
    layout = infer_layout(nn.Linear(1, 1), 17, None, path="transformer_blocks.0.attn", inputs=flux)
    assert layout == Layout(3, 4, offset=5)


def test_words_that_look_at_an_image():
    """Cross attention of a captioner: the keys are the image tower's tokens; its self attention has words."""
    config = transformers.BlipConfig(
        vision_config=TOWER, text_config={**SMALL, "vocab_size": 40, "encoder_hidden_size": 16, "is_decoder": True},
    )  # fmt: skip
    model = seeded(transformers.BlipForConditionalGeneration, config)
    pixels = torch.randn(1, 3, 64, 64)
    inputs = {"pixel_values": pixels, "input_ids": torch.tensor([[1, 2, 3]])}
    layout = infer_layout(
        model, 17, pixels, path="text_decoder.bert.encoder.layer.0.crossattention.self", inputs=inputs
    )
    assert layout == Layout(4, 4, prefix=1, prefix_names=("class",))
    with pytest.raises(ValueError, match="words, not patches"):
        infer_layout(model, 17, pixels, path="text_decoder.bert.encoder.layer.0.attention.self", inputs=inputs)


def test_image_before_the_words():
    config = transformers.GitConfig(**TEXT | {"num_key_value_heads": None}, vision_config=TOWER)
    model = seeded(transformers.GitForCausalLM, config)
    pixels = torch.randn(1, 3, 64, 64)
    inputs = {"pixel_values": pixels, "input_ids": torch.tensor([[1, 2, 3]])}
    path = "git.encoder.layer.0.attention.self"
    layout = infer_layout(model, 20, pixels, path=path, inputs=inputs)
    assert layout == Layout(4, 4, prefix=1, suffix=3, prefix_names=("class",))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: transformers.BertModel(transformers.BertConfig(**SMALL, vocab_size=40)), "no image was given"),
        (
            lambda: transformers.CLIPTextModel(transformers.CLIPTextConfig(**SMALL, vocab_size=40)),
            "no image was given",
        ),
    ],
)
def test_text_has_no_place(build, message):
    with pytest.raises(ValueError, match=message):
        infer_layout(build(), 5, None, path="encoder.layers.0", inputs={"input_ids": torch.ones(1, 5).long()})


def test_text_beside_an_image_has_no_place_either():
    config = transformers.CLIPConfig(
        text_config={**SMALL, "vocab_size": 40, "max_position_embeddings": 32}, vision_config=TOWER
    )
    model = transformers.CLIPModel(config)
    inputs = {"input_ids": torch.ones(1, 17).long(), "pixel_values": torch.rand(1, 3, 64, 64)}
    with pytest.raises(ValueError, match="words, not patches"):
        infer_layout(model, 17, inputs["pixel_values"], path="text_model.encoder.layers.0.self_attn", inputs=inputs)


def test_sound_and_random_patches_are_refused():
    whisper = transformers.WhisperModel(
        transformers.WhisperConfig(
            d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=40, pad_token_id=0, decoder_start_token_id=1,
            bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip
    with pytest.raises(ValueError, match="Text and sound have no grid"):
        infer_layout(whisper, 1500, torch.rand(1, 80, 3000), path="encoder.layers.0.self_attn")
    masked = transformers.ViTMAEModel(transformers.ViTMAEConfig(**TOWER))
    with pytest.raises(ValueError, match="at random"):
        infer_layout(masked, 5, (1, 3, 64, 64), path="encoder.layer.0.attention")
    vilt = transformers.ViltModel(transformers.ViltConfig(**TOWER, vocab_size=40))
    with pytest.raises(ValueError, match="random order"):
        infer_layout(vilt, 20, (1, 3, 64, 64), path="encoder.layer.0", inputs={"input_ids": torch.ones(1, 3).long()})


def test_orders_that_are_not_known_are_refused():
    hiera = transformers.HieraModel(
        transformers.HieraConfig(image_size=[64, 64], embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
    )
    with pytest.raises(ValueError, match="mask unit"):
        infer_layout(hiera, 64, (1, 3, 64, 64), path="encoder.stages.0.layers.0.attn")
    config = transformers.Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, blocks_per_stage=[1, 3, 1, 1], embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=[4, 4, 4, 4], global_attention_blocks=[3],
        image_size=[64, 64], window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    model = seeded(transformers.Sam2HieraDetModel, config)
    with torch.no_grad(), sightline.record(model) as seen:
        model(torch.randn(1, 3, 64, 64))
    first, pooled, second = seen[0], seen[1], seen[2]
    assert first.windows.grid == (16, 16)
    assert second.windows.grid == (8, 8)
    with pytest.raises(ValueError, match="queries are pooled"):
        infer_layout(model, pooled.keys, (1, 3, 64, 64), path=pooled.path)


def test_what_does_not_fit_prints_candidates_and_the_argument():
    model = transformers.ViTModel(transformers.ViTConfig(**TOWER))
    with pytest.raises(ValueError, match=r"Candidates: .*layout=Layout\(height=3, width=4, prefix=3\)"):
        infer_layout(model, 15, (1, 3, 48, 64), path="layers.0")
    given_by_hand = Layout(3, 4, prefix=3)
    assert infer_layout(model, 15, (1, 3, 48, 64), layout=given_by_hand) is given_by_hand
    with pytest.raises(ValueError, match="has 15 tokens"):
        infer_layout(model, 16, (1, 3, 48, 64), layout=given_by_hand)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3), st.data())
def test_map_and_index_agree(height, width, prefix, suffix, frames, data):
    count = frames * height * width
    order = tuple(data.draw(st.permutations(range(count))))
    layout = Layout(height, width, prefix, suffix, frames, offset=2, order=order)
    row = torch.arange(float(layout.tokens))
    cells = layout.map(row).reshape(frames, height, width)
    for f in range(frames):
        for y in range(height):
            for x in range(width):
                assert int(cells[f, y, x]) == layout.index_of(y, x, f)
    assert layout.special(row).tolist() == [2.0 + i for i in range(prefix)]
    assert str(height) in layout.describe()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: Layout(0, 3), "at least 1"),
        (lambda: Layout(2, 2, order=(0, 1, 2)), "order must name"),
        (lambda: Layout(2, 2, order=(0, 1, 2, 2)), "order must name"),
        (lambda: Layout(2, 2, prefix=2, prefix_names=("class",)), "2 prefix tokens"),
        (lambda: Layout(2, 2).map(torch.rand(5)), "5 keys"),
        (lambda: Layout(2, 2).index_of(2, 0), "outside"),
        (lambda: Layout(2, 2).index_of_pixel(0, 64, (64, 64)), "outside an image"),
    ],
)
def test_bad_layouts(bad, message):
    with pytest.raises(ValueError, match=message):
        bad()


@settings(deadline=None)
@given(st.integers(20, 400), st.integers(20, 400))
def test_any_resolution_is_that_of_transformers(height, width):
    from transformers.image_processing_utils import select_best_resolution
    from transformers.models.llava_next.modeling_llava_next import unpad_image

    from sightline.lens.sequences import best_resolution, unpadded

    pins = [(64, 128), (128, 64), (128, 128), (192, 64), (64, 192)]
    best = best_resolution((height, width), pins)
    assert best == tuple(select_best_resolution((height, width), pins))
    grid = (best[0] // 4, best[1] // 4)
    assert unpadded((height, width), grid) == tuple(unpad_image(torch.zeros(1, *grid), (height, width)).shape[1:])
