package packet

// connackAllowed are the properties of a CONNACK.
const connackAllowed identifiers = 1<<idSessionExpiry | 1<<idReceiveMaximum | 1<<idMaximumQoS | 1<<idRetainAvailable |
	1<<idMaximumPacketSize | 1<<idAssignedClientID | 1<<idTopicAliasMaximum | 1<<idReasonString | 1<<idUserProperty |
	1<<idWildcardAvailable | 1<<idSubscriptionIDsAllowed | 1<<idSharedAvailable | 1<<idServerKeepAlive |
	1<<idResponseInformation | 1<<idServerReference | 1<<idAuthMethod | 1<<idAuthData

// Connack is a decoded CONNACK, or one to be sent. Its slices alias the body that was decoded. The zero value is a
// plain acceptance: a property at its zero value is absent, and what a Server may declare unavailable is available.
type Connack struct {
	SessionPresent bool
	Reason         Reason // in 3.x made from the return code, and turned into one by ConnackV3

	HasSessionExpiry  bool
	SessionExpiry     uint32 // Session Expiry Interval in seconds
	ReceiveMaximum    uint16 // Decode gives 65,535 when it is absent; AppendConnack takes that and 0 for absent
	HasMaximumQoS     bool
	MaximumQoS        uint8  // 0 or 1; when absent, 2
	MaximumPacketSize uint32 // in bytes; 0 sets no limit
	TopicAliasMaximum uint16
	HasKeepAlive      bool
	ServerKeepAlive   uint16 // in seconds

	RetainUnavailable          bool
	WildcardUnavailable        bool
	SubscriptionIDsUnavailable bool
	SharedUnavailable          bool

	AssignedClientID    []byte
	ReasonString        []byte
	ResponseInformation []byte
	ServerReference     []byte
	AuthMethod          []byte // Authentication Method
	HasAuthData         bool
	AuthData            []byte // Authentication Data
	UserProperties      UserProperties
}

// Decode reads a CONNACK.
func (p *Connack) Decode(body []byte, v Version) Reason {
	*p = Connack{ReceiveMaximum: maxReceiveMaximum}
	f := fields{rest: body}
	flags, code := f.byte(), f.byte()
	if v == V31 {
		flags = 0 // 3.1 has no Session Present and says nothing of this byte.
	}
	var section []byte
	if v == V50 {
		section = f.section()
	}
	if reason := f.end(); reason != Success {
		return reason
	}
	if flags > 1 {
		return MalformedPacket // [MQTT-3.2.2-1]
	}
	p.SessionPresent = flags == 1
	if v == V50 {
		p.Reason = Reason(code)
	} else if p.Reason = reasonFromV3(code); p.Reason == UnspecifiedError {
		return ProtocolError // Table 3.1 of 3.1.1.
	}
	if !connackReason(p.Reason) {
		return ProtocolError // [MQTT-3.2.2-8]
	}
	if p.SessionPresent && p.Reason != Success {
		return ProtocolError // [MQTT-3.2.2-6]
	}
	return p.readProperties(section)
}

// connackReason tells whether a CONNACK may carry that Reason Code (table 3-1).
func connackReason(r Reason) bool {
	switch r {
	case Success, UnspecifiedError, MalformedPacket, ProtocolError, ImplementationSpecificError,
		UnsupportedProtocolVersion, ClientIdentifierNotValid, BadUserNameOrPassword, NotAuthorized,
		ServerUnavailable, ServerBusy, Banned, BadAuthenticationMethod, TopicNameInvalid, PacketTooLarge,
		QuotaExceeded, PayloadFormatInvalid, RetainNotSupported, QoSNotSupported, UseAnotherServer, ServerMoved,
		ConnectionRateExceeded:
		return true
	}
	return false
}

func (p *Connack) readProperties(section []byte) Reason {
	r := properties{rest: section, allowed: connackAllowed}
	for r.next() {
		if r.data != nil {
			p.setText(r.id, r.data)
		} else {
			p.setNumber(r.id, r.number)
		}
	}
	p.UserProperties = usersOf(&r, section)
	return r.reason
}

