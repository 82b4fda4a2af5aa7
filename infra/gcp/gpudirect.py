"""How GPUs of several nodes send to each other past the CPU: the networks that it takes, and what a pod does to join.

Three kinds, by machine type (`machine_rules.csv`). The NCCL plugins themselves come onto the nodes by Google's own
DaemonSets (`gpudirect-*/nccl-*-installer.yaml`; for TCPX and TCPXO also `nri-device-injector.yaml`), which a stack
pins among its manifests.

Sources: "Maximize GPU network bandwidth in Standard mode clusters", "Allocate network resources by using GKE managed
DRANET" and "Create a custom AI-optimized GKE cluster" (GKE); GoogleCloudPlatform/container-engine-accelerators at
992db81: `gpudirect-tcpx/nccl-test-unprivileged-without-hostnetwork.yaml` and `nccl-config.yaml`,
`gpudirect-tcpxo/nccl-test-unprivileged-without-hostnetwork.yaml`, `README.md` (release of January 9, 2026) and
`best-practice.md`, `gpudirect-rdma/nccl-test-managed-rdma.yaml`. All read 2026-11-28.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_gcp as gcp

from infra.accelerator_pool import Daemon, Fabric
from infra.names import short_name

TCPX, TCPXO, RDMA = "TCPX", "TCPXO", "RDMA"
NETWORKS = {TCPX: 4, TCPXO: 8}
"""Networks by kind, one a network interface beside the first; those of RDMA are GKE's own."""
MTU = 8_244
RANGES = ("192.168.0.0/16", "172.16.0.0/16", "10.0.0.0/16")
"""The first that is not a cluster's own holds the networks' subnets."""
SUBNET_PREFIX = 20
NETWORK_API = "networking.gke.io/v1"
NAME_MAX = 63
LIBRARIES, NODE_LIBRARIES = "/usr/local/nvidia/lib64", "/home/kubernetes/bin/nvidia/lib64"
"""Where the installers put NCCL and its plugin, in a container and on the node."""
GPUS = 8
"""Of a node of any of these machine types; a pod that joins has all of them."""
DRANET_LABEL = {"cloud.google.com/gke-networking-dra-driver": "true"}
"""Of a node pool whose RDMA interfaces are claimed by pods."""
DRANET_KUBERNETES_MIN = (1, 34)
RDMA_CLASS = "mrdma.google.com"
"""The DeviceClass of those interfaces, which GKE makes."""
PROFILE_LABEL = {"gke.networks.io/accelerator-network-profile": "auto"}
"""Of nodes whose further networks GKE made; a pod on them selects it."""
TUNERS = {"a3-ultragpu-8g": "tuner_config_a3u.txtpb", "a4-highgpu-8g": "tuner_config_a4.txtpb"}
GIB = "/usr/local/gib"


@dataclass(frozen=True, slots=True)
class GpuNetwork:
    """A network that one interface of each node is in.

    Attributes:
        name: of its objects in Kubernetes, by which pods join it.
        network, subnet: their names in the cloud.
        made: the two, for what must wait for them.
    """

    name: str
    network: str
    subnet: str
    made: tuple[pulumi.Resource, ...]

    def objects(self) -> Iterator[dict[str, Any]]:
        """What tells GKE of it."""
        spec = {"vpc": self.network, "vpcSubnet": self.subnet, "deviceMode": "NetDevice"}
        named = {"apiVersion": NETWORK_API, "metadata": {"name": self.name}}
        yield {**named, "kind": "GKENetworkParamSet", "spec": spec}
        reference = {"group": "networking.gke.io", "kind": "GKENetworkParamSet", "name": self.name}
        yield {**named, "kind": "Network", "spec": {"type": "Device", "parametersRef": reference}}


def make_network(
    cluster: str, index: int, region: str, taken: Iterable[str], opts: pulumi.ResourceOptions
) -> GpuNetwork:
    """The network of one interface: a VPC, its only subnet, and a firewall that lets the nodes' interfaces through.

    Args:
        cluster: the names begin with it.
        index: of the interface, from 1.
        region: of the subnet.
        taken: the cluster's own ranges.
    """
    whole = free_range(taken)
    name = short_name(f"{cluster}-gpu-{index}", NAME_MAX)
    network = gcp.compute.Network(
        name, name=name, auto_create_subnetworks=False, routing_mode="REGIONAL", mtu=MTU, opts=opts
    )
    subnet = gcp.compute.Subnetwork(
        name,
        name=name,
        network=network.id,
        region=region,
        ip_cidr_range=str(list(whole.subnets(new_prefix=SUBNET_PREFIX))[index]),
        private_ip_google_access=True,
        opts=opts,
    )
    gcp.compute.Firewall(
        f"{name}-inside",
        network=network.id,
        direction="INGRESS",
        source_ranges=[str(whole)],
        allows=[gcp.compute.FirewallAllowArgs(protocol=each) for each in ("tcp", "udp", "icmp")],
        opts=opts,
    )
    return GpuNetwork(f"gpu-{index}", name, name, (network, subnet))


