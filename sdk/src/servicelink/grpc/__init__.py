"""gRPC: clients and servers over grpcio, asynchronous and synchronous. Needs the extra `servicelink[grpc]`."""
