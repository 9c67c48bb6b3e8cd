//go:build !unix

package admin

// checkOwner knows no owners here.
func checkOwner(string) error { return nil }
