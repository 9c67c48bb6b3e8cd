package script

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Bytes reads the notation in which packets are written byte by byte: two hex digits are a byte, several pairs several; iN is the byte
// N; HN, kN, mN and sN are N in 16 bits; LN is N in 32; vN and rN are N as a Variable Byte Integer; 'text' is itself.
func Bytes(text string) (b []byte, err error) {
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		if text[0] == '\'' {
			word, rest, ok := strings.Cut(text[1:], "'")
			if !ok {
				return nil, fmt.Errorf("%s: no closing quote", text)
			}
			b, text = append(b, word...), rest
			continue
		}
		end := strings.IndexAny(text, " '")
		if end < 0 {
			end = len(text)
		}
		if b, err = appendWord(b, text[:end]); err != nil {
			return nil, err
		}
		text = text[end:]
	}
	return b, nil
}

func appendWord(b []byte, word string) ([]byte, error) {
	if !strings.ContainsRune("iHkmsLvr", rune(word[0])) {
		more, err := hex.DecodeString(word)
		return append(b, more...), err
	}
	n, err := strconv.ParseUint(word[1:], 10, 32)
	if err != nil {
		return nil, err
	}
	switch word[0] {
	case 'i':
		return append(b, byte(n)), nil
	case 'L':
		return binary.BigEndian.AppendUint32(b, uint32(n)), nil
	case 'v', 'r':
		for ; n >= 0x80; n >>= 7 { // beyond what the standard allows too: five bytes
			b = append(b, byte(n)|0x80)
		}
		return append(b, byte(n)), nil
	}
	return binary.BigEndian.AppendUint16(b, uint16(n)), nil
}
