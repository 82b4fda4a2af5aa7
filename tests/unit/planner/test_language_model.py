"""Language models: published parameter counts, order in every load, memory that runs out."""

import contextlib
import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.catalog import load
from planner.performance import Chip, DecoderTraffic, DoesNotFit, PerformanceError, builtin, predict_language_model
from planner.performance.chip import BYTES
from planner.performance.language_model import (
    Products,
    Server,
    _projections,
    decode_step_s,
    pass_products,
    prefill_s,
    queued_s,
    stage_s,
)
from planner.profiles.decoder import DecoderConfig, decoder, presets, published
from tests.unit.planner.chips import chip


def predict(
    name="H100", model="llama-3.1-8b", *, input_tokens=1024, output_tokens=256, concurrency=8, rate=None, **options
):
    traffic = DecoderTraffic(input_tokens, output_tokens, None if rate else concurrency, rate)
    return predict_language_model(chip(name), decoder(model), traffic, builtin(), **options)


def relative(interval):
    return interval.low / interval.value, interval.high / interval.value


def test_the_interval_is_of_the_engine_and_far_wider_where_the_cache_may_be_full():
    roomy, full = predict(concurrency=8), predict(concurrency=10_000)
    assert "of the key–value cache is taken" not in " ".join(roomy.reasons)
    assert "100% of the key–value cache is taken" in " ".join(full.reasons)
    decoders = builtin().decoders
    assert decoders is not None
    for engine in ("vllm", "sglang", "trtllm"):
        own = predict(engine=engine).time_to_first_token_s
        assert relative(own) == pytest.approx(
            (decoders.ratios[engine].first_token.low, decoders.ratios[engine].first_token.high)
        )
    assert relative(full.time_to_first_token_s)[1] > 2 * relative(roomy.time_to_first_token_s)[1]


@pytest.mark.parametrize(("rate", "said"), [(5, False), (20, True)])
def test_an_open_stream_is_told_too_when_its_sequences_take_half_of_the_cache(rate, said):
    answer = predict(rate=rate)
    assert said == (answer.running >= answer.most_sequences / 2)
    assert said == any("of the key–value cache is taken" in reason for reason in answer.reasons)


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [
        ("llama-3.1-8b", 8.03, None),
        ("llama-3.1-70b", 70.55, None),
        ("mixtral-8x7b", 46.7, 12.9),
        ("qwen3-32b", 32.76, None),
        ("qwen2.5-7b", 7.61, None),
        ("deepseek-v3", 671, 37),
        ("kimi-k2", 1026, 32),
    ],
)
def test_parameters_are_those_published(name, billions, active):
    assert decoder(name).parameters / 1e9 == pytest.approx(billions, rel=0.005)
    if active:
        assert decoder(name).active_parameters / 1e9 == pytest.approx(active, rel=0.02)


def test_every_preset_names_its_source():
    assert all(config.source for config in presets().values())


def test_more_users_get_more_tokens_together_and_slower_ones_each():
    few, many = predict(concurrency=4), predict(concurrency=64)
    assert many.output_tokens_per_s.value > few.output_tokens_per_s.value
    assert many.time_per_output_token_s.value > few.time_per_output_token_s.value


def test_more_devices_are_faster():
    one, four = predict(), predict(tensor_parallel=4)
    assert four.time_per_output_token_s.value < one.time_per_output_token_s.value


def test_users_beyond_the_cache_wait():
    fitting, crowded = predict(concurrency=16, input_tokens=16_000), predict(concurrency=256, input_tokens=16_000)
    assert crowded.running == crowded.most_sequences
    assert crowded.time_to_first_token_s.value > 5 * fitting.time_to_first_token_s.value
    assert "cache" in crowded.bound_by


def test_a_model_that_does_not_fit_is_refused_with_the_missing_gib():
    with pytest.raises(DoesNotFit, match="GiB a device are missing"):
        predict(model="llama-3.1-70b")


def test_a_rate_above_what_is_sustained_is_refused():
    with pytest.raises(PerformanceError, match="add replicas"):
        predict(rate=1e5)


