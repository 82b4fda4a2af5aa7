"""What the plan decides reaches the containers."""

import dataclasses
from typing import get_args

import pytest

from infra import assembly, language_model
from infra.assembly import as_predicted, promise, serving_environment
from infra.errors import ArgumentError
from planner.workloads import Precision
from tests.unit.planner.test_plan import job as training
from tests.unit.planner.test_plan import planned, service
from workloads.config import checked
from workloads.training.promise import Promise

NEEDS = {"accelerators": 1, "instance_type": "g5.xlarge"}
CLASSIFY = service(needs=NEEDS, target={"profile": "resnet-50", "requests_per_s": 500, "p99_ms_max": 100})


def test_a_server_batches_as_it_was_planned_with() -> None:
    plan = planned(CLASSIFY)
    (predicted,) = plan.predictions
    assert serving_environment(CLASSIFY, plan) == {
        "FUSION_BATCH_MAX": str(predicted.batch),
        "FUSION_PRECISION": predicted.precision,
        "FUSION_SLO_MS": "100",
    }
    other = dataclasses.replace(plan, predictions=(dataclasses.replace(predicted, batch=3),))
    assert serving_environment(CLASSIFY, other)["FUSION_BATCH_MAX"] == "3"


def test_a_language_model_schedules_its_own_batches_and_a_server_without_a_target_decides_all_itself() -> None:
    chat = service(
        needs=NEEDS, target={"model": "llama-3.1-8b", "input_tokens": 500, "output_tokens": 100, "concurrency": 1}
    )
    assert serving_environment(chat, planned(chat)).keys() == {"FUSION_PRECISION"}
    plain = service(needs=NEEDS)
    assert serving_environment(plain, planned(plain)) == {}


def test_a_training_job_computes_as_it_was_predicted_and_carries_the_prediction_in_its_containers_form() -> None:
    job = training(
        needs=NEEDS, training={"batch_size": 64, "epochs": 3}, target={"profile": "resnet-50", "samples": 100_000}
    )
    plan = planned(job)
    (predicted,) = plan.predictions
    read = checked(promise(job, plan), Promise, source="the plan")
    assert (read.machine, read.instance_type, read.devices) == ("A10G", "g5.xlarge", 1)
    assert read.samples_per_s.value == predicted.throughput_per_s.value
    assert read.run_usd.value == predicted.run_usd.value and read.profile == "resnet-50"
    assert 0.01 < read.utilisation(3 * 8.2e9, read.samples_per_s.value) < 1
    assert as_predicted(predicted)["precision"] == predicted.precision == read.precision
    plain = training(needs=NEEDS)
    assert promise(plain, planned(plain)) is None and as_predicted(None) == {}


def test_a_run_whose_checkpoints_are_kept_on_a_disk_saves_there_and_the_disk_is_in_the_bill():
    kept = training(needs=NEEDS, training={"checkpoint_volume": {"gib": 200}})
    plan = planned(kept)
    spec = assembly._training_job(kept, plan)
    assert spec.config["checkpoint"]["url"] == "file:///checkpoints" and spec.checkpoint_volume.gib == 200
    (item,) = [each for each in plan.items if each.component == "checkpoints of digits"]
    assert item.quantity.max == 200 and item.tariff.item == "block_storage_gib"


CHAT = {"model": "llama-3.1-8b", "input_tokens": 500, "output_tokens": 100, "concurrency": 4}
WEIGHTS = "meta-llama/Llama-3.1-8B-Instruct"


def chat(needs=NEEDS, **changes):
    return service(needs=NEEDS | {"vcpus": 3, "memory_gib": 12} | needs, target=CHAT | changes)


def served(declared, **predicted):
    plan = planned(declared)
    (found,) = plan.predictions
    plan = dataclasses.replace(plan, predictions=(dataclasses.replace(found, **predicted),))
    return assembly._inference_service(declared, plan)


def test_a_language_model_is_served_by_vllm_with_what_the_plan_decided():
    spec = served(chat(), precision="fp8", tensor_parallel=4, pipeline_parallel=2)
    assert spec.pod.command == ("vllm", "serve")
    assert spec.pod.args == (
        "$(FUSION_BUCKET_URL)/runs/classify/weights",
        "--load-format=runai_streamer",
        "--served-model-name=classify",
        "--host=0.0.0.0",
        "--port=8080",
        "--tensor-parallel-size=4",
        "--pipeline-parallel-size=2",
        "--max-model-len=1200",
        "--gpu-memory-utilization=0.9",
        "--quantization=fp8",
        "--kv-cache-dtype=fp8",
    )
    assert (spec.probes.ready, spec.probes.live) == ("/health", "/health")
    assert spec.pod.shared_memory_gib == 3, "its processes hand tensors over there"
    assert spec.read == ("runs/classify/",)
    assert "FUSION_PACKAGE_URL" not in spec.pod.env


def test_every_precision_of_a_plan_is_said_in_vllms_words():
    for precision in get_args(Precision):
        assert all(argument.startswith("--") for argument in language_model.PRECISION[precision])
    assert "--dtype=bfloat16" in served(chat(), precision="bf16").pod.args


def test_weights_of_hugging_face_are_kept_on_the_replicas_disk_which_must_hold_them():
    spec = served(chat(weights=WEIGHTS, context_tokens_max=8192), precision="bf16")
    assert spec.pod.args[0] == WEIGHTS
    assert "--max-model-len=8192" in spec.pod.args
    assert not any("runai" in argument for argument in spec.pod.args)
    assert spec.pod.env["HF_HOME"].startswith("/scratch/")
    assert 10 + 15 <= spec.pod.scratch_gib <= 10 + 16, "caches, and 8 billion parameters in 16 bits"
    small = service(needs=NEEDS, target=CHAT | {"weights": WEIGHTS}, disk_gib=40)
    with pytest.raises(ArgumentError, match=r"workload classify: disk_gib 40 does not hold .* use 56 or more"):
        served(small, precision="bf16")


def test_a_language_model_with_a_command_of_its_own_is_started_as_it_says():
    declared = service(needs=NEEDS, target=CHAT, command=["text-generation-launcher"])
    spec = served(declared)
    assert spec.pod.command == ("text-generation-launcher",)
    assert (spec.probes.ready, spec.pod.env["FUSION_PORT"]) == ("/ready", "8080")
