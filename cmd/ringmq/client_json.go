package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// appendJSON writes a message as mosquitto_sub's %j does, or with an embedded payload %J. A payload for %j that is not
// UTF-8 cannot be a JSON string: it comes in base64, and "payload_encoding" says so.
func appendJSON(dst []byte, m *received, embedded, pretty bool) ([]byte, error) {
	o := &object{}
	o.text("tst", m.at.Format("2006-01-02T15:04:05.000000-0700"))
	o.text("topic", m.Topic)
	o.number("qos", int(m.QoS))
	o.number("retain", int(zeroOrOne(m.Retain)-'0'))
	o.number("payloadlen", len(m.Payload))
	if m.QoS > 0 {
		o.number("mid", int(m.PacketID))
	}
	if properties := jsonProperties(m); len(properties) > 0 {
		o.raw("properties", append(append([]byte{'{'}, properties...), '}'))
	}
	switch {
	case embedded && !json.Valid(m.Payload):
		return dst, fmt.Errorf("the payload on topic %s is not JSON", m.Topic)
	case embedded:
		o.raw("payload", m.Payload)
	case utf8.Valid(m.Payload):
		o.text("payload", string(m.Payload))
	default:
		o.text("payload_encoding", "base64")
		o.text("payload", base64.StdEncoding.EncodeToString(m.Payload))
	}
	whole := append(append([]byte{'{'}, o.members...), '}')
	var out bytes.Buffer
	err := json.Compact(&out, whole)
	if pretty {
		out.Reset()
		err = json.Indent(&out, whole, "", "\t")
	}
	return append(dst, out.Bytes()...), err
}

func jsonProperties(m *received) []byte {
	p, o := &m.Properties, &object{}
	if len(p.User) > 0 {
		users := &object{}
		for _, u := range p.User {
			users.text(u.Name, u.Value)
		}
		o.raw("user-properties", append(append([]byte{'{'}, users.members...), '}'))
	}
	o.textUnlessEmpty("content-type", p.ContentType)
	o.textUnlessEmpty("response-topic", p.ResponseTopic)
	o.textUnlessEmpty("correlation-data", string(p.CorrelationData))
	addNumber(o, "payload-format-indicator", p.PayloadFormat)
	addNumber(o, "message-expiry-interval", p.MessageExpiry)
	addNumber(o, "topic-alias", p.TopicAlias)
	addNumber(o, "subscription-identifier", p.SubscriptionID)
	return o.members
}

// object is a JSON object in the order its members are added, which may have one name twice as MQTT's user properties do.
type object struct{ members []byte }

func (o *object) raw(name string, value []byte) {
	if len(o.members) > 0 {
		o.members = append(o.members, ',')
	}
	o.members = append(append(append(o.members, quoteJSON(name)...), ':'), value...)
}

func (o *object) text(name, value string) { o.raw(name, quoteJSON(value)) }

func (o *object) number(name string, value int) {
	o.raw(name, strconv.AppendInt(nil, int64(value), 10))
}

func (o *object) textUnlessEmpty(name, value string) {
	if value != "" {
		o.text(name, value)
	}
}

func addNumber[T byte | uint16 | uint32 | int](o *object, name string, n *T) {
	if n != nil {
		o.number(name, int(*n))
	}
}

// quoteJSON leaves <, > and & readable. Bytes that are not UTF-8 become U+FFFD.
func quoteJSON(text string) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // a string always can be
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
