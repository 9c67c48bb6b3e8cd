package sim

import (
	"bytes"
	"fmt"

	"github.com/ringmq/ringmq/broker/packet"
)

// The properties that an Op gives a message, as bits of its number.
const (
	asText = 1 << iota // a Payload Format Indicator
	withContentType
	withResponseTopic
	withCorrelationData
	withUserProperties // whose order counts
	withLongProperty   // longer than a page of the broker's memory
	propertySets       = 1 << iota
)

// propertiesOf are a message's properties, which name it, as a section: as many as the number's bits say.
func propertiesOf(m *message, bits int) (section []byte) {
	name, has := []byte(m.String()), func(bit int) bool { return bits%propertySets&bit != 0 }
	if has(withUserProperties) {
		section = packet.AppendUserProperty(section, []byte("b"), name)
	}
	if has(asText) && m.size == 0 {
		section = packet.AppendPayloadFormat(section)
	}
	if has(withContentType) {
		section = packet.AppendContentType(section, append([]byte("text/"), name...))
	}
	if has(withLongProperty) {
		section = packet.AppendUserProperty(section, name, bytes.Repeat(name, 1000))
	}
	if has(withResponseTopic) {
		section = packet.AppendResponseTopic(section, append([]byte("re/"), name...))
	}
	if has(withCorrelationData) {
		section = packet.AppendCorrelationData(section, name)
	}
	if has(withUserProperties) {
		section = packet.AppendUserProperty(packet.AppendUserProperty(section, []byte("a"), nil), []byte("b"), []byte("again"))
	}
	return section
}

// checkProperties checks that the properties came as they were sent, in their order [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
// [MQTT-3.3.2-20], unless the message was sent again in a version that has none.
func (l *link) checkProperties(in *packet.Publish, m *message) {
	if l.version != packet.V50 {
		return
	}
	if got := packet.AppendForwarded(nil, in.Properties); !bytes.Equal(got, m.props) && (len(got) > 0 || !m.plain) {
		l.w.violate("properties", "c%d got m%d with %.200q, published with %.200q", l.c.index, m.serial, got, m.props)
	}
}

// clearing finds the message that an empty payload is of, by its Correlation Data; nil when it has none.
func (w *world) clearing(l *link, name string, in *packet.Publish) *message {
	var serial int
	if _, err := fmt.Sscanf(string(in.CorrelationData), "m%d", &serial); err != nil || serial < 1 || serial > len(w.messages) {
		return nil
	}
	m := w.messages[serial-1]
	if m.topic != name || !m.clears {
		w.violate("content", "c%d got on %s an empty payload for what was sent on %s", l.c.index, name, m.topic)
	}
	return m
}
