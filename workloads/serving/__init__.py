"""The inference core: `python -m workloads.serving --config serving.yaml`."""

import os
import sys

# Unless they are told not to, ONNX Runtime tells Microsoft of the machine, the process and each session (Privacy.md of
# its wheel), and OpenVINO's converter tells Google Analytics of the model's operations. Without its package it can't.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # an import then fails, as if it were not there
