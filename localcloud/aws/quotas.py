"""EC2's quotas of running vCPUs and one of FSx, which moto's Service Quotas lacks.

The local account is granted as much of each of EC2 as `GRANTED_VCPUS`, which is no default of AWS; a request for more
is granted at once.
"""

from __future__ import annotations

import json
from typing import Any

GRANTED_VCPUS = 2048.0
NAMES = {
    "L-1216C47A": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    "L-DB2E81BA": "Running On-Demand G and VT instances",
    "L-417A185B": "Running On-Demand P instances",
    "L-6E869C2A": "Running On-Demand DL instances",
    "L-2C3B7624": "Running On-Demand Trn instances",
    "L-1945791B": "Running On-Demand Inf instances",
    "L-74FC7D96": "Running On-Demand F instances",
    "L-7295265B": "Running On-Demand X instances",
    "L-43DA4232": "Running On-Demand High Memory instances",
    "L-F7808C92": "Running On-Demand HPC instances",
    "L-34B43A08": "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    "L-3819A6DF": "All G and VT Spot Instance Requests",
    "L-7212CCBC": "All P Spot Instance Requests",
    "L-85EED4F7": "All DL Spot Instance Requests",
    "L-6B0D517C": "All Trn Spot Instance Requests",
    "L-B5D1601B": "All Inf Spot Instance Requests",
    "L-88CF9481": "All F Spot Instance Requests",
    "L-E3A00192": "All X Spot Instance Requests",
    "L-8F1B9C74": "Lustre Persistent_2 storage capacity",
}
"""As Service Quotas names them."""
SERVICES = {"ec2": "Amazon Elastic Compute Cloud (Amazon EC2)", "fsx": "Amazon FSx"}
LUSTRE, LUSTRE_DEFAULT_GIB = "L-8F1B9C74", 100_800.0
"""AWS's own default."""


def install() -> None:
    """Add the operations to moto's response class; a second call changes nothing."""
    from moto.servicequotas.responses import ServiceQuotasResponse

    for operation in (get_service_quota, list_service_quotas, request_service_quota_increase):
        setattr(ServiceQuotasResponse, operation.__name__, operation)


def get_service_quota(self: Any) -> Any:
    """GetServiceQuota; of other services than EC2 and FSx it is moto's."""
    service, code = (json.loads(self.body)[key] for key in ("ServiceCode", "QuotaCode"))
    return json.dumps(
        {"Quota": _quota(self, service, code) if service in SERVICES else self.backend.get_service_quota(service, code)}
    )


def list_service_quotas(self: Any) -> Any:
    """ListServiceQuotas, of EC2 and FSx."""
    service = json.loads(self.body)["ServiceCode"]
    return json.dumps({"Quotas": [_quota(self, service, code) for code in _values(self) if _service(code) == service]})


def request_service_quota_increase(self: Any) -> Any:
    """RequestServiceQuotaIncrease: granted at once, where AWS looks at it first."""
    asked = json.loads(self.body)
    quota = _quota(self, asked["ServiceCode"], asked["QuotaCode"])
    if asked["DesiredValue"] <= quota["Value"]:
        _refuse("IllegalArgumentException", f"The desired value must be greater than {quota['Value']:g}", 400)
    _values(self)[asked["QuotaCode"]] = float(asked["DesiredValue"])
    names = ("ServiceCode", "ServiceName", "QuotaCode", "QuotaName", "QuotaArn", "GlobalQuota", "Unit")
    request = {name: quota[name] for name in names}
    return json.dumps({"RequestedQuota": {**request, "DesiredValue": asked["DesiredValue"], "Status": "APPROVED"}})


def _values(response: Any) -> dict[str, float]:
    """By code, kept on moto's own backend so that they live and are reset with it."""
    granted = dict.fromkeys(NAMES, GRANTED_VCPUS) | {LUSTRE: LUSTRE_DEFAULT_GIB}
    kept: dict[str, float] = response.backend.__dict__.setdefault("own_quotas", granted)
    return kept


def _service(code: str) -> str:
    return "fsx" if code == LUSTRE else "ec2"


def _quota(response: Any, service: str, code: str) -> dict[str, Any]:
    value = _values(response).get(code)
    if value is None or _service(code) != service:
        _refuse("NoSuchResourceException", f"{service} has no quota {code}.", 404)
    return {
        "ServiceCode": service,
        "ServiceName": SERVICES[service],
        "QuotaArn": f"arn:aws:servicequotas:{response.region}:{response.current_account}:{service}/{code}",
        "QuotaCode": code,
        "QuotaName": NAMES[code],
        "Value": value,
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }


def _refuse(code: str, message: str, status: int) -> None:
    from moto.core.exceptions import JsonRESTError

    error = JsonRESTError(code, message)
    error.code = status
    raise error
