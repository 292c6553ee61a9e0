"""What once went wrong or might: contexts, copies, hooks of others and failures around a recording."""

import copy
import gc
import subprocess
import sys
import threading
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack

import sightline
from sightline.lens import dispatch
from sightline.lens.key import KEY

BOTH = pytest.mark.parametrize("always", [False, True], ids=["dispatcher", "mode"])


@pytest.fixture(autouse=True)
def way(request, monkeypatch):
    """Each test both ways, where it asks for it; nothing stays behind."""
    if "always" in request.fixturenames:
        monkeypatch.setattr(dispatch, "MODE_ALWAYS", request.getfixturevalue("always"))
    yield
    assert not torch._C._dispatch_tls_is_dispatch_key_included(KEY)
    assert not _get_current_function_mode_stack()


@pytest.fixture
def below(monkeypatch):
    """What the dispatcher alone does, also where all recordings go by the mode."""
    monkeypatch.setattr(dispatch, "MODE_ALWAYS", False)


class Fused(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


class Written(nn.Module):
    def forward(self, x):
        return (x @ x.transpose(-2, -1)).softmax(-1) @ x


class Model(nn.Module):
    def __init__(self, *kinds):
        super().__init__()
        self.blocks = nn.ModuleList(kind() for kind in kinds or (Fused, Fused))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def names(seen):
    return [site.name for site in seen]


# -- contexts ----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("kinds", [(Fused, Fused), (Written, Fused), (Written, Written)])
def test_blocks_of_inference_mode_that_end_inside_the_recording(kinds, always):
    model, x = Model(*kinds), torch.randn(1, 2, 5, 8)

    @torch.inference_mode()
    def predict():
        return model(x).softmax(-1)

    with sightline.record(model) as seen:
        for _ in range(3):
            predict()
    assert [names(sites) for sites in seen.passes] == [["blocks.0", "blocks.1"]] * 3


@BOTH
def test_a_recording_inside_a_generator_below_inference_mode(always):
    model, x, kept = Model(), torch.randn(1, 2, 5, 8), []

    @torch.inference_mode()
    def steps():
        with sightline.record(model) as seen:
            kept.append(seen)
            for _ in range(3):
                yield model(x)

    for _ in steps():
        pass
    assert [names(sites) for sites in kept[0].passes] == [["blocks.0", "blocks.1"]] * 3


@BOTH
def test_a_softmax_after_the_model_is_let_go_and_costs_nothing_more(always):
    model, x = Model(), torch.randn(1, 2, 5, 8)
    with sightline.record(model) as seen:
        model(x).softmax(-1)
        before = len(_get_current_function_mode_stack())
        model(x)
        assert len(_get_current_function_mode_stack()) == before == int(always)
    assert names(seen.passes[1]) == ["blocks.0", "blocks.1"]


@BOTH
def test_models_below_vmap_are_refused_by_name(always):
    model, x = Model(), torch.randn(3, 2, 5, 8)
    with pytest.raises(RuntimeError, match=r"below torch.func"), sightline.record(model):
        assert torch.func.vmap(model)(x).shape == (3, 2, 5, 8)


@BOTH
def test_a_subclass_of_tensor_in_attention_written_out(always):
    class Named(torch.Tensor):
        pass

    with sightline.record(model := Model(Written, Fused)) as seen:
        model(torch.randn(1, 2, 5, 8).as_subclass(Named))
    assert names(seen) == ["blocks.0", "blocks.1"]


# -- copies, caches, hooks of others -----------------------------------------------------------------------------------


@BOTH
def test_beam_search_over_copies_of_a_cache_is_left_alone(always):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    )  # fmt: skip
    model, words = transformers.LlamaForCausalLM(config).eval(), torch.randint(1, 40, (1, 5))
    settings = {"num_beams": 3, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}

    def told():
        cache = transformers.DynamicCache(config=config)
        with torch.no_grad():
            model(words[:, :4].repeat(3, 1), past_key_values=cache)
        return model.generate(words, past_key_values=copy.deepcopy(cache), **settings)

    expected, method = told(), transformers.DynamicCache.reorder_cache
    with sightline.record(model), sightline.record(model):
        assert torch.equal(told(), expected)
    assert transformers.DynamicCache.reorder_cache is method


