// Package scripts has the commands that run, test and build RingMQ, and the test that keeps the tree tidy.
package scripts