def test_an_open_stream_keeps_littles_law():
    result = predict(rate=4.0)
    assert result.running == pytest.approx(4.0 * 256 * result.time_per_output_token_s.value, rel=0.05)


def test_experts_that_nobody_asked_are_not_read():
    mixtral = decoder("mixtral-8x7b")
    assert mixtral.experts_touched(1) == pytest.approx(2)
    assert mixtral.experts_touched(1000) == pytest.approx(8, rel=0.02)


@settings(max_examples=100, deadline=None)
@given(
    tokens=st.integers(),
    output=st.integers() | st.floats(),
    rate=st.floats(allow_nan=True, allow_infinity=True),
    ways=st.integers(-2, 20),
)
def test_whatever_traffic_is_given_the_answer_is_a_time_or_one_clear_sentence(tokens, output, rate, ways):
    try:
        traffic = DecoderTraffic(tokens, output, None, rate)
        result = predict_language_model(chip("H100"), decoder("llama-3.1-8b"), traffic, builtin(), tensor_parallel=ways)
    except PerformanceError as error:
        assert "\n" not in str(error)
    else:
        assert math.isfinite(result.time_to_first_token_s.value)


@given(service=st.floats(1e-4, 10), elsewhere=st.floats(1e-4, 1000), customers=st.integers(1, 5000))
def test_nobody_is_served_before_his_time_nor_waits_for_more_than_everybody(service, elsewhere, customers):
    response = queued_s(service, elsewhere, customers)
    assert service <= response <= service * customers * (1 + 1e-9)


def test_who_is_alone_waits_for_nobody():
    assert queued_s(0.5, 10.0, 1) == pytest.approx(0.5)


def test_a_full_station_serves_one_after_another():
    assert 100 / (queued_s(1.0, 10.0, 100) + 10.0) == pytest.approx(1.0, rel=0.02)


def test_who_starts_together_waits_longer_the_fewer_requests_follow():
    def first(requests):
        traffic = DecoderTraffic(4096, 256, 64, requests_by_user=requests)
        result = predict_language_model(chip("H100"), decoder("llama-3.1-8b"), traffic, builtin(), tensor_parallel=8)
        return result.time_to_first_token_s.value

    assert first(1) > first(10) > first(math.inf)


def test_layers_with_a_window_keep_fewer_keys():
    windowed = decoder("gpt-oss-120b")
    assert windowed.attended(100) == 100
    assert windowed.attended(8192) == pytest.approx((8192 + 128) / 2)


def test_a_latent_is_all_that_is_kept_of_a_token():
    assert decoder("deepseek-v3").kv_bytes(1, 2) == 61 * (512 + 64) * 2  # 70 KB, of DeepSeek-V3's report


def test_absorbed_projections_take_as_many_products_as_those_that_make_keys_and_values():
    latent = decoder("deepseek-v3")

    def flops(absorbed):
        return sum(2 * n * k * count for n, k, count in _projections(latent, 1, absorbed))

    assert flops(True) == flops(False) == 2 * latent.attention_parameters_per_layer


def test_a_latent_takes_more_products_by_cached_token_than_the_heads_own_keys_and_values():
    latent = decoder("deepseek-v3")
    assert latent.attention_flops(1, 1000) == 2 * 61 * 128 * (128 + 64 + 128) * 1000
    assert latent.gathered_flops(1, 1000) == 2 * 61 * 128 * (512 + 64 + 512) * 1000
    assert decoder("llama-3.1-8b").gathered_flops(1, 9) == decoder("llama-3.1-8b").attention_flops(1, 9)


