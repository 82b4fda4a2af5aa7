"""What the plan decides reaches the containers."""

import dataclasses

from infra.assembly import serving_environment
from tests.unit.planner.test_plan import planned, service

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
