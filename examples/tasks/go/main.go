// A task in Go: go run . ID [STEPS]
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

const heartbeat = 5 * time.Second

type data = map[string]any

type task struct {
	id         string
	connection *nats.Conn
	cancelled  chan string // by whom
}

func (t *task) tell(event string, d data) {
	i := nuid.Next()
	envelope := data{"v": 1, "e": event, "i": i, "ts": time.Now().UnixMilli(), "d": d}
	message := nats.NewMsg("fanline.pub.task." + t.id)
	message.Header.Set("Nats-Msg-Id", "/task:"+t.id+"/"+i) // stored only once, even if it is sent again
	message.Data = must(json.Marshal(envelope))
	if err := t.connection.PublishMsg(message); err != nil {
		log.Fatal(err)
	}
}

func (t *task) answer(request *nats.Msg) {
	var call struct{ T, E, U string }
	reply := data{"v": 1, "t": "err", "d": data{"code": "refused", "message": "this task can only be cancelled"}}
	if json.Unmarshal(request.Data, &call) != nil {
		return
	}
	switch {
	case call.T == "ping": // is a producer attached?
		reply = data{"v": 1, "t": "pong"}
	case call.E == "cancel":
		reply = data{"v": 1, "t": "ok"}
		select {
		case t.cancelled <- call.U:
		default: // it may come more than once
		}
	}
	request.Respond(must(json.Marshal(reply)))
}

func (t *task) beat() {
	for ; ; time.Sleep(heartbeat / 2) {
		t.connection.Publish("fanline.beat.task."+t.id, nil)
	}
}

func (t *task) work(steps int) {
	t.tell("task_started", data{"title": "Counting in Go", "heartbeat": heartbeat.Seconds()})
	for step := 1; step <= steps; step++ {
		select {
		case by := <-t.cancelled:
			t.tell("task_cancelled", data{"by": by})
			return
		case <-time.After(100 * time.Millisecond): // the work
		}
		t.tell("task_output", data{"lines": []string{fmt.Sprintf("step %d is done", step)}})
		t.tell("task_progress", data{"done": step, "total": steps, "stage": "counting"})
	}
	t.tell("task_completed", data{"result": data{"counted": steps}})
}

func main() {
	steps := 20
	if len(os.Args) > 2 {
		steps = must(strconv.Atoi(os.Args[2]))
	}
	connection := must(nats.Connect(os.Getenv("NATS_URL")))
	t := &task{id: os.Args[1], connection: connection, cancelled: make(chan string, 1)}
	must(connection.Subscribe("fanline.ctl.task."+t.id, t.answer))
	go t.beat()
	t.work(steps)
	if err := connection.Flush(); err != nil {
		log.Fatal(err)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