def test_every_chip_keeps_the_whole_latent_and_heads_are_divided():
    latent = server("B200", decoder("deepseek-v3"), "fp4", 8)
    heads = server("B200", decoder("llama-3.1-70b"), "fp4", 8)
    assert (latent.kv_split, heads.kv_split) == (1, 8)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"v_head_dim": 0}, "v_head_dim is 0"),
        ({"kv_lora_rank": 0}, "kv_lora_rank is 0"),
        ({"windowed_layers": 3, "window": 128}, "windowed_layers is 3"),
        ({"dense_layers": 62}, "dense_layers is 62"),
        ({"dense_intermediate_size": 0}, "dense_intermediate_size is 0"),
        ({"experts": 1, "active_experts": 1}, "experts is 1"),
        ({"shared_intermediate_size": -1}, "shared_intermediate_size is -1"),
    ],
)
def test_an_impossible_latent_or_dense_part_names_its_field(changed, said):
    with pytest.raises(PerformanceError, match=said):
        dataclasses.replace(decoder("deepseek-v3"), **changed)


def test_a_server_that_looks_for_requests_every_thirty_steps_answers_fifteen_later_on_average():
    def first(steps):
        traffic = DecoderTraffic(1024, 1024, 1, requests_by_user=math.inf, polled_steps=steps)
        return predict_language_model(chip("H100"), decoder("llama-3.1-8b"), traffic, builtin())

    polled, free = first(30), first(0)
    later = polled.time_to_first_token_s.value - free.time_to_first_token_s.value
    assert later / free.time_per_output_token_s.value == pytest.approx(15, rel=0.01)


def test_stages_hold_a_model_that_a_chip_cannot_and_each_keeps_its_layers_only():
    with pytest.raises(DoesNotFit):
        predict(model="llama-3.1-70b")
    two, four = (predict(model="llama-3.1-70b", pipeline_parallel=stages) for stages in (2, 4))
    assert four.most_sequences > 2 * two.most_sequences


def test_a_lone_user_passes_the_stages_one_after_another_and_many_keep_them_all_busy():
    lone = [predict(concurrency=1, pipeline_parallel=stages).time_per_output_token_s.value for stages in (1, 4)]
    assert 1 < lone[1] / lone[0] < 1.1
    crowd = [predict(concurrency=128, pipeline_parallel=stages).output_tokens_per_s.value for stages in (1, 4)]
    assert 1.2 < crowd[1] / crowd[0] < 4


