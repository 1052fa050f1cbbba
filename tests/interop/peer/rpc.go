package main

import (
	"context"
	"fmt"
	"time"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/client"
	debug "go-micro.dev/v5/debug/handler"
	health "go-micro.dev/v5/debug/proto"
	"go-micro.dev/v5/server"
)

// protocol is one of go-micro's ways to call and to be called.
type protocol struct {
	server func(...server.Option) server.Server
	client func(...client.Option) client.Client
	json   string // content type of JSON
}

// protocols holds those that are built in, by what they call themselves in a node's metadata.
var protocols = map[string]protocol{
	"mucp": {server.NewServer, client.NewClient, "application/json"},
}

// Greeter is a handler such as go-micro's users write.
type Greeter struct{}

// HelloRequest says who is to be greeted.
type HelloRequest struct {
	Name string `json:"name"`
}

// HelloResponse is the greeting.
type HelloResponse struct {
	Greeting string `json:"greeting"`
}

// Hello greets.
func (*Greeter) Hello(_ context.Context, request *HelloRequest, response *HelloResponse) error {
	response.Greeting = "Hello " + request.Name
	return nil
}

// serve starts a server with the greeter and go-micro's own Debug, as micro.NewService has it.
func (p *Peer) serve(r *Request) (any, error) {
	protocol, known := protocols[r.Protocol]
	if !known {
		return nil, fmt.Errorf("protocol %q is not built in", r.Protocol)
	}
	srv := protocol.server(
		server.Name(r.Name),
		server.Id(r.ID),
		server.Version(r.Version),
		server.Address("127.0.0.1:0"),
		server.Registry(p.registry),
		server.Broker(broker.NewMemoryBroker()), // the default one announces itself over mDNS
		server.RegisterTTL(seconds(r.TTL)),
		server.RegisterInterval(seconds(r.Interval)),
	)
	if err := srv.Handle(srv.NewHandler(&Greeter{})); err != nil {
		return nil, err
	}
	if err := health.RegisterDebugHandler(srv, debug.NewHandler(nil), server.InternalHandler(true)); err != nil {
		return nil, err
	}
	if err := srv.Start(); err != nil {
		return nil, err
	}
	p.servers[r.Name] = srv
	return srv.Options().Address, nil
}

// request finds a node through the selector and calls one of its endpoints.
func (p *Peer) request(r *Request) (any, error) {
	protocol, known := protocols[r.Protocol]
	if !known {
		return nil, fmt.Errorf("protocol %q is not built in", r.Protocol)
	}
	c := protocol.client(
		client.Registry(p.registry),
		client.Selector(p.selector),
		client.Broker(broker.NewMemoryBroker()),
		client.RequestTimeout(5*time.Second),
		client.Retries(0),
	)
	if r.Endpoint == "Debug.Health" {
		response := new(health.HealthResponse)
		request := c.NewRequest(r.Name, r.Endpoint, &health.HealthRequest{Service: r.Text})
		err := c.Call(context.Background(), request, response)
		return response.Status, err
	}
	response := new(HelloResponse)
	content := client.WithContentType(protocol.json)
	request := c.NewRequest(r.Name, r.Endpoint, &HelloRequest{Name: r.Text}, content)
	err := c.Call(context.Background(), request, response)
	return response.Greeting, err
}
