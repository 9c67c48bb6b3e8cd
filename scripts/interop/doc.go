// Command interop runs MQTT clients that people use against a broker, scene by scene, and prints what passed:
// `go run ./scripts/interop`.
//
// A scene is one thing that a client and the broker must agree on, such as a Session that waits. A client is a library
// or a set of programs; it speaks one or two protocol versions, and each of its scenes is written in its own language:
// Go for Eclipse paho.golang (paho_v5*.go), Eclipse paho.mqtt.golang (paho_v3.go) and the programs of mosquitto-clients
// (mosquitto*.go), JavaScript for MQTT.js (mqttjs.mjs), Python for Eclipse paho (paho.py). A cell is one scene of one
// client in one protocol version; it passes, fails or does not exist, the latter two with a reason.
//
// # Scripts
//
// A script is a process that reads one task a line from its standard input, as JSON (task.go), and writes answers:
// first {"version": …} of its library; then for each task {"ok": true}, {"ok": false, "why": …} or {"none": why}. The
// scene "receive" answers {"ready": true} before that, when it has subscribed. A script ends with its standard input.
// It has to keep the time limit of its task; the runner ends a script that does not.
//
// # The scene cross
//
// The publisher's part "keep" retains `kept` (QoS 1) on PREFIX/kept. All other clients run "receive": get that with
// RETAIN set, subscribe to PREFIX/messages and say so. The publisher's part "send" publishes the numbers 0 to 99 there
// at QoS 2, in 5.0 with Content Type text/plain, Response Topic PREFIX/answers, Correlation Data ff 01 80 and the User
// Properties b=1, b=3, a=2; receivers get each once, in order, with the properties if both speak 5.0 (task.From). The
// part "forget" takes the Retained Message away.
package main
