package credentials

import (
	"errors"
	"fmt"

	"github.com/xdg-go/scram"
)

// Conversation is the server's side of one SCRAM-SHA-256 exchange (RFC 7677), which MQTT 5.0 carries in the
// Authentication Data of CONNECT, AUTH and CONNACK. It hashes four times, whatever the iterations: the shard may
// run it. One goroutine at a time.
type Conversation struct {
	file    *File
	server  *scram.ServerConversation
	claimed string // the user that the client says it is, as the file spells it
	user    string // the same once proved
}

// errSCRAMRefused does not say which of the two is wrong: what is logged may reach the client's owner.
var errSCRAMRefused = errors.New("the user has no SCRAM verifier or the password is wrong")

// SCRAM starts a conversation. Channel binding (SCRAM-SHA-256-PLUS) is not offered.
func (f *File) SCRAM() *Conversation {
	c := &Conversation{file: f}
	// NewServer fails for no argument that could be given here.
	server, err := scram.SHA256.NewServer(c.lookUp)
	if err != nil {
		panic("credentials: " + err.Error())
	}
	c.server = server.NewConversation()
	return c
}

// lookUp never fails: a name without verifier gets a made-up one, and the conversation goes on to the same end as
// with a wrong password.
func (c *Conversation) lookUp(name string) (scram.StoredCredentials, error) {
	prepared := name
	if len(name) <= c.file.longest {
		if p, err := prepare(name); err == nil {
			prepared = p
		}
	}
	made := c.file.decoys.verifier(prepared) // Made always, so that time does not tell.
	user, found := c.file.prepared[prepared]
	if !found {
		return made, nil
	}
	c.claimed = user
	return *c.file.users[user].verifier, nil
}

// Step takes the client's next message and gives the answer. With done, the client has proved that it is User, and
// out belongs into the packet that says so. With an error the conversation is over and nothing is owed to the
// client but a Reason Code.
func (c *Conversation) Step(in []byte) (out []byte, done bool, err error) {
	answer, err := c.server.Step(string(in))
	switch {
	case err != nil && answer == scram.ErrInvalidProof:
		return nil, false, errSCRAMRefused
	case err != nil:
		return nil, false, fmt.Errorf("SCRAM message: %.200q", err.Error())
	}
	if id := c.server.AuthzID(); id != "" && id != c.server.Username() {
		return nil, false, fmt.Errorf("SCRAM: user %.200q asks to act as another, which we do not offer", c.server.Username())
	}
	if c.server.Valid() && c.claimed != "" {
		c.user = c.claimed
		return []byte(answer), true, nil
	}
	return []byte(answer), false, nil
}

// User is the user as the file spells it, once Step has said done; empty before.
func (c *Conversation) User() string { return c.user }
