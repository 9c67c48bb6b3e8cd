package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// dice makes a Script from chance. It knows nothing of what the broker will do: up is what it guesses.
type dice struct {
	*rand.Rand
	more    *rand.Rand // for what has been added, so that the rest of a seed stays what it was
	script  Script
	roles   []role
	up      []bool
	tight   bool
	disk    bool // a store, and crashes
	large   bool // messages that use memory up
	bursts  bool // of more messages than fit between two shards
	lag     int  // of planes that are late, in milliseconds
	hops    bool // clients that go on elsewhere in the middle of something, while shards stand still
	auth    int  // who may connect
	rate    bool // there is a limit to the rate of CONNECT packets
	full    bool // queues on disk meet theirs
	inBytes bool // where there is one to queues, it is one to their bytes
	work    int  // deliveries that one client's input may cause in a turn; 0: any number
	proves  []bool
}

// role is what a client is for.
type role struct {
	keeper bool     // its Session lasts
	stays  []string // filters it subscribes to at once and keeps
	churn  []string // filters that come and go
	topics []string // it publishes to
}

// Generate makes the Script of a seed. The same seed makes the same Script.
func Generate(seed uint64) Script {
	d := &dice{Rand: rand.New(rand.NewPCG(seed, 0x51)), more: rand.New(rand.NewPCG(seed, 0x52))}
	d.tight, d.disk, d.hops = seed%4 == 3, seed%4 == 1, seed%8 == 2 || seed%8 == 5
	if seed%16 >= 12 {
		d.lag = 1 + int(seed/16%40)
	}
	if seed%5 == 4 {
		d.auth = strangersIn + int(seed/5%2)
	}
	if seed%13 == 9 || seed%13 == 12 {
		d.work = 8 + int(seed/13%100)
	}
	d.rate, d.full, d.inBytes = seed%7 == 5, d.disk && seed%3 < 2, seed%11 < 3
	d.world()
	d.cast()
	for c, r := range d.roles {
		if r.keeper {
			d.connect(c)
		}
	}
	d.calm(6)
	for c, r := range d.roles {
		for _, f := range r.stays {
			d.op("sub", c, f, "qos", d.stayQoS(f), "id", d.some(3, 5), "rh", 2*d.more.IntN(2))
		}
	}
	d.calm(6)
	for range 300 + d.IntN(500) {
		d.step()
	}
	return d.script
}

// op appends an Op; pairs are names and numbers, of which zeros are left out.
func (d *dice) op(verb string, client int, name string, pairs ...any) {
	o := Op{Verb: verb, Client: client, Name: name}
	for i := 0; i < len(pairs); i += 2 {
		if v := pairs[i+1].(int); v != 0 {
			o.Args = append(o.Args, Arg{pairs[i].(string), v})
		}
	}
	d.script = append(d.script, o)
}

// some is 0, or once in n times a number from 1 to most.
func (d *dice) some(n, most int) int {
	if d.IntN(n) > 0 {
		return 0
	}
	return 1 + d.IntN(most)
}

func (d *dice) one(names []string) string { return names[d.IntN(len(names))] }

func (d *dice) calm(turns int) {
	for range turns {
		d.op("turn", -1, "")
	}
}

