"""Ways round the guardrails of security that lead nowhere: what the engine makes of a program is what is judged."""

from __future__ import annotations

import json
import re
import sys
import textwrap

from tests.engine.conftest import PACK, SAFE, Engine, record

BROKEN = re.compile(r"\[mandatory\]  ([a-z0-9-]+)  \(\S+: (\S+)\)")
UNSAFE = """
    import pulumi
    import pulumi_aws as aws

    def made(name, tokens="required", **options):
        inputs = SAFE | {"instance_type": "m6i.large", "metadata_options": {"http_tokens": tokens}}
        return aws.ec2.Instance(name, **inputs, opts=pulumi.ResourceOptions(**options))
"""


def instances(engine: Engine) -> list[str]:
    return [line for line in engine.exists() if line.startswith("ec2 i-")]


FAR = f"""
    from typing import Optional, TypedDict
    import pulumi
    from pulumi.provider.experimental import component_provider_host

    class NodesArgs(TypedDict):
        tokens: pulumi.Input[str]

    class Nodes(pulumi.ComponentResource):
        def __init__(self, name: str, args: NodesArgs, opts: Optional[pulumi.ResourceOptions] = None):
            super().__init__("far:index:Nodes", name, {{}}, opts)
            pulumi.CustomResource("aws:ec2/instance:Instance", f"{{name}}-machine", {{
                "ami": {SAFE["ami"]!r},
                "instanceType": "m6i.large",
                "associatePublicIpAddress": False,
                "metadataOptions": {{"httpTokens": args["tokens"]}},
                "rootBlockDevice": {{"volumeSize": 8, "encrypted": True, "kmsKeyId": {SAFE["root_block_device"]["kms_key_id"]!r}}},
            }}, pulumi.ResourceOptions(parent=self))
            self.register_outputs({{}})

    component_provider_host(name="far", components=[Nodes])
"""
"""A component that a plugin makes, in a process of its own."""


def install(engine: Engine, package: str, program: str) -> None:
    """Let a plugin of a package be this program."""
    record(engine)
    main = engine.folder / "plugins" / f"{package}.py"
    main.write_text(textwrap.dedent(program))
    plugin = main.with_name(f"pulumi-resource-{package}")
    plugin.write_text(f'#!/bin/sh\nexec {sys.executable} {main} "$@"\n')
    plugin.chmod(0o755)


def test_transforms_secrets_components_and_patches_hide_nothing(small: Engine) -> None:
    install(small, "far", FAR)
    small.program(
        UNSAFE
        + """
    def opened(args):
        return pulumi.ResourceTransformResult(args.props | {"metadataOptions": {"httpTokens": "optional"}}, args.opts)

    class Team(pulumi.ComponentResource):
        def __init__(self):
            super().__init__("team:index:Nodes", "nodes")
            made("in-a-component", "optional", parent=self)

    made("by-a-transform", transforms=[opened])
    made("by-an-old-transform", transformations=[lambda args: pulumi.ResourceTransformationResult(
        args.props | {"metadata_options": {"http_tokens": "optional"}}, args.opts)])
    made("as-a-secret", pulumi.Output.secret("optional"))
    Team()
    transformed = [lambda args: opened(args) if args.type_.endswith(":Instance") else None]
    for name, tokens, transforms in (("far", "optional", []), ("safe", "required", []), ("changed", "required", transformed)):
        options = pulumi.ResourceOptions(transforms=transforms)
        pulumi.ComponentResource("far:index:Nodes", name, {"tokens": tokens}, options, remote=True)
    """
    )
    names = {"by-a-transform", "by-an-old-transform", "as-a-secret", "in-a-component", "far-machine", "changed-machine"}
    assert set(BROKEN.findall(small.preview(status=None, **PACK))) == {("imdsv2", name) for name in names}
    assert "imdsv2" in small.up(status=None, **PACK)
    assert small.exists() == []


def test_what_files_render_is_judged_object_by_object(small: Engine) -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {hostNetwork: true, containers: [{name: a, image: b}]}\n"
    for name in ("alone", "first", "second"):
        (small.folder / f"{name}.yaml").write_text(pod % name)
    small.program("""
    from pulumi_kubernetes import yaml
    yaml.ConfigFile("one", file="alone.yaml")
    yaml.ConfigGroup("several", files=["first.yaml", "second.yaml"])
    """)
    broken = BROKEN.findall(small.preview(status=None, **PACK))
    for name in ("alone", "first", "second"):
        assert {("pods-no-host-access", name), ("images-by-digest", name), ("pods-not-root", name)} <= set(broken)
    assert "pods-no-host-access" in small.up(status=None, **PACK)
    assert not list(small.manifests.rglob("*.yaml"))


def test_a_value_that_is_not_known_yet_is_refused_in_preview_where_a_program_can_write_it_down(small: Engine) -> None:
    small.program(
        UNSAFE
        + """
    network = aws.ec2.Vpc("network", cidr_block="10.0.0.0/16")
    made("later", network.id.apply(lambda _: "optional"))
    """
    )
    printed = small.preview(status=None, **PACK)
    assert ("imdsv2", "later") in BROKEN.findall(printed)
    assert (
        "metadataOptions.httpTokens decides this and is not known before the update; give it a plain value" in printed
    )


