package main

import (
	"fmt"
	"strings"
	"time"
)

// The letters of strftime, and what package time calls them.
const (
	clockLetters = "YymdeHIMSpabBzZAhjsNFTDRcCgGkltnuUVwWxXr@"
)

// clock gives the piece for @X, which stands for strftime's %X in the C locale.
func clock(letter byte) (piece, error) {
	if !strings.ContainsRune(clockLetters, rune(letter)) {
		return nil, fmt.Errorf("no time @%c, only @%s", letter, strings.Join(strings.Split(clockLetters, ""), " @"))
	}
	if layout := clockLayout(letter); layout != "" {
		return func(dst []byte, m *received) ([]byte, error) { return m.at.AppendFormat(dst, layout), nil }, nil
	}
	return func(dst []byte, m *received) ([]byte, error) { return appendClock(dst, letter, m.at), nil }, nil
}

func clockLayout(letter byte) string {
	return map[byte]string{'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'H': "15", 'I': "03", 'M': "04", 'S': "05",
		'p': "PM", 'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January", 'z': "-0700", 'Z': "MST", 'j': "002",
		'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'R': "15:04", 'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06",
		'X': "15:04:05", 'r': "03:04:05 PM"}[letter]
}

// appendClock appends what package time has no layout for.
func appendClock(dst []byte, letter byte, t time.Time) []byte {
	isoYear, isoWeek := t.ISOWeek()
	switch letter {
	case '@':
		return append(dst, '@')
	case 'n':
		return append(dst, '\n')
	case 't':
		return append(dst, '\t')
	case 's':
		return fmt.Appendf(dst, "%d", t.Unix())
	case 'N':
		return fmt.Appendf(dst, "%09d", t.Nanosecond())
	case 'C':
		return fmt.Appendf(dst, "%02d", t.Year()/100)
	case 'g':
		return fmt.Appendf(dst, "%02d", isoYear%100)
	case 'G':
		return fmt.Appendf(dst, "%d", isoYear)
	case 'V':
		return fmt.Appendf(dst, "%02d", isoWeek)
	case 'k':
		return fmt.Appendf(dst, "%2d", t.Hour())
	case 'l':
		return fmt.Appendf(dst, "%2d", (t.Hour()+11)%12+1)
	}
	return appendWeek(dst, letter, t)
}

// appendWeek appends numbers of days and weeks; weeks begin on Sunday for U and on Monday for W.
func appendWeek(dst []byte, letter byte, t time.Time) []byte {
	sunday := int(t.Weekday())
	monday := (sunday + 6) % 7
	switch letter {
	case 'u':
		return fmt.Appendf(dst, "%d", monday+1)
	case 'w':
		return fmt.Appendf(dst, "%d", sunday)
	case 'U':
		return fmt.Appendf(dst, "%02d", (t.YearDay()+6-sunday)/7)
	default:
		return fmt.Appendf(dst, "%02d", (t.YearDay()+6-monday)/7)
	}
}
