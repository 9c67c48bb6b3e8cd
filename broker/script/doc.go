// Package script is the language of conversations with a broker: it turns a line into the packet that a client sends, and a
// packet that a broker sent into a line.
//
// It is what the scripts in broker/testdata, which play over the in-memory plane with injected time, and those in
// broker/conform, which play against any broker, have in common. It knows neither connections nor time. A mistake in a script
// comes as a panic with a string; whoever plays it turns that into an error with a line number.
package script
