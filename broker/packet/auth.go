package packet

// authAllowed are the properties of an AUTH.
const authAllowed identifiers = 1<<idAuthMethod | 1<<idAuthData | 1<<idReasonString | 1<<idUserProperty

// Auth is a decoded AUTH, which only 5.0 has. Its slices alias the body that was decoded.
type Auth struct {
	Reason         Reason // Success, ContinueAuthentication or ReAuthenticate
	AuthMethod     []byte // Authentication Method
	HasAuthData    bool
	AuthData       []byte // Authentication Data
	ReasonString   []byte
	UserProperties UserProperties
}

// Decode reads an AUTH that a Client sent.
func (p *Auth) Decode(body []byte) Reason {
	reason := p.decode(body)
	if reason == Success && p.Reason == Success {
		return ProtocolError // Table 3-11: only a Server says Success.
	}
	return reason
}

// DecodeFromServer reads an AUTH that a Server sent. One that is all empty means Success: section 3.15.2.1 allows it
// although 3.15.2.2.2 asks for an Authentication Method.
func (p *Auth) DecodeFromServer(body []byte) Reason {
	reason := p.decode(body)
	if reason == Success && p.Reason == ReAuthenticate {
		return ProtocolError // Table 3-11: only a Client asks for it.
	}
	return reason
}

func (p *Auth) decode(body []byte) Reason {
	*p = Auth{}
	if len(body) == 0 {
		return Success
	}
	f := fields{rest: body}
	p.Reason = Reason(f.byte())
	section := f.section()
	if reason := f.end(); reason != Success {
		return reason
	}
	switch p.Reason {
	case Success, ContinueAuthentication, ReAuthenticate:
	default:
		return ProtocolError // [MQTT-3.15.2-1]
	}
	r := properties{rest: section, allowed: authAllowed}
	for r.next() {
		switch r.id {
		case idAuthMethod:
			p.AuthMethod = r.data
		case idAuthData:
			p.HasAuthData, p.AuthData = true, r.data
		case idReasonString:
			p.ReasonString = r.data
		}
	}
	p.UserProperties = usersOf(&r, section)
	if r.reason == Success && p.AuthMethod == nil {
		return ProtocolError // [MQTT-4.12.0-5]
	}
	return r.reason
}

// AppendAuth writes an AUTH.
func AppendAuth(dst []byte, p *Auth) []byte {
	if p.Reason == Success && p.AuthMethod == nil && !p.HasAuthData && p.ReasonString == nil &&
		len(p.UserProperties) == 0 {
		return append(dst, AUTH.first(), 0)
	}
	dst, whole := openLength(append(dst, AUTH.first()))
	dst, section := openLength(append(dst, byte(p.Reason)))
	dst = appendOptionalText(dst, idAuthMethod, p.AuthMethod)
	if p.HasAuthData {
		dst = appendText(dst, idAuthData, p.AuthData)
	}
	dst = appendOptionalText(dst, idReasonString, p.ReasonString)
	dst = closeLength(appendUserProperties(dst, p.UserProperties), section)
	return closeLength(dst, whole)
}
