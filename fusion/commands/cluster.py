"""`fusion cluster`: a Kubernetes control plane on this machine with the controllers of a real one, and its nodes."""

from __future__ import annotations

from collections.abc import Iterator

import click

from fusion.errors import FusionError
from fusion.nodes import PRICE_MODELS, NodesOf, PriceModel, instance_types
from fusion.stack import Stack
from fusion.stack_plan import plan_of
from localcloud.kubernetes import api_server, controllers, processes
from localcloud.provider import ProviderError
from planner.catalog import Catalog, CatalogError, UnknownOffer, load


@click.group(name="cluster")
def command() -> None:
    """Start and stop a Kubernetes control plane on this machine, and give it nodes."""


@command.command(name="up")
@click.option(
    "--region",
    "regions",
    multiple=True,
    default=("us-east-1",),
    show_default=True,
    help="A region of AWS whose instance types Karpenter may buy; several are possible.",
)
def up(regions: tuple[str, ...]) -> None:
    """Start what is not running, and say how it is reached."""
    catalog = _catalog()
    offers = [offer for region in regions for offer in catalog.find(cloud="aws", region=region)]
    if unknown := [region for region in regions if ("aws", region) not in catalog.places]:
        raise FusionError(f"--region {unknown[0]}: the catalog has no offers of AWS there")
    try:
        kubeconfig = controllers.ensure(instance_types(offers, catalog), _say)
    except processes.ControlPlaneError as error:
        raise FusionError(str(error)) from None
    _say(f"the control plane is ready; kubeconfig {kubeconfig}, context {api_server.CONTEXT}")


@command.command(name="down")
def down() -> None:
    """End it and remove its folder, objects included."""
    api_server.stop(_say)
    _say("nothing of it is left")


@command.command(name="nodes")
@click.option("--offer", "named", metavar="CLOUD:TYPE:REGION", help="Such as aws:p5.48xlarge:us-east-1.")
@click.option("--stack", "stack", help="A stack of stacks/: the nodes that its plan expects.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many of the offer.")
@click.option("--price-model", type=click.Choice(PRICE_MODELS), default="on_demand", show_default=True)
@click.option("--pool", help="The pool that they are of; the instance type unless it is said.")
def nodes(*, named: str | None, stack: str | None, count: int, price_model: PriceModel, pool: str | None) -> None:
    """Add nodes of an offer, or those of a stack's plan, which kwok plays."""
    if (named is None) == (stack is None):
        raise FusionError("give either --offer or --stack")
    catalog = _catalog()
    wanted = [_named(named, count, price_model, pool, catalog)] if named else list(_planned(str(stack), catalog))
    if not api_server.kubeconfig_file().exists():
        raise FusionError("no control plane runs here; start it with `make cluster`")
    cluster = controllers.connect()
    try:
        for each in wanted:
            for node in each.objects(catalog):
                cluster.request("POST", "/api/v1/nodes", node)
            _say(f"pool {each.pool}: {each.count} x {each.offer.instance_type}, {each.price_model}")
    except ProviderError as error:
        raise FusionError(str(error)) from None


def _named(named: str, count: int, price_model: PriceModel, pool: str | None, catalog: Catalog) -> NodesOf:
    cloud, _, rest = named.partition(":")
    instance_type, _, region = rest.partition(":")
    if not region:
        raise FusionError(f"--offer {named}: expected cloud:instance type:region, such as aws:p5.48xlarge:us-east-1")
    try:
        offer = catalog.offer(cloud, region, instance_type)
    except UnknownOffer as error:
        raise FusionError(f"--offer {named}: {error}") from None
    return NodesOf(offer, count, price_model, pool or instance_type.replace(".", "-").lower())


def _planned(name: str, catalog: Catalog) -> Iterator[NodesOf]:
    """The nodes of a stack's plan at the load that is expected, and of its system pool."""
    plan = plan_of(Stack.find(name), catalog)
    for pool in plan.pools:
        offer = catalog.offer(plan.cloud, plan.region, pool.instance_type)
        model: PriceModel = "spot" if pool.price_model == "spot" else "on_demand"
        yield NodesOf(offer, pool.nodes_expected, model, pool.name, pool.disk_gib)
    system = catalog.offer(plan.cloud, plan.region, plan.platform.system_instance_type)
    yield NodesOf(system, plan.platform.system_nodes, "on_demand", "system", plan.platform.system_disk_gib)


def _catalog() -> Catalog:
    try:
        return load()
    except CatalogError as error:
        raise FusionError(str(error)) from None


def _say(message: str) -> None:
    click.echo(f"cluster: {message}", err=True)
