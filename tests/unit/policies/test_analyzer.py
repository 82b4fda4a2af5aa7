"""How guardrails are judged: each resource once, at the level that the stack sets, and nothing in silence."""

import copy
import json
import math
import re
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from pulumi.runtime import proto
from pulumi.runtime.proto import AnalyzeRequest, AnalyzerStackConfigureRequest, ConfigureAnalyzerRequest

from policies import guardrails
from policies.analyzer import Analyzer, WithoutRemediation
from policies.guardrail import guardrail, stack_guardrail
from policies.plan import PLAN_TYPE
from policies.resource import Path, Resource, read
from policies.testing import UNKNOWN, Declared, judge, secret
from policies.update import Update
from tests.unit.planner.test_plan import job, planned
from tests.unit.policies.inputs import INPUTS

INSTANCE = "aws:ec2/instance:Instance"


@guardrail("imdsv2", INSTANCE)
def imdsv2(resource: Resource, _: Update) -> Iterator[str]:
    """The metadata of an instance is read with a session token only."""
    if resource.props.get("metadataOptions", "httpTokens") != "required":
        yield "metadataOptions.httpTokens is not required"


@guardrail("images", unknown="judged in up")
def images(resource: Resource, _: Update) -> Iterator[str]:
    """Images are named by digest."""
    for container in resource.props.each("spec", "containers"):
        if "@sha256:" not in container.get("image"):
            yield f"{container.get('name')} is not named by digest"


def test_a_value_that_breaks_it_is_told_and_one_that_keeps_it_is_not() -> None:
    assert judge(imdsv2, Declared(INSTANCE, {"metadataOptions": {"httpTokens": "required"}})) == []
    assert judge(imdsv2, Declared(INSTANCE, {"metadataOptions": [{"httpTokens": "required"}]})) == []
    assert judge(imdsv2, Declared(INSTANCE, {})) == ["metadataOptions.httpTokens is not required"]


def test_a_resource_of_another_type_is_not_judged() -> None:
    assert judge(imdsv2, Declared("aws:ec2/vpc:Vpc", {})) == []


def test_a_choice_that_is_not_known_is_refused_and_names_its_path() -> None:
    (told,) = judge(imdsv2, Declared(INSTANCE, {"metadataOptions": {"httpTokens": UNKNOWN}}))
    assert told == "metadataOptions.httpTokens decides this and is not known before the update; give it a plain value"


