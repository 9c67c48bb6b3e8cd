//go:build unix

package admin

import (
	"fmt"
	"os"
	"syscall"
)

// checkOwner refuses a directory that another user has made, or may write to: the socket there would be his to replace.
func checkOwner(directory string) error {
	info, err := os.Lstat(directory)
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o022 != 0 || ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("admin socket: %s is not this user's alone: remove it, set XDG_RUNTIME_DIR, or choose another place with --admin", directory)
	}
	return nil
}
