package main

import (
	"errors"
	"fmt"
	"time"
)

// The protocol versions.
const (
	v3 = "3.1.1"
	v5 = "5.0"
)

// task is one scene, or a part of the scene cross, for one client.
type task struct {
	Scene   string  `json:"scene"`
	Host    string  `json:"host"`
	Port    int     `json:"port"`
	Version string  `json:"version"`        // v3 or v5
	Prefix  string  `json:"prefix"`         // begins all its topics and Client Identifiers, and nobody else's
	From    string  `json:"from,omitempty"` // scene receive: the publisher's protocol version
	Seconds float64 `json:"seconds"`        // how long it may take
}

func (t task) name(rest string) string { return t.Prefix + "/" + rest }

func (t task) limit() time.Duration { return time.Duration(t.Seconds * float64(time.Second)) }

// answer is what a script says about its task.
type answer struct {
	Ready   bool   `json:"ready,omitempty"`
	OK      bool   `json:"ok,omitempty"`
	Why     string `json:"why,omitempty"`
	None    string `json:"none,omitempty"`
	Version string `json:"version,omitempty"`
}

// impossible is the error of a scene that a client cannot do, with the reason.
type impossible string

func (i impossible) Error() string { return string(i) }

// remark is the error of a scene that passes, with something that users should know about the client.
type remark string

func (r remark) Error() string { return string(r) }

// err is the answer as the error of a scene.
func (a answer) err() error {
	switch {
	case a.None != "":
		return impossible(a.None)
	case a.OK && a.Why != "":
		return remark(a.Why)
	case a.OK:
		return nil
	case a.Why == "":
		return errors.New("fails without a reason")
	}
	return errors.New(a.Why)
}

// differ is nil where got is want.
func differ[T comparable](what string, got, want T) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("%s is %s, not %s", what, short(got), short(want))
}

// short prints a value, without what makes a line too long to read.
func short(v any) string {
	const most = 120
	s := fmt.Sprintf("%#v", v)
	if len(s) > most {
		return fmt.Sprintf("%s… (%d characters)", s[:most], len(s))
	}
	return s
}
