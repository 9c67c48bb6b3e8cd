// Package clients has nothing but tests: it builds the ringmq program, starts it as a user would, with one shard and
// with four, and lets real clients talk to it: Debian's mosquitto_pub, mosquitto_sub and mosquitto_rr for MQTT 3.1,
// 3.1.1 and 5.0, and Eclipse paho.golang for 5.0.
//
// What paho hides (DUP, Topic Aliases, when an acknowledgement is sent) is tested with a wire, a bare TCP connection
// that sends and reads single packets with paho's codec. No code of the broker is used on the clients' side.
//
// The programs come from the Debian package mosquitto-clients, which scripts/test.sh installs; tests that need a
// missing program skip and name it.
package clients
