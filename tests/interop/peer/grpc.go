//go:build grpc

// gRPC is a program of its own: a process that has go-micro's gRPC packages cannot speak to etcd, since
// they replace gRPC's codec by one that does not know the messages of etcd's client.

package main

import (
	"go-micro.dev/v5/client/grpc"
	grpcserver "go-micro.dev/v5/server/grpc"
)

func init() {
	protocols["grpc"] = protocol{grpcserver.NewServer, grpc.NewClient, "application/grpc+json"}
}
