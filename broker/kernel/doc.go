// Package kernel is the standard mode's plane: Network Connections over the host's own TCP, found ready by epoll
// on Linux and by kqueue on macOS and the BSDs. It knows sockets; it does not know MQTT, TLS or WebSocket.
//
// Vocabulary: a Group is everything that Open made; a Plane is one event loop's share of it, a broker.Plane; a
// listener is one listening socket; a slot is the fixed piece of memory that one connection occupies.
//
// # Who runs what
//
// The package starts no goroutine. Every method of a Plane and of its connections belongs to the one goroutine that
// calls Wait, except Wake. Planes of a Group share only their inboxes: there is one listening socket per address,
// polled by one of the planes, and its connections are dealt out in turn. A plane that accepts for a sibling puts the
// descriptor into the sibling's inbox (a short bounded list under a mutex) and wakes it; if the inbox is full, or the
// sibling is closed, it keeps the connection itself.
//
// # One turn
//
// Wait applies the changes of interest that the last turn asked for (Pause, Resume, short writes), one system call
// for each connection whose interest really changed, then polls, then reports. Readiness is level-triggered. Reading
// and writing take one system call each, through calls that do not tell Go's scheduler: the descriptors are
// non-blocking, so there is nothing to hand the processor over for. Nothing on these ways allocates.
//
// A broken connection whose received bytes have not all been read is reported Readable until they have, then Hangup;
// one that is paused is reported Hangup at once, and its unread bytes are lost. The Err of a Hangup says why.
//
// # Close
//
// A TCP socket that is closed while received bytes are unread, or that receives more afterwards, answers with RST,
// and RST destroys bytes under way: the DISCONNECT that told the peer why. So Conn.Close, unless the peer has closed
// its side already, the connection is broken, or nothing was ever written, reads away what has come, sends FIN, and
// keeps the descriptor while the loop goes on, throwing away what arrives, until the peer closes too. That is
// bounded twice: lingerTime, and lingerMax connections per plane, beyond which the one that has waited longest is
// closed. Running out of descriptors closes all of those of the plane that accepts. Plane.Close does not wait for any.
package kernel
