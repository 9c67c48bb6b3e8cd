package planetest

import (
	"fmt"
	"io"
)

// patternAt is byte number i of a stream in which a piece that is lost, doubled or moved is noticed.
func patternAt(i int) byte { return byte(i*7 + i>>8*13 + i>>16*29) }

// pattern returns n bytes of the stream from byte number from.
func pattern(from, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = patternAt(from + i)
	}
	return p
}

// checkPattern compares bytes with the stream from byte number from.
func checkPattern(from int, got []byte) error {
	for i, b := range got {
		if b != patternAt(from+i) {
			return fmt.Errorf("byte %d of the stream is wrong: %#02x, want %#02x", from+i, b, patternAt(from+i))
		}
	}
	return nil
}

// readPattern reads n bytes of the stream, then, if toEnd, the end of input.
func readPattern(from io.Reader, n int, toEnd bool) error {
	buffer := make([]byte, 32<<10)
	for got := 0; got < n; {
		m, err := from.Read(buffer[:min(len(buffer), n-got)])
		if bad := checkPattern(got, buffer[:m]); bad != nil {
			return bad
		}
		got += m
		if err != nil && got < n {
			return fmt.Errorf("after %d of %d bytes: %w", got, n, err)
		}
	}
	if !toEnd {
		return nil
	}
	if m, err := from.Read(buffer); m != 0 || err != io.EOF {
		return fmt.Errorf("after all bytes the peer reads %d bytes and error %v; want EOF", m, err)
	}
	return nil
}