def free_range(taken: Iterable[str]) -> ipaddress.IPv4Network:
    """The range that holds the subnets, away from those that the nodes' first interface reaches."""
    own = [ipaddress.IPv4Network(each) for each in taken]
    free = (ipaddress.IPv4Network(each) for each in RANGES)
    return next(each for each in free if not any(each.overlaps(other) for other in own))


def fabric(kind: str, machine_type: str, images: Mapping[str, str]) -> Fabric:
    """What a pod with a whole node does to use it.

    Args:
        kind: `TCPX`, `TCPXO` or `RDMA`.
        images: of the daemons, by kind.
    """
    if kind == RDMA:
        return _rdma(machine_type)
    return _tcpxo(images[TCPXO]) if kind == TCPXO else _tcpx(images[TCPX])


def _tcpx(image: str) -> Fabric:
    """The daemon and NCCL's plugin find each other by sockets in a folder of the pod's."""
    daemon, sockets = "tcpx-daemon", "/run/tcpx"
    words = "--gpu_nic_preset a3vm --gpu_shmem_type fd --uds_path /run/tcpx --setup_param"
    return Fabric(
        annotations=_annotations(daemon, TCPX),
        environment={
            "LD_LIBRARY_PATH": LIBRARIES,
            "NCCL_SOCKET_IFNAME": "eth0",
            "NCCL_ALGO": "Ring,Tree",
            "NCCL_PROTO": "Simple",
            "NCCL_CROSS_NIC": "0",
            "NCCL_NET_GDR_LEVEL": "PIX",
            "NCCL_P2P_PXN_LEVEL": "0",
            "NCCL_GPUDIRECTTCPX_SOCKET_IFNAME": _interfaces(TCPX),
            "NCCL_GPUDIRECTTCPX_CTRL_DEV": "eth0",
            "NCCL_GPUDIRECTTCPX_UNIX_CLIENT_PREFIX": sockets,
            "NCCL_DYNAMIC_CHUNK_SIZE": "524288",
            "NCCL_P2P_NET_CHUNKSIZE": "524288",
            "NCCL_P2P_PCI_CHUNKSIZE": "524288",
            "NCCL_P2P_NVL_CHUNKSIZE": "1048576",
            "NCCL_BUFFSIZE": "4194304",
            "NCCL_NSOCKS_PERTHREAD": "4",
            "NCCL_SOCKET_NTHREADS": "1",
            "NCCL_GPUDIRECTTCPX_TX_BINDINGS": (
                "eth1:8-21,112-125;eth2:8-21,112-125;eth3:60-73,164-177;eth4:60-73,164-177"
            ),
            "NCCL_GPUDIRECTTCPX_RX_BINDINGS": (
                "eth1:22-35,126-139;eth2:22-35,126-139;eth3:74-87,178-191;eth4:74-87,178-191"
            ),
            "NCCL_GPUDIRECTTCPX_PROGRAM_FLOW_STEERING_WAIT_MICROS": "500000",
        },
        node_paths={LIBRARIES: NODE_LIBRARIES},
        shared_path=sockets,
        daemon=Daemon(
            name=daemon,
            image=image,
            # Its sockets are for the pod's own user, who is not root.
            script=rf"umask 0; exec /tcpgpudmarxd/build/app/tcpgpudmarxd {words} '\"--verbose 128 2 0 \"'",
            capabilities=("NET_ADMIN",),
            environment={"LD_LIBRARY_PATH": LIBRARIES},
            node_paths=_of_daemon(),
        ),
    )


