"""Where a vision-language model looks for each word it writes.

    python examples/words_to_regions.py [OUT]         a tiny LLaVA with random weights, no network

With a real one: model = LlavaForConditionalGeneration.from_pretrained("llava-hf/llava-1.5-7b-hf"), its processor makes
`inputs` from a photograph and a prompt and stands in for `tokenizer`; the call to `words_to_regions` stays as it is.
"""

import sys
from pathlib import Path

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models

import sightline
from sightline.data.photographs import sample_photographs

out = Path(sys.argv[1] if len(sys.argv) > 1 else "looks")
out.mkdir(exist_ok=True)
pieces = ["<s>", "</s>", "<image>", "▁a", "▁red", "▁cu", "be", "▁on", "▁the", "▁ta", "ble"]
vocabulary = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, "<s>"))
vocabulary.decoder = decoders.Metaspace()
tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=vocabulary, bos_token="<s>", eos_token="</s>")

torch.manual_seed(0)
sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.4}
tower = tf.CLIPVisionConfig(**sizes, image_size=96, patch_size=16)
words = tf.LlamaConfig(**sizes, vocab_size=len(pieces))
config = tf.LlavaConfig(vision_config=tower, text_config=words, image_token_index=2)
model = tf.LlavaForConditionalGeneration(config).eval()
image = sightline.open_photograph(sample_photographs()[0]).resize((96, 96))
pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, 96, 96, 3).permute(0, 3, 1, 2) / 255
inputs = {"input_ids": torch.tensor([[0, *[2] * 36, 3]]), "pixel_values": pixels}
# random weights would write nonsense, so the answer is given; leave `generated` out and the model writes its own
answer = [pieces.index(piece) for piece in ("▁a", "▁red", "▁cu", "be", "▁on", "▁the", "▁ta", "ble")]
found = sightline.words_to_regions(model, inputs, tokenizer=tokenizer, generated=answer, image=image)
for region in found:
    print(f"{region.word:6} {region.mass_on_image:5.0%} of its attention on the image, map {tuple(region.map.shape)}")
found.save(out / "words.png")
