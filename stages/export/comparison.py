"""How near an exported model is to the one that was trained: read back, asked the golden prompts, compared.

    base + adapter as trained --(merge)--> merged in memory --(round trip)--> read back from safetensors, from GGUF

The merge is measured by mean KL divergence and greedy agreement over every position of the check prompts; the round
trip by the largest difference of a logit, and by the answers. Models compute in float32 whatever their weights are, and
one is in memory at a time.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.core.schema import Model
from stages.export import llama_cpp
from stages.export.adapters import Adapter
from stages.export.golden import Golden, check_prompts, greedy_answers
from stages.export.merge import BASES, dequantised, is_quantised_linear
from stages.generation.decoding import stop_token_ids
from stages.generation.loading import device, load_model, load_tokenizer, quiet_transformers
from stages.training.merging import compare, merge_in_place, prompt_logits

LOSSLESS = {"float32": ("F32",), "float16": ("F32", "F16"), "bfloat16": ("F32", "BF16")}  # GGUF types by dtype


@dataclass(frozen=True)
class Nearness:
    """Of a merge to what was trained. mean_kl: nats a position, KL(trained || merged); agreement: of greedy tokens."""

    base: str
    mean_kl: float
    agreement: float
    max_logit_difference: float
    num_tokens: int


@dataclass(frozen=True)
class RoundTrip:
    """Of a file to the model in memory: equal_answers of num_prompts golden prompts."""

    file: str
    max_logit_difference: float
    agreement: float
    equal_answers: int
    num_prompts: int


@dataclass(frozen=True)
class Measured:
    """What is reported of an export; empty where only adapters were copied. merges: the one that was taken first."""

    merges: list[Nearness] = field(default_factory=list)
    files: list[RoundTrip] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        merges = {one.base: asdict(one) for one in self.merges}
        taken = {"merged_into": self.merges[0].base} if self.merges else {}
        return {**taken, "merges": merges, "files": {trip.file: asdict(trip) for trip in self.files}}


@dataclass(frozen=True)
class Reference:
    """The merged model as it was in memory: its logits on the check prompts, and the golden prompts with answers."""

    logits: list[Any]
    golden: list[Golden]
    merges: list[Nearness]

    @property
    def base(self) -> str:
        """The base that was merged into: the nearest."""
        return self.merges[0].base if self.merges else BASES[0]


def trained_logits(base: Path, model: Model, adapter: Adapter, prompts: Sequence[Sequence[int]]) -> list[Any]:
    """The logits of base + adapter, the base in 4 bits where the adapter was trained so. Each [T, V] float32."""
    import torch

    if not adapter.quantised:
        return prompt_logits(load_model(base, model, adapter.folder), prompts)
    # Not widened one module at a time as prompt_logits does: 4-bit weights are bytes, which are not to be cast.
    loaded = load_model(base, replace(model, dtype="float32"), adapter.folder, quantise=True)
    # With gradients, the layers dequantise and multiply, as in training; without, kernels for inference that round to
    # bfloat16 on the way differ from that by more than the merges do.
    loaded.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.requires_grad_())
    ids = (torch.tensor([list(prompt)], device=loaded.device) for prompt in prompts)
    return [loaded(input_ids=one, use_cache=False).logits[0].detach().float().cpu() for one in ids]


def merged_in_memory(base: Path, model: Model, adapter: Adapter | None, source: str) -> Any:
    """The merged model; source: one of BASES."""
    from peft import PeftModel

    loaded = load_model(base, model)
    if adapter is None:
        return loaded
    if source == "dequantised":
        for name, parameter in loaded.named_parameters():
            if is_quantised_linear(name, parameter):
                parameter.data = dequantised(parameter.data)
    return merge_in_place(PeftModel.from_pretrained(loaded, str(adapter.folder), local_files_only=True).eval())


def measure_merges(
    base: Path, model: Model, adapter: Adapter, prompts: Sequence[Sequence[int]], min_agreement: float
) -> list[Nearness]:
    """Every base that the adapter may be merged into, the nearest first.

    Raises DataError where even that one agrees on fewer than `min_agreement` of the greedy next tokens.
    """
    trained = trained_logits(base, model, adapter, prompts)
    found = []
    for source in BASES if adapter.quantised else BASES[:1]:
        gc.collect()  # the model before has cycles: two would be in memory
        found.append(nearness(source, trained, prompt_logits(merged_in_memory(base, model, adapter, source), prompts)))
    found.sort(key=lambda one: (not one.mean_kl >= 0, one.mean_kl))  # a NaN is last
    if not found[0].agreement >= min_agreement:
        raise DataError(
            f"{adapter.folder}: merged, {found[0].agreement:.2%} of greedy next tokens are those of the trained model "
            f"(at least {min_agreement:.2%}, export_model.min_agreement); nothing was written. Serve it as an adapter"
        )
    return found


def nearness(base: str, trained: Sequence[Any], merged: Sequence[Any]) -> Nearness:
    """Compares logits of the same prompts."""
    comparison = compare(trained, merged)
    total = sum(float(_kl(a, b)) for a, b in zip(trained, merged, strict=True))
    difference, agreement, num_tokens = comparison.max_logit_difference, comparison.agreement, comparison.num_tokens
    return Nearness(base, max(0.0, total / num_tokens), agreement, difference, num_tokens)


def _kl(a: Any, b: Any) -> Any:
    """Summed over the positions of one prompt, [T, V] each; in float64, as small differences are the point."""
    p, q = a.double().log_softmax(-1), b.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum()


def load_gguf(file: Path, model: Model) -> tuple[Any, Any]:
    """Model and tokenizer from a GGUF file by transformers; the configuration beside it says what GGUF cannot."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    quiet_transformers()
    config = AutoConfig.from_pretrained(file.parent.parent, local_files_only=True)
    if config.model_type == "mistral":  # a llama to GGUF; transformers finds no names for it as a mistral
        config = LlamaConfig(**{key: value for key, value in config.to_dict().items() if key != "model_type"})
    loaded = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, config=config, dtype=getattr(torch, model.dtype), local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    return loaded.to(device()).eval(), tokenizer


