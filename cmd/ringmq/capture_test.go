package main

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// TestCaptureEndsWithWholeFrames cuts a capture at every byte: what is written can be read to its end.
func TestCaptureEndsWithWholeFrames(t *testing.T) {
	const frames = 3
	var sent bytes.Buffer
	w, err := pcapgo.NewNgWriter(&sent, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	ends := []int{} // of the sent bytes, by frame
	for i := range frames {
		frame := bytes.Repeat([]byte{byte(i)}, 60+i)
		if err := errors.Join(w.WritePacket(gopacket.CaptureInfo{CaptureLength: len(frame), Length: len(frame)}, frame), w.Flush()); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, sent.Len())
	}
	interrupted := errors.New("interrupted")
	for cut := range sent.Len() + 1 {
		var got bytes.Buffer
		n, err := copyBlocks(&got, io.MultiReader(bytes.NewReader(sent.Bytes()[:cut]), iotest.ErrReader(interrupted)))
		if !errors.Is(err, interrupted) || n != int64(got.Len()) || !bytes.HasPrefix(sent.Bytes(), got.Bytes()) {
			t.Fatalf("cut at %d: %d bytes, %v", cut, n, err)
		}
		want := 0
		for _, end := range ends {
			if end <= cut {
				want++
			}
		}
		if read := framesIn(t, got.Bytes()); read != want || want > 0 && got.Len() != ends[want-1] {
			t.Errorf("cut at %d: %d frames in %d bytes, want %d", cut, read, got.Len(), want)
		}
	}
	var got bytes.Buffer
	if _, err := copyBlocks(&got, &sent); err != nil || framesIn(t, got.Bytes()) != frames {
		t.Errorf("the whole: %v", err)
	}
}

// framesIn reads a file to its end.
func framesIn(t *testing.T, file []byte) (n int) {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
	for ; err == nil; n++ {
		_, _, err = r.ReadPacketData()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("%d frames, then %v", n, err)
	}
	return max(0, n-1)
}

func TestCaptureOfSomethingElse(t *testing.T) {
	for _, text := range []string{"\x00\x00\x00\x00\x00\x00\x00\x00", "HTTP/1.1 200 OK\r\n", "short"} {
		var got bytes.Buffer
		if n, err := copyBlocks(&got, bytes.NewReader([]byte(text))); err == nil || n != 0 {
			t.Errorf("%q: %d bytes, %v", text, n, err)
		}
	}
}