def test_what_is_made_of_outputs_waits_for_the_update_and_says_so() -> None:
    inputs = {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": UNKNOWN}]}}
    assert judge(images, Declared("kubernetes:core/v1:Pod", inputs)) == ["a is not named by digest"]
    analyzer = Analyzer("test", [images])
    request = AnalyzeRequest(type="kubernetes:core/v1:Pod", urn="urn")
    request.properties.update(inputs)
    (waiting,) = analyzer.Analyze(request, None).not_applicable
    assert waiting.reason == "spec.containers[1].image is not known before the update, which judges it"


def test_secrets_are_read_and_known_as_secret() -> None:
    marked = json.loads(json.dumps({"env": [{"value": secret("s3cret")}, {"value": "plain"}]}))
    first, second = read(marked).each("env")
    assert first.get("value") == "s3cret"
    assert first.part("value").is_secret()
    assert not second.part("value").is_secret()


def test_a_guardrail_that_fails_passes_nothing() -> None:
    @guardrail("broken", INSTANCE)
    def broken(resource: Resource, _: Update) -> Iterator[str]:
        """Always fails."""
        yield str(1 / len(resource.props.get("nothing", default="")))

    assert judge(broken, Declared(INSTANCE, {})) == ["it could not be judged: ZeroDivisionError: division by zero"]


def test_of_the_engines_questions_the_one_for_changed_inputs_is_refused_unread() -> None:
    service = proto.analyzer_pb2.DESCRIPTOR.services_by_name["Analyzer"]
    asked = {method.name: SimpleNamespace(method=f"/{service.full_name}/{method.name}") for method in service.methods}
    taken = {name: WithoutRemediation().intercept_service(lambda _: "taken", each) for name, each in asked.items()}
    assert taken == {name: None if name == "Remediate" else "taken" for name in asked}


def test_a_stacks_guardrail_sees_all_resources() -> None:
    @stack_guardrail("two-at-most")
    def two_at_most(resources: Sequence[Resource], _: Update) -> Iterator[str]:
        """There are two resources at most."""
        if len(resources) > 2:
            yield f"there are {len(resources)}"

    assert judge(two_at_most, *(Declared(INSTANCE, {}, name=f"n{each}") for each in range(3))) == ["there are 3"]


def levels(analyzer: Analyzer) -> list[int]:
    response = analyzer.Analyze(AnalyzeRequest(type=INSTANCE, urn="urn"), None)
    return [each.enforcementLevel for each in response.diagnostics]


def of_pack(name: str, level: proto.EnforcementLevel.ValueType, **settings: float) -> ConfigureAnalyzerRequest:
    """What the pack's config sets of a guardrail."""
    request = ConfigureAnalyzerRequest()
    request.policyConfig[name].enforcementLevel = level
    request.policyConfig[name].properties.update(settings)
    return request


def configured(stack: dict[str, object], pack: proto.EnforcementLevel.ValueType | None = None) -> Analyzer:
    analyzer = Analyzer("test", [imdsv2])
    if pack is not None:
        analyzer.Configure(of_pack("imdsv2", pack), None)
    analyzer.ConfigureStack(AnalyzerStackConfigureRequest(config={"fusion:guardrails": json.dumps(stack)}), None)
    return analyzer


def test_a_stack_or_the_packs_config_sets_the_level() -> None:
    assert levels(configured({})) == [proto.MANDATORY]
    assert levels(configured({"levels": {"imdsv2": "advisory"}})) == [proto.ADVISORY]
    assert levels(configured({"levels": {"imdsv2": "disabled"}})) == []
    assert levels(configured({}, proto.DISABLED)) == []
    assert levels(configured({}, proto.REMEDIATE)) == [proto.MANDATORY]
    assert levels(configured({"levels": {"imdsv2": "advisory"}}, proto.MANDATORY)) == [proto.ADVISORY]


def test_the_packs_config_holds_though_the_engine_sends_it_after_the_stacks() -> None:
    read: list[tuple[str, str]] = []
    analyzer = Analyzer("test", PACK, read_state=lambda *stack: read.append(stack) or ())
    analyzer.ConfigureStack(AnalyzerStackConfigureRequest(stack="test", config={"aws:region": "us-east-1"}), None)
    analyzer.Configure(of_pack("monthly-cost-limit", proto.MANDATORY, monthly_cost_limit_usd=50), None)
    request = AnalyzeRequest(type=INSTANCE, urn="urn", name="one")
    request.properties.update({"instanceType": "p5.48xlarge"})
    (told,) = (each for each in analyzer.Analyze(request, None).diagnostics if each.policyName == "monthly-cost-limit")
    assert "over the limit of $50.00" in told.message
    assert len(read) == 1


def test_wrong_settings_stop_the_update_and_are_told_once() -> None:
    resources = [Declared("pulumi:pulumi:Stack", {}), Declared(INSTANCE, {})]
    (told,) = judge(imdsv2, *resources, monthly_cost_limit_usd=-1)
    assert told == "fusion:guardrails.monthly_cost_limit_usd: Input should be greater than 0, got -1"
    (told, _) = judge(imdsv2, *resources, levels={"imds-v2": "advisory"})
    assert told == "fusion:guardrails.levels.imds-v2: no guardrail has this name; such as imdsv2"


def test_a_guardrail_that_fails_before_its_first_sentence_is_told_and_lets_nothing_pass() -> None:
    def judged(resource: Resource, update: Update) -> list[str]:
        """It holds."""
        return [str(resource.props.get("size") + 1)]

    (told,) = judge(guardrail("sizes")(judged), Declared(INSTANCE, {"size": "8"}))
    assert told.startswith("it could not be judged: TypeError")
    assert "not known before the update" in judge(guardrail("sizes")(judged), Declared(INSTANCE, {"size": UNKNOWN}))[0]


@given(stack=st.floats(1, 1e6), pack=st.floats(1, 1e6))
def test_the_lower_of_two_limits_holds(stack: float, pack: float) -> None:
    update = Update(
        config={"fusion:guardrails": json.dumps({"monthly_cost_limit_usd": stack})},
        pack_config={"monthly-cost-limit": {"monthly_cost_limit_usd": pack}},
    )
    assert update.settings.monthly_cost_limit_usd == min(stack, pack)


PACK = guardrails()
LIMITS = {
    "monthly_cost_limit_usd": 1e6,
    "expected_monthly_cost_limit_usd": 1e6,
    "pool_hourly_limit_usd": 100,
    "service_replicas_min": 2,
    "service_zones_min": 2,
    "regions_allowed": ["us-east-1"],
    "tags_required": ["team"],
    "image_registries_allowed": ["registry.example.com"],
    "data_class": "confidential",
}
WRONG: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        1.5,
        2.0**60,
        1e308,
        math.inf,
        math.nan,
        "",
        "x",
        "²",
        "-3",
        "1Zi",
        "[",
        "9" * 400,
        "10.0.0.0/33",
    ),
    *([], {}, [[["x"]]], [None], [{}], {"a": {"b": [1]}}, [UNKNOWN], UNKNOWN, secret("s"), secret(UNKNOWN)),
)


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Of every part of inputs."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield (*path, key)
        yield from paths(each, (*path, key))


