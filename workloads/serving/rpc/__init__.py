"""gRPC of the Open Inference Protocol v2, beside HTTP in the same process and with the same queues.

`open_inference_grpc.proto` is the standard's own file: github.com/kserve/open-inference-protocol at d49cc23,
`specification/protocol/open_inference_grpc.proto`, under the Apache License 2.0, which lies beside it. The modules
`open_inference_grpc_pb2` are made from it by `make proto`.
"""