// world chooses the limits. Three seeds of four get limits that are never met: there nothing may be lost. The others
// meet at least one.
func (d *dice) world() {
	window, into := 1<<(8+d.IntN(9)), 1<<(8+d.IntN(9))
	d.bursts, d.large = d.IntN(8) == 0, d.tight && d.IntN(3) == 0
	if d.bursts || d.large {
		into = 1 << 16
	}
	args := []any{"lag", d.lag, "shards", 1 + d.IntN(4), "inflight", 1 + d.IntN(20), "window", window, "rwindow", into,
		"strategy", d.IntN(6), "auth", d.auth, "alias", 1 + d.IntN(16), "expirymax", d.some(3, 2000)}
	if keep := d.some(8, 60); !d.rate { // In the calm end the rate may let in fewer clients than have their time run out.
		args = append(args, "keepmax", keep)
	}
	if d.auth != everybodyIn {
		args = append(args, "questions", d.some(3, 4))
	}
	if d.work > 0 {
		args = append(args, "work", d.work)
	}
	if d.rate {
		args = append(args, "rate", 3+d.IntN(40))
	}
	switch n := d.IntN(3); {
	case d.disk && d.full:
		d.op("world", -1, "", append(d.queue(args), "store", 1)...)
		return
	case d.disk:
		d.op("world", -1, "", append(args, "queue", 1<<20, "store", 1)...)
		return
	case !d.tight:
		d.op("world", -1, "", append(args, "queue", 1<<20)...)
		return
	case d.large:
		args = append(args, "memory", 1, "queue", 1<<20)
	case n == 0:
		args = d.queue(args)
	case n == 1:
		args = append(args, "outbound", 1<<14, "queue", 1<<20)
	default:
		args = append(args, "subs", 10+d.IntN(12), "retained", 1+d.IntN(3), "conns", 40, "queue", 1<<20)
	}
	d.op("world", -1, "", append(args, "recv", 1+d.IntN(30))...)
}

// queue chooses how many messages may wait in a Session's queue, or how many bytes.
func (d *dice) queue(args []any) []any {
	if d.inBytes {
		return append(args, "queue", 1<<20, "qbytes", 1<<(12+d.IntN(4)))
	}
	most := 40
	if d.disk {
		most = 16 // What waits on disk waits for clients that are away.
	}
	return append(args, "queue", 1+d.IntN(most))
}

// cast deals the roles out: watchers, members of a Shared Subscription, publishers, and a crowd whose Sessions come and go.
func (d *dice) cast() {
	for _, f := range [][]string{{"t/0", "t/1"}, {"t/#", "r/#", "w/#"}, {"+/2"}, {"#"}} {
		d.roles = append(d.roles, role{keeper: true, stays: f, churn: []string{"c/0", "c/1"}})
	}
	for range 3 {
		d.roles = append(d.roles, role{keeper: true, stays: []string{"$share/g/t/+"}, churn: []string{"c/+", "r/0"}})
	}
	for i := range 4 + d.IntN(4) {
		d.roles = append(d.roles, role{keeper: i%3 < 2, churn: []string{"t/0", "c/#"},
			topics: []string{"t/0", "t/1", "t/2", "c/0", "c/1", fmt.Sprint("r/", i), "$x/y"}})
	}
	for i := range 5 + d.IntN(15) {
		d.roles = append(d.roles, role{churn: []string{"#", "t/0", "+/1", "$share/h/t/#", "$share/h/#", "$share/k/t/1", "c/+", "w/#", "r/+", "w/q"},
			topics: []string{"t/0", "c/0", fmt.Sprint("x/", i)}})
	}
	if d.auth != everybodyIn {
		d.roles[0].stays = append(d.roles[0].stays, "$x/#") // to which nobody may publish
	}
	d.up, d.proves = make([]bool, len(d.roles)), make([]bool, len(d.roles))
}

func (d *dice) stayQoS(filter string) int {
	if filter[0] == 'r' || filter == "t/1" {
		return 1
	}
	return 2
}

// step appends the next Op. The weights make about four turns of ten Ops, so that packets meet in every order.
func (d *dice) step() {
	if d.disk && d.IntN(40) == 0 {
		d.trouble()
		return
	}
	if d.disk && d.IntN(700) == 0 || d.IntN(6000) == 0 { // without a store it leaves little to check
		d.stop()
		return
	}
	if d.hops && d.IntN(25) == 0 {
		d.hop()
		return
	}
	if d.more.IntN(1000) == 0 && !d.tight && !d.full { // Where what waits may be dropped, nobody says which member lost it.
		d.leaveShare()
	}
	if d.lag > 0 && d.IntN(25) == 0 {
		d.rush()
		return
	}
	c := d.IntN(len(d.roles))
	if d.auth != everybodyIn && d.IntN(15) == 0 {
		d.prove(c)
		return
	}
	switch n := d.IntN(200); {
	case n < 80:
		d.op("turn", -1, "", "n", 1+d.IntN(1<<30))
	case n < 140:
		d.publish()
	case n < 152:
		d.subscribe(c)
	case n < 176:
		if !d.up[c] || d.IntN(8) == 0 {
			d.connect(c)
		}
	case n < 184:
		d.end(c)
	case n < 194:
		d.mood(c)
	case n < 196:
		d.op("bad", c, "", "n", d.IntN(64))
		d.up[c] = false
	default:
		d.pass()
	}
}

