package netstack

import "time"

// silentEvery is how often connections are looked at for whether anything has come since the last time.
const silentEvery = time.Hour

// probeSilent has the stack ask from time to time whether the remotes of silent connections are still there (RFC 9293, section 3.8.4): a
// client without Keep Alive whose host has gone would never be missed, and its connection stay for ever. Only those have a timer for that:
// most clients let themselves be heard, and with one for each of them a plane would never rest.
func (p *Plane) probeSilent() {
	now := p.link.clock.elapsed()
	if now < p.probeAt {
		return
	}
	p.probeAt = now + silentEvery
	p.slab.each(func(c *conn) {
		if c.state != open || c.flags&untouchable != 0 {
			return
		}
		acked, ok := p.lastAck(c.flow)
		if options := c.endpoint.SocketOptions(); ok && acked == c.flow.probedAck && !options.GetKeepAlive() {
			options.SetKeepAlive(true)
		}
		c.flow.probedAck = acked
	})
}
