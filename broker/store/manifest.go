package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	walrecord "github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble's MANIFEST says which tables and logs are the database's. Pebble reads it up to the first record that is damaged, as after a loss of power, and removes the
// tables that only later ones name. So a file beside it, the note, says how much of it was synced: where less can be read it is damaged. The note is written
// after that and never synced, so it is never ahead.

const (
	manifestPrefix = "MANIFEST-"
	manifestNote   = "manifest-synced"
	noteBytes      = 8 + 8 + 4 // the MANIFEST's number, how many bytes were synced, checksum of both
)

// manifestNumber is the number of a MANIFEST; false for other files.
func manifestNumber(path string) (number uint64, is bool) {
	digits, is := strings.CutPrefix(filepath.Base(path), manifestPrefix)
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, is && err == nil
}

// noteManifest notes how much of a MANIFEST was synced. A disk that does not take it costs the proof and nothing else.
func (f *fenceFS) noteManifest(path string, synced int64) {
	number, is := manifestNumber(path)
	if !is || f.up.Load() {
		return
	}
	note, err := f.FS.OpenReadWrite(filepath.Join(f.dir, manifestNote), vfs.WriteCategoryUnspecified)
	if err != nil {
		return
	}
	b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, number), uint64(synced))
	_, _ = note.WriteAt(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)), 0)
	_ = note.Close()
}

// checkManifest says what of the MANIFEST that the note is about is damaged.
func (s *Store) checkManifest() error {
	dir, b := s.databaseDir(), make([]byte, noteBytes)
	if s.readFile(filepath.Join(dir, manifestNote), func(f io.Reader) error { _, err := io.ReadFull(f, b); return err }) != nil ||
		crc32.ChecksumIEEE(b[:16]) != binary.BigEndian.Uint32(b[16:]) {
		return nil // It proves nothing.
	}
	name := fmt.Sprintf("%s%06d", manifestPrefix, binary.BigEndian.Uint64(b))
	synced, good := int64(binary.BigEndian.Uint64(b[8:])), int64(0)
	if err := s.readFile(filepath.Join(dir, name), func(f io.Reader) (err error) { good, err = goodRecords(f); return err }); err != nil {
		return nil // Another one is in use by now, or Pebble will say what is wrong.
	}
	if good < synced {
		return fmt.Errorf("%w: of %s %d bytes can be read, and %d were synced", pebble.ErrCorruption, name, good, synced)
	}
	return nil
}

// readFile opens a file to read it.
func (s *Store) readFile(path string, read func(io.Reader) error) error {
	f, err := s.config.FS.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(read(f), f.Close())
}

// goodRecords is where the first record of a MANIFEST begins that is damaged, or the end.
func goodRecords(f io.Reader) (end int64, err error) {
	records := openLog(walrecord.NewReader, f, 0)
	for {
		r, err := records.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if errors.Is(err, io.EOF) || walrecord.IsInvalidRecord(err) {
			return end, nil
		}
		if err != nil {
			return end, err
		}
		end = records.Offset()
	}
}