// trouble is the store's, or the end of the broker, from which most clients come back.
func (d *dice) trouble() {
	switch d.IntN(6) {
	case 0, 1:
		d.op("disk", -1, "")
	case 2:
		d.op("disk", -1, "", "stuck", 1)
	case 3:
		d.op("disk", -1, "", "full", 1)
	default:
		d.op("crash", -1, "", "ms", 1+d.IntN(1<<(3+d.IntN(14))), "more", d.some(2, 3))
		d.comeBack()
	}
}

// stop has the broker stop, and start anew; most clients come back.
func (d *dice) stop() {
	d.op("stop", -1, "", "ms", 1+d.IntN(1<<(3+d.IntN(14))), "most", d.some(2, 3))
	d.comeBack()
}

func (d *dice) comeBack() {
	for c := range d.up {
		if d.up[c] = false; d.IntN(3) > 0 {
			d.connect(c)
		}
	}
}

func (d *dice) publish() {
	c := d.IntN(len(d.roles))
	for range 8 {
		if d.up[c] && len(d.roles[c].topics) > 0 {
			break
		}
		c = d.IntN(len(d.roles))
	}
	r := &d.roles[c]
	if len(r.topics) == 0 {
		return
	}
	name := d.one(r.topics)
	if name[0] == '$' && d.IntN(4) > 0 {
		name = "t/2"
	}
	size := 0
	if d.IntN(3) == 0 {
		size = d.IntN(1 << (1 + d.IntN(14)))
	}
	if d.large && d.IntN(2) == 0 {
		size = 20_000 + d.IntN(100_000)
	}
	if d.bursts && d.IntN(25) == 0 {
		d.op("pub", c, "t/0", "count", 200+d.IntN(1200))
		return
	}
	retain, qos := 0, d.IntN(3)
	if name[0] == 'r' {
		retain, qos = 1, 1+int(name[2])&1 // one for each topic: what is sent again must not replace what is younger
		if d.IntN(12) == 0 {
			retain = 2 // an empty payload: forget the Retained Message
		}
	}
	d.op("pub", c, name, "qos", qos, "size", size, "retain", retain, "expiry", d.some(8, 30), "alias", d.some(3, 5), "props", d.properties())
}

// properties are those of every second message.
func (d *dice) properties() int {
	n := d.more.IntN(2 * propertySets)
	if n >= propertySets {
		return 0
	}
	if d.more.IntN(8) > 0 {
		n &^= withLongProperty
	}
	return n
}

func (d *dice) subscribe(c int) {
	r := &d.roles[c]
	f := d.one(r.churn)
	for _, other := range r.churn {
		if d.IntN(12) == 0 && other != f && !strings.Contains(f, ",") {
			f += "," + other
		}
	}
	if d.IntN(2) == 0 {
		d.op("unsub", c, f)
		return
	}
	local := d.some(4, 1)
	if strings.Contains(f, "$") {
		local = 0 // [MQTT-3.8.3-4]
	}
	d.op("sub", c, f, "qos", d.IntN(3), "nl", local, "rap", d.some(3, 1), "rh", d.some(3, 2), "id", d.some(3, 9))
	if d.more.IntN(4) == 0 {
		d.again(c, f)
	}
}

// again has a client ask once more for what it is subscribed to: the one subscription replaces the other, and may be sent Retained Messages.
func (d *dice) again(c int, f string) {
	d.moreTurns(d.more.IntN(4))
	d.op("sub", c, f, "qos", 1+d.more.IntN(2), "rh", d.more.IntN(3), "id", d.more.IntN(9))
}

