"""Memory: ZeRO's table, and refusals that say by how much."""

import pytest

from planner.performance import DoesNotFit
from planner.performance.chip import GIB
from planner.performance.memory import check_fit, inference_memory, training_memory
from planner.profiles.model import profile
from tests.unit.planner.chips import chip

BERT = profile("bert-base-128")


def test_adam_in_mixed_precision_takes_sixteen_bytes_a_parameter():
    use = training_memory(BERT, "bf16", 1)
    assert use.weights + use.gradients + use.optimizer == pytest.approx(16 * BERT.parameters)


@pytest.mark.parametrize(("stage", "bytes_each"), [(0, 16.0), (1, 4 + 12 / 8), (2, 2 + 14 / 8), (3, 16 / 8)])
def test_zero_divides_what_its_stage_says(stage, bytes_each):
    use = training_memory(BERT, "bf16", 1, zero_stage=stage, data_parallel=8)
    assert use.weights + use.gradients + use.optimizer == pytest.approx(bytes_each * BERT.parameters)


def test_activations_grow_with_the_batch_and_shrink_with_checkpoints():
    small, large = training_memory(BERT, "bf16", 8), training_memory(BERT, "bf16", 16)
    assert large.activations == pytest.approx(2 * small.activations)
    assert training_memory(BERT, "bf16", 16, checkpoint_activations=True).activations < large.activations


def test_inference_keeps_no_gradients():
    use = inference_memory(BERT, "bf16", 4)
    assert use.gradients == use.optimizer == 0


def test_what_does_not_fit_is_refused_with_the_missing_gib():
    use = training_memory(BERT, "bf16", 2048)
    with pytest.raises(DoesNotFit, match=r"GiB are missing, and activations take most") as refused:
        check_fit(use, chip("T4"), "training")
    assert refused.value.missing_gib == pytest.approx(use.total / GIB - 0.94 * 16, rel=1e-6)
