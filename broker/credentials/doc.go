// Package credentials says who may connect: it reads, checks against and writes password files.
//
// It is not authorisation (what a client may publish or subscribe to), and it has no goroutine: hashing takes
// milliseconds to seconds, so the caller runs Verify off the shard and bounds how many run at once.
//
// # The file
//
// One user a line, as mosquitto_passwd writes it, with one field of our own behind it:
//
//	user:hash
//	user:hash:verifier
//
// hash is one of
//
//	$argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$DIGEST  Argon2id (RFC 9106), base64 without padding
//	$7$ITERATIONS$SALT$DIGEST                          PBKDF2 with HMAC-SHA-512, base64
//	$6$SALT$DIGEST                                     SHA-512(password + salt), base64; read, never written
//
// verifier lets the same user prove the password by SCRAM-SHA-256 without sending it (RFC 5803, base64; also
// what PostgreSQL stores):
//
//	SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY
//
// Mosquitto (tried: 2.0.11; read: 2.1) stops at the second colon, so it serves the same file and ignores the
// verifier. mosquitto_passwd keeps the whole line of every other user and drops the verifier of the one whose
// password it changes: a verifier can never outlive its password. A comment line or a second line for the same
// user would not do: mosquitto_passwd 2.0.11 loses every line from a comment without colon on, and Mosquitto 2.1
// refuses a file that has a user twice.
//
// A line that starts with '#' is a comment. Blank lines, CRLF and blanks around a field are tolerated. Everything
// else that is not a user is an error which names file and line: a user lost silently is a device locked out.
package credentials