def put(value: Any, path: Path, other: Any) -> Any:
    """Inputs with another value at a path."""
    if not path:
        return other
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], other)
    return changed


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_wrong_value_anywhere_makes_a_guardrail_of_the_pack_fail(data: st.DataObject) -> None:
    declared = []
    for number in range(data.draw(st.integers(1, 3))):
        kind, inputs = data.draw(st.sampled_from(INPUTS))
        for _ in range(data.draw(st.integers(0, 3))):
            if known := sorted(paths(inputs), key=str):
                inputs = put(inputs, data.draw(st.sampled_from(known)), data.draw(st.sampled_from(WRONG)))
        declared.append(Declared(kind, inputs, name=f"made-{number}"))
    for told in judge(PACK, *declared, **LIMITS):
        assert not re.search(r"could not be judged: \w+: ", told)  # the name of an exception that nobody foresaw


def test_the_packs_schema_gives_no_defaults_which_would_tighten_a_stacks_own_settings() -> None:
    for each in guardrails():
        fields = json_format.MessageToDict(each.info().configSchema.properties)
        assert bool(fields) == bool(each.settings)
        assert not [field for field, of in fields.items() if "default" in of]


def test_a_guardrail_of_the_stack_sees_what_is_declared_and_nothing_that_a_provider_has_yet_to_fill_in() -> None:
    @stack_guardrail("has-a-log")
    def has_a_log(resources, update):
        """Every bucket has a log."""
        yield from (f"{each.name} has none" for each in resources if not each.props.has("logging"))

    bucket, later = "aws:s3/bucket:Bucket", {"logging": UNKNOWN, "arn": UNKNOWN}
    assert judge(has_a_log, Declared(bucket, {}, outputs=later)) == ["tested has none"]
    assert judge(has_a_log, Declared(bucket, {"logging": UNKNOWN}, outputs=later)) == []
    assert judge(has_a_log, Declared(bucket, {}, outputs={"logging": {"targetBucket": "logs"}})) == []


def test_a_plan_that_can_not_be_read_is_one_short_sentence_and_not_one_by_each_guardrail() -> None:
    wrong = planned(job()).as_props() | {"pools": "none", "region": 7}
    (told,) = judge(guardrails(), Declared(PLAN_TYPE, wrong, name="plan"))
    assert told.startswith("it could not be judged: plan can't be read as a plan: region: ")
    assert "(1 more are wrong); register it as infra.plan_resource.PlanResource does" in told
    assert len(told) < 250


def test_a_plan_that_can_not_be_read_stops_the_update_whichever_guardrails_only_advise() -> None:
    wrong = planned(job()).as_props() | {"pools": "none"}
    rules = [each for each in guardrails() if PLAN_TYPE in each.types and each.name != "one-plan"]
    levels = {each.name: "advisory" for each in rules[:-1]}
    assert len(judge(rules, Declared(PLAN_TYPE, wrong), levels=levels)) == len(rules)


def test_the_deployed_state_is_read_once_and_only_where_a_limit_will_ask_for_it() -> None:
    asked: list[tuple[str, str]] = []

    def reads(**settings: object) -> int:
        asked.clear()
        judge(PACK, Declared(INSTANCE, {}), read_state=lambda *stack: asked.append(stack) or (), **settings)
        return len(asked)

    assert reads() == 0
    assert reads(monthly_cost_limit_usd=1e6) == 1
    assert reads(monthly_cost_limit_usd=1e6, is_preview=False) == 1
    assert reads(monthly_cost_increase_max_percent=10, is_preview=False) == 1