def _tcpxo(image: str) -> Fabric:
    daemon, devices = "tcpxo-daemon", "/dev/aperture_devices"
    return Fabric(
        annotations=_annotations(daemon, TCPXO, "/dev/dmabuf_import_helper"),
        environment={
            "LD_LIBRARY_PATH": LIBRARIES,
            "NCCL_FASTRAK_CTRL_DEV": "eth0",
            "NCCL_FASTRAK_IFNAME": _interfaces(TCPXO),
            "NCCL_FASTRAK_LLCM_DEVICE_DIRECTORY": devices,
            "NCCL_SOCKET_IFNAME": "eth0",
            "NCCL_CROSS_NIC": "0",
            "NCCL_PROTO": "Simple,LL128",
            "NCCL_MIN_NCHANNELS": "4",
            "NCCL_TUNER_PLUGIN": "libnccl-tuner.so",
            "NCCL_TUNER_CONFIG_PATH": f"{LIBRARIES}/a3plus_tuner_config.textproto",
            "NCCL_SHIMNET_GUEST_CONFIG_CHECKER_CONFIG_FILE": f"{LIBRARIES}/a3plus_guest_config.textproto",
            "CUDA_VISIBLE_DEVICES": ",".join(str(each) for each in range(GPUS)),
            "NCCL_NVLSTREE_MAX_CHUNKSIZE": "131072",
            "NCCL_P2P_NET_CHUNKSIZE": "524288",
            "NCCL_P2P_PCI_CHUNKSIZE": "524288",
            "NCCL_P2P_NVL_CHUNKSIZE": "1048576",
            "NCCL_FASTRAK_NUM_FLOWS": "2",
            "NCCL_FASTRAK_USE_SNAP": "1",
            "NCCL_FASTRAK_PLUGIN_ACCEPT_TIMEOUT_MS": "600000",
            "NCCL_FASTRAK_ENABLE_CONTROL_CHANNEL": "0",
            "NCCL_BUFFSIZE": "8388608",
            "NCCL_NET_GDR_LEVEL": "PIX",
            "NCCL_FASTRAK_ENABLE_HOTPATH_LOGGING": "0",
            "NCCL_FASTRAK_USE_LLCM": "1",
            "NCCL_NVLS_ENABLE": "1",
        },
        node_paths={LIBRARIES: NODE_LIBRARIES, devices: devices},
        daemon=Daemon(
            name=daemon,
            image=image,
            script=(
                "umask 0; chmod 755 /fts/entrypoint_rxdm_container.sh; "
                "exec /fts/entrypoint_rxdm_container.sh --num_hops=2"
            ),
            capabilities=("NET_ADMIN", "NET_BIND_SERVICE"),
            environment={"LD_LIBRARY_PATH": LIBRARIES},
            node_paths=_of_daemon(),
        ),
    )


def _rdma(machine_type: str) -> Fabric:
    """NCCL's plugin gIB needs no daemon; its settings are those of "Fine-tune and scale reinforcement learning with
    verl on GKE" (read 2026-11-28)."""
    return Fabric(
        environment={
            "LD_LIBRARY_PATH": f"{LIBRARIES}:{GIB}/lib64",
            "NCCL_NET_PLUGIN": f"{GIB}/lib64/libnccl-net_internal.so",
            "NCCL_CROSS_NIC": "0",
            "NCCL_NET_GDR_LEVEL": "PIX",
            "NCCL_P2P_NET_CHUNKSIZE": "131072",
            "NCCL_NVLS_CHUNKSIZE": "524288",
            "NCCL_IB_ADAPTIVE_ROUTING": "1",
            "NCCL_IB_QPS_PER_CONNECTION": "4",
            "NCCL_IB_TC": "52",
            "NCCL_IB_FIFO_TC": "84",
            "NCCL_TUNER_CONFIG_PATH": f"{GIB}/configs/{TUNERS[machine_type]}",
            "GLOO_SOCKET_IFNAME": "eth0",
        },
        node_paths={LIBRARIES: NODE_LIBRARIES, GIB: "/home/kubernetes/bin/gib"},
        device_class=RDMA_CLASS,
        devices=GPUS,
    )


def _annotations(daemon: str, kind: str, *more_devices: str) -> dict[str, str]:
    """The pod's interfaces, and the devices that the node gives its daemon without privileges."""
    first = {"interfaceName": "eth0", "network": "default"}
    further = ({"interfaceName": f"eth{each}", "network": f"gpu-{each}"} for each in range(1, NETWORKS[kind] + 1))
    chips = (f"/dev/nvidia{each}" for each in range(GPUS))
    devices = (*chips, "/dev/nvidiactl", "/dev/nvidia-uvm", *more_devices)
    return {
        "networking.gke.io/default-interface": "eth0",
        "networking.gke.io/interfaces": json.dumps([first, *further]),
        f"devices.gke.io/container.{daemon}": "".join(f"- path: {each}\n" for each in devices),
    }


def _interfaces(kind: str) -> str:
    return ",".join(f"eth{each}" for each in range(1, NETWORKS[kind] + 1))


def _of_daemon() -> dict[str, str]:
    return {LIBRARIES: NODE_LIBRARIES, "/hostsysfs": "/sys", "/hostprocsysfs": "/proc/sys"}
