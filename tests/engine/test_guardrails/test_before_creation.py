"""What only a whole stack shows, and its plan says already, stops `up --skip-preview` before anything is created."""

from tests.engine.conftest import PACK, Engine


def test_a_stack_that_must_have_a_budget_and_declares_none_creates_nothing(platform: Engine) -> None:
    emails = platform.config.pop("fusion:budget_alarms")
    platform.configure()
    for environment in ({}, PACK):
        for printed in (platform.up(status=None, **environment), platform.preview(status=None, **environment)):
            assert "the stack declares no budget; name whom it tells under fusion:budget_alarms emails" in printed
            assert platform.exists() == []
    platform.configure(budget_alarms=emails)
    assert "declares no budget" not in platform.preview(**PACK)
