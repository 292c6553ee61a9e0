"""Text: cross-attention of an encoder-decoder by whole words, its rollout to the source, and sinks.

python examples/text_attention.py [OUT]           a tiny BART with random weights, no network
"""

import sys
from pathlib import Path

import torch
from transformers import BartConfig, BartModel

import sightline
from sightline.lens.combine import merge_tokens, sink_keys, word_groups
from sightline.lens.view import matrix

out = Path(sys.argv[1] if len(sys.argv) > 1 else "looks")
out.mkdir(parents=True, exist_ok=True)
source = ["<s>", "Ġthe", "Ġgla", "cier", "Ġmelts", "Ġslow", "ly", "</s>"]  # what a tokenizer makes of a sentence
target = ["<s>", "Ġder", "ĠGle", "tscher", "Ġschmilzt"]
vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(source + target))}
sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in (("layers", 2), ("attention_heads", 4))}
torch.manual_seed(0)
model = BartModel(BartConfig(**sizes, d_model=32, encoder_ffn_dim=64, init_std=0.3, vocab_size=16)).eval()

pair = [torch.tensor([[vocabulary[piece] for piece in pieces]]) for pieces in (source, target)]
with sightline.record(model) as seen:
    model(input_ids=pair[0], decoder_input_ids=pair[1])
rows, columns = word_groups(target), word_groups(source)
labels = [[word.text for word in words] for words in (rows, columns)]


def by_words(weights: torch.Tensor) -> torch.Tensor:
    # a word receives what its pieces receive, and looks where they look on average
    return merge_tokens(merge_tokens(weights, columns, dim=-1), rows, dim=-2, how="mean")


last = by_words(seen.site("decoder.layers.1.encoder_attn").weights[0].mean(0))
matrix(last, *labels, title="Last cross-attention, mean of heads").save(out / "cross.png")
matrix(by_words(seen.cross_rollout().source[0]), *labels, title="Through all layers").save(out / "rollout.png")
print("sinks:", [source[i] for i in sink_keys(seen[0], factor=2)[0].nonzero().flatten().tolist()] or "none")
