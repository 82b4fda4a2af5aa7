"""SkyPilot as a peer: its own environment from the package registry, and Fusion's catalog in its format.

SkyPilot's catalog prices a Google Cloud GPU apart from its host and adds both; here the parts are such that each sum is
the price in Fusion's catalog. TPUs are left out: SkyPilot names slices otherwise. Accelerators that SkyPilot names
otherwise are renamed.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from planner.catalog import Catalog, Offer
from tools.setup import CACHE, find_uv

VERSION = "0.14.1"
PEER = Path(__file__).with_name("skypilot_peer.py")
CATALOG = Path(".sky") / "catalogs" / "v8"
NAMES: Mapping[str, str] = {"A100-40GB": "A100", "V100-16GB": "V100"}
COLUMNS = (
    "InstanceType",
    "AcceleratorName",
    "AcceleratorCount",
    "vCPUs",
    "MemoryGiB",
    "Price",
    "SpotPrice",
    "Region",
    "AvailabilityZone",
    "GpuInfo",
    "Arch",
)
EMPTY: Mapping[str, str] = {
    "images.csv": "Tag,Region,OS,OSVersion,ImageId,CreationDate",
    "accelerator_quota_mapping.csv": "Accelerator,OnDemandInstanceCode,SpotInstanceCode",
    "instance_quota_mapping.csv": "InstanceType,OnDemandInstanceCode,SpotInstanceCode",
}
HOME = "us-central1"
"""Whose hosts of attached GPUs stand in for regions without a price of their own."""
PRICES: Mapping[str, str] = {"price_usd_per_hour": "Price", "spot_price_usd_per_hour": "SpotPrice"}
Row = dict[str, Any]


def environment() -> Path:
    """The Python of an environment that holds SkyPilot and nothing of Fusion's; made once a user."""
    folder = CACHE / "benchmarks" / f"skypilot-{VERSION}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        uv = find_uv()
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, f"skypilot=={VERSION}"], check=True)
        (folder / "ready").touch()
    return python


def ask(folder: Path, question: Mapping[str, Any]) -> dict[str, Any]:
    """What the peer answers, in a process of its own whose home and catalog are in `folder`."""
    asked, answered = folder / "demands.json", folder / "answers.json"
    asked.write_text(json.dumps(question))
    settings = {"HOME": str(folder), "SKY_RUNTIME_DIR": str(folder), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run(
        [environment(), PEER, asked, answered], env=os.environ | settings, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"SkyPilot's process ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    answers: dict[str, Any] = json.loads(answered.read_text())
    return answers


def write_catalog(folder: Path, catalog: Catalog) -> None:
    """Fusion's offers as SkyPilot reads them, without the `.meta` files that would have it look for newer ones."""
    rows: dict[str, list[Row]] = {"aws": [], "azure": [], "gcp": []}
    for offer in catalog.offers:
        if offer.cloud != "gcp" or offer.accelerator is None:
            rows[offer.cloud].append(_row(offer))
    rows["gcp"] += _google_parts(catalog)
    for cloud, held in rows.items():
        home = folder / CATALOG / cloud
        home.mkdir(parents=True)
        with (home / "vms.csv").open("w", newline="", encoding="utf-8") as file:
            columns = [each for each in COLUMNS if cloud != "azure" or each != "AvailabilityZone"]  # Azure has no zones
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(held)
        for name, header in EMPTY.items():
            (home / name).write_text(header + "\n", encoding="utf-8")
    common = folder / CATALOG / "common"
    common.mkdir()
    (common / "accelerators.csv").write_text("AcceleratorName,Clouds\n", encoding="utf-8")
    (common / "metadata.csv").write_text("GPU,MemoryGB,Manufacturer\n", encoding="utf-8")


def name(accelerator: str) -> str:
    """As SkyPilot calls it."""
    return NAMES.get(accelerator, accelerator)


def _row(offer: Offer) -> Row:
    return {
        "InstanceType": offer.instance_type,
        "AcceleratorName": name(offer.accelerator) if offer.accelerator else "",
        "AcceleratorCount": offer.accelerator_count or "",
        "vCPUs": offer.vcpus,
        "MemoryGiB": offer.memory_gib,
        "Price": offer.price_usd_per_hour,
        "SpotPrice": offer.spot_price_usd_per_hour,
        "Region": offer.region,
        "AvailabilityZone": f"{offer.region}-a",
        "GpuInfo": "{}" if offer.accelerator else "",
        "Arch": offer.architecture,
    }


def _google_parts(catalog: Catalog) -> Iterable[Row]:
    """A row for the accelerators and one for each host that they come with; the two prices add up to the offer's."""
    groups: dict[tuple[str, float, str], list[Offer]] = {}
    for offer in catalog.find(cloud="gcp"):
        if offer.accelerator and catalog.accelerators[offer.accelerator].kind == "gpu":
            groups.setdefault((offer.accelerator, offer.accelerator_count, offer.region), []).append(offer)
    hosts = {(each.region, each.instance_type): each for each in catalog.find(cloud="gcp") if each.accelerator is None}
    for offers in groups.values():
        attached = offers[0].instance_type.startswith("n1-")  # to a host that is sold without it as well
        if attached:
            region, host_type = offers[0].region, offers[0].instance_type.split("+")[0]
            host = hosts.get((region, host_type))
            held = [] if host else [_row(dataclasses.replace(hosts[HOME, host_type], region=region))]
            host = hosts.setdefault((region, host_type), hosts[HOME, host_type])
            part = {price: _less(getattr(offers[0], price), getattr(host, price)) for price in PRICES}
        else:
            part = {price: _least(offers, price) for price in PRICES}
            held = [
                _row(each)
                | {"AcceleratorName": "", "AcceleratorCount": "", "GpuInfo": ""}
                | {PRICES[price]: _less(getattr(each, price), part[price]) for price in PRICES}
                for each in offers
            ]
        without_host = {"InstanceType": "", "vCPUs": "", "MemoryGiB": ""}
        yield _row(offers[0]) | {PRICES[price]: part[price] for price in PRICES} | without_host
        yield from held


def _least(offers: Sequence[Offer], field: str) -> float | None:
    return min((price for each in offers if (price := getattr(each, field)) is not None), default=None)


def _less(price: float | None, part: float | None) -> float | None:
    return None if price is None or part is None else price - part
