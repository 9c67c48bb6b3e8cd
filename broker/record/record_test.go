package record

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
)

func TestValuesComeBack(t *testing.T) {
	m := Message{Flags: 3, From: 7, Expires: -5, Topic: []byte("a/b"), Props: []byte{1, 2}, Payload: []byte("hello")}
	value := AppendMessage(nil, &m, 5, []byte("he"), []byte("llo"))
	var m2 Message
	if err := m2.Decode(value); err != nil || !reflect.DeepEqual(m, m2) {
		t.Fatalf("%v %+v", err, m2)
	}
	everyCutFails(t, value, func(b []byte) error { return new(Message).Decode(b) })

	s := Session{ClientID: "c", User: "u", Expiry: 1 << 31, Offline: 1e12, WillDelay: 9, Will: value}
	var s2 Session
	if err := s2.Decode(s.Append(nil)); err != nil || !reflect.DeepEqual(s, s2) {
		t.Fatalf("%v %+v", err, s2)
	}
	everyCutFails(t, s.Append(nil), func(b []byte) error { return new(Session).Decode(b) })

	sub := Subscription{ID: 300, QoS: 2, NoLocal: true, AsIs: false, Retained: true}
	var sub2 Subscription
	if err := sub2.Decode(sub.Append(nil)); err != nil || sub != sub2 {
		t.Fatalf("%v %+v", err, sub2)
	}
	everyCutFails(t, sub.Append(nil), func(b []byte) error { return new(Subscription).Decode(b) })
}

func TestEntriesComeBack(t *testing.T) {
	for _, e := range []Entry{
		{Flags: 1, Message: Message{Topic: []byte("t"), Props: []byte{}, Payload: []byte("p")}},
		{Flags: 2 | EntryRetain, PID: 77, IDs: []uint32{1, 300}, Mid: 12345},
		{Flags: 2 | EntryReleased},
		{Flags: 1, Share: "g", Filter: "a/#", Mid: 9},
	} {
		value := e.AppendHead(nil)
		if e.Mid == 0 && e.Flags&EntryReleased == 0 {
			value = AppendMessage(value, &e.Message, len(e.Message.Payload), e.Message.Payload)
		}
		var got Entry
		if err := got.Decode(value); err != nil || !reflect.DeepEqual(e, got) {
			t.Errorf("%v\n%+v\n%+v", err, e, got)
		}
		everyCutFails(t, value, func(b []byte) error { return new(Entry).Decode(b) })
	}
}

func everyCutFails(t *testing.T, value []byte, decode func([]byte) error) {
	t.Helper()
	for n := range value {
		if decode(value[:n]) == nil {
			t.Errorf("%d of %d bytes decode", n, len(value))
		}
	}
	if decode(append(slices.Clone(value), 0)) == nil {
		t.Error("a byte too many decodes")
	}
}

func TestBatch(t *testing.T) {
	b := AppendSet(nil, []byte("k"), []byte("v"))
	b = AppendDelete(b, []byte("d"))
	b = AppendDeleteRange(b, []byte("f"), []byte("t"))
	var got []string
	each := func(op Op, key, value []byte) error {
		got = append(got, string(rune('0'+op))+string(key)+string(value))
		return nil
	}
	if err := Each(b, each); err != nil || !slices.Equal(got, []string{"1kv", "2d", "3ft"}) {
		t.Fatal(err, got)
	}
	if err := Each(b[:len(b)-1], each); err == nil {
		t.Error("a cut batch is taken")
	}
}

func TestKeysSortByNumber(t *testing.T) {
	a, b := EntryKey(nil, 1, 255), EntryKey(nil, 1, 256)
	from, to := Bounds(KindEntry, 1)
	if bytes.Compare(a, b) >= 0 || bytes.Compare(from, a) > 0 || bytes.Compare(b, to) >= 0 || bytes.Compare(EntryKey(nil, 2, 0), to) < 0 {
		t.Error("keys do not sort")
	}
	if Number(b, 1) != 256 || string(Rest(SubscriptionKey(nil, 5, "g", "a/b"), 1)) != "g\x00a/b" {
		t.Error("keys do not come apart")
	}
	if PacketID(FirstOf(3)) != 1 || PacketID(FirstOf(3)+65534) != 65535 {
		t.Error("a run does not begin with identifier 1")
	}
}

// TestExpires reads when a message expires without decoding it, as Decode does, and from no more than there is.
func TestExpires(t *testing.T) {
	message := Message{Flags: 3, From: 1 << 60, Expires: 1795721513318, Topic: []byte("t"), Props: []byte("p")}
	for _, e := range []Entry{{Flags: 1}, {Flags: 2, PID: 65535, IDs: []uint32{1, 1 << 27}}, {Flags: 1, Share: "s", Filter: "a/#", IDs: []uint32{3}},
		{Flags: 1, Mid: 9}, {Flags: 2 | EntryReleased}, {Flags: 1 | EntrySent}} {
		value, expires := e.AppendHead(nil), int64(0)
		if e.Mid == 0 && e.Flags&EntryReleased == 0 {
			value, expires = AppendMessage(value, &message, 1, []byte{1}), message.Expires
		}
		if got := EntryExpires(value); got != expires {
			t.Errorf("%+v: expires %d, want %d", e, got, expires)
		}
		for n := range value {
			if got := EntryExpires(value[:n:n]); got != 0 && got != expires {
				t.Errorf("%+v, cut to %d bytes: expires %d", e, n, got)
			}
		}
	}
	value := AppendMessage(nil, &message, 0)
	if got := MessageExpires(value); got != message.Expires || MessageExpires(value[:5:5]) != 0 || MessageExpires(nil) != 0 {
		t.Errorf("a message expires %d, want %d", got, message.Expires)
	}
}
