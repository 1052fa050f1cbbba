package main

import (
	"context"
	"log"

	"go-micro.dev/v5"
)

type Greeter struct{}

type Request struct {
	Name string `json:"name"`
}

type Response struct {
	Greeting string `json:"greeting"`
}

func (*Greeter) Hello(ctx context.Context, req *Request, rsp *Response) error {
	rsp.Greeting = "Hello " + req.Name + ", says Go"
	return nil
}

func main() {
	service := micro.New("greeter")
	service.Init() // reads MICRO_REGISTRY and the other settings
	if err := service.Handle(new(Greeter)); err != nil {
		log.Fatal(err)
	}
	if err := service.Run(); err != nil {
		log.Fatal(err)
	}
}
