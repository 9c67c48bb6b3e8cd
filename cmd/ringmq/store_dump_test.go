package main

import (
	"encoding/json"
	"testing"

	"github.com/ringmq/ringmq/broker/record"
)

// TestDump: what a record's key says has its name.
func TestDump(t *testing.T) {
	subscription := (&record.Subscription{QoS: 1, ID: 7}).Append(nil)
	for _, c := range []struct {
		key, value []byte
		want       string
	}{
		{record.SubscriptionKey(nil, 5, "", "a/#"), subscription, `{"bytes":16,"filter":"a/#","id":7,"qos":1,"record":"subscriptions","session":"5"}`},
		{record.SubscriptionKey(nil, 5, "g", "a/#"), subscription, `{"bytes":17,"filter":"a/#","id":7,"qos":1,"record":"subscriptions","session":"5","share":"g"}`},
		{record.ReferenceKey(nil, 9, 5, 3), nil, `{"bytes":25,"message":"9","position":"3","record":"references","session":"5"}`},
	} {
		got, err := json.Marshal(describeRecord(c.key, c.value))
		if err != nil || string(got) != c.want {
			t.Errorf("%s, %v; want %s", got, err, c.want)
		}
	}
}
