package credentials

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
)

// fileMaxBytes bounds what Load takes into memory; it is room for about 200,000 users with verifiers.
const fileMaxBytes = 64 << 20

// weakIterations is where PBKDF2 stops being a hindrance: mosquitto_passwd 2.0 writes 101.
const weakIterations = 10_000

// File is a password file in memory. It does not change after Load, so any number of goroutines may use it.
// A reload is a new File.
type File struct {
	path     string
	users    map[string]entry
	prepared map[string]string // SASLprep'd name → user, of those who have a verifier
	longest  int               // a name with more bytes is not looked for in prepared
	decoy    hash              // what a name that no line has is checked against
	decoys   decoys
	warnings []string
}

// entry is what one line says of its user.
type entry struct {
	line     int
	hash     hash
	verifier *verifier // nil: this user cannot authenticate with SCRAM
}

// Load reads a password file. An error names the file and the line and says what to do.
func Load(path string) (*File, error) {
	data, mode, err := read(path)
	if err != nil {
		return nil, err
	}
	f, err := parse(path, data)
	if err != nil {
		return nil, err
	}
	if mode&0o004 != 0 {
		f.warnings = append(f.warnings, fmt.Sprintf("%s: every user of this machine can read the password hashes: chmod o-r %s", path, path))
	}
	return f, nil
}

func read(path string) ([]byte, os.FileMode, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read password file: %w", err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("read password file: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(in, fileMaxBytes+1))
	if err != nil {
		return nil, 0, fmt.Errorf("read password file: %w", err)
	}
	if len(data) > fileMaxBytes {
		return nil, 0, fmt.Errorf("read password file %s: it has more than %d MiB: keep so many users elsewhere", path, fileMaxBytes>>20)
	}
	return data, info.Mode(), nil
}

func parse(path string, data []byte) (*File, error) {
	f := &File{path: path, users: map[string]entry{}, prepared: map[string]string{}, longest: preparedMaxBytes}
	var order []string
	number := 0
	for raw := range bytes.Lines(data) {
		number++
		user, fields, isUser := splitLine(raw)
		if !isUser {
			continue
		}
		if err := f.add(number, user, fields); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		order = append(order, user)
	}
	f.warnWeak(order)
	return f, f.makeDecoys(order)
}

// splitLine parts a line at its first colon, trims blanks as Mosquitto does and says whether the line is of a user
// at all. The password of a file that is not hashed yet may have colons of its own, so rest is left whole.
func splitLine(raw []byte) (user, rest string, isUser bool) {
	text := string(raw)
	if strings.HasPrefix(text, "#") || strings.Trim(text, blanks) == "" {
		return "", "", false
	}
	user, rest, _ = strings.Cut(text, ":")
	return strings.Trim(user, blanks), strings.Trim(rest, blanks), true
}

func (f *File) add(number int, user, fields string) error {
	if err := checkUser(user); err != nil {
		return fmt.Errorf("%w: correct or remove the line", err)
	}
	if fields == "" {
		return fmt.Errorf("user %q has no password hash behind a ':': set the password with ringmq passwd, or remove the line", user)
	}
	if other, found := f.users[user]; found {
		return fmt.Errorf("user %q stands already in line %d: remove one of the two lines", user, other.line)
	}
	hashText, verifierText, _ := strings.Cut(fields, ":")
	e := entry{line: number}
	var err error
	if e.hash, err = parseHash(strings.Trim(hashText, blanks)); err != nil {
		return fmt.Errorf("user %q: %w", user, err)
	}
	if text := strings.Trim(verifierText, blanks); text != "" {
		v, err := parseVerifier(text)
		if err != nil {
			return fmt.Errorf("user %q: %w: set the password again with ringmq passwd", user, err)
		}
		if err := f.addPrepared(user); err != nil {
			return err
		}
		e.verifier = &v
	}
	f.users[user] = e
	return nil
}

func (f *File) addPrepared(user string) error {
	name, err := prepare(user)
	if err != nil {
		return fmt.Errorf("user %q has a SCRAM verifier that no client can use (SASLprep): %w: remove the verifier", user, err)
	}
	if other, found := f.prepared[name]; found {
		return fmt.Errorf("user %q and user %q of line %d are the same name for SCRAM (SASLprep): rename one of them",
			user, other, f.users[other].line)
	}
	f.prepared[name] = user
	f.longest = max(f.longest, len(user), len(name))
	return nil
}

func (f *File) warnWeak(order []string) {
	weak := 0
	first := 0
	for _, user := range order {
		e := f.users[user]
		if e.hash.cost.kind == Argon2id || e.hash.cost.kind == PBKDF2 && e.hash.cost.passes >= weakIterations {
			continue
		}
		if weak == 0 {
			first = e.line
		}
		weak++
	}
	if weak > 0 {
		f.warnings = append(f.warnings, fmt.Sprintf("%s:%d: passwords hashed so that a stolen file is cracked quickly: %d; "+
			"set them again with ringmq passwd", f.path, first, weak))
	}
}

// makeDecoys picks the most common cost (the earliest of equals) for the names that no line has.
func (f *File) makeDecoys(order []string) error {
	count := map[cost]int{}
	scramCount := map[int]int{}
	var shape verifier
	for _, user := range order {
		e := f.users[user]
		if count[e.hash.cost]++; count[e.hash.cost] > count[f.decoy.cost] {
			f.decoy = e.hash
		}
		if e.verifier == nil {
			continue
		}
		if scramCount[e.verifier.Iters]++; shape.ServerKey == nil || scramCount[e.verifier.Iters] > scramCount[shape.Iters] {
			shape = *e.verifier
		}
	}
	if len(order) > 0 {
		f.decoy = f.decoy.decoy()
	}
	if shape.ServerKey == nil {
		shape = randomVerifier()
	}
	var err error
	f.decoys, err = newDecoys(shape)
	return err
}

// Verify says whether the password is the user's. It takes as long for a name that the file does not have as for
// most of those that it has, and for a wrong password as for the right one. It computes for milliseconds to
// seconds and allocates up to MemoryMaxBytes, so the caller bounds how many run at once. The password is only
// read.
func (f *File) Verify(user string, password []byte) bool {
	e, found := f.users[user]
	if found {
		return e.hash.matches(password)
	}
	if len(f.users) > 0 {
		f.decoy.matches(password)
	}
	return false
}

// MemoryMaxBytes is what one Verify of this file may allocate. It is garbage when Verify returns.
func (f *File) MemoryMaxBytes() int64 {
	most := int64(0)
	for _, e := range f.users {
		most = max(most, int64(e.hash.cost.memoryKiB)<<10)
	}
	return most
}

// Len is the number of users.
func (f *File) Len() int { return len(f.users) }

// Warnings are lines for the log about what is allowed but unwise, each with file, line and what to do.
func (f *File) Warnings() []string { return f.warnings }
