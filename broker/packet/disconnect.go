package packet

// disconnectAllowed are the properties of a DISCONNECT.
const disconnectAllowed identifiers = 1<<idSessionExpiry | 1<<idReasonString | 1<<idUserProperty | 1<<idServerReference

// Disconnect is a decoded DISCONNECT. Its slices alias the body that was decoded. In 3.x it is empty.
type Disconnect struct {
	Reason           Reason
	HasSessionExpiry bool
	SessionExpiry    uint32 // Session Expiry Interval in seconds; from Clients only
	ReasonString     []byte
	ServerReference  []byte // from Servers only
	UserProperties   UserProperties
}

// Decode reads a DISCONNECT that a Client sent. Whether the Session Expiry Interval fits that of the CONNECT is the
// caller's to judge.
func (p *Disconnect) Decode(body []byte, v Version) Reason { return p.decode(body, v, fromClient) }

// DecodeFromServer reads a DISCONNECT that a Server sent; in 3.x there is no such packet.
func (p *Disconnect) DecodeFromServer(body []byte, v Version) Reason {
	if v != V50 {
		*p = Disconnect{}
		return ProtocolError // Section 3.14 of 3.1.1: only a Client sends it.
	}
	return p.decode(body, v, fromServer)
}

func (p *Disconnect) decode(body []byte, v Version, from sender) Reason {
	*p = Disconnect{}
	if len(body) == 0 {
		return Success
	}
	if v != V50 {
		return MalformedPacket // Section 3.14.2 of 3.1.1: it has no Variable Header.
	}
	if p.Reason = Reason(body[0]); !disconnectReason(p.Reason, from) {
		return ProtocolError // [MQTT-3.14.2-1]
	}
	if len(body) == 1 {
		return Success // Below a Remaining Length of 2 there is no Property Length.
	}
	f := fields{rest: body[1:]}
	section := f.section()
	if reason := f.end(); reason != Success {
		return reason
	}
	return p.readProperties(section, from)
}

func (p *Disconnect) readProperties(section []byte, from sender) Reason {
	r := properties{rest: section, allowed: disconnectAllowed}
	for r.next() {
		switch r.id {
		case idSessionExpiry:
			p.HasSessionExpiry, p.SessionExpiry = true, r.number
		case idReasonString:
			p.ReasonString = r.data
		case idServerReference:
			p.ServerReference = r.data
		}
	}
	p.UserProperties = usersOf(&r, section)
	if r.reason != Success {
		return r.reason
	}
	if from == fromServer && p.HasSessionExpiry {
		return ProtocolError // [MQTT-3.14.2-2]
	}
	if from == fromClient && p.ServerReference != nil {
		return ProtocolError // Section 3.14.2.2.5: the Server sends it.
	}
	return Success
}

// disconnectReason tells whether that side may send that Reason Code (table 3-10).
func disconnectReason(r Reason, from sender) bool {
	switch r {
	case NormalDisconnection, UnspecifiedError, MalformedPacket, ProtocolError, ImplementationSpecificError,
		TopicNameInvalid, ReceiveMaximumExceeded, TopicAliasInvalid, PacketTooLarge, MessageRateTooHigh,
		QuotaExceeded, AdministrativeAction, PayloadFormatInvalid:
		return true
	case DisconnectWithWillMessage:
		return from == fromClient
	case BadAuthenticationMethod:
		return true // Table 2-6 names DISCONNECT for it although table 3-10 does not.
	case NotAuthorized, ServerBusy, ServerShuttingDown, KeepAliveTimeout, SessionTakenOver, TopicFilterInvalid,
		RetainNotSupported, QoSNotSupported, UseAnotherServer, ServerMoved, SharedSubscriptionsNotSupported,
		ConnectionRateExceeded, MaximumConnectTime, SubscriptionIdentifiersNotSupported,
		WildcardSubscriptionsNotSupported:
		return from == fromServer
	}
	return false
}

// AppendDisconnectFromServer is AppendDisconnect for a Server, of 5.0. A Reason Code that it may not send leaves as Unspecified error
// [MQTT-3.14.2-1].
func AppendDisconnectFromServer(dst []byte, p *Disconnect) []byte {
	p.Reason = p.Reason.or(disconnectReason(p.Reason, fromServer))
	return AppendDisconnect(dst, p, V50)
}

// AppendDisconnect writes a DISCONNECT in the shortest form.
func AppendDisconnect(dst []byte, p *Disconnect, v Version) []byte {
	bare := !p.HasSessionExpiry && p.ReasonString == nil && p.ServerReference == nil && len(p.UserProperties) == 0
	switch {
	case v != V50 || bare && p.Reason == NormalDisconnection:
		return append(dst, DISCONNECT.first(), 0)
	case bare:
		return append(dst, DISCONNECT.first(), 1, byte(p.Reason))
	}
	dst, whole := openLength(append(dst, DISCONNECT.first()))
	dst, section := openLength(append(dst, byte(p.Reason)))
	if p.HasSessionExpiry {
		dst = appendUint32Property(dst, idSessionExpiry, p.SessionExpiry)
	}
	dst = appendOptionalText(dst, idServerReference, p.ServerReference)
	dst = appendOptionalText(dst, idReasonString, p.ReasonString)
	dst = closeLength(appendUserProperties(dst, p.UserProperties), section)
	return closeLength(dst, whole)
}
