"""The resource types of Google Cloud that the local cloud serves, by token."""

from collections.abc import Mapping

from localcloud.gcp.kind import Kind
from localcloud.gcp.kinds import compute, container, identity, keys, logs, services, storage

KINDS: Mapping[str, Kind] = {
    kind.token: kind
    for module in (compute, container, identity, keys, logs, services, storage)
    for kind in module.KINDS
}
