package packet

// plainConnect is what an absent property section means.
func plainConnect(v Version) Connect {
	return Connect{Version: v, ReceiveMaximum: 65535, RequestProblemInfo: true}
}

func connectRows() []row {
	bare := plainConnect(V311)
	bare.CleanStart, bare.KeepAlive, bare.ClientID = true, 10, []byte("zen")

	old := plainConnect(V31)
	old.CleanStart, old.KeepAlive, old.ClientID = true, 30, []byte("cid")
	old.HasUser, old.User, old.HasPassword, old.Password = true, []byte("u"), true, []byte("pw")

	older := plainConnect(V31)
	older.CleanStart, older.ClientID = true, []byte("c")

	token := plainConnect(V50)
	token.HasPassword, token.Password, token.ClientID = true, []byte{0, 0xFF}, []byte{}

	return []row{
		{name: "CONNECT 3.1.1", version: V311, want: bare, wire: []part{
			b("CONNECT", 0x10), b("Remaining Length", 15),
			s("Protocol Name", "MQTT"), b("Protocol Level", 4), b("Connect Flags: Clean Session", 0b10),
			b("Keep Alive", 0, 10), s("Client Identifier", "zen"),
		}},
		{name: "CONNECT 3.1 user and password", version: V31, want: old, wire: []part{
			b("CONNECT", 0x10), b("Remaining Length", 24),
			s("Protocol Name", "MQIsdp"), b("Protocol Level", 3), b("Connect Flags", 0b11000010),
			b("Keep Alive", 0, 30), s("Client Identifier", "cid"), s("User Name", "u"), s("Password", "pw"),
		}},
		{name: "CONNECT 3.1 flags without user and password", version: V31, want: older, oneWay: true, wire: []part{
			b("CONNECT", 0x10), b("Remaining Length", 15),
			s("Protocol Name", "MQIsdp"), b("Protocol Level", 3), b("Connect Flags, reserved bit and Will bits too", 0b11111011),
			b("Keep Alive", 0, 0), s("Client Identifier", "c"),
		}},
		{name: "CONNECT 5.0 password alone", version: V50, want: token, wire: []part{
			b("CONNECT", 0x10), b("Remaining Length", 17),
			s("Protocol Name", "MQTT"), b("Protocol Version", 5), b("Connect Flags: Password", 0b01000000),
			b("Keep Alive", 0, 0), b("Property Length", 0), s("Client Identifier", ""), b("Password", 0, 2, 0, 0xFF),
		}},
		{name: "CONNECT 5.0 all", version: V50, want: fullConnect(), wire: fullConnectWire()},
		{name: "CONNECT 5.0 defaults written out", version: V50, oneWay: true, want: func() Connect {
			p := plainConnect(V50)
			p.ClientID = []byte("c")
			p.UserProperties = AppendUserProperty(nil, []byte("a"), []byte("b"))
			return p
		}(), wire: []part{
			b("CONNECT", 0x10), b("Remaining Length", 36),
			s("Protocol Name", "MQTT"), b("Protocol Version", 5), b("Connect Flags", 0), b("Keep Alive", 0, 0),
			b("Property Length", 22),
			b("Request Problem Information", 0x17, 1), b("User Property", 0x26, 0, 1, 'a', 0, 1, 'b'),
			b("Receive Maximum", 0x21, 0xFF, 0xFF), b("Request Response Information", 0x19, 0),
			b("Topic Alias Maximum", 0x22, 0, 0), b("Session Expiry Interval", 0x11, 0, 0, 0, 0),
			s("Client Identifier", "c"),
		}},
	}
}

// fullConnect is a CONNECT with everything that there is.
func fullConnect() Connect {
	will := AppendPayloadFormat(nil)
	will = AppendContentType(will, []byte("t"))
	will = AppendResponseTopic(will, []byte("r"))
	will = AppendCorrelationData(will, []byte{7, 0})
	will = AppendUserProperty(will, []byte("k"), []byte("v"))
	users := AppendUserProperty(nil, []byte("a"), []byte("b"))
	return Connect{
		Version: V50, CleanStart: true, KeepAlive: 300, ClientID: []byte("id"),
		HasUser: true, User: []byte("me"), HasPassword: true, Password: []byte("pw"),
		HasWill: true, Will: Will{
			QoS: 2, Retain: true, Topic: []byte("w"), Payload: []byte("gone"), Properties: will,
			HasExpiry: true, Expiry: 60, DelayInterval: 5, PayloadFormat: 1, ContentType: []byte("t"),
			ResponseTopic: []byte("r"), CorrelationData: []byte{7, 0},
		},
		SessionExpiry: 0xFFFFFFFF, ReceiveMaximum: 20, MaximumPacketSize: 1 << 20, TopicAliasMaximum: 9,
		RequestResponseInfo: true, RequestProblemInfo: false, AuthMethod: []byte("S"), HasAuthData: true,
		AuthData: []byte{1}, UserProperties: AppendUserProperty(users, []byte("a"), []byte("c")),
	}
}

