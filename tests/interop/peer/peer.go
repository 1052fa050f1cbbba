package main

import (
	"errors"
	"fmt"
	"time"

	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/registry/consul"
	"go-micro.dev/v5/registry/etcd"
	"go-micro.dev/v5/selector"
	"go-micro.dev/v5/server"
)

// Peer does the calls. They come one after the other; only renewals run beside them.
type Peer struct {
	registry registry.Registry
	selector selector.Selector
	servers  map[string]server.Server
	renewals map[string]func() // what ends them, by the id of a service's first node
}

func newPeer(reg registry.Registry) *Peer {
	return &Peer{
		registry: reg,
		selector: selector.NewSelector(selector.Registry(reg)),
		servers:  map[string]server.Server{},
		renewals: map[string]func(){},
	}
}

// open returns a registry as go-micro's programs make it, with every default.
func open(arguments []string) (registry.Registry, error) {
	switch {
	case len(arguments) == 1 && arguments[0] == "mdns":
		return registry.NewMDNSRegistry(), nil
	case len(arguments) == 2 && arguments[0] == "etcd":
		return etcd.NewEtcdRegistry(registry.Addrs(arguments[1])), nil
	case len(arguments) == 2 && arguments[0] == "consul":
		return consul.NewConsulRegistry(registry.Addrs(arguments[1])), nil
	}
	return nil, errors.New("usage: peer mdns | etcd ADDRESS | consul ADDRESS")
}

func (p *Peer) do(r *Request) (any, error) {
	switch r.Call {
	case "register":
		return nil, p.register(r)
	case "deregister":
		return nil, p.deregister(r.Service)
	case "get":
		services, err := p.registry.GetService(r.Name)
		if errors.Is(err, registry.ErrNotFound) {
			return nil, nil
		}
		return services, err
	case "list":
		return p.registry.ListServices()
	case "watch":
		return nil, p.watch(r.Name)
	case "select":
		next, err := p.selector.Select(r.Name)
		if err != nil {
			return nil, err
		}
		return next()
	case "serve":
		return p.serve(r)
	case "stop":
		return nil, p.servers[r.Name].Stop()
	case "request":
		return p.request(r)
	}
	return nil, fmt.Errorf("unknown call %q", r.Call)
}

// register registers, and goes on registering as go-micro's servers do.
func (p *Peer) register(r *Request) error {
	p.endRenewals(r.Service) // first: they are of the former record
	option := registry.RegisterTTL(seconds(r.TTL))
	if err := p.registry.Register(r.Service, option); err != nil {
		return err
	}
	if r.Interval == 0 {
		return nil
	}
	ticker := time.NewTicker(seconds(r.Interval))
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ticker.C:
				if err := p.registry.Register(r.Service, option); err != nil {
					say(line{Event: "unrenewed", Service: r.Service, Error: err.Error()})
				}
			case <-done:
				return
			}
		}
	}()
	p.renewals[r.Service.Nodes[0].Id] = func() {
		ticker.Stop()
		close(done)
		<-ended
	}
	return nil
}

func (p *Peer) deregister(service *registry.Service) error {
	p.endRenewals(service)
	return p.registry.Deregister(service)
}

func (p *Peer) endRenewals(service *registry.Service) {
	id := service.Nodes[0].Id
	if end, found := p.renewals[id]; found {
		end()
		delete(p.renewals, id)
	}
}

// watch says what a watcher of go-micro's sees of one service, or of all where name is empty.
func (p *Peer) watch(name string) error {
	var options []registry.WatchOption
	if name != "" {
		options = append(options, registry.WatchService(name))
	}
	watcher, err := p.registry.Watch(options...)
	if err != nil {
		return err
	}
	go func() {
		for {
			result, err := watcher.Next()
			if err != nil {
				say(line{Event: "ended", Watch: &name, Error: err.Error()})
				return
			}
			say(line{Event: result.Action, Watch: &name, Service: result.Service})
		}
	}()
	return nil
}
