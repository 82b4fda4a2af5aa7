"""What a review reads from an event log: the verdict, the bill, guardrails, changes; and which files it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusion.commands.report import command
from fusion.errors import FusionError
from fusion.review.changes import changes
from fusion.review.events import read
from fusion.review.markdown import markdown
from fusion.review.review import Review, review
from fusion.review.stateful import held_by
from planner.catalog import load
from tests.unit.report.logs import error, log, passed, replaced, secret, step, urn, violation

VOLUME = "aws:ebs/volume:Volume"
GROUP = "aws:eks/nodeGroup:NodeGroup"
INSTANCE = "aws:ec2/instance:Instance"
RESERVATION = "aws:ec2/capacityReservation:CapacityReservation"
REGION = {"aws:region": "us-east-1"}


def reviewed(folder: Path, text: str, **options) -> Review:
    path = folder / "log.jsonl"
    path.write_text(text)
    return review(read(path), load(), **options)


def outcome(found: Review, name: str = "monthly-cost-limit") -> str:
    return next(each.outcome for each in found.guardrails if each.name == name)


def group(minimum: int, desired: int, maximum: int) -> dict:
    return {
        "instanceTypes": ["g5.xlarge"],
        "launchTemplate": {"id": "lt-1"},
        "scalingConfig": {"minSize": minimum, "desiredSize": desired, "maxSize": maximum},
    }


def test_a_pool_outside_any_plan_is_priced_at_each_bound_of_its_autoscaler(tmp_path):
    found = reviewed(tmp_path, log(step("update", GROUP, "pool", group(0, 1, 2), group(0, 1, 4)), config=REGION))
    disk = 20 * load().service_price("aws", "us-east-1", "block_storage_gib").price_usd
    each = 730 * load().offer("aws", "us-east-1", "g5.xlarge").price_usd_per_hour + disk
    total = found.cost.total
    assert (total.before.min, total.before.expected, total.before.max) == pytest.approx((0, each, 2 * each))
    assert total.difference.max == pytest.approx(2 * each)
    assert total.difference.expected == 0
    assert [each.name for each in found.cost.components] == ["outside the plan"]


def test_disks_of_a_launch_template_and_reserved_capacity_are_priced_as_the_guardrail_prices_them(tmp_path):
    mapped = {"blockDeviceMappings": [{"ebs": {"volumeSize": 100, "volumeType": "gp3"}}]}
    target = {"capacityReservationSpecification": {"capacityReservationTarget": {"capacityReservationId": "cr-1"}}}
    found = reviewed(
        tmp_path,
        log(
            step("create", GROUP, "pool", None, group(0, 0, 1)),
            step("create", "aws:ec2/launchTemplate:LaunchTemplate", "pool", None, mapped),
            step("create", RESERVATION, "kept", None, {"instanceType": "p5.48xlarge", "instanceCount": 1}),
            step("create", INSTANCE, "one", None, {"instanceType": "p5.48xlarge"} | target),
            config=REGION,
        ),
    )
    hourly = {name: load().offer("aws", "us-east-1", name).price_usd_per_hour for name in ("g5.xlarge", "p5.48xlarge")}
    disk = load().service_price("aws", "us-east-1", "block_storage_gib").price_usd
    assert found.cost.total.after.max == pytest.approx(730 * sum(hourly.values()) + (100 + 8) * disk)


def test_a_resource_is_priced_where_its_provider_is(tmp_path):
    provider = step("create", "pulumi:providers:aws", "far", None, {"region": "eu-west-1"})
    volume = step("create", VOLUME, "data", None, {"size": 100}, provider=f"{urn('pulumi:providers:aws', 'far')}::id")
    here, far = (
        reviewed(tmp_path, log(*events, config=REGION)).cost
        for events in ([step("create", VOLUME, "data", None, {"size": 100})], [provider, volume])
    )
    price = {
        region: load().service_price("aws", region, "block_storage_gp2_gib").price_usd
        for region in ("us-east-1", "eu-west-1")
    }
    assert here.total.after.max == pytest.approx(100 * price["us-east-1"])
    assert far.total.after.max == pytest.approx(100 * price["eu-west-1"])


def test_what_is_deployed_is_priced_where_it_is_and_not_where_the_change_takes_it(tmp_path):
    provider = step("replace", "pulumi:providers:aws", "default", {"region": "us-east-1"}, {"region": "eu-west-1"})
    moved = step("replace", VOLUME, "moved", {"size": 100}, {"size": 100})
    states = moved["resourcePreEvent"]["metadata"]
    states["old"]["provider"] = states["new"]["provider"] = provider["resourcePreEvent"]["metadata"]["urn"] + "::id"
    told = step("update", VOLUME, "told", {"size": 100}, {"size": 100})
    told["resourcePreEvent"]["metadata"]["old"]["outputs"] = {"region": "us-east-1"}
    found = reviewed(tmp_path, log(provider, moved, told, config={"aws:region": "eu-west-1"}))
    usd = {
        region: 100 * load().service_price("aws", region, "block_storage_gp2_gib").price_usd
        for region in ("us-east-1", "eu-west-1")
    }
    for line in found.cost.resources:
        assert (line.before.max, line.after.max) == (usd["us-east-1"], usd["eu-west-1"])


def test_what_has_no_price_is_named_and_not_counted_as_nothing(tmp_path):
    found = reviewed(
        tmp_path,
        log(step("create", VOLUME, "a", None, {"size": 8}), step("create", VOLUME, "b", None, {}), config=REGION),
    )
    assert any(note.startswith("b (aws:ebs/volume:Volume) is not priced") for note in found.cost.notes)


def test_a_replacement_is_one_change_and_told_as_a_loss_where_the_resource_holds_data(tmp_path):
    found = reviewed(
        tmp_path,
        log(
            *replaced(
                VOLUME,
                "data",
                {"size": 8, "availabilityZone": "a"},
                {"size": 8, "availabilityZone": "b"},
                "availabilityZone",
            )
        ),
    )
    (change,) = found.changes
    (zone,) = change.properties
    assert (change.kind, change.loses) == ("replace", "its data")
    assert (zone.path, zone.before, zone.after, zone.forces_replacement) == ("availabilityZone", "a", "b", True)
    assert found.lost == (change,)


def test_what_is_retained_is_not_lost(tmp_path):
    found = reviewed(tmp_path, log(step("delete", VOLUME, "data", {"size": 8}, retainOnDelete=True)))
    assert found.lost == () and found.changes[0].is_kept


@pytest.mark.parametrize(
    ("type_", "holds"),
    [
        ("aws:s3/bucket:Bucket", True),
        ("aws:s3/bucketV2:BucketV2", True),
        ("aws:s3/bucketPolicy:BucketPolicy", False),
        ("gcp:storage/bucket:Bucket", True),
        ("kubernetes:core/v1:PersistentVolumeClaim", True),
        ("kubernetes:apps/v1:StatefulSet", True),
        ("kubernetes:apps/v1beta1:StatefulSet", True),
        ("kubernetes:apps/v1:Deployment", False),
        ("aws:eks/cluster:Cluster", True),
        ("custom:thing", False),
    ],
)
def test_which_types_hold_what_can_not_be_made_again(type_, holds):
    assert (held_by(type_) is not None) == holds


def test_a_guardrail_is_passed_violated_advised_not_set_not_judged_or_disabled(tmp_path):
    limited = REGION | {"fusion:guardrails": json.dumps({"monthly_cost_limit_usd": 10})}
    disabled = REGION | {"fusion:guardrails": json.dumps({"levels": {"monthly-cost-limit": "disabled"}})}
    one, other = urn(VOLUME, "a"), urn(VOLUME, "b")
    name = "monthly-cost-limit"
    broken = violation(name, "The stack costs no more a month than its limit, at the autoscaler's maximum.\nby $5", one)
    advice = {"policyEvent": broken["policyEvent"] | {"enforcementLevel": "advisory"}}
    for events, config, expected in (
        ([passed(one, name), passed(other, name)], limited, "passed"),
        ([passed(one, name)], REGION, "not set"),
        ([passed(one, name), broken], limited, "violated"),
        ([passed(one, name), advice], limited, "advisory"),
        ([passed(one, name, "more"), passed(other, "more")], limited, "not judged"),
        ([passed(one, "more"), passed(other, "more")], limited, "disabled"),
        ([passed(one, name)], disabled, "disabled"),
        ([], limited, "not judged"),
        ([passed(one, name), error("half way")], limited, "not judged"),
    ):
        assert outcome(reviewed(tmp_path, log(*events, config=config))) == expected
    found = reviewed(tmp_path, log(broken, passed(other, name), config=limited, result="failed"))
    assert found.verdict.kind == "blocked" and found.notes == ()
    assert [each.message for each in found.guardrails[0].findings] == ["by $5"]


def test_a_guardrail_of_the_whole_stack_is_passed_where_the_stack_passed(tmp_path):
    name = "buckets-have-policies"
    of_stack = {"policyAnalyzeStackSummaryEvent": {"policyPackName": "fusion", "passed": [name]}}
    unknown = {"policyAnalyzeStackSummaryEvent": {"policyPackName": "fusion"}}
    resource = passed(urn(VOLUME, "a"), "monthly-cost-limit")
    assert outcome(reviewed(tmp_path, log(resource, of_stack)), name) == "passed"
    assert outcome(reviewed(tmp_path, log(resource, unknown)), name) == "not judged"
    assert outcome(reviewed(tmp_path, log(resource)), name) == "not judged"


def test_without_a_pack_the_programs_own_words_are_a_violation(tmp_path):
    found = reviewed(tmp_path, log(error("monthly-cost-limit: over by $5"), result="failed"))
    assert (found.verdict.kind, outcome(found), found.errors) == ("blocked", "violated", ())


def test_a_preview_that_failed_says_so_first_and_what_its_numbers_lack(tmp_path):
    found = reviewed(tmp_path, log(step("create", VOLUME, "a", None, {"size": 8}), error("half way"), result="failed"))
    assert found.verdict.kind == "failed"
    assert [each.message for each in found.errors] == ["half way"]
    assert "ended early" in found.notes[0]


def test_a_change_where_none_was_expected_is_drift(tmp_path):
    text = log(step("update", VOLUME, "a", {"size": 8}, {"size": 9}, {"size": "update"}))
    assert reviewed(tmp_path, text, expects_no_changes=True).verdict.kind == "drifted"
    assert reviewed(tmp_path, text).verdict.kind == "changes"


def test_secrets_are_hidden_by_mark_by_name_by_type_and_where_only_one_side_is_marked(tmp_path):
    pairs = [
        ("aws:rds/instance:Instance", "password", "hunter1", "hunter2"),
        ("aws:sqs/queue:Queue", "hint", secret(), "hunter3"),
        ("aws:sqs/queue:Queue", "tags", {"a": "hunter4"}, {"a": secret()}),
        ("kubernetes:core/v1:Secret", "stringData", {"a": "hunter5"}, {"a": "hunter6"}),
        ("kubernetes:apps/v1:Deployment", "spec", {"env": [{"name": "DB_PASSWORD", "value": "hunter7"}]}, {}),
        ("aws:sqs/queue:Queue", "encryptionPassword", "hunter9", "hunter10"),
        ("aws:ecs/taskDefinition:TaskDefinition", "containerDefinitions", '[{"secret_key": "hunter8"}]', "[]"),
    ]
    events = [
        step("update", type_, f"r{at}", {key: old}, {key: new}, {key: "update"})
        for at, (type_, key, old, new) in enumerate(pairs)
    ]
    found = reviewed(tmp_path, log(*events))
    assert "hunter" not in json.dumps(found.as_json())
    assert all("[secret]" in str(each.properties) for each in found.changes)


def test_what_has_the_form_of_a_credential_is_hidden_in_values_and_messages(tmp_path):
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIhunter\n-----END RSA PRIVATE KEY-----"
    token = "ghp_" + "hunter" * 7
    events = [
        step(
            "update",
            "aws:sqs/queue:Queue",
            "q",
            {"name": token, "note": key},
            {"name": "x", "note": "y"},
            {"name": "update", "note": "update"},
        ),
        violation("some-policy", f"name is {token}", urn(VOLUME, "a")),
        error(f"could not read {key} or {token}"),
    ]
    found = reviewed(tmp_path, log(*events, result="failed"))
    assert "hunter" not in json.dumps(found.as_json())
    assert found.errors[0].message == "could not read [secret] or [secret]"


def test_a_name_that_only_sounds_secret_is_shown(tmp_path):
    options = {"metadataOptions": {"httpTokens": "optional"}}, {"metadataOptions": {"httpTokens": "required"}}
    found = reviewed(
        tmp_path,
        log(step("update", "aws:ec2/instance:Instance", "a", *options, {"metadataOptions.httpTokens": "update"})),
    )
    assert (found.changes[0].properties[0].before, found.changes[0].properties[0].after) == ("optional", "required")


def test_the_order_does_not_depend_on_the_engines(tmp_path):
    events = [step("create", VOLUME, f"v{number}", None, {"size": number + 1}) for number in range(5)]
    path = tmp_path / "log.jsonl"
    orders = []
    for ordered in (events, events[::-1]):
        path.write_text(log(*ordered))
        orders.append([each.name for each in changes(read(path))])
    assert orders[0] == orders[1]


def test_a_digest_of_pulumi_is_read_too_and_says_what_it_lacks(tmp_path):
    state = {"type": VOLUME, "urn": urn(VOLUME, "a"), "custom": True, "inputs": {"size": 8}}
    digest = {
        "config": REGION,
        "steps": [{"op": "create", "urn": urn(VOLUME, "a"), "newState": state, "detailedDiff": None}],
        "diagnostics": [{"message": "careful\n", "prefix": "warning: ", "severity": "warning"}],
        "duration": 1,
        "changeSummary": {"create": 1},
    }
    found = reviewed(tmp_path, json.dumps(digest, indent=4))
    assert (found.stack, dict(found.counts)) == ("prod", {"create": 1})
    assert found.cost.total.after.max > 0
    assert outcome(found) == "not judged"
    assert any("only what changes" in note for note in found.cost.notes)
    assert [each.message for each in found.warnings] == ["careful"]


WHOLE = log(step("create", VOLUME, "a", None, {"size": 8}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# a heading\n", "line 1 is no JSON"),
        ('{"name": "package"}', "is JSON of something else"),
        ("[1, 2]", "is JSON of something else"),
        ('{\n  "config": {', "line 1 is cut off or no JSON"),
        (WHOLE[: len(WHOLE) // 2], "is cut off in line 2"),
        ("".join(WHOLE.splitlines(keepends=True)[:2]), "is cut off: it has no end"),
        (
            '{"sequence": 1, "timestamp": 1, "resourcePreEvent": {"metadata": 7}}\n{"sequence": 2, "cancelEvent": {}}',
            "is damaged",
        ),
        ('{"level": "info"}\n{"level": "info"}\n', "line 1 is no event"),
    ],
)
def test_a_file_of_something_else_is_one_sentence(tmp_path, text, said):
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    ran = CliRunner().invoke(command, [str(path)])
    assert isinstance(ran.exception, FusionError)
    assert f"{path}: {said}" in str(ran.exception)


def test_a_text_of_the_log_may_hold_what_ends_lines_elsewhere(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        log(error("first\\u0085second\\u2028third")).replace("\\\\u0085", "\x85").replace("\\\\u2028", "\u2028")
    )
    assert [each.message for each in read(path).errors] == ["first\x85second\u2028third"]


def test_a_file_that_is_not_there_or_no_text_is_one_sentence(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, said in (("none", "No such file"), ("binary", "is not text")):
        ran = CliRunner().invoke(command, [str(tmp_path / name)])
        assert isinstance(ran.exception, FusionError) and said in str(ran.exception)


def test_a_report_without_a_file_to_write_is_printed(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(WHOLE)
    assert CliRunner().invoke(command, [str(path)]).output.startswith("<!-- fusion:prod -->")
    ran = CliRunner().invoke(command, [str(path), "--markdown", str(tmp_path / "no" / "m.md")])
    assert "can't be written" in str(ran.exception)


VALUE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.just([])
    | st.just({})
    | st.just([1])
    | st.just({"a": 1})
)


def places(value, path=()):
    """The paths of all values inside of one."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield (*path, key)
        yield from places(each, (*path, key))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_a_log_with_any_value_in_a_wrong_place_is_read_or_refused_in_one_sentence(tmp_path, data):
    events = [json.loads(line) for line in damaged_source().splitlines()]
    event = data.draw(st.sampled_from(events))
    path = data.draw(st.sampled_from(list(places(event))))
    at = event
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = data.draw(VALUE)
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in events))
    try:
        markdown(review(read(file), load()))
    except FusionError as error:
        assert "\n" not in str(error)