func (d *dice) connect(c int) {
	d.up[c] = true
	if d.roles[c].keeper {
		v := d.version()
		d.op("connect", c, "", "v", v, "expiry", 100_000, "recv", d.some(2, 30), "alias", d.some(2, 8), "keep", d.some(12, 60), "auth", d.way(c, v))
		return
	}
	expiry := 0
	if d.IntN(2) == 0 {
		expiry = []int{2, 20, 100, 100_000}[d.IntN(4)]
	}
	will, delay, retain, props, left := d.some(2, 3), 0, 0, 0, 0
	if will > 0 {
		delay, retain, props, left = d.some(3, 30), d.some(6, 1), d.properties(), max(0, d.more.IntN(200)-160)
	}
	packet := 0
	if d.IntN(20) == 0 {
		packet = 300 + d.IntN(2000)
	}
	v := d.version()
	d.op("connect", c, "", "v", v, "clean", d.IntN(2), "expiry", expiry, "recv", d.some(2, 30), "alias", d.some(2, 8),
		"keep", d.some(6, 60), "packet", packet, "will", will, "delay", delay, "wretain", retain, "auth", d.way(c, v), "wprops", props, "wexpiry", left)
}

// way is how a client says who it is, where that is asked.
func (d *dice) way(c, version int) int {
	if d.auth == everybodyIn {
		return byNothing
	}
	way := d.IntN(waysToSign)
	d.proves[c] = way == byMethod && version == 5
	return way
}

// prove has a client prove anew who it is, seldom in a wrong way, or be cut off while it does so for the first time, or somebody who cannot
// try to get in in its name.
func (d *dice) prove(c int) {
	n := d.IntN(12)
	if n == 11 {
		d.connect(c)
		d.op("connect", c, "", "v", 5, "expiry", 100*d.IntN(2), "will", d.some(2, 3), "auth", byMethod)
		d.turns(d.IntN(4))
		d.op("doom", c, "", "bytes", d.IntN(150))
		d.up[c] = false
		return
	}
	for tries := 0; n >= 4 && tries < len(d.roles) && !(d.up[c] && d.proves[c]); tries++ {
		c = (c + 1) % len(d.roles)
	}
	switch {
	case n < 4:
		d.op("intrude", c, "", "v", d.version(), "as", d.IntN(waysToIntrude), "clean", d.IntN(2), "expiry", d.some(2, 100), "qos", d.IntN(3), "cut", d.some(4, 200))
	case n == 4:
		d.op("renew", c, "", "wrong", 1+d.IntN(waysToGoWrong-1))
	default:
		d.op("renew", c, "")
	}
	if d.IntN(6) == 0 {
		d.end(c)
	}
}

// version is 5.0, 3.1.1 or, seldom, 3.1.
func (d *dice) version() int {
	if d.IntN(16) == 0 {
		return 3
	}
	return 4 + d.IntN(2)
}

// end ends a connection in one of many ways.
func (d *dice) end(c int) {
	d.up[c] = false
	switch d.IntN(8) {
	case 0, 1:
		d.op("close", c, "")
	case 2, 3:
		d.op("reset", c, "")
	case 4:
		d.op("half", c, "")
	case 5, 6:
		d.op("doom", c, "", "bytes", d.IntN(2000))
	case 7:
		expiry := -1
		if !d.roles[c].keeper && d.IntN(3) == 0 {
			expiry = d.IntN(50)
		}
		d.op("bye", c, "", "will", d.some(3, 1), "expiry", 1+expiry)
	}
}

// mood changes how a client reads and answers.
func (d *dice) mood(c int) {
	switch d.IntN(8) {
	case 0, 1:
		d.op("slow", c, "", "turns", 1+d.IntN(60))
	case 2:
		d.op("window", c, "", "bytes", d.IntN(300))
	case 3:
		d.op("window", c, "", "bytes", 1<<16)
	case 4:
		d.op("hold", c, "")
	case 5:
		d.op("release", c, "")
	case 6:
		d.op("deny", c, "")
	case 7:
		d.op("ping", c, "")
	}
}

// pass lets time jump: mostly by less than a second, now and then by hours.
func (d *dice) pass() {
	ms := d.IntN(1000)
	switch d.IntN(8) {
	case 0, 1:
		ms = d.IntN(60_000)
	case 2:
		ms = d.IntN(7_200_000)
	}
	d.op("pass", -1, "", "ms", 1+ms)
}