func fullConnectWire() []part {
	return []part{
		b("CONNECT", 0x10), b("Remaining Length", 107),
		s("Protocol Name", "MQTT"), b("Protocol Version", 5), b("Connect Flags: all but the reserved", 0b11110110),
		b("Keep Alive", 1, 44),
		b("Property Length", 42),
		b("Session Expiry Interval", 0x11, 0xFF, 0xFF, 0xFF, 0xFF),
		b("Authentication Method", 0x15, 0, 1, 'S'), b("Authentication Data", 0x16, 0, 1, 1),
		b("Request Problem Information", 0x17, 0), b("Request Response Information", 0x19, 1),
		b("Receive Maximum", 0x21, 0, 20), b("Topic Alias Maximum", 0x22, 0, 9),
		b("Maximum Packet Size", 0x27, 0, 16, 0, 0),
		b("User Property", 0x26, 0, 1, 'a', 0, 1, 'b'), b("User Property", 0x26, 0, 1, 'a', 0, 1, 'c'),
		s("Client Identifier", "id"),
		b("Will Property Length", 32),
		b("Message Expiry Interval", 2, 0, 0, 0, 60), b("Will Delay Interval", 0x18, 0, 0, 0, 5),
		b("Payload Format Indicator", 1, 1), b("Content Type", 3, 0, 1, 't'), b("Response Topic", 8, 0, 1, 'r'),
		b("Correlation Data", 9, 0, 2, 7, 0), b("User Property", 0x26, 0, 1, 'k', 0, 1, 'v'),
		s("Will Topic", "w"), s("Will Payload", "gone"),
		s("User Name", "me"), s("Password", "pw"),
	}
}

func connackRows() []row {
	users := AppendUserProperty(nil, []byte("a"), []byte("b"))
	return []row{
		{name: "CONNACK 3.1.1 session present", version: V311, server: true,
			want: Connack{SessionPresent: true, ReceiveMaximum: 65535},
			wire: []part{b("CONNACK", 0x20), b("Remaining Length", 2), b("Session Present", 1), b("return code", 0)}},
		{name: "CONNACK 3.1 refused", version: V31, server: true,
			want: Connack{Reason: NotAuthorized, ReceiveMaximum: 65535},
			wire: []part{b("CONNACK", 0x20), b("Remaining Length", 2), b("reserved", 0), b("return code", 5)}},
		{name: "CONNACK 5.0 bare", version: V50, server: true,
			want: Connack{Reason: ServerBusy, ReceiveMaximum: 65535},
			wire: []part{b("CONNACK", 0x20), b("Remaining Length", 3), b("flags", 0), b("Reason Code", 0x89),
				b("Property Length", 0)}},
		{name: "CONNACK 5.0 available written out", version: V50, server: true, oneWay: true,
			want: Connack{ReceiveMaximum: 65535},
			wire: []part{b("CONNACK", 0x20), b("Remaining Length", 11), b("flags", 0), b("Reason Code", 0),
				b("Property Length", 8), b("Retain Available", 0x25, 1), b("Wildcard Subscription Available", 0x28, 1),
				b("Subscription Identifier Available", 0x29, 1), b("Shared Subscription Available", 0x2A, 1)}},
		{name: "CONNACK 5.0 all", version: V50, server: true,
			want: Connack{
				SessionPresent: true, HasSessionExpiry: true, SessionExpiry: 7, ReceiveMaximum: 3, HasMaximumQoS: true,
				MaximumQoS: 1, MaximumPacketSize: 99, TopicAliasMaximum: 4, HasKeepAlive: true, ServerKeepAlive: 0,
				RetainUnavailable: true, WildcardUnavailable: true, SubscriptionIDsUnavailable: true,
				SharedUnavailable: true, AssignedClientID: []byte("i"), ReasonString: []byte(""),
				ResponseInformation: []byte("p"), ServerReference: []byte("h"), AuthMethod: []byte("S"),
				HasAuthData: true, AuthData: []byte{0}, UserProperties: users,
			},
			wire: []part{b("CONNACK", 0x20), b("Remaining Length", 62), b("Session Present", 1), b("Reason Code", 0),
				b("Property Length", 59),
				b("Session Expiry Interval", 0x11, 0, 0, 0, 7), b("Server Keep Alive", 0x13, 0, 0),
				b("Receive Maximum", 0x21, 0, 3), b("Topic Alias Maximum", 0x22, 0, 4), b("Maximum QoS", 0x24, 1),
				b("Retain Available", 0x25, 0), b("Maximum Packet Size", 0x27, 0, 0, 0, 99),
				b("Wildcard Subscription Available", 0x28, 0), b("Subscription Identifier Available", 0x29, 0),
				b("Shared Subscription Available", 0x2A, 0), b("Assigned Client Identifier", 0x12, 0, 1, 'i'),
				b("Authentication Method", 0x15, 0, 1, 'S'), b("Authentication Data", 0x16, 0, 1, 0),
				b("Response Information", 0x1A, 0, 1, 'p'), b("Server Reference", 0x1C, 0, 1, 'h'),
				b("Reason String", 0x1F, 0, 0), b("User Property", 0x26, 0, 1, 'a', 0, 1, 'b')}},
	}
}
