package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/cmd/client"
)

// commandProperties are the properties of each command that -D takes, by the command's name.
type commandProperties map[string]*client.Properties

const (
	connectNames = "authentication-method authentication-data maximum-packet-size receive-maximum request-problem-information " +
		"request-response-information session-expiry-interval topic-alias-maximum user-property"
	messageNames    = "content-type correlation-data message-expiry-interval payload-format-indicator response-topic user-property"
	publishNames    = messageNames + " topic-alias"
	willNames       = messageNames + " will-delay-interval"
	disconnectNames = "session-expiry-interval user-property"
)

// propertyNames are the names that a command takes with -D; none for a command that there is not.
func propertyNames(command string) []string {
	return strings.Fields(map[string]string{
		"connect": connectNames, "publish": publishNames, "will": willNames, "disconnect": disconnectNames,
		"subscribe": "subscription-identifier user-property", "unsubscribe": "user-property",
	}[command])
}

// parseProperties reads the values of -D; commands are those that this program sends.
func parseProperties(given list, commands ...string) (commandProperties, error) {
	all := commandProperties{}
	for _, command := range commands {
		all[command] = &client.Properties{}
	}
	for _, joined := range given {
		words := strings.Split(joined, propertySeparator)
		shown := strings.Join(words, " ")
		command := strings.ToLower(words[0])
		p, known := all[command]
		if !known {
			return nil, fmt.Errorf("-D %s: no command %q here, only %s", shown, words[0], strings.Join(commands, ", "))
		}
		if len(words) < 2 {
			return nil, fmt.Errorf("-D %s: want COMMAND PROPERTY VALUE", shown)
		}
		name := strings.ToLower(words[1])
		if !slices.Contains(propertyNames(command), name) {
			return nil, fmt.Errorf("-D %s: %s has no property %q, only %s", shown, command, words[1], strings.Join(propertyNames(command), ", "))
		}
		if err := setProperty(p, name, words[2:]); err != nil {
			return nil, fmt.Errorf("-D %s: %w", shown, err)
		}
	}
	return all, nil
}

func setProperty(p *client.Properties, name string, values []string) error {
	if name == "user-property" {
		if len(values) != 2 {
			return fmt.Errorf("user-property wants a name and a value")
		}
		p.User = append(p.User, client.UserProperty{Name: values[0], Value: values[1]})
		return checkTexts(values...)
	}
	if len(values) != 1 {
		return fmt.Errorf("%s wants a value", name)
	}
	if isText, err := setTextProperty(p, name, values[0]); isText {
		return err
	}
	return setNumberProperty(p, name, values[0])
}

func setTextProperty(p *client.Properties, name, value string) (isText bool, err error) {
	switch name {
	case "content-type":
		p.ContentType = value
	case "response-topic":
		p.ResponseTopic = value
		if err := checkTopicName(value); err != nil {
			return true, err
		}
	case "authentication-method":
		p.AuthMethod = value
	case "correlation-data":
		p.CorrelationData = []byte(value)
		return true, checkLength(value)
	case "authentication-data":
		p.AuthData = []byte(value)
		return true, checkLength(value)
	default:
		return false, nil
	}
	return true, checkTexts(value)
}

func setNumberProperty(p *client.Properties, name, value string) (err error) {
	switch name {
	case "payload-format-indicator":
		p.PayloadFormat, err = number[byte](value, 0, 1)
	case "message-expiry-interval":
		p.MessageExpiry, err = number[uint32](value, 0, 1<<32-1)
	case "topic-alias":
		p.TopicAlias, err = number[uint16](value, 1, 65535)
	case "will-delay-interval":
		p.WillDelay, err = number[uint32](value, 0, 1<<32-1)
	case "session-expiry-interval":
		p.SessionExpiry, err = number[uint32](value, 0, 1<<32-1)
	case "receive-maximum":
		p.ReceiveMaximum, err = number[uint16](value, 1, 65535)
	case "maximum-packet-size":
		p.MaximumPacketSize, err = number[uint32](value, 1, 1<<32-1)
	case "topic-alias-maximum":
		p.TopicAliasMaximum, err = number[uint16](value, 0, 65535)
	case "subscription-identifier":
		p.SubscriptionID, err = number[int](value, 1, packet.MaxRemaining)
	case "request-problem-information":
		p.RequestProblemInfo, err = truth(value)
	case "request-response-information":
		p.RequestResponseInfo, err = truth(value)
	}
	return err
}

func number[T byte | uint16 | uint32 | int](value string, lowest, highest uint64) (*T, error) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || n < lowest || n > highest {
		return nil, fmt.Errorf("%q: want a number from %d to %d", value, lowest, highest)
	}
	result := T(n)
	return &result, nil
}

func truth(value string) (*bool, error) {
	n, err := number[byte](value, 0, 1)
	if err != nil {
		return nil, err
	}
	result := *n == 1
	return &result, nil
}

// checkTexts says what MQTT cannot carry as a UTF-8 Encoded String (section 1.5.4).
func checkTexts(values ...string) error {
	for _, v := range values {
		if err := checkLength(v); err != nil {
			return err
		}
		if !packet.ValidUTF8([]byte(v)) {
			return fmt.Errorf("%q: want UTF-8 without NUL", v)
		}
	}
	return nil
}

// textMaxBytes is the longest string and the longest Binary Data of MQTT.
const textMaxBytes = 65535

func checkLength(value string) error {
	if len(value) > textMaxBytes {
		return fmt.Errorf("has %d bytes, and MQTT carries %d", len(value), textMaxBytes)
	}
	return nil
}
