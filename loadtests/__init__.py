"""Load and fault tests that see the server from outside: a process, gRPC over localhost."""
