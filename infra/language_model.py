"""A language model's server: vLLM's own container, told by its arguments what the plan decided.

Continuous batching, streaming and the OpenAI API are vLLM's; nothing of it is written here. Arguments:
https://docs.vllm.ai/en/stable/configuration/engine_args/; running without root and with a read-only root:
vllm-project/vllm pull request 40275 (all caches follow `HOME`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from infra.errors import require
from infra.inference_service import ProbePaths
from infra.kubernetes.pods import SCRATCH_PATH, TMP_GIB, PodArgs
from planner.performance.chip import GIB
from planner.performance.language_model import MEMORY_USED_FRACTION, weight_bytes
from planner.prediction import WorkloadPrediction
from planner.profiles import FOLDERS
from planner.targets import decoder_of
from planner.workloads import InferenceService, LanguageModelTarget

COMMAND = ("vllm", "serve")
BUCKET = "$(FUSION_BUCKET_URL)"
"""Filled in by Kubernetes, from the container's environment."""
PROBES = ProbePaths(ready="/health", live="/health")
"""vLLM listens when its weights are loaded and its engine is warm; then this page says whether the engine lives."""
PRECISION: Mapping[str, tuple[str, ...]] = {
    "fp32": ("--dtype=float32",),
    "tf32": ("--dtype=float32",),
    "bf16": ("--dtype=bfloat16",),
    "fp16": ("--dtype=float16",),
    "fp8": ("--quantization=fp8", "--kv-cache-dtype=fp8"),
    "int8": ("--kv-cache-dtype=fp8",),
}
"""By precision of the plan. vLLM makes fp8 weights of wider ones itself; weights in int8 are published so, and
their configuration says how."""
CACHES_GIB = 10
"""Compiled kernels and graphs."""
NODE_GIB = 30
"""Of a node's disk: the system and vLLM's image."""
SHARED_MEMORY_MOST_GIB = 8
CONTEXT = 2
"""Times the stated tokens of a request, that the longest has where the target says nothing."""


def runs_vllm(service: InferenceService) -> bool:
    """Whether the service is a language model that vLLM serves: no command of its own says otherwise."""
    target = service.target
    return (
        isinstance(target, LanguageModelTarget)
        and target.engine == "vllm"
        and "command" not in service.model_fields_set
    )


def arguments(service: InferenceService, predicted: WorkloadPrediction) -> tuple[str, ...]:
    """Of `vllm serve`, for the split, precision and memory that the plan decided; the target is a language model."""
    target = service.target
    assert isinstance(target, LanguageModelTarget)
    in_bucket = (f"{BUCKET}/runs/{service.name}/weights", "--load-format=runai_streamer")
    return (
        *(in_bucket if target.weights is None else (target.weights,)),
        f"--served-model-name={service.name}",
        "--host=0.0.0.0",
        f"--port={service.port}",
        f"--tensor-parallel-size={predicted.tensor_parallel}",
        f"--pipeline-parallel-size={predicted.pipeline_parallel}",
        f"--max-model-len={target.context_tokens_max or CONTEXT * (target.input_tokens + target.output_tokens)}",
        f"--gpu-memory-utilization={MEMORY_USED_FRACTION:g}",
        *PRECISION[predicted.precision],
    )


def pod(service: InferenceService, predicted: WorkloadPrediction) -> PodArgs:
    """One replica: vLLM's image, its arguments, and room for weights, caches and what its processes share.

    Raises:
        ArgumentError: the node's disk does not hold the weights.
        PlanError: the model's configuration can't be read.
    """
    needs, scratch_gib = service.needs, CACHES_GIB + _weights_gib(service, predicted)
    least = scratch_gib + TMP_GIB + NODE_GIB
    require(
        service.disk_gib >= least,
        f"workload {service.name}: disk_gib {service.disk_gib} does not hold the image, caches and weights; "
        f"use {least} or more.",
    )
    processes = predicted.tensor_parallel * predicted.pipeline_parallel
    shared_gib = 1.0 if processes == 1 else max(1.0, min(SHARED_MEMORY_MOST_GIB, needs.memory_gib / 4))
    return PodArgs(
        image=service.image,
        command=COMMAND,
        args=arguments(service, predicted),
        cpus=needs.vcpus,
        memory_gib=needs.memory_gib,
        shared_memory_gib=shared_gib,
        scratch_gib=scratch_gib,
        env={
            "HOME": SCRATCH_PATH,
            "USER": "fusion",  # no name goes with the user's number, and PyTorch's compiler asks for one
            "HF_HOME": f"{SCRATCH_PATH}/huggingface",
            "VLLM_NO_USAGE_STATS": "1",
        },
    )


def _weights_gib(service: InferenceService, predicted: WorkloadPrediction) -> int:
    """On the replica's disk; those of the bucket are streamed into memory."""
    target = service.target
    assert isinstance(target, LanguageModelTarget)
    if target.weights is None:
        return 0
    published = "bf16" if predicted.precision == "fp8" else predicted.precision
    return math.ceil(weight_bytes(decoder_of(target.model, FOLDERS), published) / GIB)
