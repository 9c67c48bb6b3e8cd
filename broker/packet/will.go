package packet

// willAllowed are the Will Properties.
const willAllowed identifiers = 1<<idPayloadFormat | 1<<idMessageExpiry | 1<<idContentType | 1<<idResponseTopic |
	1<<idCorrelationData | 1<<idWillDelay | 1<<idUserProperty

// Will is the Will Message of a CONNECT. Its slices alias the body that was decoded.
type Will struct {
	QoS     uint8
	Retain  bool
	Topic   []byte // UTF-8, but its syntax as a Topic Name is not judged
	Payload []byte

	// Properties is the raw section. AppendConnect writes what AppendForwarded copies of it; the Will Delay Interval
	// and the Message Expiry Interval it takes from the fields.
	Properties    []byte
	DelayInterval uint32 // Will Delay Interval in seconds
	HasExpiry     bool
	Expiry        uint32 // Message Expiry Interval in seconds; means something when HasExpiry

	// Views into Properties, which AppendConnect does not look at.
	PayloadFormat   uint8 // 1 says that the Payload is UTF-8, which is the caller's to check
	ResponseTopic   []byte
	CorrelationData []byte
	ContentType     []byte
}

// UserProperties iterates over the User Properties of the Will Message.
func (w *Will) UserProperties() UserProperties { return UserProperties(w.Properties) }

// read takes the Will's fields off the payload of a CONNECT.
func (w *Will) read(f *fields, v Version) Reason {
	if v == V50 {
		w.Properties = f.section()
		if f.reason != Success {
			return f.reason
		}
		if reason := w.readProperties(); reason != Success {
			return reason
		}
	}
	w.Topic = f.string() // [MQTT-3.1.3-11]
	w.Payload = f.binary()
	return f.reason // [MQTT-3.1.2-9]
}

func (w *Will) readProperties() Reason {
	r := properties{rest: w.Properties, allowed: willAllowed}
	for r.next() {
		switch r.id {
		case idPayloadFormat:
			w.PayloadFormat = uint8(r.number)
		case idMessageExpiry:
			w.HasExpiry, w.Expiry = true, r.number
		case idContentType:
			w.ContentType = r.data
		case idResponseTopic:
			w.ResponseTopic = r.data
		case idCorrelationData:
			w.CorrelationData = r.data
		case idWillDelay:
			w.DelayInterval = r.number
		}
	}
	return r.reason
}

// append writes the Will's fields.
func (w *Will) append(dst []byte, v Version) []byte {
	if v == V50 {
		var section int
		dst, section = openLength(dst)
		if w.HasExpiry {
			dst = appendUint32Property(dst, idMessageExpiry, w.Expiry)
		}
		if w.DelayInterval != 0 {
			dst = appendUint32Property(dst, idWillDelay, w.DelayInterval)
		}
		dst = closeLength(AppendForwarded(dst, w.Properties), section)
	}
	return appendString(appendString(dst, w.Topic), w.Payload)
}
