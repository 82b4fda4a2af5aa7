"""The policy pack as the engine runs it. `PolicyPack` does not return, so the policies live in their own modules."""

import gc

from pulumi_policy import EnforcementLevel, PolicyPack

from policies import stack_config
from policies.cost import monthly_cost_limit

stack_config.receive()
gc.freeze()  # the SDK's classes stay: a collection between two resources need not look at them
PolicyPack(name="fusion", enforcement_level=EnforcementLevel.MANDATORY, policies=[monthly_cost_limit()])