def damaged_source() -> str:
    config = REGION | {
        "fusion:guardrails": '{"monthly_cost_limit_usd": 1}',
        "fusion:workloads": '[{"name": "a", "target": {}}]',
    }
    events = [
        step("update", GROUP, "pool", group(0, 1, 2), group(0, 1, 4), {"scalingConfig.maxSize": "update"}),
        *replaced(VOLUME, "data", {"size": 8}, {"size": 9}, "size"),
        step("create", "fusion:platform:Plan", "plan", None, {"pools": []}),
        passed(urn(VOLUME, "data"), "monthly-cost-limit"),
        violation("monthly-cost-limit", "by $5", urn(VOLUME, "data")),
        error("half way"),
    ]
    return log(*events, config=config)


def test_a_limit_of_nothing_is_a_limit(tmp_path):
    limits = {"fusion:guardrails": json.dumps({"monthly_cost_increase_max_percent": 0})}
    found = reviewed(tmp_path, log(passed("urn:a", "monthly-cost-increase"), config=limits))
    assert outcome(found, "monthly-cost-increase") == "passed"
    assert outcome(reviewed(tmp_path, log(passed("urn:a", "imdsv2"))), "monthly-cost-increase") == "not set"


def test_a_stack_without_a_limit_of_cost_is_told_so_in_one_line(tmp_path):
    def told(**limits: object) -> list[str]:
        config = {"fusion:guardrails": json.dumps(limits)}
        found = reviewed(tmp_path, log(passed("urn:a", "imdsv2"), config=config))
        return [each for each in markdown(found).splitlines() if "No limit set" in each]

    assert len(told()) == 1
    assert told(monthly_cost_limit_usd=10) == told(workload_cost_limits_usd={"chat": 10}) == []
