package store

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	walrecord "github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ringmq/ringmq/broker/record"
)

// versionPrefix stands before the keys under which salvage collects versions: no kind of record has it.
const versionPrefix = '~'

// versions are all the versions of a damaged store's records that could be read.
type versions struct {
	db      *pebble.DB
	pass    pass
	file    uint64 // the number of the one that is read
	ranges  []deletedRange
	spans   []span // the same, see flatten
	written int    // bytes of what was collected
	left    int    // versions for which there was no room
	saved   int
	boot    uint32 // the last run of which there is a number
	doubt   uint32 // the last loss that a Session knows of
	commits commitRuns
	flushed uint64 // the last commit that a table has
	partly  bool   // a table is not there, or could not be read to its end
	// sent is up to where the queue of each Session was sent, by whatever version says most: which is the newest is not sure, for compactions have the change
	// number of the oldest be 0, and used-up files have older versions with theirs.
	sent map[uint64]uint64
}

// deletedRange is a range that was deleted by change number seq.
type deletedRange struct {
	from, to []byte
	seq      uint64
}

// versionNumbers is how many bytes of numbers stand behind the key of a version.
const versionNumbers = 16

// put collects one version, if this pass is for it and there is room. The newest of a key sorts first. Compactions have the change number of the oldest be
// 0: of two that have it, one is of a table that was used up, and that of the younger table is the newer. A version that more files have is put once otherwise.
func (v *versions) put(key []byte, seq uint64, set bool, value []byte) error {
	v.boot = max(v.boot, record.BootOf(key))
	if set && len(key) > 0 && record.Kind(key[0]) == record.KindSent {
		sid := record.Number(key, 0)
		v.sent[sid] = max(v.sent[sid], record.ReadNumber(value))
	}
	if !v.pass.kinds.has(key) {
		return nil
	}
	if v.pass.full != nil && v.pass.full(v.written) {
		v.left++ // a deletion too: what it has deleted may be back
		return nil
	}
	v.written += len(key) + len(value)
	k := append([]byte{versionPrefix}, key...)
	k = binary.BigEndian.AppendUint64(k, math.MaxUint64-seq)
	file := uint64(0)
	if seq == 0 {
		file = v.file
	}
	k = binary.BigEndian.AppendUint64(k, math.MaxUint64-file)
	kind := byte(0)
	if set {
		kind = 1
	}
	return v.db.Set(k, append([]byte{kind}, value...), pebble.NoSync)
}

func (v *versions) putRange(from, to []byte, seq uint64) {
	if v.pass.kinds == queueKinds {
		return // the first pass has it
	}
	v.ranges = append(v.ranges, deletedRange{bytes.Clone(from), bytes.Clone(to), seq})
}

// readTable reads a table as far as it can be read: from its start and, when it is damaged somewhere, from its end. It says how many
// records lie between, and errs when it cannot say. Who is patient wants the error of a disk that cannot read, to try again.
func (v *versions) readTable(fs vfs.FS, path string, patient bool) (lost int, err error) {
	f, err := fs.Open(path)
	if err != nil {
		return 0, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, readerOptions())
	if err != nil {
		return 0, errors.Join(err, readable.Close())
	}
	defer r.Close()
	n, err := v.readPoints(r, false)
	if patient && isUnread(err) {
		return 0, err
	}
	if err != nil {
		var more int
		more, _ = v.readPoints(r, true)
		properties, err := r.ReadPropertiesBlock(context.Background(), nil)
		if err != nil {
			return 0, err
		}
		lost = max(1, int(properties.NumEntries-properties.NumRangeDeletions)-n-more)
	}
	return lost, v.readRanges(r)
}

// readPoints reads a table in one direction, up to its end or damage, and says how many records that were.
func (v *versions) readPoints(r *sstable.Reader, backward bool) (n int, err error) {
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return 0, err
	}
	first, next := it.First, it.Next
	if backward {
		first, next = it.Last, it.Prev
	}
	for kv := first(); kv != nil; kv = next() {
		value, _, err := kv.Value(nil)
		if err == nil && len(kv.K.UserKey) == 1 && record.Kind(kv.K.UserKey[0]) == record.KindTime {
			v.flushed = max(v.flushed, decodeTime(value).commits)
		}
		if err == nil {
			err = v.put(kv.K.UserKey, uint64(kv.SeqNum()), kv.Kind() != pebble.InternalKeyKindDelete, value) // a set behind a deletion is a kind of its own
		}
		if err != nil {
			return n, errors.Join(err, it.Close())
		}
		n++
	}
	return n, errors.Join(it.Error(), it.Close())
}

func (v *versions) readRanges(r *sstable.Reader) error {
	it, err := r.NewRawRangeDelIter(context.Background(), sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if err != nil || it == nil {
		return err
	}
	defer it.Close()
	span, err := it.First()
	for ; span != nil && err == nil; span, err = it.Next() {
		for _, k := range span.Keys {
			v.putRange(span.Start, span.End, uint64(k.SeqNum()))
		}
	}
	return err
}

const (
	logBlock   = 32 << 10 // of which logs consist, in bytes
	damagedMax = 8        // Of a log that is damaged in so many places the rest is given up: each may cost the disk seconds.
)

// readLog reads a log, without blocks in which it is damaged, and errs when there are any. The end of the last log may be torn: nothing in it was confirmed. Who
// is patient wants the error of a disk that cannot read, to try again.
func (v *versions) readLog(fs vfs.FS, path string, last, patient bool) error {
	f, err := fs.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	number, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(path), ".log"), 10, 64)
	if err != nil {
		return err
	}
	var damage error
	for from, n := int64(0), 1; ; n++ {
		good, err := eachBatch(openLog(walrecord.NewReader, io.NewSectionReader(f, from, math.MaxInt64-from), number), v.readBatch)
		if err == nil || last && errors.Is(err, walrecord.ErrUnexpectedEOF) {
			return damage
		}
		damaged := errors.Is(err, walrecord.ErrInvalidChunk) || errors.Is(err, walrecord.ErrZeroedChunk) // and not torn
		if damage = err; isUnread(err) && patient || !isUnread(err) && !damaged || n == damagedMax {
			return err
		}
		from += (good/logBlock + 1) * logBlock
	}
}

