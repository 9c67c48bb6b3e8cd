// Package admin is the door for administration of a running broker: HTTP with JSON over a unix socket that only its
// owner and group may open. The broker serves it, ringmq's other commands ask over it, and so may curl --unix-socket.
//
// Sockets lie in one directory (Directory) and bear the broker's process id, so that several brokers on a machine do not
// meet, and whatever a crashed one leaves is found, recognised and removed.
package admin