@BOTH
def test_a_copy_of_the_model_made_inside_is_free(always):
    model, x = Model(), torch.randn(1, 2, 5, 8)
    with sightline.record(model) as seen:
        model(x)
        twin = copy.deepcopy(model)
    twin(x)
    assert len(seen) == 2
    with sightline.record(twin) as again:
        twin(x)
    assert len(again) == 2


class Encoder(nn.TransformerEncoder):
    pass


@BOTH
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [nn.TransformerEncoder, Encoder])
@pytest.mark.parametrize("hooked", [False, True])
def test_padded_encoders_answer_as_without_recording(kind, hooked, always):
    torch.manual_seed(0)
    model = kind(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    if hooked:
        model.layers[1].register_forward_hook(lambda module, args, output: output * 3)
    padding = torch.tensor([[False] * 4 + [True] * 2, [False] * 6])
    x = torch.randn(2, 6, 8)
    with torch.no_grad():
        plain = model(x, src_key_padding_mask=padding)
        with sightline.record(model) as seen:
            watched = model(x, src_key_padding_mask=padding)
    torch.testing.assert_close(watched, plain, atol=1e-6, rtol=0)
    assert len(seen) == 2


# -- what cannot be seen is told ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("below")
def test_operators_of_attention_packages_are_known_by_their_package():
    @torch.library.custom_op("flash_attn_9::fwd", mutates_args=())
    def forward(q: torch.Tensor) -> torch.Tensor:
        return q * 2

    class Mixed(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x) + torch.ops.flash_attn_9.fwd(x)

    with pytest.warns(UserWarning, match="fwd"), sightline.record(model := Mixed()):
        model(torch.randn(1, 2, 5, 8))


@pytest.mark.usefixtures("below")
def test_an_unreachable_fast_path_is_told_with_what_helps():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = [nn.MultiheadAttention(8, 2, batch_first=True).eval()]

        def forward(self, x):
            return self.parts[0](x, x, x, need_weights=False)[0]

    model = Hidden().eval()
    with torch.no_grad(), pytest.raises(RuntimeError, match="set_fastpath_enabled"), sightline.record(model):
        model(torch.randn(1, 5, 8))


# -- pictures, failures ------------------------------------------------------------------------------------------------


@BOTH
def test_a_picture_that_only_the_second_encoder_is_given(always):
    class Look(nn.Module):
        def forward(self, pixels):
            x = pixels.flatten(2).transpose(1, 2)[:, None]
            return F.scaled_dot_product_attention(x, x, x)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoders = nn.ModuleList([Fused(), Look()])

        def forward(self, batch):
            return self.encoders[0](batch.words), self.encoders[1](batch.pixels)

    class Batch:
        words, pixels = torch.randn(1, 2, 5, 8), torch.randn(1, 3, 8, 8)

    with sightline.record(model := Two()) as seen:
        model(Batch())
    assert seen.pixels is not None
    assert seen.pixels.shape == (1, 3, 8, 8)


@BOTH
def test_a_part_called_after_a_pass_that_failed_is_a_pass_of_its_own(always):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Fused(), Fused()

        def forward(self, x):
            self.first(x)
            raise ValueError("no")

    model, x = Fails(), torch.randn(1, 2, 5, 8)
    with sightline.record(model) as seen:
        with pytest.raises(ValueError, match="no"):
            model(x)
        model.second(x)
    assert names(seen) == ["first", "second"]


@pytest.mark.usefixtures("below")
def test_what_a_softmax_gave_is_not_kept_alive():
    model, x = Model(), torch.randn(1, 2, 5, 8)
    with sightline.record(model, queries=slice(0, 0)):
        probabilities = weakref.ref(model(x).softmax(-1))
        gc.collect()
        assert probabilities() is None


PLAIN_ERROR = """
import sys, torch, sightline
model = torch.nn.Linear(2, 2)
try:
    with sightline.record(model):
        raise ValueError("mine")
except ValueError as error:
    print(error, "torch._dynamo.exc" in sys.modules)
"""


def test_an_error_in_the_block_imports_no_compiler():
    done = subprocess.run([sys.executable, "-c", PLAIN_ERROR], capture_output=True, text=True, check=False)
    assert done.stdout == "mine False\n", done.stderr


@BOTH
@pytest.mark.parametrize("kind", [Fused, Written])
def test_of_a_part_that_is_recorded_while_the_whole_runs_only_its_own_calls_are_seen(always, kind):
    model = Model(kind, kind, kind)
    x = torch.randn(1, 2, 4, 8)
    with sightline.record(model.blocks[1]) as seen:
        whole = model(x)
    with sightline.record(model) as all_seen:
        assert torch.equal(model(x), whole)
    assert [site.path for site in seen] == [""]
    torch.testing.assert_close(seen[0].weights, all_seen[1].weights)


@BOTH
@pytest.mark.parametrize("kind", [Fused, Written])
def test_another_model_in_the_block_is_left_out(always, kind):
    model, other, x = Model(kind), Model(kind, kind), torch.randn(1, 2, 4, 8)
    with sightline.record(model) as seen:
        other(model(other(x)))
    assert [site.path for site in seen] == ["blocks.0"]
    told = f"seen in {kind.__name__}, which is no part of this Model"
    with pytest.raises(RuntimeError, match=told), sightline.record(model):
        other(x)


@BOTH
def test_a_function_in_the_block_is_seen_where_no_module_runs(always):
    x = torch.randn(1, 2, 4, 8)
    with sightline.record(Model()) as seen:
        F.scaled_dot_product_attention(x, x, x)
    assert [site.path for site in seen] == [""]


class Methods(nn.Module):
    """Attends in a method, with modules that are parts and one that is none."""

    def __init__(self):
        super().__init__()
        self.soft, self.hidden = nn.Softmax(-1), [Fused()]

    def attend(self, x):
        return self.soft(x @ x.transpose(-2, -1)) @ x

    def ask(self, x):
        return self.hidden[0](F.scaled_dot_product_attention(x, x, x))

    def forward(self, x):
        return self.attend(x)


class Outer(nn.Module):
    def __init__(self, inner, name):
        super().__init__()
        self.inner, self.name = inner, name

    def forward(self, x):
        return getattr(self.inner, self.name)(x)


@BOTH
@pytest.mark.parametrize("name", ["ask", "forward"])
def test_a_method_of_the_model_is_seen_whoever_calls_it(always, name):
    model, x = Methods(), torch.randn(1, 2, 4, 8)
    whole = Outer(model, name)
    if name == "forward" and not always:  # below the dispatcher a softmax is followed from known parts alone
        with pytest.raises(RuntimeError, match="no attention recorded"), sightline.record(model):
            whole(x)
        return
    with sightline.record(model) as seen:
        whole(x)
    assert [site.path for site in seen] == ([""] if name == "forward" else ["", ""])


@pytest.mark.parametrize("inside", [False, True])
def test_gradients_are_refused_where_none_can_be_had(inside):
    model, x = Model(), torch.randn(1, 2, 4, 8)
    with (
        pytest.raises(ValueError, match="inference_mode to be off"),
        torch.inference_mode(not inside),
        sightline.record(model, gradients=True),
        torch.inference_mode(),
    ):
        model(x)
    with torch.inference_mode(), sightline.record(model, gradients=True) as seen, torch.inference_mode(False):
        answer = model(x.clone())
    assert len(seen) == 2
    assert not answer.is_inference()


def test_a_thread_that_records_another_model_is_told_of():
    model, other, x = Model(), Model(), torch.randn(1, 2, 4, 8)

    def work():
        with sightline.record(other):
            other(model(x))

    def both():
        with sightline.record(model) as seen:
            model(x)
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        return seen

    with pytest.warns(UserWarning, match="other threads"):
        seen = both()
    assert len(seen) == 2