func (v *versions) readBatch(repr []byte) error {
	if len(repr) <= batchrepr.HeaderLen {
		return nil
	}
	v.commits.noteBatch(repr)
	seq := uint64(batchrepr.ReadSeqNum(repr))
	for r := batchrepr.Read(repr); ; seq++ {
		kind, key, value, ok, err := r.Next()
		if !ok || err != nil {
			return err
		}
		switch kind {
		case pebble.InternalKeyKindSet, pebble.InternalKeyKindDelete:
			err = v.put(key, seq, kind == pebble.InternalKeyKindSet, value)
		case pebble.InternalKeyKindRangeDelete:
			v.putRange(key, value, seq)
		}
		if err != nil {
			return err
		}
	}
}

// lack says how many commits the logs lack, and the last one that they have. 0 is that nothing says it: where tables lack something, logs that are used up may be
// what they have.
func (v *versions) lack() (lost, last uint64) {
	if len(v.commits) == 0 || v.partly {
		return 0, 0
	}
	return v.commits.lack(v.flushed)
}

// settle puts the newest version of each record in its place and forgets the others.
func (v *versions) settle() error {
	v.spans, v.ranges = flatten(v.ranges), nil
	from, to := []byte{versionPrefix}, []byte{versionPrefix + 1}
	var last []byte
	err := each(v.db, from, to, func(k, value []byte) error {
		key, numbers := k[1:len(k)-versionNumbers], k[len(k)-versionNumbers:]
		seq := math.MaxUint64 - binary.BigEndian.Uint64(numbers)
		if bytes.Equal(key, last) {
			return nil
		}
		last = append(last[:0], key...)
		if value[0] == 0 || v.isDeleted(key, seq) {
			return nil
		}
		v.saved++
		v.noteDoubt(key, value[1:])
		return v.db.Set(key, value[1:], pebble.NoSync)
	})
	return errors.Join(err, v.db.DeleteRange(from, to, pebble.NoSync), v.db.Flush())
}

func (v *versions) noteDoubt(key, value []byte) {
	var sess record.Session
	if record.Kind(key[0]) == record.KindSession && sess.Decode(value) == nil {
		v.doubt = max(v.doubt, sess.Doubt)
	}
}

// isDeleted says whether a version was deleted with a range.
func (v *versions) isDeleted(key []byte, seq uint64) bool {
	i := sort.Search(len(v.spans), func(i int) bool { return bytes.Compare(v.spans[i].from, key) > 0 })
	return i > 0 && v.spans[i-1].seq > seq
}

// span is the keys from one on, up to the next span's, and the newest change that deleted all of them; 0: none did.
type span struct {
	from []byte
	seq  uint64
}

// flatten makes spans of ranges that overlap, in the order of keys: a store that was busy has a range for each time that a client acknowledged
// something, and each version is looked up.
func flatten(ranges []deletedRange) (spans []span) {
	points := make([][]byte, 0, 2*len(ranges))
	for _, r := range ranges {
		points = append(points, r.from, r.to)
	}
	slices.SortFunc(points, bytes.Compare)
	slices.SortFunc(ranges, func(a, b deletedRange) int { return bytes.Compare(a.from, b.from) })
	var open newestFirst // that begin before the point, or there; some may have ended
	last := uint64(0)
	for _, at := range slices.CompactFunc(points, bytes.Equal) {
		for len(ranges) > 0 && bytes.Equal(ranges[0].from, at) {
			heap.Push(&open, ranges[0])
			ranges = ranges[1:]
		}
		for len(open) > 0 && bytes.Compare(open[0].to, at) <= 0 {
			heap.Pop(&open)
		}
		seq := uint64(0)
		if len(open) > 0 {
			seq = open[0].seq
		}
		if seq != last {
			spans, last = append(spans, span{at, seq}), seq
		}
	}
	return spans
}

// newestFirst has the range that was deleted last at its top.
type newestFirst []deletedRange

// Len is part of heap.Interface, as are the others.
func (h newestFirst) Len() int           { return len(h) }
func (h newestFirst) Less(i, j int) bool { return h[i].seq > h[j].seq }
func (h newestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push adds one at the end.
func (h *newestFirst) Push(x any) { *h = append(*h, x.(deletedRange)) }

// Pop takes the last one off.
func (h *newestFirst) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

func readerOptions() sstable.ReaderOptions {
	o := &pebble.Options{}
	o.EnsureDefaults()
	return o.MakeReaderOptions()
}

// openLog calls Pebble's reader of logs with the number of the log, whose type has no name outside of Pebble.
func openLog[N ~uint64](open func(io.Reader, N) *walrecord.Reader, r io.Reader, number uint64) *walrecord.Reader {
	return open(r, N(number))
}