def test_a_document_made_of_outputs_makes_no_noise_in_preview_and_is_judged_in_up(small: Engine) -> None:
    small.program("""
        import json
        import pulumi_aws as aws
        network = aws.ec2.Vpc("network", cidr_block="10.0.0.0/16")
        wide = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        aws.iam.Policy("wide", policy=network.id.apply(lambda _: json.dumps(wide)))
    """)
    assert "no-wildcard-permissions" not in small.preview(**PACK)
    assert ("no-wildcard-permissions", "wide") in BROKEN.findall(small.up(status=None, **PACK))
    assert not [line for line in small.exists() if line.startswith("iam")]


def test_a_provider_of_another_region_is_refused_with_all_that_it_would_make(small: Engine) -> None:
    small.configure(guardrails={"regions_allowed": ["us-east-1"]})
    small.program(
        UNSAFE
        + """
    elsewhere = aws.Provider("elsewhere", region="eu-west-1", profile="fusion-local")
    made("by-its-provider", provider=elsewhere)
    aws.sqs.Queue("by-its-own-word", kms_master_key_id="k", region="eu-west-1")
    """
    )
    found = set(BROKEN.findall(small.preview(status=None, **PACK)))
    assert found == {("data-residency", name) for name in ("elsewhere", "by-its-provider", "by-its-own-word")}
    assert "data-residency" in small.up(status=None, **PACK)
    assert small.exists() == []


def test_an_alias_and_a_replacement_are_judged_by_what_they_become(small: Engine) -> None:
    small.program(UNSAFE + '    made("before")')
    small.up(**PACK)
    before = instances(small)
    small.program(UNSAFE + '    made("after", "optional", aliases=[pulumi.Alias(name="before")])')
    assert ("imdsv2", "after") in BROKEN.findall(small.up(status=None, **PACK))
    assert instances(small) == before != []


def test_what_ignore_changes_keeps_is_judged_and_so_is_what_is_imported(small: Engine) -> None:
    small.program(UNSAFE + '    made("kept", "optional")')
    small.up()
    (there,) = [each for each in small.state() if each["type"] == "aws:ec2/instance:Instance"]
    small.program(UNSAFE + '    made("kept", ignore_changes=["metadataOptions"])')
    assert ("imdsv2", "kept") in BROKEN.findall(small.preview(status=None, **PACK))
    small.run("state", "delete", there["urn"], "--yes")
    small.program(UNSAFE + f'    made("taken-in", "optional", import_="{there["id"]}")')
    there_before = instances(small)
    assert ("imdsv2", "taken-in") in BROKEN.findall(small.preview(status=None, **PACK))
    assert ("imdsv2", "taken-in") in BROKEN.findall(small.up(status=None, **PACK))
    assert instances(small) == there_before


def test_what_only_the_provider_may_fill_in_does_not_stand_for_what_is_declared(small: Engine) -> None:
    small.configure(guardrails={"data_class": "confidential"})
    small.program("import pulumi_aws as aws\naws.s3.Bucket('bare')")
    printed = small.run("up", "--yes", status=None, **PACK)
    for said in (
        "bucket bare has no BucketPolicy",
        "has no BucketServerSide",
        "bare is confidential and keeps no access log",
    ):
        assert said in printed
    assert small.exists() == []


def test_an_id_that_is_not_known_yet_is_of_a_template_of_the_stack_and_not_of_one_that_is_only_read(
    small: Engine,
) -> None:
    record(small, "aws")
    (small.folder / "recorded").mkdir()
    foreign = {"type": "aws:ec2/launchTemplate:LaunchTemplate", "name": "foreign", "inputs": {}}
    (small.folder / "recorded" / "lt-0foreign.json").write_text(json.dumps(foreign))
    small.configure(guardrails={"levels": {"encryption-with-customer-keys": "disabled"}})
    small.program("""
        import pulumi, pulumi_aws as aws
        own, second = (
            aws.ec2.LaunchTemplate(name, metadata_options={"http_tokens": "required"}) for name in ("own", "second"))
        read = aws.ec2.LaunchTemplate.get("read", own.id.apply(lambda _: "lt-0foreign"))
        elsewhere = pulumi.StackReference(f"organization/fusion/{pulumi.get_stack()}").get_output("template")
        for name, other in (("passing", second.id), ("reading", read.id), ("referring", elsewhere)):
            specifications = [{"launch_template_id": each, "version": "$Latest"} for each in (own.id, other)]
            overrides = [{"instance_type": "m6i.large", "launch_template_specification": specifications[1]}]
            aws.autoscaling.Group(name, max_size=1, min_size=0, mixed_instances_policy={
                "launch_template": {"launch_template_specification": specifications[0], "overrides": overrides}})
    """)
    printed = small.run("up", "--yes", status=None, **PACK)
    for name, given_by in (("reading", "read"), ("referring", "organization/fusion/local")):
        assert f"{name} starts from the launch template that {given_by} names, which is not of this stack" in printed
    assert "passing starts from" not in printed
    assert small.recorded() == ["foreign"]
