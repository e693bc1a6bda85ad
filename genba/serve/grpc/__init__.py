"""The Open Inference Protocol over gRPC, on a port of its own; needs the extra `[grpc]`."""
