package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ringmq/ringmq/cmd/client"
)

const formatHelp = `Formats for -F:
  %t topic   %p payload   %q QoS   %r retained (0, 1)   %l bytes of payload   %m Packet Identifier
  %x %X payload in hexadecimal   %j %J all in JSON, the payload as a string or as JSON itself
  %I local time (ISO 8601)   %U seconds since 1970 with nanoseconds   %% a percent sign
  5.0 properties: %A Topic Alias   %C content type   %D correlation data   %E message expiry interval
  %F payload format indicator   %P user properties   %R response topic   %S subscription identifier
  %10t at least 10 characters, %-10t to the left, %.10t at most, %06l with zeros; %10p %10x exactly 10
  @Y @m @d @H @M @S and more as in strftime, @N nanoseconds, @@   \n \t \r \0 \a \e \v \\`

// received is a message and when it came.
type received struct {
	*client.Message
	at time.Time
}

// piece appends one part of a format to dst.
type piece func(dst []byte, m *received) ([]byte, error)

// format is a compiled -F.
type format []piece

// compileFormat reads a format; pretty is for its JSON.
func compileFormat(text string, pretty bool) (format, error) {
	var f format
	for len(text) > 0 {
		var p piece
		var err error
		switch i := strings.IndexAny(text, `%@\`); {
		case i < 0:
			p, text = literal(text), ""
		case i > 0:
			p, text = literal(text[:i]), text[i:]
		case len(text) == 1:
			return nil, fmt.Errorf("-F: %s at the end: write %s%s for the character itself", text, text, text)
		case text[0] == '%':
			p, text, err = parameter(text[1:], pretty)
		case text[0] == '@':
			p, err = clock(text[1])
			text = text[2:]
		default:
			p, err = escaped(text[1])
			text = text[2:]
		}
		if err != nil {
			return nil, fmt.Errorf("-F: %w", err)
		}
		f = append(f, p)
	}
	return f, nil
}

// append writes m behind dst.
func (f format) append(dst []byte, m *received) ([]byte, error) {
	var err error
	for _, p := range f {
		if dst, err = p(dst, m); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func literal(text string) piece {
	return func(dst []byte, _ *received) ([]byte, error) { return append(dst, text...), nil }
}

func escaped(c byte) (piece, error) {
	const names, values = `\0aenrtv`, "\\\x00\a\x1b\n\r\t\v"
	i := strings.IndexByte(names, c)
	if i < 0 {
		return nil, fmt.Errorf(`no escape \%c, only \%s`, c, strings.Join(strings.Split(names, ""), ` \`))
	}
	return literal(values[i : i+1]), nil
}

// field is how a parameter is set: %-08.3t. Width and precision are -1 where there are none.
type field struct {
	left, zero       bool
	width, precision int
}

// parameter reads what stands behind a percent sign.
func parameter(text string, pretty bool) (p piece, rest string, err error) {
	f := field{width: -1, precision: -1}
	for len(text) > 0 && (text[0] == '-' || text[0] == '0') {
		f.left, f.zero = f.left || text[0] == '-', f.zero || text[0] == '0'
		text = text[1:]
	}
	f.width, text = digits(text)
	if after, found := strings.CutPrefix(text, "."); found {
		f.precision, text = digits(after)
	}
	if text == "" || f.width > fieldMax || f.precision > fieldMax {
		return nil, "", errors.New("a width without a letter behind it, or one above 10000")
	}
	letter := text[0]
	if p = f.piece(letter, pretty); p == nil {
		return nil, "", fmt.Errorf("no parameter %%%c; the help lists them", letter)
	}
	return p, text[1:], nil
}

// fieldMax bounds what one parameter is filled up to.
const fieldMax = 10000

// digits reads a number, -1 when there is none. One that is too long is above fieldMax.
func digits(text string) (n int, rest string) {
	end := 0
	for end < len(text) && text[end] >= '0' && text[end] <= '9' {
		end++
	}
	if end == 0 {
		return -1, text
	}
	n, err := strconv.Atoi(text[:end])
	if err != nil {
		n = fieldMax + 1
	}
	return n, text[end:]
}

func (f field) piece(letter byte, pretty bool) piece {
	switch letter {
	case '%':
		return literal("%")
	case 'p', 'x', 'X':
		return f.payload(letter)
	case 'q':
		return func(dst []byte, m *received) ([]byte, error) { return append(dst, '0'+m.QoS), nil }
	case 'r':
		return func(dst []byte, m *received) ([]byte, error) { return append(dst, zeroOrOne(m.Retain)), nil }
	case 'D':
		return func(dst []byte, m *received) ([]byte, error) {
			return append(dst, m.Properties.CorrelationData...), nil
		}
	case 'P':
		return appendUserProperties
	case 'U':
		return func(dst []byte, m *received) ([]byte, error) {
			return fmt.Appendf(dst, "%d.%09d", m.at.Unix(), m.at.Nanosecond()), nil
		}
	case 'j', 'J':
		return func(dst []byte, m *received) ([]byte, error) { return appendJSON(dst, m, letter == 'J', pretty) }
	}
	if number := numberOf(letter); number != nil {
		return func(dst []byte, m *received) ([]byte, error) { return f.appendText(dst, number(m), f.zero), nil }
	}
	if text := textOf(letter); text != nil {
		return func(dst []byte, m *received) ([]byte, error) { return f.appendText(dst, f.cut(text(m)), false), nil }
	}
	return nil
}

func zeroOrOne(b bool) byte {
	if b {
		return '1'
	}
	return '0'
}

func appendUserProperties(dst []byte, m *received) ([]byte, error) {
	for i, u := range m.Properties.User {
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = append(append(append(dst, u.Name...), ':'), u.Value...)
	}
	return dst, nil
}

// numberOf gives a parameter that is a number as text, empty for a property that is absent.
func numberOf(letter byte) func(m *received) string {
	switch letter {
	case 'l':
		return func(m *received) string { return strconv.Itoa(len(m.Payload)) }
	case 'm':
		return func(m *received) string { return strconv.Itoa(int(m.PacketID)) }
	case 'A':
		return func(m *received) string { return optional(m.Properties.TopicAlias) }
	case 'E':
		return func(m *received) string { return optional(m.Properties.MessageExpiry) }
	case 'F':
		return func(m *received) string { return optional(m.Properties.PayloadFormat) }
	case 'S':
		return func(m *received) string { return optional(m.Properties.SubscriptionID) }
	}
	return nil
}

func optional[T byte | uint16 | uint32 | int](n *T) string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(int(*n))
}

func textOf(letter byte) func(m *received) string {
	switch letter {
	case 't':
		return func(m *received) string { return m.Topic }
	case 'C':
		return func(m *received) string { return m.Properties.ContentType }
	case 'R':
		return func(m *received) string { return m.Properties.ResponseTopic }
	case 'I':
		return func(m *received) string { return m.at.Format("2006-01-02T15:04:05-0700") }
	}
	return nil
}

func (f field) cut(text string) string {
	if f.precision >= 0 && len(text) > f.precision {
		return text[:f.precision]
	}
	return text
}

// appendText fills text up to the width.
func (f field) appendText(dst []byte, text string, zeros bool) []byte {
	missing := max(0, f.width-len(text))
	if f.left {
		return append(append(dst, text...), strings.Repeat(" ", missing)...)
	}
	fill := " "
	if zeros {
		fill = "0"
	}
	return append(append(dst, strings.Repeat(fill, missing)...), text...)
}

// payload gives exactly width characters where there is one, as mosquitto_sub does.
func (f field) payload(letter byte) piece {
	return func(dst []byte, m *received) ([]byte, error) {
		bytesMax := len(m.Payload)
		if f.width >= 0 && letter == 'p' {
			bytesMax = min(bytesMax, f.width)
		} else if f.width >= 0 {
			bytesMax = min(bytesMax, (f.width+1)/2)
		}
		shown := m.Payload[:bytesMax]
		if letter == 'p' && f.width < 0 {
			return append(dst, shown...), nil
		}
		text := string(shown)
		if letter != 'p' {
			text = hex.EncodeToString(shown)
		}
		if letter == 'X' {
			text = strings.ToUpper(text)
		}
		if f.width >= 0 {
			text = text[:min(len(text), f.width)]
		}
		return f.appendText(dst, text, f.zero && letter != 'p'), nil
	}
}
