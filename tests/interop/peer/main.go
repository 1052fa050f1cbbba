// Peer is a go-micro program for tests: it does with go-micro's own packages what JSON lines on
// standard input ask for, and answers each on standard output, in order.
//
//	peer mdns | etcd ADDRESS | consul ADDRESS
//
// A request is {"call": ..., ...}; its answer {"result": ..., "at": ...} or {"error": ..., "at": ...}.
// What a watch sees comes in between as {"event": ..., "service": ..., "watch": ..., "at": ...}.
// Times are in Unix seconds. The end of its input ends the program, as a crash would: nothing is
// withdrawn.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"go-micro.dev/v5/registry"
)

// Request holds the arguments of every call; each uses some of them.
type Request struct {
	Call     string            `json:"call"`
	Name     string            `json:"name"`
	Service  *registry.Service `json:"service"`
	TTL      float64           `json:"ttl"`      // seconds; 0 is for ever
	Interval float64           `json:"interval"` // seconds between registrations; 0 is only one
	ID       string            `json:"id"`
	Version  string            `json:"version"`
	Protocol string            `json:"protocol"` // mucp or grpc
	Endpoint string            `json:"endpoint"`
	Text     string            `json:"text"` // what to say to the endpoint
}

// line is what the program writes; a field that is absent does not apply.
type line struct {
	Event   string            `json:"event,omitempty"`
	Watch   *string           `json:"watch,omitempty"`
	Service *registry.Service `json:"service,omitempty"`
	Result  any               `json:"result"`
	Error   string            `json:"error,omitempty"`
	At      float64           `json:"at"`
}

var output struct {
	sync.Mutex
	encoder *json.Encoder
}

func say(l line) {
	l.At = float64(time.Now().UnixNano()) / 1e9
	output.Lock()
	defer output.Unlock()
	if err := output.encoder.Encode(l); err != nil {
		os.Exit(1) // nobody listens any more
	}
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second))
}

func main() {
	reg, err := open(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	output.encoder = json.NewEncoder(os.Stdout)
	peer := newPeer(reg)
	say(line{Event: "ready"})
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 16<<20)
	for input.Scan() {
		var request Request
		err := json.Unmarshal(input.Bytes(), &request)
		var result any
		if err == nil {
			result, err = peer.do(&request)
		}
		if err != nil {
			say(line{Error: err.Error()})
		} else {
			say(line{Result: result})
		}
	}
}
