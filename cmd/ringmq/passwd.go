package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ringmq/ringmq/broker/credentials"
	"github.com/urfave/cli/v2"
)

const passwdUsage = `FILE USER                    ask for the password, or read it from a standard input that is no terminal
   ringmq passwd [-H HASH] [-c] -b FILE USER PASSWORD
   ringmq passwd -D FILE USER
   ringmq passwd [-H HASH] -U FILE`

const passwdDescription = `Writes password files for ringmq serve --passwords; Mosquitto reads them too (argon2id since 2.1).
Each user gets a hash for User Name and Password, and a verifier for SCRAM-SHA-256.

Examples:
  ringmq passwd -c users alice             make the file, ask for alice's password
  ringmq passwd users bob < bobs-password  add or change bob, reading the password
  ringmq passwd -D users bob               delete bob`

// passwdCommand is ringmq passwd, with the flags of mosquitto_passwd.
func passwdCommand() *cli.Command {
	return &cli.Command{
		Name:        "passwd",
		Usage:       "add, change and delete users of a password file",
		UsageText:   "ringmq passwd [-H HASH] [-c] " + passwdUsage,
		Description: passwdDescription,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "b", Usage: "take the password from the command line, where other users of the machine can see it"},
			&cli.BoolFlag{Name: "c", Usage: "create the file; one that exists is overwritten"},
			&cli.BoolFlag{Name: "D", Usage: "delete the user"},
			&cli.StringFlag{Name: "H", Usage: "hash with `HASH`: argon2id or sha512-pbkdf2", Value: credentials.Argon2id.String()},
			&cli.BoolFlag{Name: "U", Usage: "hash the passwords of a plain text file"},
		},
		Action: runPasswd,
	}
}

func runPasswd(c *cli.Context) error {
	kind, err := credentials.ParseKind(c.String("H"))
	if err != nil {
		return fmt.Errorf("passwd -H: %w", err)
	}
	if err := checkPasswdFlags(c); err != nil {
		return err
	}
	path, user := c.Args().Get(0), c.Args().Get(1)
	switch {
	case c.Bool("U"):
		hashed, err := credentials.Upgrade(path, kind)
		if err == nil {
			fmt.Fprintf(c.App.Writer, "Hashed passwords: %d\n", hashed)
		}
		return err
	case c.Bool("D"):
		return credentials.Delete(path, user)
	}
	password := []byte(c.Args().Get(2))
	if !c.Bool("b") {
		if password, err = readPassword(c.App.Reader, c.App.ErrWriter); err != nil {
			return fmt.Errorf("passwd: %w", err)
		}
	}
	if c.Bool("c") {
		return credentials.Create(path, user, password, kind)
	}
	return credentials.Set(path, user, password, kind)
}

// checkPasswdFlags says which flags or arguments do not fit together.
func checkPasswdFlags(c *cli.Context) error {
	modes := 0
	for _, name := range []string{"c", "D", "U"} {
		if c.Bool(name) {
			modes++
		}
	}
	want, words := 2, "FILE USER"
	switch {
	case modes > 1 || c.Bool("b") && (c.Bool("D") || c.Bool("U")):
		return errors.New("passwd: of -c, -D and -U only one is possible, and -b with none of -D and -U")
	case c.Bool("b"):
		want, words = 3, "FILE USER PASSWORD"
	case c.Bool("U"):
		want, words = 1, "FILE"
	}
	if c.NArg() == want {
		return nil
	}
	if c.NArg() == 3 && want == 2 && !c.Bool("D") {
		return errors.New("passwd: a password on the command line needs -b before FILE")
	}
	return fmt.Errorf("passwd: expected %s, got %d arguments (flags come before FILE; ringmq passwd -h helps)", words, c.NArg())
}

// readPassword asks twice when in is a terminal and otherwise takes the first line.
func readPassword(in io.Reader, prompts io.Writer) ([]byte, error) {
	lines := bufio.NewReader(io.LimitReader(in, passwordLineMaxBytes))
	terminal, isFile := in.(*os.File)
	if !isFile {
		return readLine(lines)
	}
	restore, err := hideInput(terminal)
	if errors.Is(err, errNoTerminal) {
		return readLine(lines)
	}
	if err != nil {
		return nil, err
	}
	defer restore()
	return askTwice(lines, prompts)
}

// passwordLineMaxBytes has room for twice the longest password of MQTT and its line ending.
const passwordLineMaxBytes = 2 * (65535 + 2)

func askTwice(lines *bufio.Reader, prompts io.Writer) ([]byte, error) {
	fmt.Fprint(prompts, "Password: ")
	first, err := readLine(lines)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(prompts, "\nReenter password: ")
	second, err := readLine(lines)
	fmt.Fprintln(prompts)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, errors.New("the two passwords differ: nothing was changed")
	}
	return first, nil
}

func readLine(lines *bufio.Reader) ([]byte, error) {
	line, err := lines.ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read password: %w", err)
	}
	if len(line) == 0 {
		return nil, errors.New("read password: the input ended before one")
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// errNoTerminal is what hideInput wraps for a file, a pipe and a socket.
var errNoTerminal = errors.New("not a terminal")
