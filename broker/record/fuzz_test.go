package record

import (
	"bytes"
	"reflect"
	"testing"
)

// FuzzDecode gives every decoder any bytes: what decodes, encodes to what decodes to the same, and expires when it says. The bytes
// are a slice without room behind it, so that what is read over the end panics.
func FuzzDecode(f *testing.F) {
	m := Message{Flags: 2, From: 7, Expires: -5, Topic: []byte("a/b"), Props: []byte{1, 2}, Payload: []byte("hello")}
	message := AppendMessage(nil, &m, 5, m.Payload)
	f.Add(message)
	f.Add((&Session{ClientID: "c", User: "u", Expiry: 1<<32 - 1, Offline: 1e12, WillDelay: 9, Will: message}).Append(nil))
	f.Add((&Subscription{ID: 300, QoS: 2, NoLocal: true, AsIs: true, Retained: true}).Append(nil))
	f.Add(append((&Entry{Flags: 2 | EntrySent, PID: 65535, IDs: []uint32{1, maxSubscriptionID}}).AppendHead(nil), message...))
	f.Add((&Entry{Flags: 1 | EntryRetain, Share: "g", Filter: "a/#", Mid: 1 << 60}).AppendHead(nil))
	f.Add((&Entry{Flags: 2 | EntryReleased}).AppendHead(nil))
	for _, damaged := range damagedValues {
		f.Add([]byte(damaged))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)[:len(b):len(b)]
		fuzzMessage(t, b)
		fuzzEntry(t, b)
		var session, session2 Session
		if session.Decode(b) == nil {
			comesBack(t, &session, &session2, session2.Decode(session.Append(nil)))
		}
		var sub, sub2 Subscription
		if sub.Decode(b) == nil {
			comesBack(t, &sub, &sub2, sub2.Decode(sub.Append(nil)))
			if sub.QoS > 2 {
				t.Errorf("%x decodes to %+v", b, sub)
			}
		}
		ReadNumber(b)
		Waits(b)
		for i := range 4 {
			Number(b, i)
			Rest(b, i)
		}
	})
}

func fuzzMessage(t *testing.T, b []byte) {
	expires := MessageExpires(b)
	var m, m2 Message
	if m.Decode(b) != nil {
		return
	}
	comesBack(t, &m, &m2, m2.Decode(AppendMessage(nil, &m, len(m.Payload), m.Payload)))
	if expires != m.Expires || m.Flags>>1 == 3 {
		t.Errorf("%x expires %d and decodes to %+v", b, expires, m)
	}
}

func fuzzEntry(t *testing.T, b []byte) {
	expires := EntryExpires(b)
	var e, e2 Entry
	if e.Decode(b) != nil {
		return
	}
	value := e.AppendHead(nil)
	if e.Mid == 0 && e.Flags&EntryReleased == 0 {
		value = AppendMessage(value, &e.Message, len(e.Message.Payload), e.Message.Payload)
	}
	comesBack(t, &e, &e2, e2.Decode(value))
	if expires != e.Message.Expires || e.Flags&EntryQoS == 3 {
		t.Errorf("%x expires %d and decodes to %+v", b, expires, e)
	}
}

func comesBack(t *testing.T, value, again any, err error) {
	t.Helper()
	if err != nil || !reflect.DeepEqual(value, again) {
		t.Errorf("%+v comes back as %+v, %v", value, again, err)
	}
}

// damagedValues decode to nothing: a QoS of 3, bits that mean nothing, numbers that are too large for what they say.
var damagedValues = []string{
	"\x01\x03\x00", "\x01\x22\x00", "\x01\x02\x80\x80\x80\x80\x01", // Subscription
	"\x01\x06\x00\x00\x00\x00\x00\x00\x00\x07\x00\x01t\x00\x00", "\x01\x0a\x00\x00\x00\x00\x00\x00\x00\x07\x00\x01t\x00\x00", // Message
	"\x01\x00\x00\x80\x80\x80\x80\x10\x00\x00\x00", "\x01\x00\x00\x00\x00\x80\x80\x80\x80\x10\x00", // Session: Expiry, WillDelay
	"\x01\x0b\x00\x00\x00", "\x01\x4a\x00\x00\x00", "\x01\x0a\x80\x80\x04\x00\x00", "\x01\x0a\x00\x00\x01\x80\x80\x80\x80\x01", "\x01\x12\x00\x00\x00\x00", // Entry
}

func TestDamagedValues(t *testing.T) {
	for _, value := range damagedValues {
		b := []byte(value)
		for _, decode := range []func([]byte) error{new(Message).Decode, new(Session).Decode, new(Subscription).Decode, new(Entry).Decode} {
			if decode(b) == nil {
				t.Errorf("%x decodes", b)
			}
		}
	}
}

// FuzzEach reads any bytes as a batch: its changes, appended to another, are the same changes.
func FuzzEach(f *testing.F) {
	f.Add(AppendDeleteRange(AppendDelete(AppendSet(nil, []byte("k"), []byte("v")), []byte("d")), []byte("f"), []byte("t")))
	f.Add([]byte{byte(Set), 0x81, 0x80, 0x00, 'k', 0})
	type change struct {
		op         Op
		key, value string
	}
	read := func(batch []byte) (list []change, again []byte, err error) {
		err = Each(batch[:len(batch):len(batch)], func(op Op, key, value []byte) error {
			list = append(list, change{op, string(key), string(value)})
			switch op {
			case Set:
				again = AppendSet(again, key, value)
			case Delete:
				again = AppendDelete(again, key)
			case DeleteRange:
				again = AppendDeleteRange(again, key, value)
			}
			return nil
		})
		return list, again, err
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, again, err := read(bytes.Clone(b))
		list2, same, err2 := read(again)
		if err2 != nil || !reflect.DeepEqual(list, list2) || !bytes.Equal(again, same) || err == nil && len(again) > len(b) {
			t.Errorf("%x: %v comes back as %v, %v", b, list, list2, err2)
		}
	})
}
