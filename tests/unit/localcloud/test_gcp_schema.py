"""The declarations of Google Cloud's types name what pulumi-gcp has, and the schema was written from them."""

from __future__ import annotations

import importlib.metadata

import pytest

from localcloud.gcp.kinds import KINDS
from localcloud.gcp.schema import SCHEMA, facts
from tools.gcp_schema import ROOT as CHECKOUT
from tools.gcp_schema import Reader, _entries, _tokens, table


def test_the_schema_is_of_the_installed_pulumi_gcp_and_of_the_declared_types() -> None:
    assert SCHEMA.parsed["pulumi_gcp"] == importlib.metadata.version("pulumi-gcp")
    assert SCHEMA.parsed["resources"].keys() == KINDS.keys()


def test_the_table_in_the_docs_is_the_schemas() -> None:
    assert (CHECKOUT / "docs/local-cloud-gcp-types.md").read_text() == table(SCHEMA.parsed)


@pytest.mark.parametrize("token", KINDS)
def test_what_is_declared_is_there(token: str) -> None:
    kind, inputs = KINDS[token], facts(token)["inputs"].keys()
    assert kind.carried <= inputs
    named = {*kind.checks, *kind.references, *kind.forms, *kind.needs, *({kind.name} if kind.name else set())}
    assert {path.partition(".")[0] for path in named} <= kind.carried
    assert kind.defaults.keys() <= {*facts(token)["outputs"]}
    for path in kind.references:
        assert SCHEMA.type_at(token, path) in ("string", ["list", "string"])
    for path in (*facts(token)["replaces"], *facts(token)["kept"], *facts(token)["sets"]):
        assert SCHEMA.type_at(token, path) != "any", path


SOURCE = """
func ResourceThing() *schema.Resource {
	return &schema.Resource{
		CustomizeDiff: func(d *schema.ResourceDiff) error { return nil },
		Schema: map[string]*schema.Schema{
			"name": {Type: schema.TypeString, Required: true, ForceNew: true, Description: `a } in "text"`},
			"node_pool": {
				Type: schema.TypeList, Optional: true, Computed: true,
				Elem: &schema.Resource{Schema: nodePoolFields()},
			},
			"mode": {
				Type: schema.TypeString, Optional: true, Default: "FAST",
				ValidateFunc: verify.ValidateEnum([]string{"FAST", "SLOW", ""}),
			},
			"tags": {Type: schema.TypeSet, Optional: true, Elem: &schema.Schema{Type: schema.TypeString}}, // } "
		},
	}
}
"""
FIELDS = """
func nodePoolFields() map[string]*schema.Schema {
	return map[string]*schema.Schema{
		"size": {Type: schema.TypeInt, Required: true, ForceNew: true},
	}
}
"""


class Source:
    def functions(self, folder: str) -> dict[str, list[str]]:
        return {"ResourceThing": _tokens(SOURCE.strip()), "nodePoolFields": _tokens(FIELDS.strip())}


def test_the_generator_reads_the_providers_source() -> None:
    objects = {"NodePool": {"properties": {"size": "integer"}, "required": []}}
    inputs = {"name": "string", "nodePools": ["list", "#NodePool"], "mode": "string", "tags": ["list", "string"]}
    found = Reader(Source(), "thing", objects).facts("ResourceThing", inputs)
    assert found.replaces == ["name", "nodePools.size"]
    assert found.kept == ["nodePools"]
    assert found.sets == ["tags"]
    assert found.values == {"mode": ["FAST", "SLOW"]}
    assert found.defaults == {"mode": "FAST"}
    assert found.unnamed == []


def test_a_literal_is_split_at_its_own_commas() -> None:
    assert _entries(_tokens('"a": {b, c}, "d": f(x, y), e')) == [
        ("a", ["{", "b", ",", "c", "}"]),
        ("d", ["f", "(", "x", ",", "y", ")"]),
        ("", ["e"]),
    ]