func (p *Connack) setText(id uint8, text []byte) {
	switch id {
	case idAssignedClientID:
		p.AssignedClientID = text
	case idReasonString:
		p.ReasonString = text
	case idResponseInformation:
		p.ResponseInformation = text
	case idServerReference:
		p.ServerReference = text
	case idAuthMethod:
		p.AuthMethod = text
	case idAuthData:
		p.HasAuthData, p.AuthData = true, text
	}
}

func (p *Connack) setNumber(id uint8, number uint32) {
	switch id {
	case idSessionExpiry:
		p.HasSessionExpiry, p.SessionExpiry = true, number
	case idReceiveMaximum:
		p.ReceiveMaximum = uint16(number)
	case idMaximumQoS:
		p.HasMaximumQoS, p.MaximumQoS = true, uint8(number)
	case idMaximumPacketSize:
		p.MaximumPacketSize = number
	case idTopicAliasMaximum:
		p.TopicAliasMaximum = uint16(number)
	case idServerKeepAlive:
		p.HasKeepAlive, p.ServerKeepAlive = true, uint16(number)
	case idRetainAvailable:
		p.RetainUnavailable = number == 0
	case idWildcardAvailable:
		p.WildcardUnavailable = number == 0
	case idSubscriptionIDsAllowed:
		p.SubscriptionIDsUnavailable = number == 0
	case idSharedAvailable:
		p.SharedUnavailable = number == 0
	}
}

// AppendConnack writes a CONNACK. 3.1 has no Session Present; 3.x has no properties. A Reason Code that is not in table 3-1 leaves as
// Unspecified error [MQTT-3.2.2-8].
func AppendConnack(dst []byte, p *Connack, v Version) []byte {
	var flags byte
	if p.SessionPresent && v != V31 {
		flags = 1
	}
	if v != V50 {
		return append(dst, CONNACK.first(), 2, flags, p.Reason.ConnackV3())
	}
	dst, whole := openLength(append(dst, CONNACK.first()))
	dst, section := openLength(append(dst, flags, byte(p.Reason.or(connackReason(p.Reason)))))
	dst = p.appendTexts(p.appendNumbers(dst))
	dst = closeLength(appendUserProperties(dst, p.UserProperties), section)
	return closeLength(dst, whole)
}

func (p *Connack) appendNumbers(dst []byte) []byte {
	if p.HasSessionExpiry {
		dst = appendUint32Property(dst, idSessionExpiry, p.SessionExpiry)
	}
	if p.HasKeepAlive {
		dst = appendUint16Property(dst, idServerKeepAlive, p.ServerKeepAlive)
	}
	if p.ReceiveMaximum != 0 && p.ReceiveMaximum != maxReceiveMaximum {
		dst = appendUint16Property(dst, idReceiveMaximum, p.ReceiveMaximum)
	}
	if p.TopicAliasMaximum != 0 {
		dst = appendUint16Property(dst, idTopicAliasMaximum, p.TopicAliasMaximum)
	}
	if p.HasMaximumQoS {
		dst = append(dst, idMaximumQoS, p.MaximumQoS)
	}
	if p.RetainUnavailable {
		dst = append(dst, idRetainAvailable, 0)
	}
	if p.MaximumPacketSize != 0 {
		dst = appendUint32Property(dst, idMaximumPacketSize, p.MaximumPacketSize)
	}
	if p.WildcardUnavailable {
		dst = append(dst, idWildcardAvailable, 0)
	}
	if p.SubscriptionIDsUnavailable {
		dst = append(dst, idSubscriptionIDsAllowed, 0)
	}
	if p.SharedUnavailable {
		dst = append(dst, idSharedAvailable, 0)
	}
	return dst
}

func (p *Connack) appendTexts(dst []byte) []byte {
	dst = appendOptionalText(dst, idAssignedClientID, p.AssignedClientID)
	dst = appendOptionalText(dst, idAuthMethod, p.AuthMethod)
	if p.HasAuthData {
		dst = appendText(dst, idAuthData, p.AuthData)
	}
	dst = appendOptionalText(dst, idResponseInformation, p.ResponseInformation)
	dst = appendOptionalText(dst, idServerReference, p.ServerReference)
	return appendOptionalText(dst, idReasonString, p.ReasonString)
}
