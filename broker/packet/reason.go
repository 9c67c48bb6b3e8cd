package packet

// Reason is a Reason Code of MQTT 5.0 (section 2.4). Codes from 0x80 on are failures. It is also the error value of
// this package and of the broker's protocol engine; Success as an error is not nil, so compare, do not test for nil.
type Reason uint8

// The Reason Codes below 0x80. Three of them share the value 0: which name applies depends on the packet.
const (
	Success                   Reason = 0x00
	NormalDisconnection       Reason = 0x00
	GrantedQoS0               Reason = 0x00
	GrantedQoS1               Reason = 0x01
	GrantedQoS2               Reason = 0x02
	DisconnectWithWillMessage Reason = 0x04
	NoMatchingSubscribers     Reason = 0x10
	NoSubscriptionExisted     Reason = 0x11
	ContinueAuthentication    Reason = 0x18
	ReAuthenticate            Reason = 0x19
)

// The Reason Codes of failure.
const (
	UnspecifiedError Reason = 0x80 + iota
	MalformedPacket
	ProtocolError
	ImplementationSpecificError
	UnsupportedProtocolVersion
	ClientIdentifierNotValid
	BadUserNameOrPassword
	NotAuthorized
	ServerUnavailable
	ServerBusy
	Banned
	ServerShuttingDown
	BadAuthenticationMethod
	KeepAliveTimeout
	SessionTakenOver
	TopicFilterInvalid
	TopicNameInvalid
	PacketIdentifierInUse
	PacketIdentifierNotFound
	ReceiveMaximumExceeded
	TopicAliasInvalid
	PacketTooLarge
	MessageRateTooHigh
	QuotaExceeded
	AdministrativeAction
	PayloadFormatInvalid
	RetainNotSupported
	QoSNotSupported
	UseAnotherServer
	ServerMoved
	SharedSubscriptionsNotSupported
	ConnectionRateExceeded
	MaximumConnectTime
	SubscriptionIdentifiersNotSupported
	WildcardSubscriptionsNotSupported
)

// or is the code itself, if its packet may carry it, otherwise Unspecified error, which each kind but PUBREL and PUBCOMP may.
func (r Reason) or(ok bool) Reason {
	if !ok {
		return UnspecifiedError
	}
	return r
}

// Failed tells whether the code says that the operation failed.
func (r Reason) Failed() bool { return r >= UnspecifiedError }

// Error is String, so that a Reason can travel as an error.
func (r Reason) Error() string { return r.String() }

// String is the code's name in table 2-6 of the standard; 0x00 is Success whatever the packet.
func (r Reason) String() string {
	switch r {
	case Success:
		return "Success"
	case GrantedQoS1:
		return "Granted QoS 1"
	case GrantedQoS2:
		return "Granted QoS 2"
	case DisconnectWithWillMessage:
		return "Disconnect with Will Message"
	case NoMatchingSubscribers:
		return "No matching subscribers"
	case NoSubscriptionExisted:
		return "No subscription existed"
	case ContinueAuthentication:
		return "Continue authentication"
	case ReAuthenticate:
		return "Re-authenticate"
	}
	if r <= TopicNameInvalid {
		return r.refusalName()
	}
	return r.limitName()
}

// refusalName names the failures 0x80 to 0x90.
func (r Reason) refusalName() string {
	switch r {
	case UnspecifiedError:
		return "Unspecified error"
	case MalformedPacket:
		return "Malformed Packet"
	case ProtocolError:
		return "Protocol Error"
	case ImplementationSpecificError:
		return "Implementation specific error"
	case UnsupportedProtocolVersion:
		return "Unsupported Protocol Version"
	case ClientIdentifierNotValid:
		return "Client Identifier not valid"
	case BadUserNameOrPassword:
		return "Bad User Name or Password"
	case NotAuthorized:
		return "Not authorized"
	case ServerUnavailable:
		return "Server unavailable"
	case ServerBusy:
		return "Server busy"
	case Banned:
		return "Banned"
	case ServerShuttingDown:
		return "Server shutting down"
	case BadAuthenticationMethod:
		return "Bad authentication method"
	case KeepAliveTimeout:
		return "Keep Alive timeout"
	case SessionTakenOver:
		return "Session taken over"
	case TopicFilterInvalid:
		return "Topic Filter invalid"
	case TopicNameInvalid:
		return "Topic Name invalid"
	}
	return "Reserved"
}

// limitName names the failures 0x91 to 0xA2.
func (r Reason) limitName() string {
	switch r {
	case PacketIdentifierInUse:
		return "Packet Identifier in use"
	case PacketIdentifierNotFound:
		return "Packet Identifier not found"
	case ReceiveMaximumExceeded:
		return "Receive Maximum exceeded"
	case TopicAliasInvalid:
		return "Topic Alias invalid"
	case PacketTooLarge:
		return "Packet too large"
	case MessageRateTooHigh:
		return "Message rate too high"
	case QuotaExceeded:
		return "Quota exceeded"
	case AdministrativeAction:
		return "Administrative action"
	case PayloadFormatInvalid:
		return "Payload format invalid"
	case RetainNotSupported:
		return "Retain not supported"
	case QoSNotSupported:
		return "QoS not supported"
	case UseAnotherServer:
		return "Use another server"
	case ServerMoved:
		return "Server moved"
	case SharedSubscriptionsNotSupported:
		return "Shared Subscriptions not supported"
	case ConnectionRateExceeded:
		return "Connection rate exceeded"
	case MaximumConnectTime:
		return "Maximum connect time"
	case SubscriptionIdentifiersNotSupported:
		return "Subscription Identifiers not supported"
	case WildcardSubscriptionsNotSupported:
		return "Wildcard Subscriptions not supported"
	}
	return "Reserved"
}

// The CONNACK return codes of 3.1.1 (table 3.1).
const (
	returnAccepted            = 0
	returnProtocolLevel       = 1
	returnIdentifierRejected  = 2
	returnServerUnavailable   = 3
	returnBadUserNamePassword = 4
	returnNotAuthorized       = 5
)

// ConnackV3 is the CONNACK return code of 3.x that comes closest: 0 for Success, otherwise 1 to 5. What 3.x has no
// word for is Server unavailable, the one code after which a Client may sensibly try again.
func (r Reason) ConnackV3() uint8 {
	switch r {
	case Success:
		return returnAccepted
	case UnsupportedProtocolVersion:
		return returnProtocolLevel
	case ClientIdentifierNotValid:
		return returnIdentifierRejected
	case BadUserNameOrPassword:
		return returnBadUserNamePassword
	case NotAuthorized, Banned, BadAuthenticationMethod, TopicNameInvalid:
		return returnNotAuthorized
	}
	return returnServerUnavailable
}

// reasonFromV3 is the other way: the Reason Code of a 3.x CONNACK return code; UnspecifiedError for the reserved ones.
func reasonFromV3(code uint8) Reason {
	switch code {
	case returnAccepted:
		return Success
	case returnProtocolLevel:
		return UnsupportedProtocolVersion
	case returnIdentifierRejected:
		return ClientIdentifierNotValid
	case returnServerUnavailable:
		return ServerUnavailable
	case returnBadUserNamePassword:
		return BadUserNameOrPassword
	case returnNotAuthorized:
		return NotAuthorized
	}
	return UnspecifiedError
}
