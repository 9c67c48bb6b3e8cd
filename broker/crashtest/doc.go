// Package crashtest is for tests that end a broker at any moment: clients that behave as MQTT asks of them, over any transport, and a
// Ledger that knows everything that was promised to them and says what was lost, doubled, out of order or too much. No program that users
// run contains it.
//
// A Client is a state machine: it is given what came and gives what to send, and its Session outlives its connections as those of good
// clients do: unacknowledged publications are sent again in order, QoS 2 identifiers are remembered. A Sim drives Clients and a
// broker in memory step by step; a Fleet drives them against a process.
//
// Every message says in its payload who published it and as which of its messages. What becomes of it is known for each reader, which is
// a Session, or all the members of a Shared Subscription together:
//
//   - It is owed to who had SUBACK when it was sent, from its acknowledgement on. UNSUBSCRIBE ends that: what the broker
//     has not begun to deliver it may drop [MQTT-3.10.4-3].
//   - It is barred from who had UNSUBACK, or had never subscribed, when it was sent, unless SUBSCRIBE was sent before it was
//     acknowledged [MQTT-3.10.4-2].
//   - One of QoS 2 comes once to each reader, and so to one member of a Shared Subscription [MQTT-4.8.2-4]. One of QoS 1 may well come
//     to two members: who publishes it again after a crash makes a new message of it.
//   - One with a Message Expiry Interval that has passed before its reader connects is not begun to be delivered any more [MQTT-3.3.2-5];
//     before, it comes with what is left [MQTT-3.3.2-6]. Both count the time in which no broker ran.
//   - A Will is a message that its client makes with CONNECT and that CONNACK promises. It is owed when the connection then ends without
//     DISCONNECT, whichever side it was that died: a crash of the broker closes every Network Connection [MQTT-3.1.2-8]. None
//     is early. One with a delay may be dropped once its client connects again, and is barred when that was in time [MQTT-3.1.3-9].
//   - DISCONNECT is not answered: a crash may come before it is durable, and bring the Will. It is durable, and the Will barred, when the
//     same broker answers the client's next CONNECT, or has acknowledged so much of others that it must have come to it (farewell).
//   - Who subscribes anew gets, for each topic, the last Retained Message that was acknowledged by then or a later one, and none where the
//     last one has cleared it.
//   - One of QoS 1 that was published once comes again to a Session with the Packet Identifier that it had [MQTT-4.4.0-1].
//   - A Session with a Session Expiry Interval is there until it has passed since its connection ended, and not afterwards. That, too, counts
//     the time in which no broker ran.
package crashtest
