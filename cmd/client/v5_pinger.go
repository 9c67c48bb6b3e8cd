package client

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/log"
)

// pinger sends a PINGREQ when for three quarters of the Keep Alive nothing went one of the two ways, and gives the
// connection up when the broker is silent for as long after it. The library's own sends one as soon as it is connected, and
// takes a lock and reads the clock for every packet.
type pinger struct{ conn *conn }

// Run is part of paho.Pinger.
func (p *pinger) Run(ctx context.Context, w net.Conn, keepAliveSeconds uint16) error {
	if keepAliveSeconds == 0 {
		return nil
	}
	interval := time.Duration(keepAliveSeconds) * time.Second * 3 / 4
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	waiting := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		sent, received := p.conn.sent.Swap(false), p.conn.received.Swap(false)
		if waiting && !received {
			return fmt.Errorf("the broker has not answered PINGREQ for %v", interval)
		}
		if waiting = !sent || !received; waiting {
			if _, err := packets.NewControlPacket(packets.PINGREQ).WriteTo(w); err != nil {
				return err
			}
		}
	}
}

// PacketReceived is part of paho.Pinger.
func (p *pinger) PacketReceived() {
	if !p.conn.received.Load() {
		p.conn.received.Store(true)
	}
}

// PacketSent, PingResp and SetDebug are part of paho.Pinger.
func (p *pinger) PacketSent()           {}
func (p *pinger) PingResp()             {}
func (p *pinger) SetDebug(_ log.Logger) {}
