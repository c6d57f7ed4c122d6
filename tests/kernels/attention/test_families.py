"""Every family's tiny model gives what it gives eagerly, by every backend that runs here."""

from __future__ import annotations

import pytest
import torch

from runner.kernels.attention import BACKENDS, choices, use_attention
from tests.kernels.attention.models import ENCODERS, FAMILIES, LENGTH, REFUSED, both, inputs, model
from tests.registry import tiny_llm

GENERATE = [
    "llama",
    "mistral",
    "gemma2",
    "gemma3",
    "qwen2-vl",
    "gemma3-vision",
    "gpt-oss",
    "deepseek-v2",
    "deepseek-v3",
]
KINDS = ["whole", "left", "right", "packed"]


def agree(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=2e-5, rtol=2e-4, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_and_gradients_are_those_of_eager_attention(name: str, kind: str) -> None:
    if kind == "packed" and name in ENCODERS:
        pytest.skip("transformers tells encoders of no packed rows; cu_seq_lens does, see test_use")
    made = model(name)
    given, counts = inputs(name, kind)
    upstream = torch.randn(2 * LENGTH, 40 if name not in ENCODERS else 32)
    truth = both(made, given, counts, upstream)
    undo = use_attention(made)
    agree(truth, both(made, given, counts, upstream))
    assert choices(made)
    undo()
    again = both(made, given, counts, upstream)
    assert all(torch.equal(value, again[key]) for key, value in truth.items())


@pytest.mark.parametrize("backend", ["plain", "plain_documents", "sdpa", "sdpa_documents", "sdpa_math"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["mistral", "gemma2", "modernbert", "gpt-oss", "deepseek-v3"])
def test_forced_backends_agree(name: str, kind: str, backend: str) -> None:
    if (name == "gemma2" and "sdpa" in backend) or (name == "modernbert" and kind == "packed"):
        pytest.skip("a softcap, or nothing packed")
    made = model(name)
    given, counts = inputs(name, kind)
    upstream = torch.randn(2 * LENGTH, 40 if name not in ENCODERS else 32)
    truth = both(made, given, counts, upstream)
    use_attention(made, force=backend)
    agree(truth, both(made, given, counts, upstream))
    assert {one.backend for one in choices(made)} == {backend}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gemma2", "packed"),  # a window, a softcap, shared keys
        ("gpt-oss", "packed"),  # sinks
        ("deepseek-v2", "packed"),  # values narrower than keys
        *[pytest.param(name, kind, marks=pytest.mark.slow) for name in ("qwen2", "modernbert") for kind in KINDS[:3]],
    ],
)
def test_our_kernel_agrees_in_the_interpreter(name: str, kind: str, device: str) -> None:
    made = model(name).to(device)
    given, counts = inputs(name, kind)
    upstream = torch.randn(2 * LENGTH, 40 if name not in ENCODERS else 32)
    truth = both(made, given, counts, upstream)
    use_attention(made, force="varlen", with_triton=True)
    agree(truth, both(made, given, counts, upstream))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["llama", "gemma2", "modernbert", "gpt-oss", "deepseek-v2"])
def test_flex_agrees_forward(name: str, kind: str) -> None:
    made = model(name)
    given, counts = inputs(name, kind)
    if name == "modernbert" and kind == "packed":
        pytest.skip("nothing packed")
    with torch.no_grad():
        truth = made(**given)[0][counts]
        use_attention(made, force="flex")
        torch.testing.assert_close(made(**given)[0][counts], truth, atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("kind", ["whole", "left"])
@pytest.mark.parametrize("name", GENERATE)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generation_gives_the_same_tokens(name: str, kind: str, cache: str) -> None:
    made = model(name)
    given, _ = inputs(name, kind)
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "disable_compile": True}
    options |= {"cache_implementation": cache, "return_dict_in_generate": True, "output_logits": True}
    truth = made.generate(**given, **options)
    use_attention(made)
    found = made.generate(**given, **options)
    assert torch.equal(found.sequences, truth.sequences)
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(truth.logits), atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mpnet", "computes attention itself"),
    ],
)
def test_what_is_not_for_us_is_refused_with_words(name: str, words: str) -> None:
    made = tiny_llm.model(name)
    before = made.config._attn_implementation
    with pytest.raises(ValueError, match=words):
        use_attention(made)
    assert made.config._attn_implementation == before
    assert name in REFUSED


def test_images_see_their_own_tokens_both_ways() -> None:
    made = model("gemma3-vision")
    given, counts = inputs("gemma3-vision", "left")
    given["token_type_ids"][:, 5:9] = 1
    hidden = torch.randn(2, LENGTH, 32)
    given = {"inputs_embeds": hidden, **{key: value for key, value in given.items() if key != "input_ids"}}
    upstream = torch.randn(2 * LENGTH, 40)
    truth = both(made, given, counts, upstream)
    blind = both(made, given | {"token_type_ids": torch.zeros_like(given["token_type_ids"])}, counts, upstream)
    assert not torch.allclose(truth["outputs"], blind["outputs"], atol=1e-4)
    use_attention(made)
    agree(truth, both(made, given, counts, upstream))
    assert all("or_mask" in one.call or "blockwise" in one.call for one in choices(made))
    assert "needs documents, there is a mask with" in choices(made)[0].refused["sdpa_documents"]
    assert set(choices(made)[0].refused) < set(BACKENDS)