def test_stages_that_layers_do_not_divide_into_wait_for_the_one_that_has_most():
    even = dataclasses.replace(decoder("llama-3.1-8b"), layers=32)
    uneven = dataclasses.replace(even, layers=29)
    for model, layers in ((even, 8), (uneven, 8)):
        staged = dataclasses.replace(server("H100", model, "bf16", 1), pipeline_parallel=4)
        assert stage_s(staged, model.layers * 1e-3, 0.0) == pytest.approx(layers * 1e-3)
        assert stage_s(staged, model.layers * 1e-3 + 5e-3, 5e-3) == pytest.approx((model.layers // 4 + 5) * 1e-3)


def test_more_stages_than_layers_are_refused():
    with pytest.raises(PerformanceError, match="pipeline_parallel is 33"):
        predict(pipeline_parallel=33)


def test_weights_that_the_chip_cannot_multiply_are_read_small_and_multiplied_in_16_bits():
    times = {
        precision: predict(model="llama-3.1-8b", concurrency=1, precision=precision).time_per_output_token_s.value
        for precision in ("bf16", "fp4")
    }
    assert times["fp4"] < times["bf16"]


def server(name, model, precision, tensor_parallel=8, expert_parallel=1):
    one, parameters = chip(name), builtin().decoder(name, "vllm")[0]
    products = Products(*(builtin().gemm(name, kind).parameters for kind in (precision, "fp8", "bf16")))
    return Server(one, model, precision, tensor_parallel, products, parameters, expert_parallel)


def test_uneven_routing_leaves_more_experts_idle_than_even_routing_would():
    mixture = decoder("gpt-oss-120b")
    touched, even = mixture.experts_touched(64), 128 * (1 - (1 - 4 / 128) ** 64)
    assert 0.6 * even < touched < 0.8 * even


@given(tokens=st.integers(1, 10**6))
def test_a_batch_touches_at_least_one_tokens_experts_and_at_most_all(tokens):
    mixture = decoder("gpt-oss-120b")
    assert 4 <= mixture.experts_touched(tokens) <= min(128, 4 * tokens)


def test_attention_that_stays_in_16_bits_takes_longer_to_multiply_and_the_4_bit_experts_do_not():
    published = decoder("minimax-m2.5")
    narrow = dataclasses.replace(published, sixteen_bit_attention=False)
    wide, small = (pass_products(server("B200", model, "fp4", 1), 30_000, 1) for model in (published, narrow))
    assert wide.attention_s > small.attention_s
    assert wide.feed_forward_s == small.feed_forward_s


def test_weight_only_4_bit_products_take_8_bit_compute():
    published = decoder("gpt-oss-120b")
    both_narrow = dataclasses.replace(published, weight_only_fp4=False)
    wide, small = (pass_products(server("B200", model, "fp4", 1), 30_000, 1) for model in (published, both_narrow))
    assert 1.3 < wide.feed_forward_s / small.feed_forward_s < 3


def test_whole_experts_on_each_chip_read_as_much_as_cut_ones_in_larger_products():
    mixture = decoder("qwen3-235b-a22b")
    cut, whole = (pass_products(server("H100", mixture, "fp8", 8, ways), 32, 32) for ways in (1, 8))
    assert 0.3 < whole.feed_forward_s / cut.feed_forward_s < 1


def test_the_cache_beside_widened_weights_stays_in_16_bits():
    model = decoder("gpt-oss-120b")
    assert server("H200", model, "fp4").kv_bytes_each == 2 * server("B200", model, "fp4").kv_bytes_each


def test_a_server_that_holds_prompts_back_answers_its_first_token_so_many_steps_later():
    def first(steps):
        traffic = DecoderTraffic(1024, 1024, 1, held_back_steps=steps)
        return predict_language_model(chip("H100"), decoder("llama-3.1-8b"), traffic, builtin())

    held, free = first(20), first(0)
    later = held.time_to_first_token_s.value - free.time_to_first_token_s.value
    assert 15 < later / free.time_per_output_token_s.value < 20


def first_token_s(**traffic):
    asked = DecoderTraffic(1024, 512, 8, same_lengths=True, **traffic)
    return predict_language_model(chip("H100"), decoder("llama-3.1-8b"), asked, builtin()).time_to_first_token_s.value


def test_who_needs_anothers_place_waits_for_the_next_answer_to_end_and_for_no_prompt():
    token = predict(output_tokens=512).time_per_output_token_s.value
    assert 0.5 < (first_token_s(admits_users_only=True) - first_token_s()) / (512 * token / 8) < 1


def test_tokens_handed_on_together_keep_the_serving_process_free():
    def first(interval):
        asked = DecoderTraffic(128, 1024, 256, stream_interval=interval)
        answer = predict_language_model(chip("B200"), decoder("llama-3.1-8b"), asked, builtin(), engine="trtllm")
        return answer.time_to_first_token_s.value

    assert first(1) > 2 * first(10)


@pytest.mark.parametrize("interval", [0, -1, math.nan, math.inf])
def test_an_impossible_stream_interval_is_refused(interval):
    with pytest.raises(PerformanceError, match="stream_interval is"):
        DecoderTraffic(128, 128, 8, stream_interval=interval)


def sourced_chips():
    """Every chip of the catalog with peak, memory and bandwidth; most have no measured row."""
    found = []
    for accelerator in load().accelerators.values():
        with contextlib.suppress(PerformanceError):
            found.append(Chip.from_accelerator(accelerator))
    return found


@pytest.mark.parametrize("model", ["llama-3.1-8b", "llama-3.1-405b", "gpt-oss-120b", "qwen3-30b-a3b", "deepseek-v3"])
@pytest.mark.parametrize("one", sourced_chips(), ids=lambda one: one.name)
def test_every_chip_takes_longer_than_peak_and_bandwidth_allow_and_never_absurdly_longer(one, model):
    config = decoder(model)
    weights = config.active_parameters - config.head_parameters
    for precision in ("bf16", "fp8", "fp4"):
        if not one.peak_flops.keys() & {precision, "bf16", "fp16"}:
            continue
        served = dataclasses.replace(server("H100", config, precision, 1), chip=one)
        fastest = max(one.peak_flops.get(kind, 0.0) for kind in {precision, served.sixteen})
        read_s = weights * BYTES[precision] / one.memory_bandwidth_bytes_per_s
        for tokens in (64, 1024, 16_384):
            least_s = 2 * weights * tokens / fastest
            kernels_s = config.layers * 1e-3
            assert least_s <= prefill_s(served, tokens) < 12 * max(least_s, config.experts * read_s) + kernels_s
            # experts: fewer of a batch's are read than even the uneven routing says, so their fitted factor is below 1
            assert 0.7 * read_s < decode_step_s(served, 1, tokens) < 4 * read_s + kernels_s


@settings(max_examples=60, deadline=None)
@given(
    one=st.sampled_from(sourced_chips()),
    model=st.sampled_from(sorted(presets())),
    tokens=st.integers(16, 30_000),
    more=st.floats(1.5, 8),
    sequences=st.integers(1, 256),
)
def test_on_any_chip_longer_prompts_and_fuller_batches_are_never_faster(one, model, tokens, more, sequences):
    served = dataclasses.replace(server("H100", decoder(model), "bf16", 1), chip=one)
    if "bf16" not in one.peak_flops and "fp16" not in one.peak_flops:
        return
    slightly_less = 0.97  # a tile that fits better
    assert prefill_s(served, tokens * more) >= slightly_less * prefill_s(served, tokens)
    assert decode_step_s(served, sequences * more, 1024) >= slightly_less * decode_step_s(served, sequences, 1024)
    assert decode_step_s(served, sequences, tokens * more) >= decode_step_s(served, sequences, tokens)


def test_a_wrong_configuration_names_its_field():
    with pytest.raises(PerformanceError, match="kv_heads is 3"):
        DecoderConfig("x", 1, 64, 8, 3, 8, 64, 100)


DEEPSEEK = {
    "num_hidden_layers": 61,
    "hidden_size": 7168,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "vocab_size": 129280,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "quantization_config": {"weight_block_size": [128, 128]},
}
MAVERICK = {
    "text_config": {
        "model_type": "llama4_text",
        "num_hidden_layers": 48,
        "hidden_size": 5120,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 202048,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_local_experts": 128,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 2,
    }
}
GEMMA = {
    "num_hidden_layers": 62,
    "hidden_size": 5376,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "vocab_size": 262208,
    "intermediate_size": 21504,
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize(("config", "billions", "active"), [(DEEPSEEK, 671, 37), (MAVERICK, 400, 17), (GEMMA, 27, 27)])
def test_a_published_configuration_has_the_published_parameters(config, billions, active):
    model = published("x", config)
    assert model.parameters / 1e9 == pytest.approx(billions, rel=0.01)
    assert model.active_parameters / 1e9 == pytest.approx(active, rel=0.06)


def test_a_published_configuration_is_the_shipped_one():
    assert published("x", DEEPSEEK) == dataclasses.replace(
        decoder("deepseek-v3"), name="x", source="its published configuration", sixteen_bit_attention=False
    )
    assert published("x", GEMMA).windowed_layers == 52


def test_layers_that_are_not_modelled_are_refused():
    with pytest.raises(PerformanceError, match="linear attention, which are not modelled"):
        published("qwen3-next", GEMMA | {"full_attention_interval": 4})


@given(
    field=st.sampled_from(sorted(DEEPSEEK)), value=st.none() | st.integers(-9, 9) | st.text(max_size=3) | st.just([])
)
def test_whatever_a_published_configuration_holds_the_answer_is_a_shape_or_one_clear_sentence(field, value):
    try:
        assert published("x", DEEPSEEK | {field: value}).parameters > 0
    except PerformanceError as error:
        assert str(error).startswith("x: ") and "\n" not in str(error)
