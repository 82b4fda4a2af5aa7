"""What the plan decides reaches the containers."""

import dataclasses

from infra.assembly import as_predicted, promise, serving_environment
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
