package packet

import "encoding/binary"

// UserProperties is a section of which only the User Properties count. Decoded packets hold the whole raw section
// here, because other properties may stand between User Properties; it aliases the packet. For encoding, build one
// with AppendUserProperty, or give that of a decoded packet: nothing but the User Properties is written.
type UserProperties []byte

// Next takes the next User Property off; ok is false when there is none left. The slices alias the section. To
// iterate more than once, iterate over a copy of the UserProperties value.
func (u *UserProperties) Next() (name, value []byte, ok bool) {
	for {
		size := propertySize(*u)
		if size == 0 {
			*u = nil
			return nil, nil, false
		}
		property := (*u)[:size:size]
		*u = (*u)[size:]
		if property[0] == idUserProperty {
			split := 1 + stringSize(property[1:])
			return property[3:split:split], property[split+2:], true
		}
	}
}

// AppendUserProperty writes one User Property, for UserProperties, PublishHead.Forwarded or Will.Properties.
func AppendUserProperty(section, name, value []byte) []byte {
	return appendString(appendString(append(section, idUserProperty), name), value)
}

// appendUserProperties copies the User Properties of a section, in their order.
func appendUserProperties(dst []byte, u UserProperties) []byte {
	return appendProperties(dst, u, 1<<idUserProperty)
}

// appendProperties copies those properties of a section that are in the set wanted, in their order.
func appendProperties(dst, section []byte, wanted identifiers) []byte {
	for {
		size := propertySize(section)
		if size == 0 {
			return dst
		}
		if wanted&(1<<section[0]) != 0 {
			dst = append(dst, section[:size]...)
		}
		section = section[size:]
	}
}

// SubscriptionIDs iterates over the Subscription Identifiers of a PUBLISH's section.
type SubscriptionIDs []byte

// Next takes the next Subscription Identifier off; ok is false when there is none left.
func (s *SubscriptionIDs) Next() (id uint32, ok bool) {
	for {
		size := propertySize(*s)
		if size == 0 {
			*s = nil
			return 0, false
		}
		property := (*s)[:size]
		*s = (*s)[size:]
		if property[0] == idSubscriptionID {
			n, _ := varint(property[1:])
			return uint32(n), true
		}
	}
}

// AppendPayloadFormat writes the Payload Format Indicator that says UTF-8, for PublishHead.Forwarded or
// Will.Properties; so do the three functions that follow with theirs.
func AppendPayloadFormat(section []byte) []byte { return append(section, idPayloadFormat, 1) }

// AppendContentType writes a Content Type.
func AppendContentType(section, contentType []byte) []byte {
	return appendText(section, idContentType, contentType)
}

// AppendResponseTopic writes a Response Topic.
func AppendResponseTopic(section, topic []byte) []byte {
	return appendText(section, idResponseTopic, topic)
}

// AppendCorrelationData writes Correlation Data.
func AppendCorrelationData(section, data []byte) []byte {
	return appendText(section, idCorrelationData, data)
}

// appendText writes a property whose value is a string or binary data.
func appendText(section []byte, id byte, text []byte) []byte {
	return appendString(append(section, id), text)
}

// appendOptionalText writes nothing when text is nil: the property is absent then.
func appendOptionalText(section []byte, id byte, text []byte) []byte {
	if text == nil {
		return section
	}
	return appendText(section, id, text)
}

func appendUint16Property(section []byte, id byte, value uint16) []byte {
	return binary.BigEndian.AppendUint16(append(section, id), value)
}

func appendUint32Property(section []byte, id byte, value uint32) []byte {
	return binary.BigEndian.AppendUint32(append(section, id), value)
}
