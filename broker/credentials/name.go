package credentials

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/xdg-go/stringprep"
)

// fieldMaxBytes is the longest User Name and Password that a CONNECT can carry: both have a two-byte length.
const fieldMaxBytes = 65535

// preparedMaxBytes is the longest name that a stranger can have us bring into its SASLprep form, which takes about
// 0.15 ms, unless the file has a longer one: a name as long as MQTT allows would take 9 ms on the shard.
const preparedMaxBytes = 1024

// blanks are what Mosquitto trims from both ends of a field (C's isspace).
const blanks = " \t\r\n\v\f"

// checkUser says why a name cannot stand in a password file, or nil.
func checkUser(user string) error {
	switch {
	case user == "":
		return errors.New("the user name is empty")
	case len(user) > fieldMaxBytes:
		return fmt.Errorf("the user name has %d bytes, more than MQTT's %d", len(user), fieldMaxBytes)
	case !utf8.ValidString(user):
		return errors.New("the user name is not UTF-8")
	case strings.HasPrefix(user, "\ufeff"): // Mosquitto takes it for a part of the name, too.
		return errors.New("the user name starts with a byte order mark, as an editor puts it before a file: save the file without")
	case strings.Contains(user, ":"):
		return fmt.Errorf("user name %q has a ':', which ends the name in a password file", user)
	case strings.HasPrefix(user, "#"):
		return fmt.Errorf("user name %q starts with '#', which starts a comment in a password file", user)
	case strings.Trim(user, blanks) != user:
		return fmt.Errorf("user name %q starts or ends with a blank, which a password file does not keep", user)
	case strings.ContainsFunc(user, unicode.IsControl):
		return fmt.Errorf("user name %q has a control character", user)
	}
	return nil
}

// checkPassword says why a password cannot be set, or nil.
func checkPassword(password []byte) error {
	switch {
	case len(password) == 0:
		return errors.New("the password is empty")
	case len(password) > fieldMaxBytes:
		return fmt.Errorf("the password has %d bytes, more than MQTT's %d", len(password), fieldMaxBytes)
	}
	return nil
}

// prepare gives the form of a user name in which SCRAM compares it (SASLprep, RFC 4013).
func prepare(user string) (string, error) {
	prepared, err := stringprep.SASLprep.Prepare(user)
	if err == nil && prepared == "" {
		return "", errors.New("nothing is left of the name")
	}
	return prepared, err
}
