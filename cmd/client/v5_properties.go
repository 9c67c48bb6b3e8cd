package client

import "github.com/eclipse/paho.golang/paho"

func connectProperties(p *Properties) *paho.ConnectProperties {
	q := &paho.ConnectProperties{SessionExpiryInterval: p.SessionExpiry, ReceiveMaximum: p.ReceiveMaximum,
		MaximumPacketSize: p.MaximumPacketSize, TopicAliasMaximum: p.TopicAliasMaximum, AuthMethod: p.AuthMethod, AuthData: p.AuthData,
		RequestProblemInfo: true, User: userProperties(p.User)}
	if q.ReceiveMaximum == nil {
		n := uint16(inboxMessages) // The library keeps room for as many messages, of any QoS: 65,535 unless it is told.
		q.ReceiveMaximum = &n
	}
	if p.RequestProblemInfo != nil {
		q.RequestProblemInfo = *p.RequestProblemInfo
	}
	if p.RequestResponseInfo != nil {
		q.RequestResponseInfo = *p.RequestResponseInfo
	}
	return q
}

func willProperties(p *Properties) *paho.WillProperties {
	return &paho.WillProperties{WillDelayInterval: p.WillDelay, PayloadFormat: p.PayloadFormat, MessageExpiry: p.MessageExpiry,
		ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, User: userProperties(p.User)}
}

func publishProperties(p *Properties) *paho.PublishProperties {
	return &paho.PublishProperties{PayloadFormat: p.PayloadFormat, MessageExpiry: p.MessageExpiry, ContentType: p.ContentType,
		ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, TopicAlias: p.TopicAlias, User: userProperties(p.User)}
}

func publishedProperties(p *paho.PublishProperties) Properties {
	q := Properties{PayloadFormat: p.PayloadFormat, MessageExpiry: p.MessageExpiry, ContentType: p.ContentType,
		ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, TopicAlias: p.TopicAlias, SubscriptionID: p.SubscriptionIdentifier}
	for _, u := range p.User {
		q.User = append(q.User, UserProperty{u.Key, u.Value})
	}
	return q
}

func userProperties(user []UserProperty) paho.UserProperties {
	var p paho.UserProperties
	for _, u := range user {
		p.Add(u.Name, u.Value)
	}
	return p
}