def check_metadata(folder: Path, file: Path) -> None:
    """Raises DataError where a size or constant that was read back from a GGUF file is not the model's."""
    from transformers import AutoConfig

    wanted = AutoConfig.from_pretrained(folder, local_files_only=True)
    found = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    for key in (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
        *("max_position_embeddings", "vocab_size", "tie_word_embeddings"),
    ):
        if getattr(wanted, key) != getattr(found, key):
            raise DataError(f"{file}: {key} reads {getattr(found, key)}, the model has {getattr(wanted, key)}")
    for key, a, b in (
        ("rms_norm_eps", wanted.rms_norm_eps, found.rms_norm_eps),
        ("rope_theta", wanted.rope_parameters["rope_theta"], found.rope_parameters["rope_theta"]),
    ):
        if abs(a - b) > 1e-6 * abs(a):  # float32 in the file
            raise DataError(f"{file}: {key} reads {b}, the model has {a}")


def compare_files(
    folder: Path,
    gguf_files: Sequence[Path],
    model: Model,
    reference: Reference,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    max_logit_difference: float,
) -> list[RoundTrip]:
    """Reads every file of an export back; safetensors first, GGUF by llama.cpp too where it is installed.

    Raises DataError for another template, other token ids, or, where the file loses nothing, another answer or a logit
    further off than `max_logit_difference`.
    """
    gc.collect()  # the merged model has cycles: two would be in memory
    tokenizer = load_tokenizer(folder)
    check_prompts(tokenizer, reference.golden, "safetensors")
    whole = load_model(folder, model)
    trips = [_round_trip("safetensors", whole, tokenizer, reference, prompts, max_new_tokens)]
    _check_lossless(trips[0], max_logit_difference)
    del whole
    for file in gguf_files:
        gc.collect()
        check_metadata(folder, file)
        loaded, tokenizer = load_gguf(file, model)
        check_prompts(tokenizer, reference.golden, file.name)
        trips.append(_round_trip(file.name, loaded, tokenizer, reference, prompts, max_new_tokens))
        stops = stop_token_ids(loaded, tokenizer)
        del loaded
        if gguf_type(file) in LOSSLESS[model.dtype]:
            _check_lossless(trips[-1], max_logit_difference)
        if llama_cpp.is_installed():
            trips.append(_llama_trip(file, tokenizer, stops, reference, prompts, max_new_tokens))
    return trips


def gguf_type(file: Path) -> str:
    """`Q8_0` of `name.Q8_0.gguf`."""
    return file.suffixes[-2].removeprefix(".")


def _round_trip(
    name: str, model: Any, tokenizer: Any, reference: Reference, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> RoundTrip:
    comparison = compare(reference.logits, prompt_logits(model, prompts))
    answers = greedy_answers(model, tokenizer, reference.golden, max_new_tokens)
    equal = sum(answer == one.answer for answer, one in zip(answers, reference.golden, strict=True))
    return RoundTrip(name, comparison.max_logit_difference, comparison.agreement, equal, len(answers))


def _llama_trip(
    file: Path,
    tokenizer: Any,
    stops: frozenset[int],
    reference: Reference,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> RoundTrip:
    """By llama.cpp. Its sums round differently, in 16 bits for some types, so how far off they are is only reported."""
    num_ctx = max(len(prompt) for prompt in prompts) + max_new_tokens
    with llama_cpp.opened(file, num_ctx) as loaded:
        llama_cpp.check_tokens(loaded, file, tokenizer.chat_template, reference.golden)
        comparison = compare(reference.logits, llama_cpp.logits(loaded, prompts))
        ids = [llama_cpp.greedy(loaded, one.input_ids, stops, max_new_tokens) for one in reference.golden]
    texts = [tokenizer.decode(one, skip_special_tokens=True, clean_up_tokenization_spaces=False) for one in ids]
    equal = sum(text == one.answer for text, one in zip(texts, reference.golden, strict=True))
    name = f"{file.name} by llama.cpp"
    return RoundTrip(name, comparison.max_logit_difference, comparison.agreement, equal, len(texts))


def _check_lossless(trip: RoundTrip, max_logit_difference: float) -> None:
    if not trip.max_logit_difference <= max_logit_difference or trip.equal_answers < trip.num_prompts:
        raise DataError(
            f"{trip.file} read back is not the model that was merged: {asdict(trip)} (logits may differ by "
            f"{max_logit_difference:.3g}, every answer must be equal); nothing was written"
        )
