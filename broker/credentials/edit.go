package credentials

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// ErrNoUser is what Delete wraps when no line is of that user.
var ErrNoUser = errors.New("no such user")

// Set writes the user's password, hashed by kind and with a SCRAM-SHA-256 verifier behind it, into the file: over
// the user's line or as a new last line. All other lines stay byte for byte as they are. The file is replaced in
// one step, so that a reader sees the old or the new one, and keeps its mode and owner. Two writers wait for each
// other. A missing file is an error that wraps fs.ErrNotExist; Create makes one.
func Set(path, user string, password []byte, kind Kind) error {
	return edit(path, func(data []byte) ([]byte, error) {
		line, err := newLine(user, password, kind)
		if err != nil {
			return nil, err
		}
		out, found := replaceUser(data, user, line)
		if !found {
			out = append(endLine(out), line+"\n"...)
		}
		return out, nil
	})
}

// Create writes a file that has just this user, readable by its owner only. A file that is there already is
// replaced.
func Create(path, user string, password []byte, kind Kind) error {
	line, err := newLine(user, password, kind)
	if err != nil {
		return err
	}
	return create(path, []byte(line+"\n"))
}

// Delete removes the user's line.
func Delete(path, user string) error {
	return edit(path, func(data []byte) ([]byte, error) {
		out, found := replaceUser(data, user, "")
		if !found {
			return nil, fmt.Errorf("delete %q from %s: %w", user, path, ErrNoUser)
		}
		return out, nil
	})
}

// Upgrade hashes the passwords of a file that has lines user:password in plain text and says how many it hashed.
// Unlike mosquitto_passwd -U it leaves lines alone that are hashed already. On any error the file stays as it was.
func Upgrade(path string, kind Kind) (hashed int, err error) {
	err = edit(path, func(data []byte) ([]byte, error) {
		var out []byte
		number := 0
		for raw := range bytes.Lines(data) {
			number++
			user, password, isUser := splitLine(raw)
			if !isUser || isHashed(password) {
				out = append(out, raw...)
				continue
			}
			line, err := upgradeLine(user, password, kind)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", path, number, err)
			}
			out = append(append(out, line...), ending(raw)...)
			hashed++
		}
		return out, nil
	})
	if err != nil {
		hashed = 0
	}
	return hashed, err
}

func isHashed(fields string) bool {
	text, _, _ := strings.Cut(fields, ":")
	_, err := parseHash(strings.Trim(text, blanks))
	return err == nil
}

func upgradeLine(user, password string, kind Kind) (string, error) {
	if strings.Contains(password, ":") {
		return "", fmt.Errorf("the password of user %q has a ':', which a plain text file cannot say: "+
			"remove the line and use ringmq passwd FILE USER", user)
	}
	return newLine(user, []byte(password), kind)
}

func newLine(user string, password []byte, kind Kind) (string, error) {
	if err := errors.Join(checkUser(user), checkPassword(password)); err != nil {
		return "", err
	}
	h, err := newHash(kind, password)
	if err != nil {
		return "", err
	}
	v, err := newVerifier(user, password)
	if err != nil {
		return "", err
	}
	return user + ":" + h.String() + ":" + formatVerifier(v), nil
}

// replaceUser puts line in the place of the user's first line, and nothing in the place of further ones, which
// only a file that Load refuses has. An empty line means removal.
func replaceUser(data []byte, user, line string) (out []byte, found bool) {
	for raw := range bytes.Lines(data) {
		name, _, isUser := splitLine(raw)
		if !isUser || name != user {
			out = append(out, raw...)
			continue
		}
		if !found && line != "" {
			out = append(append(out, line...), ending(raw)...)
		}
		found = true
	}
	return out, found
}

// ending is the line's own: a newline, a carriage return and newline, or nothing for the last line.
func ending(raw []byte) []byte {
	return raw[len(bytes.TrimRight(raw, "\r\n")):]
}

func endLine(data []byte) []byte {
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	return data
}

// edit reads, changes and replaces the file while no other writer does.
func edit(path string, change func([]byte) ([]byte, error)) error {
	target, unlock, err := lockTarget(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: ringmq passwd -c makes a new file", err)
		}
		return err
	}
	defer unlock()
	data, _, err := read(target)
	if err != nil {
		return err
	}
	if data, err = change(data); err != nil {
		return err
	}
	return replace(target, data)
}

// create is edit for a file that need not be there.
func create(path string, data []byte) error {
	target, unlock, err := lockTarget(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createNew(path, data)
	}
	if err != nil {
		return err
	}
	defer unlock()
	return replace(target, data)
}
